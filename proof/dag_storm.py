"""Row R34: random dataflow jobs whose tasks are killed.

Draws graphs of sources, maps, flat maps, filters, co-maps and reductions with parallel instances, runs each in
processes, and kills random tasks until it has ended. What arrives at every end of the graph is compared with what the
same steps make of the same numbers without a runtime: under `exactly_once` it must be equal, under `at_least_once`
nothing may be missing or made up, under `at_most_once` nothing may be there twice. Sizes of batches and of queues are
drawn, too: queues of two batches, or of one packet, are where a task waits for another one most.
"""

from __future__ import annotations

import random
import sys
import time
from collections import Counter
from typing import Any

import psutil
import row

from sage_qd.runtime import Dispatcher, ProcessEnvironment

RUNS = {False: 20, True: 200}
ITEMS = 10_000  # of one source, at most
BATCHES = 1_000  # of one source, at most
PATIENCE_SECONDS = 120.0
DELIVERIES = ("exactly_once", "at_least_once", "exactly_once", "at_most_once")
BUFFERS = (2, 8, 64)


class Drawn:
    """A random graph: built in an environment, and worked out by hand at the same time."""

    def __init__(self, draw: random.Random, env: ProcessEnvironment) -> None:
        self.env = env
        self._draw = draw
        self._buffer = draw.choice(BUFFERS)
        streams: list[tuple[Any, list[int]]] = []
        for number in range(draw.randint(1, 2)):
            items = range(number * ITEMS, number * ITEMS + min(ITEMS, BATCHES * env.batch_size))
            streams.append((env.from_collection(items, parallelism=draw.randint(1, 2)), list(items)))
        for _ in range(draw.randint(1, 5)):
            streams.append(self._step(streams))
        self.ends = [(stream.collect(), expected) for stream, expected in streams[-2:]]
        stream, expected = streams[-1]
        sums = stream.keyby(lambda x: x % 13).sum(at_end=True, parallelism=draw.randint(1, 3)).collect()
        totals: Counter[int] = Counter()
        for item in expected:
            totals[item % 13] += item
        self.sums = (sums, {key: totals[key] for key in {item % 13 for item in expected}})

    def _step(self, streams: list[tuple[Any, list[int]]]) -> tuple[Any, list[int]]:
        stream, items = self._draw.choice(streams)
        kind = self._draw.randrange(5)
        settings: dict[str, Any] = {"parallelism": self._draw.randint(1, 3), "buffer_size": self._buffer}
        if kind == 0:
            return stream.map(lambda x: x + 1, **settings), [x + 1 for x in items]
        if kind == 1:
            return stream.filter(lambda x: x % 3, **settings), [x for x in items if x % 3]
        if kind == 2:
            return stream.flatmap(lambda x: [x] * (x % 3), **settings), [x for x in items for _ in range(x % 3)]
        if kind == 3:
            keyed = stream.keyby(lambda x: x % 7)
            return keyed.map(lambda x: x * 2, **settings), [x * 2 for x in items]
        other, others = self._draw.choice(streams)
        both = stream.connect(other).comap(lambda x: x, lambda x: -x, **settings)
        return both, [*items, *(-x for x in others)]

    def flaws(self, delivery: str) -> list[str]:
        """What arrived otherwise than it should have."""
        exactly, at_most = delivery == "exactly_once", delivery == "at_most_once"
        found = []
        for result, expected in self.ends:
            got, wanted = Counter(result.items), Counter(expected)
            missing, more = wanted - got, got - wanted
            made_up = set(got) - set(wanted)
            if (missing and not at_most) or (more if exactly or at_most else made_up):
                found.append(f"{sum(missing.values())} missing, {sum(more.values())} too many of {len(expected)}")
        result, totals = self.sums
        sums = dict(result.items)
        if exactly and (sums != totals or len(result.items) != len(totals)):
            found.append(f"sums {sums} instead of {totals}")
        if not (exactly or at_most) and sums.keys() != totals.keys():
            found.append(f"keys {sorted(sums)} instead of {sorted(totals)}")
        return found


def storm(dispatcher: Dispatcher, draw: random.Random) -> tuple[int, bool]:
    """Kill random tasks until the job has ended: how many, and whether it ended."""
    kills, give_up = 0, time.monotonic() + PATIENCE_SECONDS
    while not dispatcher.wait(timeout=draw.uniform(0.005, 0.05) * (1 + kills / 10)):
        if time.monotonic() > give_up:
            return kills, False
        try:
            tasks = psutil.Process(dispatcher.supervisor_pid).children()
            if tasks:
                draw.choice(tasks).kill()
                kills += 1
        except psutil.NoSuchProcess:
            continue
    return kills, True


def main() -> int:
    """Run the jobs and report the row; 1 when one was wrong."""
    options = row.arguments(__doc__ or "")
    proof = row.Row.begin(options, "R34", "random jobs under kills: jobs with wrong counts / jobs that hang", "0 / 0")
    wrong = hung = kills = packets = 0
    for number in range(RUNS[options.long]):
        draw = random.Random(options.seed * 1_000_003 + number)
        delivery = DELIVERIES[number % len(DELIVERIES)]
        env = ProcessEnvironment(
            "dag-storm",
            delivery=delivery,
            restarts=10_000,
            batch_size=draw.choice((1, 8, 64, 512)),
            linger=draw.choice((0.0005, 0.005, 0.05)),
        )
        drawn = Drawn(draw, env)
        dispatcher = env.submit()
        killed, ended = storm(dispatcher, draw)
        dispatcher.stop()
        kills += killed
        packets += sum(task["taken"] for task in dispatcher.status()["tasks"].values())
        flaws = drawn.flaws(delivery) if ended else []
        hung += not ended
        wrong += bool(flaws)
        if flaws or not ended:
            print(f"run {number} of seed {options.seed}, {delivery}: {'; '.join(flaws) or 'it hangs'}", flush=True)
    value = f"{wrong} / {hung} of {RUNS[options.long]} jobs with {kills:,} kills, {packets:,} packets taken"
    return 0 if proof.report(value, not wrong and not hung and kills >= RUNS[options.long]) else 1


if __name__ == "__main__":
    sys.exit(main())
