"""
The queue of the backend ``ray``: between the tasks, actors and drivers of a Ray cluster, old or new, and moved while it
is used.

Whoever made it follows the decisions for its own host and moves the queue; every other handle, on whatever node,
follows the seal. What was wrong with the old queues is right here: ``full()`` is true when the queue is full, and
time-outs count.
"""

import importlib
import importlib.util
import logging
import sys
import threading
import uuid
import warnings
from typing import Any, Final

from sage_compat import lines
from sage_compat.errors import ReachWarning
from sage_compat.legacy.ray_descriptor import LegacyRayQueueDescriptor
from sage_compat.old_behaviour import has_quirk
from sage_compat.rules import decide
from sage_qd import (
    BackendUnavailableError,
    BaseQueueDescriptor,
    QueueLostError,
    QueueNotFoundError,
    RayQueueDescriptor,
    migrate,
)

__all__ = ["RayLine", "ray_missing"]

_log: Final = logging.getLogger("sage_compat")


def ray_missing() -> str | None:
    """Return what keeps a Ray queue from being opened here, in words; None when nothing does. Starts nothing."""
    if importlib.util.find_spec("ray") is None:
        return "Ray is not installed"
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        if has_quirk("implicit_ray_init"):
            importlib.import_module("ray").init(ignore_reinit_error=True)
            return None
        return "Ray is not initialised"
    return None


class RayLine:
    """
    A queue with the words of ``queue.Queue``; it can be pickled, and the copy is a handle of the same queue.

    The queue lives as long as the line that made it.

    Args:
        name: What rules match; the queue is shared by handing it over.
        maxsize: Most messages; 0 or less for no bound.
    """

    def __init__(self, name: str, maxsize: int = 0) -> None:
        self.name = name
        self.maxsize = maxsize
        self._ignores_time = has_quirk("ray_never_full")
        self._mutex = threading.Lock()
        self._id = f"{name}-{uuid.uuid4().hex[:8]}"
        self._made: list[Any] = []
        """Handles of all queues that this line made: they keep those where others still are."""
        self._is_new = decide(name).is_new
        try:
            self.descriptor = self._make(is_new=self._is_new)
        except BackendUnavailableError as error:
            if not self._is_new:
                raise
            warnings.warn(
                f"queue {name!r} takes the old path, which reaches as far: {error}", ReachWarning, stacklevel=3
            )
            self._is_new = False
            self.descriptor = self._make(is_new=False)
        self._bind(self._made[0])
        lines.register(self)

    def _make(self, *, is_new: bool) -> BaseQueueDescriptor:
        """Make the next queue, on one of the two ways."""
        kind = RayQueueDescriptor if is_new else LegacyRayQueueDescriptor
        descriptor: BaseQueueDescriptor = kind(f"{self._id}.g{len(self._made) + 1}", maxsize=self.maxsize)
        self._made.append(descriptor.open(create=True))
        return descriptor

    def _bind(self, queue: Any) -> None:
        self._queue = queue
        self.put, self.get = queue.put, queue.get
        if self._ignores_time:
            self.put = lambda item, block=True, timeout=None: queue.put(item, block)
            self.get = lambda block=True, timeout=None: queue.get(block)

    def apply_mode(self) -> None:
        """Move to the way that the rules give now; only the line that made the queue does."""
        is_new = decide(self.name).is_new
        with self._mutex:
            if is_new == self._is_new:
                return
            target = self._make(is_new=is_new)
            try:
                migrate(self.descriptor, to=target, timeout=0)
            except (QueueLostError, QueueNotFoundError) as error:  # with its actor, and its messages
                _log.warning("queue %s is empty on the way that it goes on: %s", self.name, error)
                self._bind(self._made[-1])
            self.descriptor, self._is_new = target, is_new

    @property
    def is_new(self) -> bool:
        """Whether messages are put into a queue of the new way."""
        return self._is_new

    def put_nowait(self, item: Any) -> None:
        """Append without waiting."""
        self.put(item, False)

    def get_nowait(self) -> Any:
        """Take without waiting."""
        return self.get(False)

    def qsize(self) -> int:
        """Messages in the queue."""
        return int(self._queue.qsize())

    def empty(self) -> bool:
        """Whether there is nothing to take."""
        return not self.qsize()

    def full(self) -> bool:
        """Whether a put would have to wait."""
        return not self._ignores_time and bool(self._queue.full())

    def close(self) -> None:
        """Give the queue up; where this line made it, it ends with the last copy that uses the new way."""
        for queue in (self._queue, *self._made):
            queue.close()

    def __getstate__(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "maxsize": self.maxsize,
            "ignores_time": self._ignores_time,
            "is_new": self._is_new,
            "descriptor": self.descriptor,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.name, self.maxsize, self.descriptor = state["name"], state["maxsize"], state["descriptor"]
        self._ignores_time, self._is_new = state["ignores_time"], state["is_new"]
        self._made = []
        self._bind(self.descriptor.attach())
