"""Verbs of the model: `calibrate` measures this machine, `predict` says what a run would show, without running it."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from time import process_time
from typing import Any

import rich_click as click

from sage_sim.calibration import Calibration, NoCalibrationError, calibrate
from sage_sim.channels import KINDS, missing_library
from sage_sim.cli.options import requested, run_options
from sage_sim.cli.output import give_up, terminal
from sage_sim.cli.trials import once
from sage_sim.machine import describe_machine
from sage_sim.outputs.words import duration
from sage_sim.results import ExitCode
from sage_sim.topology import PROCESSES_AT_MOST as MOST_OF_ALL

FILE = Path("sage-sim-runs", "calibration.json")
_OPTION = click.option(
    "--calibration",
    "path",
    type=click.Path(path_type=Path, dir_okay=False),
    default=FILE,
    show_default=True,
    help="File with what was measured.",
)


@click.command("calibrate")
@click.option(
    "--kind",
    "kinds",
    multiple=True,
    type=click.Choice(KINDS),
    help="A kind to measure. (default: sage_queue, shm_queue)",
)
@_OPTION
def calibrate_verb(kinds: tuple[str, ...], path: Path) -> None:
    """
    Measure what messages cost on this machine, for `predict`; best while it has nothing else to do.

    \b
    Examples:
      sage-sim calibrate --kind sage_queue
    """  # noqa: D301  (click wants this very character before a block that it must not wrap)
    chosen = list(kinds or ("sage_queue", "shm_queue"))
    if lacking := [text for kind in chosen if (text := missing_library(kind)) is not None]:
        give_up("; ".join(lacking))
    console = terminal()
    made = calibrate(
        chosen,
        once,
        cores=len(os.sched_getaffinity(0)),
        machine=describe_machine(),
        say=lambda text: console.print(text, style="dim"),
    )
    made.write(path)
    for kind, lines in made.kinds.items():
        for verb, line in lines.items():
            console.print(f"{kind:16} {verb:5} {line.fixed_ns / 1000:7.2f} µs + {line.byte_ns:.3f} ns for each byte")
    console.print(f"efficiency {made.efficiency:.0%} of what these costs allow, within {made.error:.0%}")
    console.print(f"wrote    {path}", soft_wrap=True)


@click.command()
@click.argument("target", metavar="PRESET|FILE")
@_OPTION
@click.option(
    "--cores",
    type=click.IntRange(1, 1_000_000),
    help="Of all machines together, each like one of the machine that was measured. (default: as many as that one has)",
)
@click.option("--json", "as_json", is_flag=True, help="Print the forecast as JSON and nothing else.")
@run_options
@click.pass_context
def predict(
    context: click.RichContext, /, target: str, path: Path, cores: int | None, as_json: bool, **options: Any
) -> None:
    """
    Say what a run would show, from what `calibrate` measured; every figure has its error beside it.

    Nothing is run, so it may be larger than this machine: up to 100,000 processes. The error is that of runs on one
    machine; what a network between machines adds is not in it.

    \b
    Examples:
      sage-sim predict fan-in --producers 8
      sage-sim predict fan-in --producers 9990 --consumers 10 --items 20000 --cores 10000
    """  # noqa: D301  (as above)
    options["max_procs"] = MOST_OF_ALL
    request = requested(context, target, **options)
    if not path.exists():
        give_up(f"{path} is not there: run `sage-sim calibrate` first")
    begin = process_time()
    try:
        calibration = Calibration.read(path)
        found = calibration.forecast(request.plan(), cores)
    except (NoCalibrationError, ValueError) as wrong:
        raise click.UsageError(str(wrong)) from None
    if not found.items:
        raise click.UsageError("no item would come to its end: give it more of --items, --duration or --rate")
    ordered, error = sorted(found.latency_ns), calibration.error
    latency = {name: ordered[round(part * (len(ordered) - 1))] / 1000 for name, part in (("p50", 0.5), ("p99", 0.99))}
    if as_json:
        fields = {"rate": found.rate, "seconds": found.seconds, "items": found.items, "latency_us": latency}
        more = {"error": error, "busy": found.busy, "cores": cores or calibration.cores, "events": found.events}
        print(json.dumps(fields | more, indent=1))
        sys.exit(ExitCode.PASS)
    console = terminal()
    bound = f"± {error:.0%}"
    console.print(f"items/s  {found.rate:,.0f} {bound}")
    console.print(f"p50      {duration(latency['p50'])} {bound}")
    console.print(f"p99      {duration(latency['p99'])} {bound}")
    for role, share in found.busy.items():
        console.print(f"busy     {role} {share:.0%} {bound}")
    console.print(f"worked out in {process_time() - begin:.1f} s, {found.events:,} events", style="dim")
