"""The queues of a run: the only module that knows which kind of queue it is."""

from __future__ import annotations

from dataclasses import dataclass

from sage_qd import SageQueue, SageQueueDescriptor
from sage_qd.ring import RingStats, clean_segments, list_segments
from sage_sim.topology import Edge

NAMESPACE = "sage-sim"


def describe(run_id: str, edge: Edge) -> str:
    """The descriptor of the queue of an edge, as JSON, for `create` and `open_queue`."""
    return SageQueueDescriptor(
        f"{run_id}.{edge.name}", namespace=NAMESPACE, capacity_bytes=edge.capacity_bytes
    ).to_json()


def create(descriptor: str) -> SageQueue[object]:
    """Make the queue that a descriptor names."""
    return SageQueueDescriptor.from_json(descriptor).create()


def open_queue(descriptor: str) -> SageQueue[object]:
    """Open the queue that another process made."""
    return SageQueueDescriptor.from_json(descriptor).open(create=False)


def segments_of(run_id: str) -> list[str]:
    """Paths of what a run has left in shared memory."""
    return [info.path for info in list_segments(NAMESPACE) if info.name.startswith(f"{run_id}.")]


def remove_leftovers() -> list[str]:
    """Remove what runs left behind that were killed themselves, and return the paths; live runs are not touched."""
    return clean_segments(NAMESPACE)


@dataclass(frozen=True, kw_only=True)
class Gauge:
    """What a queue tells about itself at one moment."""

    put: int
    taken: int
    depth: int
    high_water: int
    put_waited_ns: int
    get_waited_ns: int

    @classmethod
    def of(cls, stats: RingStats) -> Gauge:
        """Read the counters."""
        return cls(
            put=stats.puts,
            taken=stats.gets,
            depth=stats.depth,
            high_water=stats.high_water,
            put_waited_ns=stats.put_blocked_ns,
            get_waited_ns=stats.get_blocked_ns,
        )
