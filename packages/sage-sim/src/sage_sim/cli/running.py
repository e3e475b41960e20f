"""Running one request where somebody watches."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rich_click as click
from rich.markdown import Markdown

from sage_sim.cli.output import terminal
from sage_sim.execution import execute, new_folder
from sage_sim.folder import RUNS
from sage_sim.job import JobResults, JobRun
from sage_sim.needs import check_needs
from sage_sim.outcome import View
from sage_sim.outputs import markdown
from sage_sim.report import LiveView, PlainView, QuietView, show_results, show_verdict
from sage_sim.request import Request
from sage_sim.results import Results


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What is printed of a run."""

    as_json: bool = False
    plain: bool | None = None
    quiet: bool = False
    keep: bool = False


def executed_job(request: Request, out: Path | None, shown: Shown) -> JobResults:
    """
    The same for a job of the dataflow runtime.

    Raises:
        click.UsageError: There is something in the folder already.
        SetupError: The folder cannot be made.
    """
    console = terminal()
    try:
        folder = new_folder(request, out)
    except FileExistsError as error:
        raise click.UsageError(f"--out: {error}") from error
    is_silent = shown.as_json or shown.quiet
    results = JobRun(request, folder, QuietView() if is_silent else PlainView(console, request.plan())).run()
    if shown.as_json:
        print(json.dumps(results.fields, indent=1))
        return results
    if not shown.quiet:
        console.print(Markdown(markdown(results.fields)))
    console.print(f"verdict  {results.verdict.value}")
    console.print(f"history  {folder.path}", soft_wrap=True)
    console.print(f"repeat   {request.command()}", soft_wrap=True, markup=False)
    return results


def executed(request: Request, out: Path | None, shown: Shown) -> Results:
    """
    Run it, print what is asked for, and return the results.

    Raises:
        click.UsageError: There is something in the folder already.
        SetupError: This machine cannot.
    """
    console = terminal()
    try:
        folder = new_folder(request, out)
    except FileExistsError as error:
        raise click.UsageError(f"--out: {error}") from error
    with ExitStack() as stack:
        view: View = QuietView()
        if not shown.as_json and not shown.quiet:
            is_live = console.is_terminal if shown.plain is None else not shown.plain
            plan = request.plan()
            view = stack.enter_context(LiveView(console, plan)) if is_live else PlainView(console, plan)
        results = execute(request, folder, view=view, keep=shown.keep)
    if shown.as_json:
        print(json.dumps(results.as_dict(), indent=1))
    elif shown.quiet:
        show_verdict(console, results)
    else:
        show_results(console, results)
    return results


def told(request: Request, out: Path | None, shown: Shown) -> tuple[dict[str, Any], int]:
    """
    Run it in its own way; the results, and the exit code.

    Raises:
        click.UsageError: There is something in the folder already.
        SetupError: This machine cannot.
    """
    check_needs(request, out or RUNS)
    if request.scenario.runs_as == "job":
        job = executed_job(request, out, shown)
        return job.fields, job.exit_code
    results = executed(request, out, shown)
    return results.as_dict(), results.exit_code
