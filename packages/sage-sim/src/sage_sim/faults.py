"""What is broken on purpose, when, and where: a plan that follows from the seed alone."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from random import Random

KILLS_PER_SECOND = 2.0
RATE_AT_MOST = 100.0
KINDS = ("kill",)
_FORM = re.compile(r"(?P<kind>[a-z-]+)(?::(?P<rate>[0-9.]+))?")


@dataclass(frozen=True, kw_only=True)
class Faults:
    """
    Kills with SIGKILL, at random moments, of random processes; each is replaced by a new one.

    Attributes:
        kills_per_second: The mean; the moments are independent of each other.
    """

    kills_per_second: float

    def __str__(self) -> str:
        return f"kill:{self.kills_per_second:g}"


@dataclass(frozen=True, kw_only=True)
class Strike:
    """One kill of a plan."""

    after_seconds: float
    """Since the sources were let go."""
    slot: str
    """Who is hit; nobody, when no process is at work in that slot at the moment."""


def parse_faults(text: str) -> Faults:
    """
    Read what the user wrote: ``kill`` or ``kill:<mean number per second>``.

    Raises:
        ValueError: It is something else; says what is known.
    """
    found = _FORM.fullmatch(text)
    if found is None or found["kind"] not in KINDS:
        close = get_close_matches(text.partition(":")[0], KINDS, n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise ValueError(f"unknown faults {text!r}{hint}; known are: kill, kill:<kills per second>")
    if found["rate"] is None:
        return Faults(kills_per_second=KILLS_PER_SECOND)
    try:
        rate = float(found["rate"])
    except ValueError:
        raise ValueError(f"{found['rate']!r} is not a number of kills per second") from None
    if not 0 < rate <= RATE_AT_MOST:
        raise ValueError(f"kills per second must be above 0 and at most {RATE_AT_MOST:g}, not {rate:g}")
    return Faults(kills_per_second=rate)


def strikes(faults: Faults, seed: int, slots: Sequence[str]) -> Iterator[Strike]:
    """The plan, without end: exponential gaps (a Poisson process), slots with equal chance."""
    random, moment = Random(f"faults/{seed}"), 0.0
    while True:
        moment += random.expovariate(faults.kills_per_second)
        yield Strike(after_seconds=moment, slot=random.choice(slots))
