"""
When rounds suffice for a verdict, and which: pure functions over what rounds showed.

A round times three sides, each in a new process: head, base, and base once more. They are timed in a random order and
then in the same order backwards (ABC CBA), twice, so that what drifts meets all alike. The ratio of the two bases is
the guard: it is one, but for what the machine did. Where the guard cannot see so little, neither can anybody else.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from math import sqrt
from statistics import fmean, geometric_mean

from sage_sim.gate.statistics import Interval, interval

SIDES = ("head", "base", "again")
"""Again is the base in another process."""
TURNS = 2
"""There and back, in a round."""


class Ending(StrEnum):
    """What a gate found."""

    PASS = "pass"
    REGRESSION = "regression"
    INCONCLUSIVE = "inconclusive"
    CANNOT = "cannot"
    """Something is not here that it needs."""
    LEFT_OUT = "left out"
    """There is nothing to compare with: a new benchmark, or a queue of others that is not installed."""


@dataclass(frozen=True)
class Sample:
    """
    One timing.

    Attributes:
        ns: Nanoseconds for each operation.
        waited: Share of the time in which the process was ready and had no core.
    """

    ns: float
    waited: float


@dataclass(frozen=True)
class Round:
    """
    What one round showed.

    Attributes:
        head: Time of head over that of both bases.
        guard: Time of one base over that of the other.
        ns: Nanoseconds for each operation, by side.
        disturbed: Whether somebody else had the cores for too large a part of it.
    """

    head: float
    guard: float
    ns: Mapping[str, float]
    disturbed: bool = False


@dataclass(frozen=True, kw_only=True)
class Limits:
    """
    When to stop, and what is slower.

    Attributes:
        slower: How much slower head may be: 0.07 is 7 %.
        least: Rounds before anything is decided.
        most: Rounds after which nothing more is tried.
        every: Rounds between two looks at them.
        confidence: Of the intervals.
        waiting: Share of a round that may be spent waiting for a core.
    """

    slower: float
    least: int = 10
    most: int = 40
    every: int = 5
    confidence: float = 0.95
    waiting: float = 0.1


@dataclass(frozen=True, kw_only=True)
class Timing:
    """
    A verdict about the times of one benchmark.

    Attributes:
        ending: What was found.
        why: In words.
        rounds: How many were measured.
        disturbed: How many of them do not count.
        head: Time of head over that of base; None when no round counts.
        guard: The same of base over itself.
    """

    ending: Ending
    why: str
    rounds: int
    disturbed: int
    head: Interval | None = None
    guard: Interval | None = None


def order(draw: random.Random) -> tuple[str, ...]:
    """Who is timed when in one turn."""
    there = draw.sample(SIDES, len(SIDES))
    return (*there, *reversed(there))


def measured(draw: random.Random, sample: Callable[[str], Sample], waiting: float) -> Round:
    """
    Time one round.

    Args:
        draw: Decides the order.
        sample: Times a side.
        waiting: See `Limits`.
    """
    samples: dict[str, list[Sample]] = {side: [] for side in SIDES}
    for _ in range(TURNS):
        for side in order(draw):
            samples[side].append(sample(side))
    ns = {side: geometric_mean([one.ns for one in each]) for side, each in samples.items()}
    waits = [one.waited for each in samples.values() for one in each]
    return Round(
        head=ns["head"] / sqrt(ns["base"] * ns["again"]),
        guard=ns["again"] / ns["base"],
        ns=ns,
        disturbed=fmean(waits) > waiting,
    )


def judged(rounds: Sequence[Round], limits: Limits, seed: int) -> Timing | None:
    """
    What the rounds so far allow to say; None when more are needed.

    Head is slower when the lower bound says so, and only while the guard is within half of what would be slower. It
    passes as soon as the upper bound is below, and the guard within all of that. Between the two it is not shown to be
    slower, which is a pass in the end.
    """
    counted = [one for one in rounds if not one.disturbed]
    disturbed, is_last = len(rounds) - len(counted), len(rounds) >= limits.most
    if len(rounds) % limits.every and not is_last:
        return None
    if len(counted) < limits.least:
        is_hopeless = len(rounds) >= limits.least and len(counted) < len(rounds) / 4
        if not is_last and not is_hopeless:
            return None
        why = f"only {len(counted)} rounds count; others had the cores in {disturbed} more"
        return Timing(ending=Ending.INCONCLUSIVE, why=why, rounds=len(rounds), disturbed=disturbed)
    head = interval([one.head for one in counted], seed=seed, confidence=limits.confidence)
    guard = interval([one.guard for one in counted], seed=seed, confidence=limits.confidence)
    is_quiet, limit = guard.within(limits.slower / 2), 1 + limits.slower
    if is_quiet and head.low > limit:
        ending, why = Ending.REGRESSION, f"slower by at least {head.low - 1:.1%}; {limits.slower:.0%} is allowed"
    elif guard.within(limits.slower) and head.high <= limit:
        ending, why = Ending.PASS, f"slower by at most {head.high - 1:.1%}" if head.high > 1 else "not slower"
    elif not is_last:
        return None
    elif is_quiet:
        ending, why = Ending.PASS, f"not shown to be slower by more than {limits.slower:.0%}"
    else:
        ending, why = Ending.INCONCLUSIVE, f"base against itself: {guard.low:.3f} .. {guard.high:.3f}"
    return Timing(ending=ending, why=why, rounds=len(rounds), disturbed=disturbed, head=head, guard=guard)


def settled(first: Timing, second: Timing) -> Timing:
    """
    Of two tries, of which the first was no pass: what holds.

    A pass makes a noisy try good, and who is called slower has to be so in both.
    """
    if first.ending is second.ending or (first.ending, second.ending) == (Ending.INCONCLUSIVE, Ending.PASS):
        return second
    why = f"{first.ending.value} in one try ({first.why}), {second.ending.value} in the other ({second.why})"
    return replace(second, ending=Ending.INCONCLUSIVE, why=why)
