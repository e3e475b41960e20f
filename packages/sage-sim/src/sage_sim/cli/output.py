"""What every verb prints with: the terminal, the exit codes, and how it gives up."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import rich_click as click
from rich.console import Console

from sage_sim.nurse import SetupError
from sage_sim.results import ExitCode

WIDTH_WITHOUT_TERMINAL = 100
EXIT_CODES = """\
0 all checks hold; 1 a check failed; 2 wrong usage; 3 slower than the baseline; 4 nobody can tell;
5 this machine cannot (the text says what is missing); 6 the run hung; 130 interrupted."""


class Terminal(Console):
    """A console that says so when whoever read the output has gone, and leaves it to the verb what that means."""

    def on_broken_pipe(self) -> NoReturn:
        """Raise what rich would turn into the exit code of a failed check."""
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


def terminal() -> Console:
    """Where to print: as wide as the terminal, or 100 columns where there is none."""
    console = Terminal(highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = WIDTH_WITHOUT_TERMINAL
    return console


def give_up(reason: str) -> NoReturn:
    """Say why this machine cannot do it."""
    click.echo(f"sage-sim: {reason}", err=True)
    sys.exit(ExitCode.ENVIRONMENT)


@contextmanager
def endings() -> Iterator[None]:
    """Turn what ends a verb into its exit code: what the machine cannot, Ctrl-C, and that nobody reads any more."""
    try:
        yield
    except SetupError as error:
        give_up(str(error))
    except (KeyboardInterrupt, BrokenPipeError):  # all processes are gone; only what came after was cut short
        sys.exit(ExitCode.INTERRUPTED)
    except OSError as error:  # as a rule, a disk that is full
        give_up(f"{error.strerror or error}" + (f": {error.filename}" if error.filename else ""))


class Verbs(click.RichGroup):
    """All verbs; each ends as `endings` says, and its help has the exit codes."""

    def add_command(self, cmd: click.Command, *arguments: Any, **keywords: Any) -> None:
        """Add a verb."""
        cmd.epilog = f"Exit codes: {EXIT_CODES}"
        super().add_command(cmd, *arguments, **keywords)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the verb."""
        with endings():
            return super().invoke(ctx)


def run_verb(app: Verbs, arguments: Sequence[str] | None) -> int:
    """
    Run a verb, say in one line what was wrong with the words of the user, and return the exit code.

    Args:
        app: All of them.
        arguments: The words after the program; None for those of this process.
    """
    code: Any = ExitCode.PASS
    try:
        with endings():
            try:
                code = app.main(arguments, prog_name="sage-sim", standalone_mode=False)
            except SystemExit as end:
                code = end.code
            except click.ClickException as error:
                error.show()
                code = error.exit_code
            sys.stdout.flush()  # or the interpreter would find out too late that there is no room, or no reader
    except click.Abort:  # before the verb began
        code = ExitCode.INTERRUPTED
    except SystemExit as end:
        code = end.code
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code if isinstance(code, int) else ExitCode.PASS
