"""
Counters that the processes of a run share: one mapped file, each cell written by one process only.

Whoever wants to watch a run maps it, too; what only the conductor knows, it writes there at each of its looks.

A cell belongs to a slot, not to a process: who replaces a dead one goes on counting where it was. So a count may be
ahead or behind by one message for each death; what is exact, is in the history.
"""

from __future__ import annotations

import mmap
from pathlib import Path

from sage_sim.topology import Topology

_CELL_BYTES = 8


class Layout:
    """
    Which cell is whose; the same in all processes.

    Args:
        topology: Whose queues and slots are counted.
    """

    def __init__(self, topology: Topology) -> None:
        self._next = 0
        self.puts: dict[tuple[str, int, int], int] = {}
        """By role, index of the slot, and queue: messages it put."""
        self.takes: dict[tuple[str, int, int], int] = {}
        """Likewise, messages it settled."""
        self.ends: dict[tuple[str, int], list[int]] = {}
        """By slot of a sink: for each origin, items that ended there."""
        self.delays: dict[tuple[str, int], int] = {}
        """By slot: microseconds that it has to wait after each message; written by the conductor."""
        self.orders: dict[tuple[str, int], int] = {}
        """By slot: where inside the ring its process has to die; see :mod:`sage_sim.inside`."""
        self.refused: dict[tuple[str, int], int] = {}
        """By slot: puts that found no room on the system, and were repeated."""
        self.begin = self._cell()
        """The moment at which the sources were let go, on the monotonic clock; 0 before it."""
        self.blows = self._cell()
        """Faults so far."""
        self.ruined = self._cell()
        """1 once a queue is gone for good: whoever waits for something else is to use its queues, and to find out."""
        self.alive = {role.name: self._cell() for role in topology.roles}
        """By role: processes at work."""
        self.struck = {role.name: self._cell() for role in topology.roles}
        """By role: faults that hit one of its processes."""
        self.waited = {edge.name: (self._cell(), self._cell()) for edge in topology.edges}
        """By edge: nanoseconds that others waited for room, and for messages, and 1 more; 0: the kind does not say."""
        origins = sum(role.count for role in topology.sources)
        sinks = {role.name for role in topology.sinks}
        into: dict[tuple[int, int | None], list[int]] = {}
        out_of: dict[tuple[int, int | None], list[int]] = {}
        for at, line in enumerate(topology.lines):
            into.setdefault((line.edge, line.target), []).append(at)
            out_of.setdefault((line.edge, line.source), []).append(at)
        for role in topology.roles:
            fed = [at for at, edge in enumerate(topology.edges) if edge.target == role.name]
            left = [at for at, edge in enumerate(topology.edges) if edge.source == role.name]
            for index in range(role.count):
                slot = (role.name, index)
                self.delays[slot] = self._cell()
                self.orders[slot] = self._cell()
                self.refused[slot] = self._cell()
                for edge in left:
                    for line_at in (*out_of.get((edge, None), ()), *out_of.get((edge, index), ())):
                        self.puts[*slot, line_at] = self._cell()
                for edge in fed:
                    for line_at in (*into.get((edge, None), ()), *into.get((edge, index), ())):
                        self.takes[*slot, line_at] = self._cell()
                if role.name in sinks:
                    self.ends[slot] = [self._cell() for _ in range(origins)]

    def _cell(self) -> int:
        self._next += 1
        return self._next - 1

    @property
    def size_bytes(self) -> int:
        """Of the file."""
        return max(self._next, 1) * _CELL_BYTES


class Meters:
    """
    The cells of a run, as ``cells[index]``.

    Args:
        path: The file.
        create: Make it, for a topology of that layout; otherwise it is there already.
        watch: Look only.
    """

    def __init__(self, path: Path, *, create: Layout | None = None, watch: bool = False) -> None:
        if create is not None:
            with path.open("xb") as file:
                file.truncate(create.size_bytes)
        with path.open("rb" if watch else "r+b") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ if watch else mmap.ACCESS_DEFAULT)
        self.cells = memoryview(self._map).cast("Q")

    def close(self) -> None:
        """Unmap it."""
        self.cells.release()
        self._map.close()
