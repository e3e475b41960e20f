"""The rows that are not about moving items: making and attaching rings, and a thousand of them in one process."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable, Sequence
from itertools import repeat
from statistics import median
from typing import Any

from arena import CONTENDERS, Arena, Measured
from channels import Channel, End, OneEnded, Shape
from crew import Crew, CrewError
from ours import SageRing
from references import Floor, bare_ring
from topologies import Job, Outcome, Role, Topology, expect, nanoseconds_each, now, payloads

MANY = 1000
MANY_CAPACITY_BYTES = 1 << 16
VISIT = 100  # pairs on one ring before going to the next


# -- create and attach -------------------------------------------------------------------------------------------------


class RingMaker(SageRing):
    """Creates and attaches rings by name at the row's capacity."""

    def both(self) -> End:
        ring = self.ring_module()
        namespace = f"bench-{os.getpid()}"
        kept = ring.create("kept", namespace=namespace, capacity_bytes=self.shape.capacity_bytes)
        return End(
            put=lambda number: ring.create(f"r{number}", namespace=namespace, capacity_bytes=self.shape.capacity_bytes),
            get=lambda: ring.attach("kept", namespace=namespace),
            close=kept.close,
        )


class FloorMaker(OneEnded):
    """The same with the bare ring: open, size and map a file."""

    name = "floor"
    missing = Floor.missing

    def both(self) -> End:
        kind, capacity, kept = bare_ring().Ring, self.shape.capacity_bytes, str(self.folder / "kept")
        held = kind(kept, capacity)
        return End(
            put=lambda number: kind(str(self.folder / str(number)), capacity), get=lambda: kind(kept), holds=[held]
        )


def creations() -> Topology:
    """Microseconds to create one ring; closing it is not timed."""

    def body(end: End, count: int) -> list[int]:
        spent = []
        for number in repeat_numbers(count):
            before = now()
            made = end.put(number)
            spent.append(now() - before)
            close(made)
        return spent

    return solo(body, 1e3)


def attachments() -> Topology:
    """Microseconds to attach to a ring that exists; closing the handle is not timed."""

    def body(end: End, count: int) -> list[int]:
        spent = []
        for _ in repeat(None, count):
            before = now()
            opened = end.get()
            spent.append(now() - before)
            close(opened)
        return spent

    return solo(body, 1e3)


numbers = iter(range(1 << 62))


def repeat_numbers(count: int) -> list[int]:
    """As many numbers as asked, never the same twice in a process: each ring gets a new name."""
    return [next(numbers) for _ in range(count)]


def close_all(rings: list[Any]) -> None:
    """Close all rings."""
    for ring in rings:
        close(ring)


def close(made: Any) -> None:
    """Close a ring that has ``close``; the bare one is closed by being forgotten."""
    if hasattr(made, "close"):
        made.close()


# -- a thousand rings --------------------------------------------------------------------------------------------------


