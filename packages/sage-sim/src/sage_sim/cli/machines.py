"""Verbs about this machine: `plan` says what a run needs, `doctor` what can be run here at all."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import rich_click as click
from rich import box
from rich.table import Table
from rich.text import Text

from sage_sim import inside, namespaces
from sage_sim.channels import KINDS, missing_library
from sage_sim.cli.options import requested, run_options
from sage_sim.cli.output import terminal
from sage_sim.folder import RUNS
from sage_sim.machine import describe_machine
from sage_sim.needs import missing, needs_of, unmet
from sage_sim.results import ExitCode


@click.command()
@click.argument("target", metavar="PRESET|FILE")
@click.option("--json", "as_json", is_flag=True, help="Print figures as JSON and nothing else.")
@run_options
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the run, whose disk is looked at. (default: one in sage-sim-runs)",
)
@click.pass_context
def plan(context: click.RichContext, /, target: str, as_json: bool, out: Path | None, **options: Any) -> None:
    """
    Say what a run needs, and whether this machine has it; run nothing. Exit code 5 when it does not.

    \b
    Examples:
      sage-sim plan shuffle --workers 70 --consumers 70
    """  # noqa: D301  (click wants this very character before a block that it must not wrap)
    most, options["max_procs"] = options["max_procs"], 10**6  # so that it is told here, with everything else
    request = requested(context, target, **options)
    needs = needs_of(replace(request, most_processes=most), out or RUNS)
    lacking = [*unmet(needs), *missing(request.plan(), request.faults)]
    if as_json:
        print(json.dumps({"needs": [asdict(need) for need in needs], "missing": lacking}, indent=1))
    else:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for heading, justify in (("what", "left"), ("needed", "right"), ("there", "right"), ("", "left")):
            table.add_column(heading, justify="right" if justify == "right" else "left")
        for need in needs:
            word = Text("ok", style="green") if need.is_met else Text("too much", style="bold red")
            there = "no bound" if need.there is None else f"{need.there:,}"
            table.add_row(need.what, f"{need.needed:,}", there, word)
        console = terminal()
        console.print(table)
        for text in lacking:
            console.print(text, style="red", soft_wrap=True)
    sys.exit(ExitCode.ENVIRONMENT if lacking else ExitCode.PASS)


@click.command()
def doctor() -> None:
    """Say which kinds of queues, faults and outputs this machine can do, and what is missing for the others."""
    console, table = terminal(), Table(box=None, pad_edge=False, show_header=False, padding=(0, 2))
    for kind in KINDS:
        lack = missing_library(kind)
        table.add_row(kind, Text("ok", style="green") if lack is None else Text("missing", style="yellow"), lack or "")
    for what, is_there, hint in (
        ("namespaces", namespaces.are_allowed(), "for the faults 'full' and 'unplug': root, or user namespaces"),
        ("fault points", bool(inside.points()), "for the fault 'kill-inside': sage-qd built with SAGE_QD_POINTS=1"),
        ("chromium", shutil.which("chromium") is not None, "only the tests of the page for the browser need it"),
    ):
        table.add_row(what, Text("ok", style="green") if is_there else Text("missing", style="yellow"), hint)
    for name, value in describe_machine().items():
        table.add_row(name, "", str(value))
    console.print(table)
