"""The command line: ``sage-sim``, or ``python -m sage_sim``."""

import sys
from collections.abc import Sequence
from typing import NoReturn

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """
    Run a verb and end the process with its exit code.

    Args:
        arguments: The words after ``sage-sim``; None for those of this process.
    """
    try:
        from sage_sim.cli.app import run_program

        code = run_program(arguments)
    except ImportError as error:  # a broken installation: a sentence instead of a trace
        print(f"sage-sim: {error}; it needs Linux and a complete installation of sage-sim", file=sys.stderr)
        code = 5
    except KeyboardInterrupt:  # while all of this is loaded
        code = 130
    sys.exit(code)
