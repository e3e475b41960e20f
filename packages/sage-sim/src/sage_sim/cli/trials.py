"""Verbs that run many: `compare`, `search-rate`, `fuzz`, `shrink` and `soak`."""

from __future__ import annotations

import json
import os
import secrets
import sys
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import gettempdir
from time import monotonic
from typing import Any

import rich_click as click
import tomli_w
from rich import box
from rich.table import Table
from rich.text import Text

from sage_sim import checkers
from sage_sim.channels import KINDS, missing_library
from sage_sim.checkers import Verdict
from sage_sim.cli.options import requested, run_options
from sage_sim.cli.output import give_up, terminal
from sage_sim.comparing import Compared, compared, rounds
from sage_sim.execution import execute, new_folder
from sage_sim.folder import RunFolder, passing_folder
from sage_sim.fuzzing import drawn
from sage_sim.needs import check_needs
from sage_sim.nurse import SetupError
from sage_sim.promises import gives_all_back
from sage_sim.request import Request, adapted
from sage_sim.results import ExitCode, Results
from sage_sim.scenario import Scenario, as_file
from sage_sim.searching import highest_rate
from sage_sim.shrinking import shrunk

_LOCAL_KINDS = ("sage_queue", "shm_queue")
_ITEMS = 4_000


def once(request: Request) -> Results:
    """
    Run it in a folder that goes with its results.

    Raises:
        SetupError: This machine cannot, or had no room on its disk.
        KeyboardInterrupt: It was interrupted.
    """
    if request.scenario.runs_as == "job":
        raise click.UsageError("a job of the runtime runs alone, with `sage-sim run`")
    check_needs(request, Path(gettempdir()))
    with passing_folder() as place:
        results = execute(request, RunFolder(place / "run", preset=request.scenario.name, seed=request.seed))
    if results.outcome.signal_number:  # also one that came when the run was just over
        raise KeyboardInterrupt
    if results.exit_code == ExitCode.ENVIRONMENT:
        told = results.outcome.trouble.strip().splitlines()
        raise SetupError(
            f"the run had no room on the disk of {gettempdir()}" + "".join(f": {line}" for line in told[-1:])
        )
    return results


def _wrong(results: Results) -> list[str]:
    return sorted(finding.check for finding in results.findings if finding.verdict is Verdict.INVALID)


@click.command()
@click.argument("target", metavar="PRESET|FILE")
@click.option("--kind", "kinds", multiple=True, type=click.Choice(KINDS), help="A kind to compare; again for each.")
@click.option("--rounds", "count", type=click.IntRange(1, 100), default=3, show_default=True, help="Runs of each kind.")
@click.option("--json", "as_json", is_flag=True, help="Print figures as JSON and nothing else.")
@run_options
@click.pass_context
def compare(
    context: click.RichContext, /, target: str, kinds: tuple[str, ...], count: int, as_json: bool, **options: Any
) -> None:
    """
    Run the same over several kinds of queues, in turn, and show them side by side.

    Ratios are within one round, to the kind that is named first; what changes on the machine meets all alike.

    \b
    Examples:
      sage-sim compare fan-in --kind multiprocessing --kind sage_queue --kind faster_fifo
    """  # noqa: D301  (click wants this very character before a block that it must not wrap)
    request = requested(context, target, **options)
    chosen = kinds or ("multiprocessing", "sage_queue", "shm_queue")
    if lacking := [text for kind in chosen if (text := missing_library(kind)) is not None]:
        give_up("; ".join(lacking))
    found: dict[tuple[int, str], Results] = {}
    console = terminal()
    for number, kind in rounds(chosen, count, request.seed):
        if not as_json:
            console.print(f"round {number + 1} of {count}: {kind}", style="dim")
        found[number, kind] = once(replace(request, scenario=adapted(request.scenario, backend=kind)))
    side_by_side = compared(chosen, found)
    if as_json:
        print(json.dumps([asdict(one) | {"ratio": one.ratio} for one in side_by_side], indent=1))
    else:
        console.print(_side_by_side(side_by_side))
    codes = {results.exit_code for results in found.values()}
    worst = (ExitCode.HANG, ExitCode.CHECK_FAILED, ExitCode.ENVIRONMENT, ExitCode.INCONCLUSIVE)
    sys.exit(next((code for code in worst if code in codes), ExitCode.PASS))


