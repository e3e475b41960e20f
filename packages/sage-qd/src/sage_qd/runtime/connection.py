"""The sender's end of one path between two tasks."""

from collections import deque
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Final

from sage_qd.descriptors.base import BaseQueueDescriptor
from sage_qd.errors import QueueClosedError
from sage_qd.monitor.states import load_of_figures

__all__ = ["Connection", "EnhancedConnection"]

HISTORY: Final = 10
"""How many loads are remembered."""


@dataclass(eq=False)
class EnhancedConnection:
    """
    One path to another task: where it leads, the descriptor of the queue at its end, and how loaded that queue is.

    Plain data until :meth:`get_target_buffer` opens the queue, so it goes to other processes.

    Attributes:
        broadcast_index: The group of the sender it is in.
        parallel_index: Its place in the group.
        target_name: The task at its end.
        target_handle: That task, where it runs in this process; else None. It does not travel.
        target_input_index: Which input of that task it feeds.
        target_type: ``local``, ``process`` or ``remote``.
        target_queue_descriptor: The queue at its end.
        path: Its number among the paths of that task.
    """

    broadcast_index: int
    parallel_index: int
    target_name: str
    target_handle: Any
    target_input_index: int
    target_type: str = "local"
    target_queue_descriptor: BaseQueueDescriptor | None = None
    path: int = 0
    _loads: "deque[tuple[float, float]]" = field(default_factory=lambda: deque(maxlen=HISTORY), repr=False)

    def get_target_buffer(self) -> Any:
        """
        Return the open queue at the end.

        Raises:
            ValueError: It has neither a descriptor nor a task in this process.
        """
        if self.target_queue_descriptor is not None:
            return self.target_queue_descriptor.open()
        if self.target_handle is not None:
            return self.target_handle.get_input_buffer()
        raise ValueError(f"the connection to {self.target_name!r} has no queue descriptor and no task in this process")

    def get_buffer_load(self) -> float:
        """
        Return how full the queue at the end is, 0.0 to 1.0, and remember it.

        By items where it is bounded by items, else by bytes. A closed or lost queue counts as full: 0.0 would send
        everything there.
        """
        try:
            load = load_of(self.get_target_buffer())
        except (QueueClosedError, OSError):
            load = 1.0
        self._loads.append((monotonic(), load))
        return load

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"target_handle": None}

    @property
    def load_history(self) -> list[float]:
        """The loads that were last seen, the oldest first."""
        return [load for _, load in self._loads]

    @property
    def load_trend(self) -> float:
        """Change of the load in one second, over the loads that are remembered; 0.0 for fewer than two."""
        if len(self._loads) < 2:
            return 0.0
        (first, before), (last, now) = self._loads[0], self._loads[-1]
        return (now - before) / max(last - first, 1e-9)


Connection = EnhancedConnection


def load_of(queue: Any) -> float:
    """Return how full a queue is, 0.0 to 1.0."""
    stats = queue.stats()
    return load_of_figures(stats, getattr(queue, "maxsize", 0), getattr(stats, "capacity_bytes", 0))
