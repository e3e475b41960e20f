"""One request carried out: a folder, a run, and its results; for the command line, and for all that runs many."""

from __future__ import annotations

from pathlib import Path

from sage_sim.checkers import Verdict
from sage_sim.conductor import Conductor
from sage_sim.folder import RunFolder
from sage_sim.machine import describe_machine
from sage_sim.nurse import SetupError
from sage_sim.outcome import View
from sage_sim.report import QuietView
from sage_sim.request import Request
from sage_sim.results import Results, judge


def new_folder(request: Request, out: Path | None) -> RunFolder:
    """
    The folder of a run.

    Raises:
        FileExistsError: There is something in it already.
        SetupError: It cannot be made.
    """
    try:
        return RunFolder(out, preset=request.scenario.name, seed=request.seed)
    except FileExistsError:
        raise
    except OSError as error:
        raise SetupError(f"the folder for the run cannot be made: {error}") from error


def execute(request: Request, folder: RunFolder, *, view: View | None = None, keep: bool = False) -> Results:
    """
    Run what was asked for, and judge it; nothing is left behind, whatever happens.

    Args:
        request: What was asked for.
        folder: Where history and results go.
        view: Who watches; None for nobody.
        keep: Whether the raw logs of a valid run stay, too.

    Raises:
        SetupError: This machine cannot run it; the text says what is missing.
        ValueError: It is too large.
    """
    plan, machine = request.plan(), describe_machine()
    folder.scenario.write_text(
        request.scenario.model_dump_json(indent=1, exclude_defaults=True) + "\n", encoding="utf-8"
    )
    watching = view or QuietView()
    outcome = Conductor(
        plan,
        request.faults,
        plan_path=folder.plan,
        folder=folder.work,
        view=watching,
        time_limit=request.time_limit,
    ).run()
    watching.say("checking the history ...")
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
            gates=request.scenario.speed_gates(),
        )
    except OSError as error:
        raise SetupError(f"the history cannot be written: {error}") from error
    if not keep and results.verdict is Verdict.VALID:
        folder.remove_work()
    return results
