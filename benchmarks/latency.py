"""Single items: a put and a get in one thread, a round trip, and the way to a receiver that sleeps."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import cycle, islice, repeat
from statistics import median

from channels import End, Shape
from topologies import CYCLE, Job, Outcome, Role, Topology, expect, nanoseconds_each, now, payloads


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
        "spsc",
        (Role(((0, "sender", 0),), send), Role(((0, "receiver", 0),), receive)),
        figure,
        unit=300,
        least=300,
        most=300,
    )
