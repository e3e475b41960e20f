"""Ratios and how certain they are: pure functions over numbers that somebody measured."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, fsum, log

RESAMPLES = 1000
TRIMMED = 0.2


@dataclass(frozen=True)
class Interval:
    """
    A ratio and where it may really be.

    Attributes:
        ratio: The middle.
        low: Lower bound.
        high: Upper bound.
    """

    ratio: float
    low: float
    high: float

    def within(self, tolerance: float) -> bool:
        """Whether all of it is that close to one: 0.1 is 10 % more or less."""
        return self.low >= 1 / (1 + tolerance) and self.high <= 1 + tolerance


def middle(ratios: Sequence[float]) -> float:
    """
    The geometric mean, for which a ratio and its inverse balance, of all but the fifth at each end.

    One round in ten meets something else by chance, and would decide a mean of all (trimmed means: Tukey, 1962).
    """
    return exp(_middle(list(map(log, ratios))))


def _middle(logs: list[float]) -> float:
    cut = int(len(logs) * TRIMMED)
    return fsum(sorted(logs)[cut : len(logs) - cut]) / (len(logs) - 2 * cut)


def interval(ratios: Sequence[float], *, seed: int, confidence: float = 0.95) -> Interval:
    """
    The middle with its bootstrap interval.

    The rounds are drawn again, with replacement, many times; the bounds are percentiles of the middles of those draws
    (Efron, 1979). It needs no assumption about how times are spread, which are nothing like normal.

    Args:
        ratios: One of each round; at least one.
        seed: Decides the draws, so that a verdict can be repeated from the record.
        confidence: Share of the draws between the bounds.
    """
    draw, logs = random.Random(seed), [log(ratio) for ratio in ratios]
    middles = sorted(_middle(draw.choices(logs, k=len(logs))) for _ in range(RESAMPLES))
    cut = round((1 - confidence) / 2 * RESAMPLES)
    return Interval(ratio=middle(ratios), low=exp(middles[cut]), high=exp(middles[-cut - 1]))
