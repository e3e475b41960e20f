"""Measure: ``bench``, ``calibrate``."""

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import rich_click as click

from sage_qd.cli.endings import EXIT_CODES, ExitCode
from sage_qd.cli.output import as_json_option, duration, plain, print_json, quantity, table, terminal
from sage_qd.errors import BackendUnavailableError, SageQueueError
from sage_qd.monitor.measuring import Measured, calibration_path, measurable_kinds, measured, save_calibration

__all__ = ["bench", "calibrate"]

SCHEMA = "sage-qd.bench/1"
SHORT_SECONDS = 0.3

kinds_argument = click.argument("kinds", nargs=-1, type=click.Choice(measurable_kinds()))


@click.command(epilog=f"Exit codes: {EXIT_CODES}")
@kinds_argument
@click.option(
    "--seconds",
    type=click.FloatRange(0.1, 60),
    default=1.0,
    show_default=True,
    help="How long each throughput run takes; there are two a kind.",
)
@as_json_option
def bench(kinds: tuple[str, ...], seconds: float, as_json: bool) -> int:
    """
    Measure queue KINDS on this machine, all by default, with real processes; takes a few seconds.

    Small messages are a tuple of three (put+get) and 64 bytes (per second), large ones 64 KiB. Waking is from the start
    of a put until a reader that slept has the message. Figures are medians, and hold for today's load.

    \b
    Examples:
      sage-qd bench
      sage-qd bench sage_queue --seconds 5
    """  # noqa: D301  (click wants this very character before a block that it must not wrap)
    found, failed = _measured(kinds, seconds)
    if as_json:
        print_json({"schema": SCHEMA, "kinds": [each.as_dict() for each in found.values()], "failed": failed})
    else:
        shown = table("kind", "put+get", "each KiB", "wake", "wake p99", "small/s", "large B/s", right=_FIGURES)
        for each in found.values():
            shown.add_row(
                each.kind,
                duration(each.put_get_ns),
                duration(each.per_byte_ns * 1024),
                duration(each.wake_us * 1e3),
                duration(each.wake_us_p99 * 1e3),
                quantity(each.messages_per_second),
                quantity(each.bytes_per_second, "B"),
            )
        terminal().print(shown)
    return ExitCode.CANNOT if failed else ExitCode.FINE


_FIGURES = ("put+get", "each KiB", "wake", "wake p99", "small/s", "large B/s")


@click.command(epilog=f"Exit codes: {EXIT_CODES}")
@kinds_argument
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Another file than the one that is read.")
@as_json_option
def calibrate(kinds: tuple[str, ...], out: Path | None, as_json: bool) -> int:
    """
    Measure what messages cost with queue KINDS here, and keep it for the estimates of explain.

    The file is calibration.json in sage-qd's folder of $XDG_CACHE_HOME (~/.cache). Run it while the machine has nothing
    else to do; remove the file to go back to the built-in estimates.

    \b
    Examples:
      sage-qd calibrate
      sage-qd calibrate sage_queue --out costs.json
    """  # noqa: D301  (as above)
    found, failed = _measured(kinds, SHORT_SECONDS)
    path = calibration_path() if out is None else out
    if found:
        save_calibration(found, path)
    if as_json:
        print_json({"schema": SCHEMA, "path": str(path), "kinds": [each.as_dict() for each in found.values()]})
    elif found:
        terminal().print(plain(f"{', '.join(found)} written to {path}"), soft_wrap=True)
    return ExitCode.CANNOT if failed else ExitCode.FINE


def _measured(kinds: Sequence[str], seconds: float) -> tuple[dict[str, Measured], dict[str, str]]:
    """Measure, and say on standard error what is being done and what cannot be."""
    found: dict[str, Measured] = {}
    failed: dict[str, str] = {}
    for kind in dict.fromkeys(kinds or measurable_kinds()):
        try:
            found[kind] = measured(kind, seconds=seconds, note=partial(_say, kind))
        except BackendUnavailableError as error:
            click.echo(f"sage-qd: {error}", err=True)
            if kinds:  # asked for by name; otherwise what is not there is not wanted
                failed[kind] = str(error)
        except SageQueueError as error:
            failed[kind] = str(error)
            click.echo(f"sage-qd: {kind} cannot be measured: {error}", err=True)
    return found, failed


def _say(kind: str, what: str) -> None:
    if sys.stderr.isatty():
        click.echo(f"{kind}: {what} ...", err=True)
