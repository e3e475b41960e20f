"""The command line: ``sage-sim``."""

from __future__ import annotations

import json
import os
import secrets
import sys
from contextlib import ExitStack
from difflib import get_close_matches
from pathlib import Path
from typing import NoReturn

import rich_click as click
from rich.console import Console
from rich.table import Table
from rich.text import Text

import sage_sim
from sage_sim.channels import remove_leftovers
from sage_sim.checkers import Verdict
from sage_sim.conductor import Conductor, View
from sage_sim.crew import SetupError
from sage_sim.faults import Faults, parse_faults
from sage_sim.folder import RunFolder
from sage_sim.machine import describe_machine
from sage_sim.presets import CAPACITY_BYTES, PRESETS, Preset
from sage_sim.report import LiveView, PlainView, QuietView, show_results, show_verdict
from sage_sim.request import PAYLOAD_BYTES, TIME_LIMIT_SECONDS, Request
from sage_sim.results import ExitCode, judge

WIDTH_WITHOUT_TERMINAL = 100
FAULTS_SECONDS = 10.0
"""How long a run with faults goes on at most when nobody says: new processes start slowly on a busy machine."""
EXIT_CODES = """\
0 all checks hold; 1 a check failed; 2 wrong usage; 3 slower than the baseline; 4 nobody can tell;
5 this machine cannot (the text says what is missing); 6 the run hung; 130 interrupted."""

click.rich_click.TEXT_MARKUP = "rich"
click.rich_click.WIDTH = None
click.rich_click.OPTION_GROUPS = {
    "sage-sim run": [
        {"name": "How much", "options": ["--items", "--duration", "--producers", "--workers", "--consumers"]},
        {"name": "What", "options": ["--seed", "--payload", "--capacity", "--faults", "--time-limit"]},
        {"name": "Output", "options": ["--out", "--keep", "--json", "--plain", "--quiet", "--help"]},
    ]
}


def _preset(_context: click.Context, _parameter: click.Parameter, name: str) -> Preset:
    """Look a preset up; a slip is answered with the name that was meant."""
    if name in PRESETS:
        return PRESETS[name]
    close = get_close_matches(name, PRESETS, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise click.BadParameter(f"unknown preset {name!r}.{hint} Known are: {', '.join(PRESETS)}.")


def _faults(_context: click.Context, _parameter: click.Parameter, text: str | None) -> Faults | None:
    """Parse faults as the user writes them."""
    try:
        return None if text is None else parse_faults(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, epilog=f"Exit codes: {EXIT_CODES}")
@click.version_option(sage_sim.__version__, prog_name="sage-sim")
def main() -> None:
    """
    Run real processes over real queues, kill some if asked, and account for every item.

    \b
    Start here:
      sage-sim run pipeline                    count words with seven processes, in seconds
      sage-sim run pipeline --faults kill      the same, with processes killed all the while
      sage-sim run fan-in --duration 10        as many items as fit into ten seconds
      sage-sim presets                         what can be run
    """  # noqa: D301  (click wants this very character before a block that it must not wrap)


@main.command(epilog=f"Exit codes: {EXIT_CODES}")
@click.argument("preset", callback=_preset)
@click.option("--items", type=click.IntRange(min=1), help="Items to make, over all sources.")
@click.option("--duration", type=click.FloatRange(min=0, min_open=True), help="Seconds for which sources make items.")
@click.option("--producers", type=click.IntRange(1, 100), help="Processes that make items.")
@click.option("--workers", type=click.IntRange(1, 100), help="Processes in the middle (pipeline only).")
@click.option("--consumers", type=click.IntRange(1, 100), help="Processes where items end.")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), help="Decides input order, payloads and faults.")
@click.option(
    "--payload",
    type=click.IntRange(0, 1 << 20),
    show_default=str(PAYLOAD_BYTES),
    help="Bytes of an item (not for pipeline, whose items are lines).",
)
@click.option(
    "--capacity",
    type=click.IntRange(4096, 1 << 30),
    default=CAPACITY_BYTES,
    show_default=True,
    help="Bytes that each queue holds.",
)
@click.option(
    "--faults",
    callback=_faults,
    metavar="kill[:RATE]",
    help="Kill random processes, RATE a second on average (2), and replace them.",
)
@click.option(
    "--time-limit",
    type=click.FloatRange(min=0, min_open=True),
    default=TIME_LIMIT_SECONDS,
    show_default=True,
    help="Seconds after which a run is called hung.",
)
@click.option(
    "--out",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    show_default="a new one in sage-sim-runs",
    help="Folder for history and results; new or empty.",
)
@click.option("--keep", is_flag=True, help="Keep the raw logs of all processes, too.")
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON and nothing else.")
@click.option("--plain", is_flag=True, help="Lines instead of a live table.")
@click.option("--quiet", is_flag=True, help="Print the verdict only.")
def run(
    preset: Preset,
    items: int | None,
    duration: float | None,
    producers: int | None,
    workers: int | None,
    consumers: int | None,
    seed: int | None,
    payload: int | None,
    capacity: int,
    faults: Faults | None,
    time_limit: float,
    out: Path | None,
    keep: bool,
    as_json: bool,
    plain: bool,
    quiet: bool,
) -> None:
    """
    Run a PRESET: pipeline, fan-in or fan-out.

    With neither --items nor --duration the run ends in seconds. With both, it ends at whichever comes first.

    \b
    Examples:
      sage-sim run pipeline
      sage-sim run pipeline --faults kill:10 --duration 5
      sage-sim run fan-in --producers 8 --payload 1024 --seed 7
      sage-sim run fan-out --consumers 6 --json | jq .verdict
    """  # noqa: D301  (as above)
    asked = {"producers": producers, "workers": workers, "consumers": consumers}
    for option, number in asked.items():
        if number is not None and option not in preset.counts:
            raise click.UsageError(f"preset {preset.name!r} has no --{option}")
    if payload is not None and not preset.has_payload:
        raise click.UsageError(f"preset {preset.name!r} has no --payload: its items are lines of a text")
    is_open = items is None and duration is None
    request = Request(
        preset=preset,
        seed=secrets.randbits(32) if seed is None else seed,
        items=preset.items if is_open else items,
        duration=FAULTS_SECONDS if is_open and faults is not None else duration,
        counts={option: asked[option] or default for option, default in preset.counts.items()},
        payload=PAYLOAD_BYTES if payload is None else payload,
        capacity=capacity,
        faults=faults,
        time_limit=time_limit,
    )
    try:
        code = _run(request, out, keep=keep, as_json=as_json, plain=plain, quiet=quiet)
    except KeyboardInterrupt:  # all processes are gone; only the judgement was cut short
        code = ExitCode.INTERRUPTED
    sys.exit(code)


