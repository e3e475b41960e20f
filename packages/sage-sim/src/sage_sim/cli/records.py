"""Verbs about runs that were: `report` and `replay`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import rich_click as click
from rich.markdown import Markdown

from sage_sim.cli.options import scenario_in
from sage_sim.cli.output import give_up, terminal
from sage_sim.cli.running import Shown, told
from sage_sim.outputs import junit_xml, markdown, run_page
from sage_sim.request import Request

_FORMS = {"html": run_page, "junit": junit_xml, "markdown": markdown}
_FOLDER = click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))


def output_options(function: Any) -> Any:
    """Add the options that write results to files."""
    for name, what in (("markdown", "Markdown"), ("junit", "JUnit's XML"), ("html", "one page for the browser")):
        path = click.Path(path_type=Path, dir_okay=False)
        function = click.option(f"--{name}", type=path, help=f"File for {what}.")(function)
    return function


def write_outputs(results: dict[str, Any], **paths: Path | None) -> None:
    """Write results in each form that has a file; a file that is there is replaced."""
    for form, path in paths.items():
        if path is None:
            continue
        try:
            path.write_text(_FORMS[form](results), encoding="utf-8")
        except OSError as error:
            give_up(f"{path} cannot be written: {error.strerror}")


def results_in(folder: Path) -> dict[str, Any]:
    """
    The results of the run that a folder has.

    Raises:
        click.UsageError: It has none.
    """
    try:
        results: Any = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    except OSError as error:
        raise click.UsageError(f"{folder} has no results of a run: {error.strerror}") from None
    except json.JSONDecodeError as error:
        raise click.UsageError(f"{folder}/results.json cannot be read: {error}") from None
    if not isinstance(results, dict) or "topology" not in results:
        raise click.UsageError(f"{folder}/results.json is not of a run")
    return results


@click.command()
@_FOLDER
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON and nothing else.")
@output_options
def report(folder: Path, as_json: bool, **paths: Path | None) -> None:
    """
    Say again what a run showed, from its FOLDER.

    \b
    Examples:
      sage-sim report sage-sim-runs/20260101-120000-pipeline-7 --html run.html
    """  # noqa: D301  (click wants this very character before a block that it must not wrap)
    results = results_in(folder)
    write_outputs(results, **paths)
    if as_json:
        print(json.dumps(results, indent=1))
    elif not any(paths.values()):
        terminal().print(Markdown(markdown(results)))


@click.command()
@_FOLDER
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for the new run. (default: one in sage-sim-runs)",
)
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON and nothing else.")
@click.option("--quiet", is_flag=True, help="Print the verdict only.")
def replay(folder: Path, out: Path | None, as_json: bool, quiet: bool) -> None:
    """
    Run again what the run in FOLDER did: the same scenario, with the same seed.

    \b
    Examples:
      sage-sim replay sage-sim-runs/20260101-120000-pipeline-7
    """  # noqa: D301  (as above)
    before = results_in(folder)
    path = folder / "scenario.json"
    scenario = scenario_in(path)
    request = Request(
        target=str(path), scenario=scenario, seed=before["seed"], most_processes=scenario.topology().processes
    )
    if not as_json:
        terminal().print(f"before   {before['verdict']}")
    _, code = told(request, out, Shown(as_json=as_json, quiet=quiet))
    sys.exit(code)
