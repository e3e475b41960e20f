"""``create_queue`` as old programs call it, and what they ask about backends."""

from typing import Any

from sage_compat import backends
from sage_compat.call_sites import note
from sage_compat.queue_auto_fallback import get_optimal_queue_backend
from sage_compat.sage_queue import SageQueue

__all__ = [
    "QueueWrapper",
    "create_queue",
    "get_queue_backend_info",
    "get_queue_backends",
    "get_recommended_queue_backend",
    "is_sage_queue_available",
]


class QueueWrapper:
    """
    A queue with the words of ``SageQueue`` around one with those of ``queue.Queue``.

    Args:
        queue_instance: The queue; whatever it raises is raised.
    """

    def __init__(self, queue_instance: Any) -> None:
        self._queue = queue_instance
        vars(self).update(put=queue_instance.put, get=queue_instance.get)  # the calls that cost, without one in between

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Append a message; ``queue.Full`` when there is no room in time."""
        self._queue.put(item, block, timeout)

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Take the oldest message; ``queue.Empty`` when there is none in time."""
        return self._queue.get(block, timeout)

    def put_nowait(self, item: Any) -> None:
        """Append a message without waiting."""
        self._queue.put(item, False)

    def get_nowait(self) -> Any:
        """Take the oldest message without waiting."""
        return self._queue.get(False)

    def qsize(self) -> int:
        """Messages that can be taken now."""
        size: int = self._queue.qsize()
        return size

    def empty(self) -> bool:
        """Whether there is nothing to take."""
        return bool(self._queue.empty())

    def full(self) -> bool:
        """Whether a put would have to wait."""
        return bool(self._queue.full())

    @property
    def maxsize(self) -> int:
        """Most messages; 0 or less for no bound."""
        return int(getattr(self._queue, "maxsize", 0))

    @property
    def descriptor(self) -> Any:
        """The queue as a descriptor, for call sites that are moved to it; None on the old path between threads."""
        return getattr(self._queue, "descriptor", None)

    def get_stats(self) -> dict[str, Any]:
        """Return ``size``, ``empty`` and ``full``."""
        return {"size": self.qsize(), "empty": self.empty(), "full": self.full()}

    def close(self) -> None:
        """Do nothing, as ever; the queue goes on."""


def create_queue(backend: str | None = None, **kwargs: Any) -> Any:
    """
    Make a queue.

    Args:
        backend: ``sage`` (or ``sage_queue``, ``sage_mmap_queue``), ``ray`` (``ray_queue``), ``python``
            (``python_queue``); None or ``auto`` for the recommended one.
        kwargs: ``sage`` takes ``name, maxsize, auto_cleanup, namespace, enable_multi_tenant``, where ``maxsize`` is in
            bytes; the others take ``maxsize``, in messages. ``queue_type`` is the older name of ``backend``. What a
            backend has no use for is ignored.

    Returns:
        A :class:`~sage_compat.sage_queue.SageQueue`, or a :class:`QueueWrapper`.

    Raises:
        ValueError: ``Unknown backend: …``.
        LegacyCallError: The mode of the queue is ``strict``.
    """
    note("create_queue", backend if backend is not None else kwargs.get("queue_type"), kwargs)
    older = kwargs.pop("queue_type", None)
    chosen = older if backend is None else backend
    if chosen is None or chosen == "auto":
        chosen = get_recommended_queue_backend()
    full = backends.full_backend_name(chosen)
    queue = backends.make_queue(full, kwargs)
    return queue if isinstance(queue, SageQueue) else QueueWrapper(queue)


def get_queue_backend_info() -> dict[str, Any]:
    """
    Return what backends there are; nothing is made or started for it.

    Returns:
        ``current_backend``, ``sage_available``, ``backends``, ``capabilities`` (``multiprocess``, ``memory_mapped``,
        ``high_performance``, and ``distributed`` where Ray is installed), ``extension_status``.
    """
    missing = backends.ring_missing()
    available = missing is None
    info: dict[str, Any] = {
        "current_backend": "sage_queue" if available else "python_queue",
        "sage_available": available,
        "backends": ["python_queue", *(["sage_queue"] if available else [])],
        "capabilities": {"multiprocess": available, "memory_mapped": available, "high_performance": available},
        "extension_status": "working" if available else f"not_available: {missing}",
    }
    if backends.is_ray_installed():
        info["backends"].append("ray_queue")
        info["capabilities"]["distributed"] = True
    return info


def get_recommended_queue_backend() -> str:
    """Return the backend that ``auto`` means here."""
    return get_optimal_queue_backend()


def get_queue_backends() -> list[str]:
    """Return the names of the backends there are."""
    found: list[str] = get_queue_backend_info()["backends"]
    return found


def is_sage_queue_available() -> bool:
    """Whether rings can be made here."""
    return backends.ring_missing() is None
