"""The command line: ``sage-qd``, or ``python -m sage_qd``."""

import sys
from collections.abc import Sequence
from typing import NoReturn

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """
    Run a verb and end the process with its exit code.

    Args:
        arguments: The words after ``sage-qd``; None for those of this process.
    """
    try:
        from sage_qd.cli.app import run
    except ImportError as error:  # no compiled ring, or a broken installation: a sentence instead of a trace
        print(f"sage-qd: {error}; it needs Linux and a complete installation of sage-qd", file=sys.stderr)
        sys.exit(5)
    sys.exit(run(arguments))
