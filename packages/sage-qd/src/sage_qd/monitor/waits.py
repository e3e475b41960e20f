"""
Who waits for whom: threads that sleep at a segment, and the processes that could let them go on.

A wait names its resolvers: for the lock of a side its owner, for room whoever could take messages, for a message
whoever could put some. A process is *stuck* when it waits and all resolvers of that wait are stuck themselves; stuck
processes that wait for one another form a cycle. Nothing but a new participant, or a thread of theirs that does
something else, can end it, so a cycle with such a thread is marked as uncertain.
"""

import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from sage_qd.monitor.processes import Sleep, label_of, process_of_thread, sleeps, thread_count
from sage_qd.monitor.rings import SeenRing, seen_rings

__all__ = ["SCHEMA", "Cycle", "Wait", "WaitGraph", "wait_graph"]

SCHEMA: Final = "sage-qd.waits/1"
LOOKS: Final = 3
SECONDS_BETWEEN_LOOKS: Final = 0.02
"""Waits are slices of 50 ms, between which a thread runs for a moment; one of three looks meets it asleep."""

_WORDS: Final = {
    "put": "for room in",
    "get": "for a message in",
    "put lock": "for its turn to put into",
    "get lock": "for its turn to get from",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Wait:
    """One thread that waits at one queue, and who could end that."""

    pid: int
    tid: int
    label: str
    queue: str
    what: str
    resolvers: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.label} (pid {self.pid}) waits {_WORDS[self.what]} {self.queue}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Cycle:
    """Processes that wait for one another; certain when all their threads do."""

    pids: tuple[int, ...]
    certain: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class WaitGraph:
    """
    All waits that were seen, and their cycles.

    Attributes:
        waits: The waits, by process.
        cycles: Processes that wait for one another.
        labels: What to call each process in the graph.
        unreadable: Processes that use queues, but whose sleeping threads this user may not see.
    """

    waits: tuple[Wait, ...]
    cycles: tuple[Cycle, ...]
    labels: Mapping[int, str]
    unreadable: tuple[int, ...]

    def as_dict(self) -> dict[str, Any]:
        """The JSON form; its version is in ``schema``."""
        return {
            "schema": SCHEMA,
            "waits": [asdict(wait) for wait in self.waits],
            "cycles": [asdict(cycle) for cycle in self.cycles],
            "labels": {str(pid): label for pid, label in self.labels.items()},
            "unreadable": list(self.unreadable),
        }


def wait_graph(namespace: str | None = None) -> WaitGraph:
    """
    Look at all rings of this user and at the threads that sleep on them.

    Args:
        namespace: Only queues in it; None for all. A cycle through another namespace is seen only without it.
    """
    rings = seen_rings(namespace)
    attached = [user for ring in rings for user in ring.users]
    seen: dict[Sleep, None] = {}
    unreadable: set[int] = set()
    for look in range(LOOKS):
        if look:
            time.sleep(SECONDS_BETWEEN_LOOKS)
        found, hidden = sleeps(attached)
        seen |= dict.fromkeys(found)
        unreadable |= set(hidden)
    return graph_of(rings, list(seen), sorted(unreadable))


def graph_of(rings: Iterable[SeenRing], asleep: list[Sleep], unreadable: Iterable[int] = ()) -> WaitGraph:
    """Name the resolvers of each wait, and find the cycles."""
    by_file = {ring.file: ring for ring in rings if ring.sight is not None}
    waits = tuple(
        Wait(
            pid=each.pid,
            tid=each.tid,
            label=label_of(each.pid),
            queue=by_file[each.file].name,
            what=each.what,
            resolvers=_resolvers(each, by_file[each.file], asleep),
        )
        for each in sorted(asleep, key=lambda each: (each.pid, each.tid))
        if each.file in by_file
    )
    involved = {pid for wait in waits for pid in (wait.pid, *wait.resolvers)}
    return WaitGraph(
        waits=waits,
        cycles=tuple(_cycles(waits)),
        labels={pid: label_of(pid) for pid in sorted(involved)},
        unreadable=tuple(unreadable),
    )


def _resolvers(wait: Sleep, ring: SeenRing, asleep: Iterable[Sleep]) -> tuple[int, ...]:
    """Who could end the wait: the lock's owner, or whoever uses the queue and does not wait on this side itself."""
    assert ring.sight is not None
    if wait.what in ("put lock", "get lock"):
        stats = ring.sight.stats
        owner = process_of_thread(stats.put_lock_owner if wait.what == "put lock" else stats.get_lock_owner)
        return () if owner is None else (owner,)
    role = ring.sight.consumer_role if wait.what == "put" else ring.sight.producer_role
    holders = {each.pid for each in ring.sight.participants if each.slot == role}
    if holders:
        return tuple(sorted(holders))
    side = {wait.what, f"{wait.what} lock"}
    same_side = {each.pid for each in asleep if each.file == wait.file and each.what in side}
    return tuple(sorted({user.pid for user in ring.users} - same_side - {wait.pid}))


def _cycles(waits: Iterable[Wait]) -> list[Cycle]:
    waiting: dict[int, list[Wait]] = {}
    for wait in waits:
        waiting.setdefault(wait.pid, []).append(wait)
    stuck = set(waiting)
    while True:  # each turn takes one out, or is the last
        free = {
            pid
            for pid in stuck
            if not any(each.resolvers and stuck.issuperset(each.resolvers) for each in waiting[pid])
        }
        if not free:
            break
        stuck -= free
    follows = {
        pid: {who for each in waiting[pid] if stuck.issuperset(each.resolvers) for who in each.resolvers}
        for pid in stuck
    }
    cycles = []
    for pids in _components(follows):
        threads = {pid: {each.tid for each in waiting[pid]} for pid in pids}
        certain = all(thread_count(pid) == len(threads[pid]) for pid in pids)
        cycles.append(Cycle(pids=pids, certain=certain))
    return cycles


def _components(follows: Mapping[int, set[int]]) -> list[tuple[int, ...]]:
    """Sets of processes each of which waits, directly or not, for itself."""
    reach = {pid: _reachable(pid, follows) for pid in follows}
    found = {tuple(sorted(who for who in reach[pid] if pid in reach[who])) for pid in follows if pid in reach[pid]}
    return sorted(found)


def _reachable(start: int, follows: Mapping[int, set[int]]) -> set[int]:
    reached: set[int] = set()
    pending = list(follows[start])
    while pending:
        pid = pending.pop()
        if pid not in reached:
            reached.add(pid)
            pending.extend(follows[pid])
    return reached