def _side_by_side(found: list[Compared]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("kind")
    for heading in ("items/s", "from", "to", "ratio", "from", "to", "p50 ms", "p99 ms"):
        table.add_column(heading, justify="right")
    table.add_column("checks")
    for one in found:
        middle = len(one.rates) // 2
        table.add_row(
            one.kind,
            *(f"{rate:,.0f}" for rate in (sorted(one.rates)[middle], min(one.rates), max(one.rates))),
            *(f"{ratio:.2f}" for ratio in (one.ratio, min(one.ratios), max(one.ratios))),
            *(f"{sorted(each)[middle] / 1000:.2f}" for each in (one.p50_us, one.p99_us)),
            Text("ok", style="green") if not one.wrong else Text(", ".join(one.wrong), style="bold red"),
        )
    return table


@click.command("search-rate")
@click.argument("target", metavar="PRESET|FILE")
@click.option("--start", type=click.FloatRange(min=1), default=500.0, show_default=True, help="The first rate to try.")
@click.option(
    "--p99",
    type=click.FloatRange(min=0, min_open=True),
    default=100.0,
    help="Milliseconds that 99 % may take. (default: 100)",
)
@click.option("--precision", type=click.FloatRange(0.01, 1), default=0.1, show_default=True, help="Of the answer.")
@click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON and nothing else.")
@run_options
@click.pass_context
def search_rate(
    context: click.RichContext,
    /,
    target: str,
    start: float,
    p99: float,
    precision: float,
    as_json: bool,
    **options: Any,
) -> None:
    """
    Find the highest rate at which items keep coming in time: 99 % of them within --p99, and all of them valid.

    A run in which another check fails, or that hangs, ends the search.

    \b
    Examples:
      sage-sim search-rate fan-in --duration 3 --warmup 0.5
    """  # noqa: D301  (as above)
    request = requested(context, target, **options)
    seconds, warmup = options["duration"] or 2.0, options["warmup"] or 0.5
    console = terminal()

    def sustains(rate: float) -> bool:
        scenario = adapted(request.scenario, rate=rate, duration=seconds, warmup=min(warmup, seconds / 2))
        results = once(replace(request, scenario=scenario))
        wrong = [check for check in _wrong(results) if check != checkers.FAST_ENOUGH]
        if wrong or results.exit_code == ExitCode.HANG:
            told = ", ".join(wrong) or "it hung"
            click.echo(f"sage-sim: at {rate:,.0f} items/s: {told}", err=True)
            sys.exit(results.exit_code)
        latency = results.latency_ns["p99"]
        ok = results.verdict is Verdict.VALID and latency is not None and latency <= p99 * 1e6
        if not as_json:
            told = "no item" if latency is None else f"p99 {latency / 1e6:,.2f} ms"
            console.print(f"{rate:12,.0f} items/s  {told:>18}  {'sustained' if ok else 'too much'}")
        return ok

    rate, steps = highest_rate(sustains, start=start, precision=precision)
    if as_json:
        print(json.dumps({"rate": rate, "p99_ms": p99, "steps": [asdict(step) for step in steps]}, indent=1))
    else:
        console.print(f"highest  {rate:,.0f} items/s with 99 % within {p99:g} ms")
    sys.exit(ExitCode.PASS if rate else ExitCode.CHECK_FAILED)


@click.command()
@click.option("--runs", type=click.IntRange(1, 1_000_000), default=10, show_default=True, help="Scenarios to run.")
@click.option(
    "--kind",
    "kinds",
    multiple=True,
    type=click.Choice(KINDS),
    help="What queues may be. (default: both of shared memory)",
)
@click.option("--items", type=click.IntRange(1), default=_ITEMS, show_default=True, help="Items of each.")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), help="Of the first scenario; the next one has the next.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for what fails; new or empty. (default: sage-sim-runs)",
)
def fuzz(runs: int, kinds: tuple[str, ...], items: int, seed: int | None, out: Path | None) -> None:
    """
    Run random graphs with random queues, loads, payloads and faults, until one fails. Exit code 4 if none was valid.

    \b
    Examples:
      sage-sim fuzz --runs 100
    """  # noqa: D301  (as above)
    if out is not None and out.exists() and any(out.iterdir()):
        raise click.UsageError(f"--out: {out} is not empty; what fails is kept in a new or an empty folder")
    first, valid = secrets.randbits(31) if seed is None else seed, 0
    console = terminal()
    for number in range(first, first + runs):
        request = Request(target="", scenario=drawn(number, kinds or _LOCAL_KINDS, items=items), seed=number)
        results = once(request)
        topology = request.scenario.topology()
        size = f"{topology.processes} processes, {topology.queues} queues, {results.items.taken:,} items"
        faults = str(request.faults) if request.faults else "no faults"
        console.print(f"seed {number}: {size}, {faults}: {results.verdict.value}", soft_wrap=True)
        valid += results.verdict is Verdict.VALID
        if results.verdict is Verdict.INVALID or results.exit_code == ExitCode.HANG:
            console.print(Text(", ".join(_wrong(results)) or "it hung", style="bold red"))
            path = _kept(request, out)
            console.print(f"repeat   sage-sim run {path} --seed {number}", soft_wrap=True)
            console.print(f"shrink   sage-sim shrink {path} --seed {number}", soft_wrap=True)
            sys.exit(results.exit_code)
    sys.exit(ExitCode.PASS if valid else ExitCode.INCONCLUSIVE)


