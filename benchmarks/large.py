"""Items of a megabyte and more: bytes, and float64 arrays with a copy or a view for the receiver."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from functools import lru_cache
from itertools import cycle, islice, repeat
from typing import Any

from channels import End, Shape
from topologies import Job, Outcome, Role, Topology, expect, gigabytes, now

LARGE = 3


def large_bytes() -> Topology:
    """One process puts megabytes, another gets them, both at the same time; gigabytes a second."""

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

    roles = (Role(((0, "sender", 0),), send), Role(((0, "receiver", 0),), receive))
    return Topology("spsc", roles, gigabytes, unit=10, least=10, most=20_000)


@lru_cache(maxsize=1)
def large_payloads() -> list[bytes]:
    """Three different megabytes, each marked at both ends."""
    return [
        place.to_bytes(8, "little")
        + bytes(range(place, place + 64)) * ((1 << 14) - 1)
        + bytes(48)
        + place.to_bytes(8, "big")
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
