"""Carries out a plan of faults on a run, and heals what it did."""

from __future__ import annotations

import heapq
import os
import resource
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from time import monotonic_ns
from typing import TYPE_CHECKING

import psutil

from sage_qd import RayQueueDescriptor
from sage_sim import inside, ray_cluster
from sage_sim.eventlog import EXIT_DAMAGED, EXIT_STARVED
from sage_sim.faults import EDGE_KINDS, PROCESS_KINDS, Fault, Faults, Strike, strikes
from sage_sim.namespaces import plug
from sage_sim.promises import Fate, fate
from sage_sim.room import Filler
from sage_sim.topology import node_name

if TYPE_CHECKING:
    from sage_sim.companions import Companion, Nodes
    from sage_sim.crew import Crew, Member
    from sage_sim.meters import Layout, Meters
    from sage_sim.topology import Topology

_MEMORY_LEFT_BYTES = 1 << 16


@dataclass(frozen=True, kw_only=True)
class Blow:
    """
    A fault that struck.

    Attributes:
        kind: What it was.
        at_seconds: When, since the sources were let go.
        whom: The process or queue that was hit; empty for what hits all.
        seconds: How long it lasted; 0 for what cannot be healed, or needs no healing.
        ruined: The queues that are gone by it, for good.
    """

    kind: str
    at_seconds: float
    whom: str
    seconds: float = 0.0
    ruined: tuple[str, ...] = ()


