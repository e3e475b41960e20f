"""The timed bodies: what each process of a row does, and how a row's figure comes out of what they report.

A topology is a few roles, one process each. A role says which ends it opens and what it does when told to run a job.
Times are CLOCK_MONOTONIC nanoseconds, which all processes of a machine share, so the start is taken where the first item
is put and the end where the last one was got. Results are checked after the clock has stopped.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import cycle, islice, repeat
from statistics import median
from typing import Any

from peers import End, Shape

CYCLE = 127  # a prime: every 1000th item has a different place in the cycle, so one lost item shows at the next sample
STRIDE = 1000  # in timed runs the receiver keeps each so-manieth item; a run for checking keeps all
BATCH = 100
STOP = b"\xff" * 16

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
    """Roles, the figure they yield, and how a run is sized (`unit` items at a time, at least `least`, at most `most`)."""

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


# -- one to one --------------------------------------------------------------------------------------------------------


def stream(item_bytes: int = 64) -> Topology:
    """One process puts item by item, another gets item by item."""

    def send(ends: Sequence[End], job: Job) -> Outcome:
        items = islice(cycle(payloads(item_bytes)), job.count)
        began = now()
        ends[0].send(items)
        return {"began": began}

    def receive(ends: Sequence[End], job: Job) -> Outcome:
        kept = ends[0].receive(job.count, job.every)
        ended = now()
        expect(len(kept) == job.count // job.every, "too few items")
        check_items(kept, job.every, item_bytes)
        return {"ended": ended}

    return Topology("spsc", (Role(((0, "sender", 0),), send), Role(((0, "receiver", 0),), receive)), rate)


def batches(item_bytes: int = 64) -> Topology:
    """As `stream`, with ``put_many`` and ``get_many`` of `BATCH` items."""

    def send(ends: Sequence[End], job: Job) -> Outcome:
        endless, put_many = cycle(payloads(item_bytes)), ends[0].put_many
        lists = [list(islice(endless, BATCH)) for _ in range(CYCLE)]
        turns = islice(cycle(lists), job.count // BATCH)
        began = now()
        for items in turns:
            put_many(items)
        return {"began": began}

    def receive(ends: Sequence[End], job: Job) -> Outcome:
        get_many, got, lasts, all_items = ends[0].get_many, 0, [], []
        while got < job.count:
            items = get_many(BATCH)
            got += len(items)
            lasts.append((got, items[-1]))
            if job.check:
                all_items.extend(items)
        ended = now()
        expect(got == job.count, f"{got} items instead of {job.count}")
        for position, item in lasts:
            expect(item == payloads(item_bytes)[(position - 1) % CYCLE], f"item {position - 1} is a different one")
        check_items(all_items, 1, item_bytes)
        return {"ended": ended}

    return Topology("spsc", (Role(((0, "sender", 0),), send), Role(((0, "receiver", 0),), receive)), rate)


def small_objects() -> list[tuple[str, int, dict[str, object]]]:
    """The small tuples with a dict that the pickled rows send."""
    return [("job", place, {"name": "frame", "ratio": place / 7, "last": False}) for place in range(CYCLE)]


def check_objects(kept: Sequence[Any], every: int) -> None:
    """Every kept object must equal the one put at its place."""
    values = small_objects()
    for at, value in enumerate(kept):
        place = ((at + 1) * every - 1) % CYCLE
        expect(value == values[place], f"object {(at + 1) * every - 1} arrived as {value!r}")


def objects() -> Topology:
    """One to one with a small tuple that holds a dict, pickled by the queue or, where it only takes bytes, around it."""

    def send(ends: Sequence[End], job: Job) -> Outcome:
        values = islice(cycle(small_objects()), job.count)
        began = now()
        ends[0].send_objects(values)
        return {"began": began}

    def receive(ends: Sequence[End], job: Job) -> Outcome:
        kept = ends[0].receive_objects(job.count, job.every)
        ended = now()
        check_objects(kept, job.every)
        return {"ended": ended}

    return Topology("spsc", (Role(((0, "sender", 0),), send), Role(((0, "receiver", 0),), receive)), rate)


def object_batches() -> Topology:
    """As `objects`, `BATCH` at a time; only for queues that pickle by themselves."""

    def send(ends: Sequence[End], job: Job) -> Outcome:
        endless, put_many = cycle(small_objects()), ends[0].put_many
        lists = [list(islice(endless, BATCH)) for _ in range(CYCLE)]
        began = now()
        for values in islice(cycle(lists), job.count // BATCH):
            put_many(values)
        return {"began": began}

    def receive(ends: Sequence[End], job: Job) -> Outcome:
        get_many, got, lasts = ends[0].get_many, 0, []
        while got < job.count:
            values = get_many(1 if job.check else BATCH)
            got += len(values)
            lasts.append((got, values[-1]))
        ended = now()
        expect(got == job.count, f"{got} objects instead of {job.count}")
        for position, value in lasts:
            expect(value == small_objects_cached()[(position - 1) % CYCLE], f"object {position - 1} differs")
        return {"ended": ended}

    return Topology("spsc", (Role(((0, "sender", 0),), send), Role(((0, "receiver", 0),), receive)), rate)


small_objects_cached = lru_cache(maxsize=1)(small_objects)


# -- latency -----------------------------------------------------------------------------------------------------------


def round_trip() -> Topology:
    """Two queues, two processes: an item goes over and comes back before the next one starts."""

    def near(ends: Sequence[End], job: Job) -> Outcome:
        put, get, items, kept = ends[0].put, ends[1].get, islice(cycle(payloads(64)), job.count), []
        began = now()
        for item in items:
            put(item)
            back = get()
            if back is not item and back != item:
                kept.append((item, back))
        ended = now()
        expect(not kept, f"{len(kept)} items came back changed")
        return {"began": began, "ended": ended}

    def far(ends: Sequence[End], job: Job) -> Outcome:
        get, put = ends[0].get, ends[1].put
        for _ in repeat(None, job.count):
            put(get())
        return {}

    def figure(job: Job, outcomes: Sequence[Outcome], shape: Shape) -> dict[str, float]:
        return {"value": (outcomes[0]["ended"] - outcomes[0]["began"]) / job.count / 1e3}

    return Topology(
        "pingpong",
        (
            Role(((0, "sender", 0), (1, "receiver", 0)), near),
            Role(((0, "receiver", 0), (1, "sender", 0)), far),
        ),
        figure,
        channels=2,
        unit=100,
        least=100,
        most=200_000,
    )


def wake(idle_seconds: float = 0.001) -> Topology:
    """One way to a receiver that has been asleep: the item carries the moment just before it was put."""

    def send(ends: Sequence[End], job: Job) -> Outcome:
        put, sleep, rest = ends[0].put, time.sleep, bytes(56)
        for _ in repeat(None, job.count):
            sleep(idle_seconds)
            put(now().to_bytes(8, "little") + rest)
        return {}

    def receive(ends: Sequence[End], job: Job) -> Outcome:
        get, seen = ends[0].get, []
        for _ in repeat(None, job.count):
            item = get()
            seen.append((now(), item))
        delays = [at - int.from_bytes(item[:8], "little") for at, item in seen]
        expect(all(len(item) == 64 for _, item in seen), "an item has another length")
        expect(min(delays) > 0, "an item arrived before it was sent")
        return {"delays": delays}

    def figure(job: Job, outcomes: Sequence[Outcome], shape: Shape) -> dict[str, float]:
        delays = sorted(outcomes[1]["delays"])
        return {"value": median(delays) / 1e3, "p99": delays[int(len(delays) * 0.99)] / 1e3}

    return Topology(
        "spsc", (Role(((0, "sender", 0),), send), Role(((0, "receiver", 0),), receive)), figure, unit=300, least=300, most=300
    )


# -- many to many ------------------------------------------------------------------------------------------------------


def crowd(parties: int) -> Topology:
    """
    ``parties`` processes put and as many get, on one queue; each producer's order is checked in full, every run.

    Every producer ends with one mark for each consumer, and a consumer leaves after as many marks as there are
    producers, no matter whose. When the last mark is taken, every producer's marks have been, so its items before them
    have been too: nothing can be left behind, and nobody waits for ever.
    """

    def send(index: int) -> Callable[[Sequence[End], Job], Outcome]:
        def work(ends: Sequence[End], job: Job) -> Outcome:
            owner, rest = index.to_bytes(8, "little"), bytes(48)
            items = [owner + number.to_bytes(8, "little") + rest for number in range(job.count // parties)]
            began = now()
            ends[0].send(items)
            ends[0].stop(STOP, parties)
            return {"began": began}

        return work

    def receive(ends: Sequence[End], job: Job) -> Outcome:
        get, kept, left = ends[0].get, [], parties
        keep = kept.append
        while True:
            item = get()
            if len(item) == len(STOP):
                ended, left = now(), left - 1
                if not left:
                    break
            else:
                keep(item)
        return {"ended": ended, "seen": by_producer(kept, parties)}

    def figure(job: Job, outcomes: Sequence[Outcome], shape: Shape) -> dict[str, float]:
        share = job.count // parties
        for producer in range(parties):
            totals = [sum(one["seen"][producer][at] for one in outcomes if "seen" in one) for at in range(3)]
            whole = (share, share * (share - 1) // 2, (share - 1) * share * (2 * share - 1) // 6)
            expect(tuple(totals) == whole, f"producer {producer}: {totals[0]} of {share} items, or others than were put")
        return rate(job, outcomes, shape)

    senders = tuple(Role(((0, "sender", index),), send(index)) for index in range(parties))
    receivers = tuple(Role(((0, "receiver", index),), receive) for index in range(parties))
    return Topology("mpmc", senders + receivers, figure, unit=parties * 100, least=parties * 100, most=1_000_000)


def by_producer(items: Sequence[bytes], producers: int) -> list[tuple[int, int, int]]:
    """Count, sum and sum of squares of each producer's numbers; raises when one producer's items are out of order."""
    counts, sums, squares, lasts = ([0] * producers for _ in range(4))
    lasts = [-1] * producers
    for item in items:
        producer, number = int.from_bytes(item[:8], "little"), int.from_bytes(item[8:16], "little")
        expect(number > lasts[producer], f"producer {producer}: item {number} came after {lasts[producer]}")
        lasts[producer] = number
        counts[producer] += 1
        sums[producer] += number
        squares[producer] += number * number
    return list(zip(counts, sums, squares, strict=True))


# -- large items -------------------------------------------------------------------------------------------------------


def gigabytes(job: Job, outcomes: Sequence[Outcome], shape: Shape) -> dict[str, float]:
    """Gigabytes a second between the first put and the last get."""
    return {"value": rate(job, outcomes, shape)["value"] * shape.item_bytes / 1e3}


def large_bytes() -> Topology:
    """`stream` with items of a megabyte; the rate in gigabytes."""
    made = stream(1 << 20)

    def send(ends: Sequence[End], job: Job) -> Outcome:
        items = islice(cycle(large_payloads()), job.count)
        began = now()
        ends[0].send(items)
        return {"began": began}

    def receive(ends: Sequence[End], job: Job) -> Outcome:
        get, kept = ends[0].get, []
        for _ in repeat(None, job.count):
            item = get()
            kept.append((item[:8], item[-8:], len(item)))
            if job.check:
                expect(item == large_payloads()[(len(kept) - 1) % LARGE], f"item {len(kept) - 1} is damaged")
        ended = now()
        check_large(kept)
        return {"ended": ended}

    sender, receiver = (Role(role.opens, work) for role, work in zip(made.roles, (send, receive), strict=True))
    return Topology("spsc", (sender, receiver), gigabytes, unit=10, least=10, most=20_000)


LARGE = 3


@lru_cache(maxsize=1)
def large_payloads() -> list[bytes]:
    """Three different megabytes, each marked at both ends."""
    return [
        place.to_bytes(8, "little") + bytes(range(place, place + 64)) * ((1 << 14) - 1) + bytes(48) + place.to_bytes(8, "big")
        for place in range(LARGE)
    ]


def check_large(kept: Sequence[tuple[bytes, bytes, int]]) -> None:
    """Both marks and the length of every large item."""
    for at, (front, back, length) in enumerate(kept):
        place = at % LARGE
        whole = (place.to_bytes(8, "little"), place.to_bytes(8, "big"), 1 << 20)
        expect((front, back, length) == whole, f"item {at} is a different one")


def large_get() -> Topology:
    """In one process: a megabyte is put untimed, then ``get`` alone is timed. Gigabytes a second of that copy."""

    def work(ends: Sequence[End], job: Job) -> Outcome:
        put, get, spent, kept = ends[0].put, ends[0].get, 0, []
        for item in islice(cycle(large_payloads()), job.count):
            put(item)
            before = now()
            back = get()
            spent += now() - before
            kept.append((back[:8], back[-8:], len(back)))
            if job.check:
                expect(back == item, "an item is damaged")
            del back
        check_large(kept)
        return {"began": 0, "ended": spent}

    return Topology("seq", (Role(((0, "both", 0),), work),), gigabytes, unit=10, least=10, most=20_000)


def arrays(view: bool) -> Topology:
    """float64 arrays one to one; the receiver ends with an array of its own, or looks at the queue's memory (view)."""

    def send(ends: Sequence[End], job: Job) -> Outcome:
        put_array, turns = ends[0].put_array, islice(cycle(ends[0].arrays), job.count)
        began = now()
        for array in turns:
            put_array(array)
        return {"began": began}

    def receive(ends: Sequence[End], job: Job) -> Outcome:
        end, kept = ends[0], []

        def check(found: Any) -> None:
            kept.append((float(found[0]), float(found[-1]), found.size))
            if job.check:
                expected = end.arrays[(len(kept) - 1) % LARGE]
                expect(found[0] == expected[0], f"array {len(kept) - 1} is a different one")
                expect((found == expected).all(), f"array {len(kept) - 1} is damaged")

        if view:
            for _ in repeat(None, job.count):
                end.look(check)
        else:
            for _ in repeat(None, job.count):
                own = end.get_array()
                check(own)
        ended = now()
        marks = [(float(array[0]), float(array[-1]), array.size) for array in end.arrays]
        expect(kept == list(islice(cycle(marks), job.count)), "an array is missing, double or out of order")
        return {"ended": ended}

    roles = (Role(((0, "sender", 0),), send), Role(((0, "receiver", 0),), receive))
    return Topology("spsc", roles, gigabytes, unit=6, least=6, most=20_000)


