"""How figures are written, in all outputs alike."""

from __future__ import annotations


def duration(microseconds: float | None) -> str:
    """Three digits and a unit."""
    if microseconds is None:
        return "–"
    for unit, size in (("s", 1e6), ("ms", 1e3)):
        if microseconds >= size:
            return f"{microseconds / size:.3g} {unit}"
    return f"{microseconds:.3g} µs"


def count(number: float | None) -> str:
    """With commas; a question mark for what nobody knows."""
    return "?" if number is None else f"{number:,.0f}"
