"""The verbs together, and what is the same for all of them."""

from collections.abc import Sequence
from enum import IntEnum
from importlib import import_module
from typing import Any, Final

import rich_click as click

import sage_compat
from sage_compat.errors import ConfigurationError
from sage_qd.cli.endings import run_verb

__all__ = ["EXIT_CODES", "VERBS", "ExitCode", "app", "run"]

VERBS: Final = {
    "status": "sage_compat.cli.looking:status",
    "explain": "sage_compat.cli.looking:explain",
    "doctor": "sage_compat.cli.looking:doctor",
    "shadow": "sage_compat.cli.comparing:shadow",
    "set": "sage_compat.cli.rolling:set_",
    "rollback": "sage_compat.cli.rolling:rollback",
    "roll-forward": "sage_compat.cli.rolling:roll_forward",
    "report": "sage_compat.moving_off.cli:report",
    "fix": "sage_compat.moving_off.cli:fix",
    "run": "sage_compat.cli.running:run",
}
"""Every verb and where it is; a module is loaded when its verb is used."""


class ExitCode(IntEnum):
    """What a script can rely on."""

    FINE = 0
    FOUND = 1
    USAGE = 2
    CANNOT = 4
    INTERRUPTED = 130


EXIT_CODES: Final = """\
0 fine; 1 something is wrong: messages could not be moved, a check failed; 2 wrong usage or configuration; 4 it cannot \
be done, the text says why; 130 interrupted. run ends with the exit code of the program."""

click.rich_click.TEXT_MARKUP = "rich"
click.rich_click.WIDTH = None


class _Verbs(click.RichGroup):
    """Loads a verb when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Every verb, in the order in which they are needed."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The verb of a name."""
        place = VERBS.get(cmd_name)
        if place is None:
            return None
        module, _, name = place.partition(":")
        verb: Any = getattr(import_module(module), name)
        return verb if isinstance(verb, click.Command) else None


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"]}, epilog=f"Exit codes: {EXIT_CODES}")
@click.version_option(sage_compat.__version__, prog_name="sage-compat")
def app() -> None:
    """
    Move the queues of an old program to sage-qd one by one, and back.

    \b
    Start here:
      sage-compat run -- python app.py       an old program, unchanged
      sage-compat status                     its queues, and which way each takes
      sage-compat explain orders             why that one does
      sage-compat set 'orders*' descriptor   move some, while they are used
      sage-compat rollback --all             everything back, at once
    """  # noqa: D301  (click wants this very character before a block that it must not wrap)


def run(arguments: Sequence[str] | None = None) -> int:
    """
    Run a verb, say what went wrong in one line, and return the exit code.

    Args:
        arguments: The words after ``sage-compat``; None for those of this process.
    """
    return run_verb(app, "sage-compat", arguments, _code_of)


def _code_of(error: Exception) -> ExitCode:
    return ExitCode.USAGE if isinstance(error, ConfigurationError) else ExitCode.CANNOT
