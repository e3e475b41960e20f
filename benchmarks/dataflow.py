"""
The same two programs on the runtime and on others: sums by key over integers, and words of a text.

*Items* are those of the source; each goes through two steps and a reduction by key. The programs by hand are what one
writes with `multiprocessing.Queue`: a process for each step, one item per put, a marker at the end.
"""

from __future__ import annotations

import importlib
import importlib.util
import multiprocessing
import time
from collections import Counter
from collections.abc import Callable, Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

from arena import Measured, take_turns
from programs import ray_figures
from topologies import expect

ROUNDS = 5
KEYS = 10
TEXT = Path(__file__).parents[1] / "packages" / "sage-sim" / "src" / "sage_sim"
FORK = multiprocessing.get_context("fork")


def sums_of(count: int) -> dict[int, int]:
    """What the integer program must find."""
    return {key: sum(x for x in range(1, count + 1) if x % KEYS == key) for key in range(KEYS)}


@lru_cache(maxsize=2)
def words(times: int) -> list[str]:
    """The lines of the text that `sage-sim run pipeline` counts, so many times."""
    [text] = [path for path in TEXT.rglob("*.txt") if path.stat().st_size > 10_000]
    return text.read_text(encoding="utf-8").splitlines() * times


def counts_of(times: int) -> dict[str, int]:
    """What the program of words must find."""
    return dict(Counter(word for line in words(times) for word in line.split()))


# -- The runtime -------------------------------------------------------------------------------------------------------


def ours_sums(kind: str, count: int, **settings: Any) -> dict[int, int]:
    runtime = importlib.import_module("sage_qd.runtime")
    env = getattr(runtime, kind)("bench", **settings)
    sums = (
        env.from_collection(range(count)).map(lambda x: x + 1).keyby(lambda x: x % KEYS).sum(at_end=True, parallelism=2)
    ).collect()
    env.execute(timeout=300)
    return dict(sums.items)


def ours_words(kind: str, times: int) -> dict[str, int]:
    runtime = importlib.import_module("sage_qd.runtime")
    env = getattr(runtime, kind)("bench")
    counts = (
        env.from_collection(words(times))
        .flatmap(str.split)
        .keyby(lambda word: word)
        .count(at_end=True, parallelism=2)
        .collect()
    )
    env.execute(timeout=300)
    return dict(counts.items)


# -- By hand -----------------------------------------------------------------------------------------------------------


def by_hand_sums(count: int) -> dict[int, int]:
    numbers, keyed, results = FORK.Queue(1000), [FORK.Queue(1000) for _ in range(2)], FORK.Queue()

    def first() -> None:
        for x in range(count):
            numbers.put(x)
        numbers.put(None)

    def second() -> None:
        while (x := numbers.get()) is not None:
            key = (x + 1) % KEYS
            keyed[key % 2].put((key, x + 1))
        for queue in keyed:
            queue.put(None)

    def third(queue: Any) -> None:
        totals: Counter[int] = Counter()
        while (pair := queue.get()) is not None:
            totals[pair[0]] += pair[1]
        results.put(dict(totals))

    return joined([first, second, lambda: third(keyed[0]), lambda: third(keyed[1])], results)


def by_hand_words(times: int) -> dict[str, int]:
    lines, pairs, results = FORK.Queue(1000), [FORK.Queue(1000) for _ in range(2)], FORK.Queue()

    def first() -> None:
        for line in words(times):
            lines.put(line)
        lines.put(None)

    def second() -> None:
        while (line := lines.get()) is not None:
            for word in line.split():
                pairs[len(word) % 2].put((word, 1))
        for queue in pairs:
            queue.put(None)

    def third(queue: Any) -> None:
        totals: Counter[str] = Counter()
        while (pair := queue.get()) is not None:
            totals[pair[0]] += 1
        results.put(dict(totals))

    return joined([first, second, lambda: third(pairs[0]), lambda: third(pairs[1])], results)


def joined(steps: list[Callable[[], None]], results: Any) -> dict[Any, int]:
    """Run each step in a process; what the last two found."""
    processes = [FORK.Process(target=step) for step in steps]
    for process in processes:
        process.start()
    found = results.get() | results.get()
    for process in processes:
        process.join()
    return dict(found)


# -- Other libraries ---------------------------------------------------------------------------------------------------


def streamz_sums(count: int) -> dict[int, int]:
    totals: Counter[int] = Counter()

    def add(pair: tuple[int, int]) -> None:
        totals[pair[0]] += pair[1]

    source = importlib.import_module("streamz").Stream()
    source.map(lambda x: x + 1).map(lambda x: (x % KEYS, x)).sink(add)
    for x in range(count):
        source.emit(x)
    return dict(totals)


def bytewax_sums(count: int) -> dict[int, int]:
    operators = importlib.import_module("bytewax.operators")
    testing = importlib.import_module("bytewax.testing")
    flow = importlib.import_module("bytewax.dataflow").Dataflow("bench")
    found: list[Any] = []
    numbers = operators.input("numbers", flow, testing.TestingSource(range(count), batch_size=512))
    keyed = operators.key_on("key", operators.map("map", numbers, lambda x: x + 1), lambda x: str(x % KEYS))
    sums = operators.fold_final("sum", keyed, lambda: 0, lambda total, x: total + x)
    operators.output("out", sums, testing.TestingSink(found))
    testing.run_main(flow)
    return {int(key): total for key, total in found}