class Striker:
    """
    Strikes a run as planned.

    Args:
        faults: The plan; None for nothing.
        seed: Of the run.
        crew: Whom it strikes.
        meters: Where a process is told to be slow.
        layout: Of the meters.
        proxy: The way to the server of RPC queues, when a fault needs one.
        topology: With the queues that it strikes.
        segments: For each queue, the files that hold its memory.
        points: For each role, the points inside the ring by which its processes come.
        actors: For each queue that has an actor, what names it.
        nodes: The Ray cluster of the run itself, when there is one.
    """

    def __init__(
        self,
        faults: Faults | None,
        *,
        seed: int,
        crew: Crew,
        meters: Meters,
        layout: Layout,
        proxy: Companion | None,
        topology: Topology,
        segments: dict[str, list[str]],
        points: dict[str, tuple[str, ...]],
        actors: dict[str, RayQueueDescriptor],
        nodes: Nodes | None,
    ) -> None:
        slots = [slot.name for slot in crew.slots]
        self._pending: Iterator[Strike] = iter(()) if faults is None else strikes(faults, seed, slots)
        self._next = next(self._pending, None)
        self._crew = crew
        self._meters = meters
        self._layout = layout
        self._proxy = proxy
        self._topology = topology
        self._segments = segments
        self._points = points
        self._actors = actors
        self._nodes = nodes
        self._random = Random(f"damage/{seed}")
        self._inside = Random(f"inside/{seed}")
        self._ordered: dict[int, tuple[str, int]] = {}
        self._healing: list[tuple[float, int, Callable[[], None]]] = []
        self._stopped: set[int] = set()
        self._is_full = False
        self._is_unplugged = False
        self._is_narrow = False
        self.blows: list[Blow] = []
        """What struck, in the order of time."""
        self.struck: Counter[str] = Counter()
        """By role, how often one of its processes was hit."""

    @property
    def due_seconds(self) -> float | None:
        """When there is something to do again, since the sources were let go; None: never."""
        moments = [strike.after_seconds for strike in (self._next,) if strike is not None]
        return min([*moments, *(moment for moment, _, _ in self._healing[:1])], default=None)

    @property
    def has_stopped(self) -> bool:
        """
        Whether a process is stopped now, perhaps with a lock of a queue in its hands, or the network is.

        Nobody may wait for that lock, or for an answer, who has to let it go on.
        """
        return bool(self._stopped) or self._is_unplugged

    @property
    def ruined(self) -> frozenset[str]:
        """The queues that cannot be used any more."""
        return frozenset(name for blow in self.blows for name in blow.ruined)

    @property
    def can_be_noticed(self) -> bool:
        """Whether its users can know what was ruined: Ray takes its time to be sure that a node is dead."""
        return self._nodes is None or not self._nodes.unnoticed()

    def act(self, now: float) -> None:
        """Do what is due at that moment."""
        while self._healing and self._healing[0][0] <= now:
            heapq.heappop(self._healing)[2]()
        while self._next is not None and self._next.after_seconds <= now:
            self._strike(self._next, now)
            self._next = next(self._pending, None)

    def heal(self) -> None:
        """Strike no more, and take back what was done."""
        self._next = None
        for _, cell in self._ordered.values():
            self._meters.cells[cell] = 0
        while self._healing:
            heapq.heappop(self._healing)[2]()

    def _strike(self, strike: Strike, now: float) -> None:
        """
        Hit whoever works in that slot now.

        A process that is dying already is not hit twice, and one that is still starting is spared: otherwise, where
        starting takes long, a plan with many strikes would keep the run from its end.
        """
        fault, whom = strike.fault, ""
        heal: Callable[[], None] | None = None
        ruined: tuple[str, ...] = ()
        if fault.kind in PROCESS_KINDS:
            member = self._crew.members.get(strike.slot)
            if member is None or not member.is_ready or member.record.killed_ns is not None:
                return
            if fault.kind == "kill-inside":
                self._order(member)
                return
            heal = self._hit(member, fault.kind, fault.amount)
            whom = member.record.name
            self.struck[member.slot.role.name] += 1
        elif fault.kind in (*EDGE_KINDS, "kill-node"):
            whom, ruined = self._hit_queues(fault)
            if not whom:
                return
        else:
            heal = self._everywhere(fault.kind, fault.amount)
            if heal is None:
                return
        if heal is not None:
            heapq.heappush(self._healing, (now + fault.seconds, len(self.blows), heal))
        if ruined:
            self._meters.cells[self._layout.ruined] = 1
        lasted = fault.seconds if heal is not None else 0.0
        self.blows.append(Blow(kind=fault.kind, at_seconds=now, whom=whom, seconds=lasted, ruined=ruined))

    # -- One process --------------------------------------------------------------------------------------------------

    def _hit(self, member: Member, kind: str, amount: float) -> Callable[[], None] | None:
        if kind == "kill":
            self._crew.kill(member)
            return None
        if kind == "stop":
            signal.pidfd_send_signal(member.pidfd, signal.SIGSTOP)
            self._stopped.add(member.record.number)
            return lambda: self._go_on(member)
        if kind == "slow":
            cell = self._layout.delays[member.slot.role.name, member.slot.index]
            self._meters.cells[cell] = int(amount * 1000)
            return lambda: self._meters.cells.__setitem__(cell, 0)
        self._limit(member, kind)
        return None

    def _order(self, member: Member) -> None:
        """Have a process die inside the ring, the next time it comes by a point that is drawn."""
        points = self._points.get(member.slot.role.name, ())
        if not points:
            return
        name, cell = self._inside.choice(points), self._layout.orders[member.slot.role.name, member.slot.index]
        member.record = replace(member.record, killed_ns=monotonic_ns())
        self._ordered[member.record.number] = name, cell
        self._meters.cells[cell] = inside.points()[name] + 1

    def died(self, member: Member, now: float) -> None:
        """Hear of an end: it may be the one that was ordered; who takes the place has no order."""
        point, cell = self._ordered.pop(member.record.number, ("", -1))
        if not point:
            return
        self._meters.cells[cell] = 0
        if member.record.was_killed:
            self.struck[member.slot.role.name] += 1
            self.blows.append(Blow(kind="kill-inside", at_seconds=now, whom=f"{member.record.name} at {point}"))

    def _go_on(self, member: Member) -> None:
        """Let a stopped process go on; it may be dead, and then its descriptor is closed."""
        if self._crew.members.get(member.slot.name) is member:
            signal.pidfd_send_signal(member.pidfd, signal.SIGCONT)
        self._stopped.discard(member.record.number)

    def _limit(self, member: Member, kind: str) -> None:
        """Let a process have nothing more; that it ends for lack of it is right from now on."""
        member.record = replace(member.record, excused=EXIT_STARVED)
        process = psutil.Process(member.child.pid)
        if kind == "limit-files":
            resource.prlimit(member.child.pid, resource.RLIMIT_NOFILE, (0, 0))
        else:
            size = process.memory_info().vms + _MEMORY_LEFT_BYTES
            resource.prlimit(member.child.pid, resource.RLIMIT_AS, (size, size))

    # -- Everybody ----------------------------------------------------------------------------------------------------

    def _everywhere(self, kind: str, amount: float) -> Callable[[], None] | None:
        """Break what all share; None when it is broken already."""
        if kind == "full":
            return self._fill()
        return self._unplug() if kind == "unplug" else self._narrow(kind, amount)

    def _fill(self) -> Callable[[], None] | None:
        if self._is_full:
            return None
        self._is_full, filler = True, Filler()
        filler.fill()

        def heal() -> None:
            filler.remove()
            self._is_full = False

        return heal

    def _unplug(self) -> Callable[[], None] | None:
        if self._is_unplugged:
            return None
        self._is_unplugged = True
        plug(False)

        def heal() -> None:
            plug(True)
            self._is_unplugged = False

        return heal

    def _narrow(self, kind: str, amount: float) -> Callable[[], None] | None:
        if self._is_narrow or self._proxy is None:
            return None
        proxy, self._is_narrow = self._proxy, True
        orders: dict[str, dict[str, object]] = {
            "cut": {"cut": True},
            "delay": {"delay_ms": amount},
            "throttle": {"bytes_per_second": amount},
            "loss": {"loss": amount / 100, "seed": self._random.getrandbits(32)},
            "silence": {"silent": True},
        }
        proxy.order(**orders[kind])

        def heal() -> None:
            proxy.order()
            self._is_narrow = False

        return heal

    # -- Queues -------------------------------------------------------------------------------------------------------

    def _hit_queues(self, fault: Fault) -> tuple[str, tuple[str, ...]]:
        """Hit one queue, or all that live on a node: whom that was, if anybody, and which queues are gone by it."""
        if fault.kind == "damage":
            return self._damage(fault.target, int(fault.amount))
        if fault.kind == "kill-actor":
            return self._kill_actor(fault.target)
        return self._kill_node(fault.target)

    def _damage(self, edge: str | None, size: int) -> tuple[str, tuple[str, ...]]:
        """Overwrite the head of the memory of one queue."""
        names = [name for name in self._names_of(edge) if self._segments.get(name)]
        if not names:
            return "", ()
        name = self._random.choice(names)
        path = self._random.choice(self._segments[name])
        file = os.open(path, os.O_WRONLY)
        try:
            os.pwrite(file, self._random.randbytes(size), 0)
        finally:
            os.close(file)
        return Path(path).name, self._gone_by("damage", [name])

    def _kill_actor(self, edge: str | None) -> tuple[str, tuple[str, ...]]:
        """Kill the actor of one queue; a durable one comes back."""
        name = self._random.choice([name for name in self._names_of(edge) if name in self._actors])
        queue = self._actors[name]
        ruined = self._gone_by("kill-actor", [name])
        if not ray_cluster.kill_actor(queue.queue_id, queue.namespace):
            return "", ()
        return queue.queue_id, ruined

    def _kill_node(self, target: str | None) -> tuple[str, tuple[str, ...]]:
        """Kill a node of our own cluster, with all queues whose home it is."""
        names = [] if self._nodes is None else [name for name in self._nodes.others if target in (None, name)]
        if self._nodes is None or not names:
            return "", ()
        name, edges = self._random.choice(names), self._topology.edges
        there = [line.name for line in self._topology.lines if node_name(edges[line.edge].node) == name]
        ruined = self._gone_by("kill-node", there)
        self._nodes.kill(name)
        return name, ruined

    def _names_of(self, edge: str | None) -> list[str]:
        """The queues of one edge, or of all."""
        edges = self._topology.edges
        return [line.name for line in self._topology.lines if edge in (None, edges[line.edge].name)]

    def _gone_by(self, fault: str, names: list[str]) -> tuple[str, ...]:
        """Which of these queues a fault is about to take for good; from now on everybody may end because of that."""
        edges = {line.name: self._topology.edges[line.edge] for line in self._topology.lines}
        gone = tuple(name for name in names if fate(edges[name], fault) is Fate.GONE)
        if gone:
            self._excuse_all()
        return gone

    def _excuse_all(self) -> None:
        """Everybody may end because a queue is gone."""
        for member in self._crew.members.values():
            member.record = replace(member.record, excused=EXIT_DAMAGED)
