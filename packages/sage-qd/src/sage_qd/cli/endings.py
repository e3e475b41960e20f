"""How a verb ends: exit codes, and one line for each error."""

from enum import IntEnum

from sage_qd.errors import BackendUnavailableError, DescriptorError, InvalidQueueNameError, QueueNotFoundError

__all__ = ["EXIT_CODES", "ExitCode", "code_of"]


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
0 fine; 1 something is wrong: a failed check, a cycle of waits; 2 wrong usage; 3 no such queue; 4 it cannot be done, the
text says why; 5 something is not installed; 130 interrupted."""


def code_of(error: Exception) -> ExitCode:
    """The exit code for an exception that a verb let through."""
    if isinstance(error, QueueNotFoundError):
        return ExitCode.NOT_FOUND
    if isinstance(error, BackendUnavailableError):
        return ExitCode.MISSING
    if isinstance(error, (DescriptorError, InvalidQueueNameError)) or type(error) is ValueError:
        return ExitCode.USAGE
    return ExitCode.CANNOT