class ManyRings(SageRing):
    """A thousand open rings in one process; an end of it works on the middle one, and holds all."""

    count = MANY

    def __init__(self, folder: Any, shape: Any) -> None:
        Channel.__init__(self, folder, shape)

    def make(self, number: int) -> Any:
        """One more ring."""
        return self.ring_module().create(path=self.folder / str(number), capacity_bytes=MANY_CAPACITY_BYTES)

    def both(self) -> End:
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        before = resident_bytes()
        rings = [self.make(number) for number in range(self.count)]
        for ring in rings:
            ring.put(payloads(64)[0])
            expect(ring.get() == payloads(64)[0], "a ring returned a different item")
        grown = resident_bytes() - before
        middle = rings[len(rings) // 2]
        end = End(put=middle.put, get=middle.get, close=lambda: close_all(rings), holds=rings)
        end.resident_bytes = grown / len(rings)
        return end


class OneRing(ManyRings):
    """The same with one ring: what the thousand are compared with."""

    count = 1


class ManyFloors(ManyRings):
    """A thousand bare rings."""

    name = "floor"
    missing = Floor.missing

    def make(self, number: int) -> Any:
        return bare_ring().Ring(str(self.folder / str(number)), MANY_CAPACITY_BYTES)


def visits(pairs: int) -> Topology:
    """Nanoseconds of a put and a get, going from ring to ring after ``pairs`` of them."""

    def work(ends: Sequence[End], job: Job) -> Outcome:
        ways = [(ring.put, ring.get) for ring in ends[0].holds]
        item = payloads(64)[0]
        left = max(1, job.count // (len(ways) * pairs))
        began = now()
        for _ in repeat(None, left):
            for put, get in ways:
                for _ in repeat(None, pairs):
                    put(item)
                    back = get()
        ended = now()
        expect(back == item, "the last item is a different one")
        return {"began": began, "ended": began + (ended - began) * job.count / (left * len(ways) * pairs)}

    unit = MANY * pairs
    return Topology("seq", (Role(((0, "both", 0),), work),), nanoseconds_each, unit=unit, least=unit, most=2_000_000)


def memory() -> Topology:
    """KiB of resident memory that opening a ring and one put and get added to the process, per ring."""

    def work(ends: Sequence[End], job: Job) -> Outcome:
        return {"resident": ends[0].resident_bytes}

    def figure(job: Job, outcomes: Sequence[Outcome], shape: Any) -> dict[str, float]:
        return {"value": outcomes[0]["resident"] / 1024}

    return Topology("seq", (Role(((0, "both", 0),), work),), figure, unit=1, least=1, most=1)


def resident_bytes() -> int:
    """Resident memory of this process, shared pages included."""
    with open("/proc/self/statm") as figures:
        return int(figures.read().split()[1]) * resource.getpagesize()


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
    """``body(end, count)`` returns the nanoseconds of each turn; the figure is their median, divided by ``per``."""

    def work(ends: Sequence[End], job: Job) -> Outcome:
        return {"spent": body(ends[0], job.count)}

    def figure(job: Job, outcomes: Sequence[Outcome], shape: Shape) -> dict[str, float]:
        return {"value": median(outcomes[0]["spent"]) / per}

    return Topology("seq", (Role(((0, "both", 0),), work),), figure, unit=10, least=10, most=200)


# -- references --------------------------------------------------------------------------------------------------------


class PlainCopy(OneEnded):
    """No queue at all: two buffers of an item's size, copied with the C library's memcpy."""

    name = "memcpy"
    missing = Floor.missing

    def both(self) -> End:
        copy, target = bare_ring().memcpy_seconds, bytearray(self.shape.item_bytes)
        source = bytes(range(256)) * (self.shape.item_bytes // 256)
        copy(target, source, 1)
        expect(target == source, "the copy differs")
        return End(get=lambda times: copy(target, source, times))


# -- idle --------------------------------------------------------------------------------------------------------------

IDLE_SECONDS = 5.0
IDLE_NAMES = ("sage-qd", "floor", "cloudtoid", "pyzmq ipc", "multiprocessing.Queue")


def idle_consumers(arena: Arena) -> list[Measured]:
    """All contenders at the same time, `REPETITIONS` processes each, since a sleeper does not disturb the others."""
    measured = [Measured(name) for name in IDLE_NAMES]
    crews: list[tuple[Measured, Crew]] = []
    try:
        for one in measured:
            kind = CONTENDERS[one.name]
            one.problem = kind.missing()
            for _ in range(0 if one.problem else arena.repetitions):
                try:
                    crews.append((one, Crew(kind, idle(IDLE_SECONDS), Shape(), arena.new_folder())))
                except CrewError as failure:
                    one.problem = str(failure)
        for _, crew in crews:
            crew.begin(Job(1))
        for one, crew in crews:
            try:
                one.add(crew.finish(Job(1)))
            except CrewError as failure:
                one.problem = str(failure)
    finally:
        for _, crew in crews:
            crew.close()
    return measured
