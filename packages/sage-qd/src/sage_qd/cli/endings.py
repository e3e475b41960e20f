"""How a verb ends: exit codes, and one line for each error."""

import os
import sys
from collections.abc import Callable, Sequence
from enum import IntEnum

import rich_click as click

from sage_qd.errors import (
    BackendUnavailableError,
    DescriptorError,
    InvalidQueueNameError,
    JobNotFoundError,
    QueueNotFoundError,
    SageQueueError,
)

__all__ = ["EXIT_CODES", "ExitCode", "code_of", "run_verb"]


class ExitCode(IntEnum):
    """What a script can rely on."""

    FINE = 0
    FOUND = 1
    USAGE = 2
    NOT_FOUND = 3
    CANNOT = 4
    MISSING = 5
    INTERRUPTED = 130


EXIT_CODES = """\
0 fine; 1 something is wrong: a failed check, a cycle of waits; 2 wrong usage; 3 no such queue or job; 4 it cannot be
done, the text says why; 5 something is not installed; 130 interrupted."""


def code_of(error: Exception) -> ExitCode:
    """The exit code for an exception that a verb let through."""
    if isinstance(error, (QueueNotFoundError, JobNotFoundError)):
        return ExitCode.NOT_FOUND
    if isinstance(error, BackendUnavailableError):
        return ExitCode.MISSING
    if isinstance(error, (DescriptorError, InvalidQueueNameError)) or type(error) is ValueError:
        return ExitCode.USAGE
    return ExitCode.CANNOT


def run_verb(
    app: click.Command, program: str, arguments: Sequence[str] | None, code_of: Callable[[Exception], int] = code_of
) -> int:
    """
    Run a verb, say what went wrong in one line, and return the exit code.

    Args:
        app: The verbs.
        program: What the line begins with.
        arguments: The words after the program; None for those of this process.
        code_of: The exit code for an exception that a verb let through.
    """
    try:
        ended = app.main(arguments, prog_name=program, standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo(f"{program}: interrupted", err=True)
        return ExitCode.INTERRUPTED
    except BrokenPipeError:  # whoever read the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.FINE
    except (SageQueueError, OSError, ValueError) as error:
        said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        where = f": {error.filename}" if isinstance(error, OSError) and error.filename else ""
        click.echo(f"{program}: {said}{where}", err=True)
        return code_of(error)
    return int(ended) if isinstance(ended, int) else ExitCode.FINE