def _kept(request: Request, out: Path | None) -> Path:
    """Write a scenario that fails where a person finds it."""
    folder = new_folder(request, out)
    path = folder.path / f"fuzz-{request.seed}.toml"
    path.write_text(tomli_w.dumps(as_file(request.scenario)), encoding="utf-8")
    folder.remove_work()
    return path


@click.command()
@click.argument("target", metavar="PRESET|FILE")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False), default=Path("shrunk.toml"))
@click.option("--tries", type=click.IntRange(1, 10_000), default=50, show_default=True, help="Runs at most.")
@click.option(
    "--again", type=click.IntRange(1, 100), default=2, show_default=True, help="Runs of one that may pass by luck."
)
@run_options
@click.pass_context
def shrink(context: click.RichContext, /, target: str, file: Path, tries: int, again: int, **options: Any) -> None:
    """
    Make a run that fails as small as it goes while the same check fails, and write it to FILE.

    \b
    Examples:
      sage-sim shrink broken.toml --seed 7
    """  # noqa: D301  (as above)
    request, console = requested(context, target, **options), terminal()

    def broken(scenario: Scenario) -> set[str]:
        results = once(replace(request, scenario=scenario))
        return set(_wrong(results)) | ({"hang"} if results.exit_code == ExitCode.HANG else set())

    checks = broken(request.scenario)
    if not checks:
        console.print("it does not fail, so there is nothing to shrink")
        sys.exit(ExitCode.INCONCLUSIVE)
    console.print(f"fails: {', '.join(sorted(checks))}")

    def fails(candidate: Scenario) -> bool:
        does = any(broken(candidate) & checks for _ in range(again))
        topology = candidate.topology()
        size = f"{topology.processes} processes, {topology.queues} queues, {candidate.items or 0:,} items"
        console.print(f"  {size}: {'still fails' if does else 'passes'}", style="" if does else "dim")
        return does

    least, used = shrunk(request.scenario, fails, tries=tries)
    file.write_text(tomli_w.dumps(as_file(least)), encoding="utf-8")
    console.print(
        f"after {used} tries: {least.topology().processes} processes, {len(least.edges)} edges", soft_wrap=True
    )
    console.print(f"repeat   sage-sim run {file} --seed {request.seed}", soft_wrap=True)


@click.command()
@click.argument("target", metavar="PRESET|FILE")
@click.option("--hours", type=click.FloatRange(min=0, min_open=True), default=1.0, show_default=True, help="How long.")
@click.option("--runs", type=click.IntRange(1), help="Runs at most.")
@run_options
@click.pass_context
def soak(context: click.RichContext, /, target: str, hours: float, runs: int | None, **options: Any) -> None:
    """
    Run the same again and again, each time with another seed, until the time is over or one does not pass.

    \b
    Examples:
      sage-sim soak pipeline --faults kill:5,stop:1 --hours 8
    """  # noqa: D301  (as above)
    request, console = requested(context, target, **options), terminal()
    until, number, items = monotonic() + hours * 3600, 0, 0
    open_before = len(os.listdir("/proc/self/fd"))
    while monotonic() < until and (runs is None or number < runs):
        mine = replace(request, seed=(request.seed + number) % 2**32)
        results = once(mine)
        number, items = number + 1, items + results.items.taken
        told = f"run {number}: seed {mine.seed}, {results.items.taken:,} items, {sum(results.deaths.values())} killed"
        console.print(f"{told}: {results.verdict.value}", soft_wrap=True)
        if results.exit_code != ExitCode.PASS:
            console.print(Text(", ".join(_wrong(results)), style="bold red"))
            console.print(f"repeat   {mine.command()}", soft_wrap=True)
            sys.exit(results.exit_code)
    more = len(os.listdir("/proc/self/fd")) - open_before
    console.print(f"{number:,} runs, {items:,} items, {more} descriptors more than before")
    sys.exit(ExitCode.CHECK_FAILED if more > 0 and gives_all_back(request.scenario.edges) else ExitCode.PASS)
