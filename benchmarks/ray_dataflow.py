"""
The integer program of `dataflow.py` with an actor of Ray for each step: on the runtime, and by hand; one cluster.

``python benchmarks/ray_dataflow.py`` needs ``sage-qd[ray]``; `bench_runtime.py` runs it with ``--json``. By hand a step
calls the actor of the next one, once for each item or once for 512 of them, and the driver waits for the last call.
Nothing there bounds what waits in the actors. The time until all actors are ready is a figure of its own: Ray starts a
process for each, and the runtime has one for each task and one for each queue.
"""

import argparse
import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from dataflow import KEYS, sums_of
from ray_cluster import cluster
from topologies import expect

COUNTS = {"ours": 1_000_000, "items": 3_000, "batches": 1_000_000}
BATCH = 512


class Second:
    """Adds one, and sends each number to the actor of its key."""

    def __init__(self, sums: Sequence[Any]) -> None:
        self._sums = sums
        self._last: dict[int, Any] = {}

    def item(self, x: int) -> None:
        key = (x + 1) % KEYS
        self._last[key % 2] = self._sums[key % 2].item.remote(key, x + 1)

    def batch(self, numbers: list[int]) -> None:
        shares: list[list[tuple[int, int]]] = [[], []]
        for x in numbers:
            key = (x + 1) % KEYS
            shares[key % 2].append((key, x + 1))
        for place, share in enumerate(shares):
            self._last[place] = self._sums[place].batch.remote(share)

    def finish(self) -> None:
        import ray

        ray.get(list(self._last.values()))


class Third:
    """Adds up the numbers of each key."""

    def __init__(self) -> None:
        self._totals: Counter[int] = Counter()

    def item(self, key: int, number: int) -> None:
        self._totals[key] += number

    def batch(self, pairs: list[tuple[int, int]]) -> None:
        for key, number in pairs:
            self._totals[key] += number

    def totals(self) -> dict[int, int]:
        return dict(self._totals)


Run = Callable[[], dict[int, int]]


@contextmanager
def by_hand(count: int, size: int) -> Iterator[Run]:
    """Plain actors that are ready for so many numbers, ``size`` of them in a call."""
    import ray

    sums = [ray.remote(Third).options(num_cpus=0).remote() for _ in range(2)]
    second = ray.remote(Second).options(num_cpus=0).remote(sums)
    ray.get([second.finish.remote(), *(each.totals.remote() for each in sums)])

    def run() -> dict[int, int]:
        for start in range(0, count, size):
            if size == 1:
                second.item.remote(start)
            else:
                second.batch.remote(list(range(start, min(start + size, count))))
        ray.get(second.finish.remote())
        first, other = ray.get([each.totals.remote() for each in sums])
        return dict(first | other)

    yield run
    for actor in (second, *sums):
        ray.kill(actor)


@contextmanager
def ours(count: int) -> Iterator[Run]:
    """Start the job, whose source waits until it is to begin."""
    import ray

    from sage_qd.runtime import RemoteEnvironment

    with tempfile.TemporaryDirectory() as folder:
        begin = Path(folder, "begin")

        def numbers() -> range:
            while not begin.exists():
                time.sleep(0.001)
            return range(count)

        env = RemoteEnvironment("bench")
        keyed = env.from_source(numbers).map(lambda x: x + 1).keyby(lambda x: x % KEYS)
        sums = keyed.sum(at_end=True, parallelism=2).collect()
        dispatcher = env.submit()
        ray.get([task.actor.figures.remote() for task in dispatcher.tasks.values()])

        def run() -> dict[int, int]:
            begin.touch()
            dispatcher.wait()
            return dict(sums.items)

        yield run


def measured(rounds: int) -> dict[str, list[float]]:
    """Items a second of each way, and the seconds until its actors were ready, ``rounds`` times, in turn."""
    ways: dict[str, Callable[[], AbstractContextManager[Run]]] = {
        "ours": lambda: ours(COUNTS["ours"]),
        "items": lambda: by_hand(COUNTS["items"], 1),
        "batches": lambda: by_hand(COUNTS["batches"], BATCH),
    }
    rows: dict[str, list[float]] = {}
    for _ in range(rounds):
        for name, start in ways.items():
            began = time.perf_counter()
            with start() as run:
                ready = time.perf_counter()
                found = run()
                seconds = time.perf_counter() - ready
            expect(found == sums_of(COUNTS[name]), f"{name}: other sums: {found}")
            rows.setdefault(name, []).append(COUNTS[name] / seconds)
            rows.setdefault(f"{name}, start", []).append(ready - began)
    return rows


def main() -> None:
    """Start a cluster, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print every figure, as one line of JSON")
    parser.add_argument("--rounds", type=int, default=1, help="how often each row is measured")
    options = parser.parse_args()
    with cluster(nodes=1):
        import dataflow
        import ray

        ray.cloudpickle.register_pickle_by_value(dataflow)  # the workers cannot import it
        rows = measured(options.rounds)
    if options.json:
        print(json.dumps(rows))
        return
    for name, values in rows.items():
        print(f"{name:16} {median(values):12,.1f} {'s' if name.endswith('start') else 'items/s'}")


if __name__ == "__main__":
    main()
