"""
A file of how many old calls each source has, which may only become fewer.

Kept under version control, it lets a check fail for a new old call while the others wait.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from sage_compat.moving_off.replacing import write_whole

__all__ = ["Counts", "read_ratchet", "tightened", "worse", "write_ratchet"]

SCHEMA: Final = "sage-compat.ratchet/1"

Counts = dict[str, dict[str, int]]
"""How many findings of each code a file has."""


def read_ratchet(path: Path) -> Counts | None:
    """
    Return what a ratchet allows; None where there is none yet.

    Raises:
        OSError: It cannot be read.
        ValueError: It is no ratchet of this release; says what is wrong and where.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    try:
        document = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{path} is no JSON: {error}") from error
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise ValueError(f'{path} has no "schema": "{SCHEMA}", so it is no ratchet of this release')
    counts: Any = document.get("counts")
    if not isinstance(counts, dict):
        raise ValueError(f"{path}: counts must be an object, not {counts!r:.40}")
    for name, codes in counts.items():
        if not isinstance(codes, dict):
            raise ValueError(f"{path}: counts of {name} must be an object, not {codes!r:.40}")
        for code, count in codes.items():
            if type(count) is not int or count < 0:
                raise ValueError(f"{path}: {code} of {name} must be a count, not {count!r:.40}")
    return counts


def worse(counts: Mapping[str, Mapping[str, int]], allowed: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Say in words where there are more than allowed."""
    found = []
    for path, codes in sorted(counts.items()):
        for code, count in sorted(codes.items()):
            limit = allowed.get(path, {}).get(code, 0)
            if count > limit:
                found.append(f"{path}: {count} of {code}, and {limit} allowed")
    return found


def tightened(counts: Mapping[str, Mapping[str, int]], allowed: Mapping[str, Mapping[str, int]]) -> Counts:
    """What is allowed from now on: the smaller number of both, and nothing of what is gone."""
    return {
        path: smaller
        for path, codes in counts.items()
        if (smaller := {code: min(count, allowed.get(path, {}).get(code, 0)) for code, count in codes.items()})
    }


def write_ratchet(path: Path, counts: Mapping[str, Mapping[str, int]]) -> None:
    """
    Write a ratchet, in one step.

    Raises:
        OSError: It cannot be written.
    """
    document = {"schema": SCHEMA, "counts": counts}
    write_whole(path, (json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode())
