"""
A model of a run: what a topology would do, worked out event by event without running it.

Every process is a small machine: it waits for an item, waits for a core, works, and waits for room. Cores are given to
those that can work in the order in which they could. What the work costs was measured (:mod:`sage_sim.calibration`);
a place in a queue is free again when the item was settled, as with a lease.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from sage_sim.load import moments
from sage_sim.plan import Plan
from sage_sim.topology import Edge


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What one message costs a process of processor time, in nanoseconds."""

    put_ns: float
    take_ns: float


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """
    What a run would show.

    Attributes:
        seconds: From the first item to the last.
        items: That came to an end.
        rate: Of them, per second.
        latency_ns: Of each of them, in no order.
        busy: Of each role: the share of the time that its processes worked.
        events: How many steps the model took.
    """

    seconds: float
    items: int
    rate: float
    latency_ns: tuple[int, ...]
    busy: dict[str, float]
    events: int


def forecast(plan: Plan, cost: Callable[[Edge], Cost], *, cores: int, room: Callable[[Edge], int]) -> Forecast:
    """
    Work out what a run would show.

    Args:
        plan: What it does; with a number of items, or a duration.
        cost: Of a message on an edge.
        cores: How many processes can work at a time.
        room: How many messages a queue of an edge holds.
    """
    return _Model(plan, cost, cores, room).run()


@dataclass(slots=True)
class _Queue:
    """Items that wait, with the room that is left, and who waits for either."""

    room: int
    items: deque[_Item] = field(default_factory=deque)
    takers: deque[tuple[_Process, int]] = field(default_factory=deque)
    putters: deque[_Process] = field(default_factory=deque)


@dataclass(slots=True)
class _Item:
    due: float
    origin: _Process


@dataclass(slots=True)
class _Process:
    """Where one process stands."""

    role: str
    takes: list[_Queue]
    ways: list[list[_Queue]]
    deals: bool
    source: _Source | None
    take_ns: float
    put_ns: list[float]
    turn: int = 0
    held: _Item | None = None
    held_from: _Queue | None = None
    to_put: deque[_Queue] = field(default_factory=deque)
    worked_ns: float = 0.0
    waits: bool = False
    listed: set[int] = field(default_factory=set)


@dataclass(slots=True)
class _Source:
    left: int
    due: list[float]
    window: int
    arrivals: int
    under_way: int = 0
    at: int = 0


