"""The highest rate that a topology can sustain."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Step:
    """One rate that was tried, and whether it could be sustained."""

    rate: float
    is_sustained: bool


def highest_rate(
    sustains: Callable[[float], bool], *, start: float, precision: float = 0.05, most: float = 1e7
) -> tuple[float, list[Step]]:
    """
    Find the highest rate that can be sustained: double until one cannot, then halve the gap.

    Args:
        sustains: Tries a rate.
        start: The first one to try.
        precision: How far apart the answer and a rate that is too high may be, as a part of it.
        most: Where to stop at last.

    Returns:
        The rate, 0 when not even a thousandth of the start can be sustained; and what was tried.
    """
    steps: list[Step] = []

    def tried(rate: float) -> bool:
        steps.append(Step(rate=rate, is_sustained=sustains(rate)))
        return steps[-1].is_sustained

    low, high = 0.0, start
    while high <= most and tried(high):
        low, high = high, high * 2
    if high > most:
        return low, steps
    if not low:
        while high > start / 1000:
            low = high / 2
            if tried(low):
                break
            low, high = 0.0, low
    while low and high - low > precision * low:
        middle = (low + high) / 2
        if tried(middle):
            low = middle
        else:
            high = middle
    return low, steps
