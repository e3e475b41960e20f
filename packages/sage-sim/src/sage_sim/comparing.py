"""Kinds of queues side by side: run in turn, and compared within each round."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random

from sage_sim.results import Results


def rounds(kinds: Sequence[str], count: int, seed: int) -> Iterator[tuple[int, str]]:
    """
    In which order kinds are run: each once in every round, in an order of its own, the next round backwards.

    So what drifts on a machine, from hot to throttled say, meets all of them alike.
    """
    random, order = Random(f"rounds/{seed}"), list(kinds)
    for number in range(count):
        if number % 2:
            order.reverse()
        else:
            random.shuffle(order)
        for kind in order:
            yield number, kind


@dataclass(frozen=True, kw_only=True)
class Compared:
    """
    What several runs of one kind showed.

    Attributes:
        kind: Which.
        rates: Items per second of each run.
        p50_us: Latency of each run, from the moment due to the end.
        p99_us: Likewise.
        ratios: In each round, the rate over that of the first kind.
        wrong: Checks that did not hold, over all runs.
    """

    kind: str
    rates: tuple[float, ...]
    p50_us: tuple[float, ...]
    p99_us: tuple[float, ...]
    ratios: tuple[float, ...]
    wrong: tuple[str, ...]

    @property
    def ratio(self) -> float:
        """The median over the rounds."""
        return statistics.median(self.ratios)


def compared(kinds: Sequence[str], results: dict[tuple[int, str], Results]) -> list[Compared]:
    """Put runs side by side, by round and kind; each ratio is within one round."""
    found = []
    numbers = sorted({number for number, _ in results})
    for kind in kinds:
        mine = [results[number, kind] for number in numbers]
        pairs = [(results[number, kind].items.rate, results[number, kinds[0]].items.rate) for number in numbers]
        found.append(
            Compared(
                kind=kind,
                rates=tuple(one.items.rate for one in mine),
                p50_us=tuple((one.latency_ns["p50"] or 0) / 1000 for one in mine),
                p99_us=tuple((one.latency_ns["p99"] or 0) / 1000 for one in mine),
                ratios=tuple(ours / first if first else 0.0 for ours, first in pairs),
                wrong=tuple(
                    sorted({one.check for run in mine for one in run.findings if one.verdict.value != "valid"})
                ),
            )
        )
    return found
