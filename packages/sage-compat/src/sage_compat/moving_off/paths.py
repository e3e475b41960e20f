"""Paths as people and reports read them."""

import os
from pathlib import Path

__all__ = ["shown_path"]


def shown_path(path: Path) -> str:
    """A path relative to the current folder if it lies below, with slashes; else whole."""
    whole = os.path.realpath(path)
    below = os.path.relpath(whole)
    return Path(whole if below.startswith("..") else below).as_posix()