def add_arrays(end: End, shape: Shape) -> None:
    """Give an end the arrays its role sends or expects; made before any clock starts, never changed after."""
    numpy = importlib.import_module("numpy")
    draw = numpy.random.default_rng(7)
    end.arrays = [draw.random(shape.item_bytes // 8) for _ in range(LARGE)]


def plain_memcpy() -> Topology:
    """No queue: copies between two warm buffers, the bound of everything that copies once."""

    def work(ends: Sequence[End], job: Job) -> Outcome:
        return {"began": 0, "ended": int(ends[0].get(job.count) * 1e9)}

    return Topology("seq", (Role(((0, "both", 0),), work),), gigabytes, unit=10, least=10, most=20_000)


# -- one process -------------------------------------------------------------------------------------------------------


def pair(item_bytes: int = 64) -> Topology:
    """One thread puts and gets in turn: the price of the two calls without any contention."""

    def work(ends: Sequence[End], job: Job) -> Outcome:
        put, get, items = ends[0].put, ends[0].get, islice(cycle(payloads(item_bytes)), job.count)
        if job.check:
            for number, item in enumerate(items):
                put(item)
                expect(get() == item, f"item {number} came back changed")
        began = now()
        for item in items:
            put(item)
            back = get()
        ended = now()
        expect(job.check or back == payloads(item_bytes)[(job.count - 1) % CYCLE], "the last item is a different one")
        return {"began": began, "ended": max(ended, began + 1)}

    return Topology("seq", (Role(((0, "both", 0),), work),), nanoseconds_each, most=2_000_000)


def nanoseconds_each(job: Job, outcomes: Sequence[Outcome], shape: Shape) -> dict[str, float]:
    """Nanoseconds per item."""
    return {"value": (outcomes[0]["ended"] - outcomes[0]["began"]) / job.count}


def idle(seconds: float) -> Topology:
    """A receiver blocked on an empty queue; the CPU time of its whole process, in milliseconds."""

    def send(ends: Sequence[End], job: Job) -> Outcome:
        time.sleep(seconds)
        ends[0].put(payloads(64)[0])
        return {}

    def receive(ends: Sequence[End], job: Job) -> Outcome:
        before = time.process_time_ns()
        item = ends[0].get()
        spent = time.process_time_ns() - before
        expect(item == payloads(64)[0], "the item that ends the wait is a different one")
        return {"spent": spent}

    def figure(job: Job, outcomes: Sequence[Outcome], shape: Shape) -> dict[str, float]:
        return {"value": outcomes[1]["spent"] / 1e6}

    return Topology("spsc", (Role(((0, "sender", 0),), send), Role(((0, "receiver", 0),), receive)), figure)


def solo(body: Callable[[Any, int], list[int]], per: float) -> Topology:
    """A body of its own: ``body(end, count)`` returns nanoseconds of each turn; the figure is their median over ``per``."""

    def work(ends: Sequence[End], job: Job) -> Outcome:
        return {"spent": body(ends[0], job.count)}

    def figure(job: Job, outcomes: Sequence[Outcome], shape: Shape) -> dict[str, float]:
        return {"value": median(outcomes[0]["spent"]) / per}

    return Topology("seq", (Role(((0, "both", 0),), work),), figure, unit=10, least=10, most=200)
