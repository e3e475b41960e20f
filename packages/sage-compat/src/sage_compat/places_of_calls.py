"""Where in the user's program a call came from."""

import sys
from pathlib import Path
from typing import Final

__all__ = ["place_of_call"]

_OWN: Final = str(Path(__file__).parent)


def place_of_call() -> str:
    """Return ``file:line`` of the innermost frame that is not of sage-compat."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_OWN):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"
