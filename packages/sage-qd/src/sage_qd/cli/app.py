"""The verbs together, and what is the same for all of them."""

from collections.abc import Sequence

import rich_click as click

import sage_qd
from sage_qd.cli.costs import bench, calibrate
from sage_qd.cli.endings import EXIT_CODES, run_verb
from sage_qd.cli.explaining import explain
from sage_qd.cli.exporting import export
from sage_qd.cli.listing import inspect, ls, waits
from sage_qd.cli.serving import serve
from sage_qd.cli.upkeep import clean, doctor
from sage_qd.cli.watching import top

__all__ = ["app", "run"]

click.rich_click.TEXT_MARKUP = "rich"
click.rich_click.WIDTH = None
click.rich_click.COMMAND_GROUPS = {
    "sage-qd": [
        {"name": "See", "commands": ["ls", "inspect", "top", "waits"]},
        {"name": "Choose", "commands": ["explain"]},
        {"name": "Keep in order", "commands": ["doctor", "clean"]},
        {"name": "Host", "commands": ["serve"]},
        {"name": "Measure", "commands": ["bench", "calibrate", "export"]},
    ]
}


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, epilog=f"Exit codes: {EXIT_CODES}")
@click.version_option(sage_qd.__version__, prog_name="sage-qd")
def app() -> None:
    """
    See, check and measure the queues of this machine, without taking part in them.

    \b
    Start here:
      sage-qd ls                     every queue of this user, with its depth
      sage-qd top                    the same, live, with rates and the slow consumer
      sage-qd inspect jobs           one queue in full
      sage-qd waits                  who waits for whom; dead-locks are marked
      sage-qd doctor                 is this machine fit for it?
      sage-qd clean --dry-run        what killed programs left behind
    """  # noqa: D301  (click wants this very character before a block that it must not wrap)


for verb in (ls, inspect, top, waits, explain, doctor, clean, serve, bench, calibrate, export):
    app.add_command(verb)


def run(arguments: Sequence[str] | None = None) -> int:
    """
    Run a verb, say what went wrong in one line, and return the exit code.

    Args:
        arguments: The words after ``sage-qd``; None for those of this process.
    """
    return run_verb(app, "sage-qd", arguments)
