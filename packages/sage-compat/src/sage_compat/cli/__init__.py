"""The command line: ``sage-compat``."""

import sys
from collections.abc import Sequence
from typing import NoReturn

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """
    Run a verb and end the process with its exit code.

    Args:
        arguments: The words after ``sage-compat``; None for those of this process.
    """
    from sage_compat.cli.app import run

    sys.exit(run(arguments))