def timed(
    program: Callable[[], dict[Any, int]], expected: dict[Any, int], items: int
) -> Callable[[], dict[str, float]]:
    """Thousands of items a second, from the first line of the program to its last."""

    def once() -> dict[str, float]:
        started = time.perf_counter()
        found = program()
        seconds = time.perf_counter() - started
        expect(found == expected, f"other sums: {dict(list(found.items())[:3])}")
        return {"value": items / seconds / 1e3}

    return once


def installed(name: str) -> bool:
    """Whether a peer is there."""
    return importlib.util.find_spec(name) is not None


def in_turn(contenders: dict[str, Callable[[], dict[str, float]]], missing: Iterable[str]) -> list[Measured]:
    """Measure, with the peers that are not there in the table too."""
    return [*take_turns(contenders, ROUNDS), *(Measured(name, problem="not installed") for name in missing)]


def integer_pipeline() -> list[Measured]:
    """Thousands of integers a second through source, map, keyby and two sums."""
    large, small = 1_000_000, 60_000
    ways = {
        "sage-qd, processes": timed(lambda: ours_sums("ProcessEnvironment", large), sums_of(large), large),
        "sage-qd, processes, exactly once": timed(
            lambda: ours_sums("ProcessEnvironment", large, delivery="exactly_once"), sums_of(large), large
        ),
        "sage-qd, threads": timed(lambda: ours_sums("LocalEnvironment", large // 2), sums_of(large // 2), large // 2),
        "multiprocessing.Queue by hand": timed(lambda: by_hand_sums(small), sums_of(small), small),
    }
    peers = {"bytewax": (bytewax_sums, large // 2), "streamz": (streamz_sums, large // 10)}
    for name, (program, count) in peers.items():
        if installed(name):
            ways[name] = timed(lambda program=program, count=count: program(count), sums_of(count), count)
    return in_turn(ways, [name for name in peers if name not in ways])


def word_count() -> list[Measured]:
    """Thousands of words a second of a real text."""
    large, small = 1800, 30
    expected = {times: counts_of(times) for times in (large, small)}
    many, few = (sum(expected[times].values()) for times in (large, small))
    ways = {
        "sage-qd, processes": timed(lambda: ours_words("ProcessEnvironment", large), expected[large], many),
        "sage-qd, threads": timed(lambda: ours_words("LocalEnvironment", large), expected[large], many),
        "multiprocessing.Queue by hand": timed(lambda: by_hand_words(small), expected[small], few),
    }
    return in_turn(ways, [])


def on_ray() -> list[Measured]:
    """Thousands of integers a second where every step is an actor of Ray; see ray_dataflow.py."""
    names = {
        "sage-qd, actors": "ours",
        "Ray actors by hand, one item a call": "items",
        "Ray actors by hand, 512 items a call": "batches",
    }
    return [ray_figures(name, key, 1e3, "ray_dataflow.py") for name, key in names.items()]


def start_up() -> list[Measured]:
    """Seconds to start, run and end a job of a hundred tasks and a handful of items."""

    def once(kind: str) -> dict[str, float]:
        env = getattr(importlib.import_module("sage_qd.runtime"), kind)("bench")
        items = env.from_collection(range(99)).map(lambda x: x, parallelism=99).collect()
        started = time.perf_counter()
        env.execute(timeout=300)
        seconds = time.perf_counter() - started
        expect(sorted(items.items) == list(range(99)), "items are missing")
        return {"value": seconds}

    return take_turns(
        {
            "sage-qd, processes": lambda: once("ProcessEnvironment"),
            "sage-qd, threads": lambda: once("LocalEnvironment"),
        },
        ROUNDS,
    )


def router_cost() -> list[Measured]:
    """Nanoseconds of the router for each packet, by key over four paths, in batches of 512."""
    runtime = importlib.import_module("sage_qd.runtime")
    package = importlib.import_module("sage_qd")
    batch, turns = 512, 200

    def once() -> dict[str, float]:
        targets = [package.LocalQueueDescriptor(f"router-{time.monotonic_ns()}-{place}") for place in range(4)]
        router = runtime.BaseRouter("bench")
        for place, target in enumerate(targets):
            router.add_connection(runtime.Connection(0, place, "t", None, 0, target_queue_descriptor=target), "hash")
        payloads, keys = list(range(batch)), [x % 97 for x in range(batch)]
        started = time.perf_counter_ns()
        for _ in range(turns):
            router.send(payloads, keys)
        router.flush()
        spent = time.perf_counter_ns() - started
        found = sum(len(message[2]) for target in targets for message in target.open().get_many(turns, timeout=0))
        for target in targets:
            target.close()
        expect(found > 0, "nothing was sent")
        return {"value": spent / turns / batch}

    return take_turns({"sage-qd router": once}, ROUNDS)
