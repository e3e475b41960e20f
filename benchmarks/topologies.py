"""What a row's processes do, and how its figure comes out of what they report; the timed bodies are in four modules.

A topology is a few roles, one process each. A role says which ends it opens and what it does when told to run a job.
Times are CLOCK_MONOTONIC nanoseconds, which all processes of a machine share, so the start is taken where the first
item is put and the end where the last one was got. Results are checked after the clock has stopped.

`throughput.py` streams small items, `latency.py` times single ones, `large.py` moves megabytes and `administration.py`
does everything that is not about moving items.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from channels import End, Shape

CYCLE = 127  # a prime: every 1000th item has a different place in the cycle, so one lost item shows at the next sample
STRIDE = 1000  # in timed runs the receiver keeps each so-manieth item; a run for checking keeps all

now = time.monotonic_ns


@dataclass(frozen=True)
class Job:
    """One run: how many items, and whether every item is checked (then its time does not count)."""

    count: int
    check: bool = False

    @property
    def every(self) -> int:
        """How many items apart the kept ones are."""
        return 1 if self.check else STRIDE


Outcome = dict[str, Any]


@dataclass(frozen=True)
class Role:
    """One process: the ends it opens as (channel, "sender" or "receiver" or "both", index), and its work."""

    opens: tuple[tuple[int, str, int], ...]
    work: Callable[[Sequence[End], Job], Outcome]


@dataclass(frozen=True)
class Topology:
    """Roles, the figure they yield, and the size of a run: multiples of `unit`, at least `least`, at most `most`."""

    name: str
    roles: tuple[Role, ...]
    figure: Callable[[Job, Sequence[Outcome], Shape], dict[str, float]]
    channels: int = 1
    unit: int = STRIDE
    least: int = STRIDE
    most: int = 4_000_000


class WrongResultError(Exception):
    """A run lost, doubled, reordered or damaged something; the text says what."""


def expect(condition: bool, *what: object) -> None:
    """Raise `WrongResultError` with the words given unless the condition holds."""
    if not condition:
        raise WrongResultError(" ".join(map(str, what)))


@lru_cache(maxsize=4)
def payloads(item_bytes: int) -> list[bytes]:
    """The cycle of items: each begins with its place in the cycle and is as long as asked."""
    return [place.to_bytes(8, "little") + bytes([place + 1]) * (item_bytes - 8) for place in range(CYCLE)]


def check_items(items: Sequence[bytes], every: int, item_bytes: int) -> None:
    """Every kept item must be the one that was put at its place."""
    expected = payloads(item_bytes)
    for at, item in enumerate(items):
        place = ((at + 1) * every - 1) % CYCLE
        expect(item == expected[place], f"item {(at + 1) * every - 1}: place {place} expected, got", bytes(item[:16]))


def rate(job: Job, outcomes: Sequence[Outcome], shape: Shape) -> dict[str, float]:
    """Million items a second between the first put and the last get."""
    nanoseconds = max(one.get("ended", 0) for one in outcomes) - min(one["began"] for one in outcomes if "began" in one)
    return {"value": job.count / nanoseconds * 1e3}


def gigabytes(job: Job, outcomes: Sequence[Outcome], shape: Shape) -> dict[str, float]:
    """Gigabytes a second between the first put and the last get."""
    return {"value": rate(job, outcomes, shape)["value"] * shape.item_bytes / 1e3}


def nanoseconds_each(job: Job, outcomes: Sequence[Outcome], shape: Shape) -> dict[str, float]:
    """Nanoseconds per item."""
    return {"value": (outcomes[0]["ended"] - outcomes[0]["began"]) / job.count}
