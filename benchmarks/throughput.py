"""Streams of small items: one to one, in batches, as objects, and many to many."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import cycle, islice
from typing import Any

from channels import End, Shape
from topologies import CYCLE, Job, Outcome, Role, Topology, check_items, expect, now, payloads, rate

BATCH = 100
STOP = b"\xff" * 16


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
    """One to one with a small tuple that holds a dict, pickled by the queue or around a queue that only takes bytes."""

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
        get, left = ends[0].get, parties
        kept: list[bytes] = []
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
            expect(
                tuple(totals) == whole, f"producer {producer}: {totals[0]} of {share} items, or others than were put"
            )
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