def _run(request: Request, out: Path | None, *, keep: bool, as_json: bool, plain: bool, quiet: bool) -> int:
    try:
        plan = request.plan()
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    try:
        folder = RunFolder(out, preset=request.preset.name, seed=request.seed)
    except FileExistsError as error:
        raise click.UsageError(f"--out: {error}") from error
    except OSError as error:
        _give_up(f"the folder for the run cannot be made: {error}")
    console = terminal()
    machine = describe_machine()
    with ExitStack() as stack:
        view: View = QuietView()
        live: LiveView | None = None
        if not as_json and not quiet:
            if console.is_terminal and not plain:
                view = live = stack.enter_context(LiveView(console, plan))
            else:
                view = PlainView(console, plan)
        conductor = Conductor(
            plan,
            request.faults,
            plan_path=folder.plan,
            folder=folder.work,
            view=view,
            time_limit=request.time_limit,
        )
        try:
            outcome = conductor.run()
        except SetupError as error:
            stack.close()
            _give_up(str(error))
        if live is not None:
            live.say("checking the history ...")
        try:
            results = judge(
                plan,
                request.faults,
                outcome,
                work=folder.work,
                folder=folder.path,
                command=request.command(),
                machine=machine,
                started=folder.started.isoformat(timespec="seconds"),
            )
        except OSError as error:
            stack.close()
            _give_up(f"the history cannot be written: {error}")
    if not keep and results.verdict is Verdict.VALID:
        folder.remove_work()
    if as_json:
        print(json.dumps(results.as_dict(), indent=1))
    elif quiet:
        show_verdict(console, results)
    else:
        show_results(console, results)
    return results.exit_code


@main.command()
def presets() -> None:
    """List what can be run, with the default number of processes of each part."""
    table = Table(box=None, pad_edge=False)
    for heading in ("preset", "what it is", "processes", "items"):
        table.add_column(heading, no_wrap=heading != "what it is")
    for preset in PRESETS.values():
        counts = " ".join(f"--{option} {count}" for option, count in preset.counts.items())
        table.add_row(preset.name, preset.summary, counts, f"{preset.items:,}")
    terminal().print(table)


@main.command()
def clean() -> None:
    """Remove what runs left in shared memory that were killed themselves; runs that go on are not touched."""
    console = terminal()
    removed = remove_leftovers()
    for path in removed:
        console.print(Text(f"removed {path}"), soft_wrap=True)
    console.print(f"{len(removed)} leftovers removed")


def terminal() -> Console:
    """Where to print: as wide as the terminal, or 100 columns where there is none."""
    console = Console(highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = WIDTH_WITHOUT_TERMINAL
    return console


def _give_up(reason: str) -> NoReturn:
    """Say why this machine cannot run it."""
    click.echo(f"sage-sim: {reason}", err=True)
    sys.exit(ExitCode.ENVIRONMENT)


if __name__ == "__main__":
    main()