class _Model:
    def __init__(self, plan: Plan, cost: Callable[[Edge], Cost], cores: int, room: Callable[[Edge], int]) -> None:
        topology = plan.topology
        self._queues = [_Queue(room=room(topology.edges[line.edge])) for line in topology.lines]
        self._now = 0.0
        self._free = cores
        self._ready: deque[_Process] = deque()
        self._events: list[tuple[float, int, _Process]] = []
        self._number = self._ended = self._steps = 0
        self._last = 0.0
        self._latency: list[int] = []
        self._processes: list[_Process] = []
        into: dict[tuple[int, int | None], list[int]] = {}
        out_of: dict[tuple[int, int | None], list[int]] = {}
        for at, line in enumerate(topology.lines):
            into.setdefault((line.edge, line.target), []).append(at)
            out_of.setdefault((line.edge, line.source), []).append(at)
        if any(edge.reply for edge in topology.edges):
            raise ValueError("the model knows no replies")
        for role in topology.roles:
            fed = [at for at, edge in enumerate(topology.edges) if edge.target == role.name]
            left = [at for at, edge in enumerate(topology.edges) if edge.source == role.name]
            for index in range(role.count):
                takes = [at for edge in fed for at in (*into.get((edge, None), ()), *into.get((edge, index), ()))]
                ways = [[*out_of.get((edge, None), ()), *out_of.get((edge, index), ())] for edge in left]
                self._processes.append(
                    _Process(
                        role=role.name,
                        takes=[self._queues[at] for at in takes],
                        ways=[[self._queues[at] for at in way] for way in ways],
                        deals=role.send == "deal",
                        source=None if fed else self._source(plan, role.name, index),
                        take_ns=max((cost(topology.edges[edge]).take_ns for edge in fed), default=0.0),
                        put_ns=[cost(topology.edges[edge]).put_ns for edge in left],
                        turn=index,
                    )
                )

    @staticmethod
    def _source(plan: Plan, role: str, index: int) -> _Source:
        origin = plan.origin_of(role, index)
        share = plan.share(origin)
        due: list[float] = []
        arrivals = plan.topology.arrivals(role)
        if plan.load.mode == "open":
            until = plan.duration_seconds
            for moment in moments(plan.load, seed=plan.seed, origin=origin, origins=plan.origins):
                if (until is not None and moment >= until) or (share is not None and len(due) >= share):
                    break
                due.append(moment * 1e9)
            return _Source(left=len(due), due=due, window=1 << 62, arrivals=arrivals)
        if share is None:
            raise ValueError("the model needs a number of items, or an open load")
        window = plan.load.window * arrivals if plan.load.mode == "closed" else 1 << 62
        return _Source(left=share, due=[], window=window, arrivals=arrivals)

    def run(self) -> Forecast:
        """Let everyone begin, and follow the events to the last."""
        for process in self._processes:
            self._next(process)
        while self._events:
            self._now, _, process = heapq.heappop(self._events)
            self._steps += 1
            if process.waits:  # until the moment its item was due
                process.waits = False
                self._want_core(process)
                continue
            self._worked(process)
        seconds = self._last / 1e9
        roles = dict.fromkeys(process.role for process in self._processes)
        busy = {}
        for role in roles:
            mine = [process.worked_ns for process in self._processes if process.role == role]
            busy[role] = sum(mine) / len(mine) / self._last if self._last else 0.0
        return Forecast(
            seconds=seconds,
            items=self._ended,
            rate=self._ended / seconds if seconds else 0.0,
            latency_ns=tuple(self._latency),
            busy=busy,
            events=self._steps,
        )

    # -- One process --------------------------------------------------------------------------------------------------

    def _next(self, process: _Process) -> None:
        """Begin with the next item, or wait for one."""
        source = process.source
        if source is None:
            for queue in process.takes:
                if queue.items:
                    process.held, process.held_from = queue.items.popleft(), queue
                    self._want_core(process)
                    return
            for at, queue in enumerate(process.takes):
                if at not in process.listed:  # it may stand in line there from an earlier wait
                    process.listed.add(at)
                    queue.takers.append((process, at))
            return
        if not source.left or source.under_way >= source.window:
            return
        source.left -= 1
        source.under_way += source.arrivals
        due = source.due[source.at] if source.due else self._now
        process.held = _Item(due=due, origin=process)
        source.at += 1
        if due > self._now:
            process.waits = True
            self._at(due, process)
        else:
            self._want_core(process)

    def _want_core(self, process: _Process) -> None:
        if self._free:
            self._free -= 1
            self._work(process)
        else:
            self._ready.append(process)

    def _work(self, process: _Process) -> None:
        ways = self._chosen(process)
        needed = process.take_ns if process.takes else 0.0
        needed += sum(process.put_ns[at] for at, _ in ways)
        process.to_put = deque(queue for _, queue in ways)
        process.worked_ns += needed
        self._at(self._now + needed, process)

    @staticmethod
    def _chosen(process: _Process) -> list[tuple[int, _Queue]]:
        """The queues that the item in hand goes to, each with its edge."""
        if not process.ways:
            return []
        process.turn += 1
        edges = [process.turn % len(process.ways)] if process.deals else range(len(process.ways))
        return [(at, process.ways[at][process.turn % len(process.ways[at])]) for at in edges]

    def _worked(self, process: _Process) -> None:
        """A piece of work is done: give the core back, and put what was made."""
        if self._ready:
            self._work(self._ready.popleft())
        else:
            self._free += 1
        self._put_all(process)

    def _put_all(self, process: _Process) -> None:
        while process.to_put:
            queue = process.to_put[0]
            if not queue.room:
                queue.putters.append(process)
                return
            process.to_put.popleft()
            queue.room -= 1
            assert process.held is not None
            self._arrived(queue, process.held)
        self._settled(process)

    def _arrived(self, queue: _Queue, item: _Item) -> None:
        while queue.takers:
            taker, at = queue.takers.popleft()
            taker.listed.discard(at)
            if taker.held is None:  # it may have found one in another of its queues
                taker.held, taker.held_from = item, queue
                self._want_core(taker)
                return
        queue.items.append(item)

    def _settled(self, process: _Process) -> None:
        item, queue = process.held, process.held_from
        assert item is not None
        process.held = process.held_from = None
        if not process.ways:
            self._ended += 1
            self._last = self._now
            self._latency.append(int(self._now - item.due))
            self._credit(item.origin)
        if queue is not None:
            queue.room += 1
        self._next(process)  # before those that waited for it: it has the core
        if queue is not None and queue.room and queue.putters:
            self._put_all(queue.putters.popleft())

    def _credit(self, process: _Process) -> None:
        """An item came to its end: if the window of its source was full, the source goes on."""
        source = process.source
        assert source is not None
        was_full = source.under_way >= source.window
        source.under_way -= 1
        if was_full and process.held is None:
            self._next(process)

    def _at(self, moment: float, process: _Process) -> None:
        self._number += 1
        heapq.heappush(self._events, (moment, self._number, process))
