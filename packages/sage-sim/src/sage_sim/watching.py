"""Runs that go on on this machine, watched from outside: what their meters say, and nothing is asked of them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from time import monotonic_ns

import psutil

from sage_sim.meters import Layout, Meters
from sage_sim.plan import Plan
from sage_sim.topology import Edge, Role

_NURSERY = "sage_sim.nursery"


@dataclass(frozen=True, kw_only=True)
class RoleSight:
    """
    What is seen of one role.

    Attributes:
        role: Its name.
        processes: How many it has.
        alive: How many of them are at work.
        items: What a source put; what others took and settled.
        rate: The same a second, since the look before; None at the first look.
        queued: Messages before it that are not settled; None for a source.
        blocked: Share of the time since the look before in which its processes waited for room; None when nobody says.
        idle: Likewise, for messages.
        faults: How often one of its processes was hit.
    """

    role: str
    processes: int
    alive: int
    items: int
    rate: float | None
    queued: int | None
    blocked: float | None
    idle: float | None
    faults: int


@dataclass(frozen=True, kw_only=True)
class Sight:
    """
    What is seen of one run.

    Attributes:
        name: Of its topology.
        pid: Of its conductor.
        folder: Where its results will be.
        seed: Of the run.
        seconds: Since its sources were let go; 0 while it begins.
        faults: How many have struck.
        roles: In the order in which items flow.
    """

    name: str
    pid: int
    folder: str
    seed: int
    seconds: float
    faults: int
    roles: tuple[RoleSight, ...]


def running() -> dict[Path, int]:
    """For each run of this user that goes on, the folder where it works, and the process that conducts it."""
    found = {}
    for process in psutil.process_iter():
        try:
            words = process.cmdline()
            if _NURSERY not in words[:-1]:
                continue
            nursing = json.loads(words[-1])
            found[Path(process.cwd(), nursing["folder"])] = int(nursing["conductor"])
        except (psutil.NoSuchProcess, psutil.AccessDenied):  # it ended meanwhile, or is somebody else's
            continue
    return found


class Watch:
    """Looks at all runs, again and again."""

    def __init__(self) -> None:
        self._runs: dict[Path, _Run] = {}

    def look(self) -> list[Sight]:
        """All runs that go on now, in the order in which they are known."""
        there = running()
        for folder in [folder for folder in self._runs if folder not in there]:
            self._runs.pop(folder).close()
        for folder, pid in there.items():
            if folder not in self._runs:
                try:
                    self._runs[folder] = _Run(folder, pid)
                except FileNotFoundError:  # it ended meanwhile
                    continue
        return [run.look() for run in self._runs.values()]

    def close(self) -> None:
        """Look no more."""
        while self._runs:
            self._runs.popitem()[1].close()


@dataclass(frozen=True, kw_only=True)
class _Counts:
    """The meters of a run at one moment, with those of each slot and queue added up."""

    at_ns: int
    put: dict[str, int]
    taken: dict[str, int]
    for_room: dict[str, int | None]
    for_items: dict[str, int | None]


class _Run:
    """One run."""

    def __init__(self, folder: Path, pid: int) -> None:
        plan = Plan.read(folder.parent / "plan.json")
        self._topology, self._seed = plan.topology, plan.seed
        self._folder, self._pid = folder.parent, pid
        self._layout = Layout(plan.topology)
        self._meters = Meters(folder / "meters", watch=True)
        self._before: _Counts | None = None

    def close(self) -> None:
        self._meters.close()

    def look(self) -> Sight:
        now, before, cells = self._counts(), self._before, self._meters.cells
        self._before = now
        begin_ns = cells[self._layout.begin]
        return Sight(
            name=self._topology.name,
            pid=self._pid,
            folder=str(self._folder),
            seed=self._seed,
            seconds=(now.at_ns - begin_ns) / 1e9 if begin_ns else 0.0,
            faults=cells[self._layout.blows],
            roles=tuple(self._role(role, now, before) for role in self._topology.roles),
        )

    def _counts(self) -> _Counts:
        cells, layout, edges, lines = self._meters.cells, self._layout, self._topology.edges, self._topology.lines
        put, taken = dict.fromkeys((edge.name for edge in edges), 0), dict.fromkeys((edge.name for edge in edges), 0)
        for sums, places in ((put, layout.puts), (taken, layout.takes)):
            for (_, _, line), cell in places.items():
                sums[edges[lines[line].edge].name] += cells[cell]
        room, items = (
            {name: cells[both[side]] - 1 if cells[both[side]] else None for name, both in layout.waited.items()}
            for side in (0, 1)
        )
        return _Counts(at_ns=monotonic_ns(), put=put, taken=taken, for_room=room, for_items=items)

    def _role(self, role: Role, now: _Counts, before: _Counts | None) -> RoleSight:
        inputs, outputs = self._topology.inputs_of(role.name), self._topology.outputs_of(role.name)
        is_source = self._topology.is_source(role.name)
        edges = outputs if is_source else inputs
        items = _sum(now.put if is_source else now.taken, edges)
        rate = None
        if before is not None:
            earlier = _sum(before.put if is_source else before.taken, edges)
            rate = (items - earlier) / (now.at_ns - before.at_ns) * 1e9
        return RoleSight(
            role=role.name,
            processes=role.count,
            alive=self._meters.cells[self._layout.alive[role.name]],
            items=items,
            rate=rate,
            queued=None if is_source else max(_sum(now.put, inputs) - items, 0),
            blocked=_share(role, outputs, now, before, "for_room"),
            idle=_share(role, inputs, now, before, "for_items"),
            faults=self._meters.cells[self._layout.struck[role.name]],
        )


def _sum(counts: dict[str, int], edges: Iterable[Edge]) -> int:
    return sum(counts[edge.name] for edge in edges)


def _share(role: Role, edges: tuple[Edge, ...], now: _Counts, before: _Counts | None, what: str) -> float | None:
    """Of the time of all processes of a role, the part in which they waited; other users of the queues are not told."""
    if before is None or not edges:
        return None
    total = 0
    for edge in edges:
        after, earlier = getattr(now, what)[edge.name], getattr(before, what)[edge.name]
        if after is None or earlier is None:
            return None
        total += after - earlier
    return min(total / (now.at_ns - before.at_ns) / role.count, 1.0)
