"""The state of a queue at one moment: one schema for all kinds."""

from dataclasses import dataclass, fields
from typing import Any, Final

from sage_qd.queues.base import QueueFigures, QueueStats

__all__ = ["SCHEMA", "QueueState", "figures_of", "load_of_figures", "state_of"]

SCHEMA: Final = "sage-qd.queues/1"
"""Name and version of the JSON form: members may be added under this number, none changed or removed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class QueueState:
    """
    One queue, whatever its kind, as somebody saw it.

    Attributes:
        kind: The ``queue_type`` of its descriptor.
        queue_id: Its name, as the user wrote it.
        namespace: Where the name counts; empty for kinds without namespaces.
        where: The file, address or actor that holds it.
        in_use: Whether somebody has it open now; None where that cannot be known.
        kept: Whether it was made to outlive its users.
        instance: What no other queue has, not even a later one of this name; None where there is no such thing.
        capacity_items: Most messages it holds; None when bounded by bytes alone, or not at all.
        capacity_bytes: Most bytes it holds; None when bounded by messages alone, or not at all.
        figures: The counters; None when they cannot be read.
        problem: Why they cannot be read, or what is wrong with the queue.
    """

    kind: str
    queue_id: str
    namespace: str
    where: str
    in_use: bool | None
    kept: bool = False
    instance: str | None = None
    capacity_items: int | None = None
    capacity_bytes: int | None = None
    figures: QueueFigures | None = None
    problem: str | None = None

    @property
    def key(self) -> tuple[str, str, str]:
        """What stays the same between two looks at the same queue."""
        return self.kind, self.namespace, self.queue_id

    @property
    def name(self) -> str:
        """Namespace and name in one word, as the command line takes it."""
        return f"{self.namespace}/{self.queue_id}" if self.namespace else self.queue_id

    def as_dict(self) -> dict[str, Any]:
        """One entry of the JSON form; the counters are those of :class:`sage_qd.QueueStats`."""
        plain = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "figures"}
        figures = self.figures
        counters = None if figures is None else {each.name: getattr(figures, each.name) for each in fields(figures)}
        return plain | {"stats": counters}


def figures_of(stats: QueueStats) -> QueueFigures:
    """Keep of a kind's counters those that all kinds have."""
    return QueueFigures(**{each.name: getattr(stats, each.name) for each in fields(QueueFigures)})


def load_of_figures(stats: Any, capacity_items: int | None, capacity_bytes: int | None) -> float:
    """
    Return how full a queue is, 0.0 to 1.0: by messages or by bytes, whichever is nearer to the bound.

    Args:
        stats: Its counters.
        capacity_items: Most messages it holds; 0 or None for no such bound.
        capacity_bytes: Most bytes it holds, likewise.
    """
    by_bytes = getattr(stats, "depth_bytes", 0) / capacity_bytes if capacity_bytes else 0.0
    by_items = (stats.depth + stats.leased) / capacity_items if capacity_items else 0.0
    return min(max(by_items, by_bytes), 1.0)


def state_of(queue: Any, *, kind: str, queue_id: str, namespace: str = "", where: str = "") -> QueueState:
    """
    Return the state of an open queue of any kind, from its own ``stats()``.

    Args:
        queue: A :class:`sage_qd.Queue`.
        kind: The ``queue_type`` of its descriptor.
        queue_id: Its name.
        namespace: Where the name counts.
        where: The file, address or actor that holds it.
    """
    stats = queue.stats()
    return QueueState(
        kind=kind,
        queue_id=queue_id,
        namespace=namespace,
        where=where,
        in_use=True,
        instance=getattr(queue, "instance", None),
        capacity_items=queue.maxsize or None,
        capacity_bytes=getattr(stats, "capacity_bytes", None),
        figures=figures_of(stats),
        problem="shut down" if stats.is_shutdown else None,
    )
