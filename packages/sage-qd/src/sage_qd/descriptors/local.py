"""Descriptor of the queue between threads."""

from typing import Any, ClassVar, Final, overload

from sage_qd.descriptors.base import BaseQueueDescriptor
from sage_qd.descriptors.sage import SageQueueDescriptor
from sage_qd.descriptors.settings import Setting, arranged
from sage_qd.errors import Full
from sage_qd.queues.local import LocalQueue

__all__ = ["LocalQueueDescriptor"]

_LARGEST_MAXSIZE: Final = 2**31 - 1
_FIRST_CAPACITY_BYTES: Final = 1 << 20
_LARGEST_CAPACITY_BYTES: Final = 1 << 34


class LocalQueueDescriptor(BaseQueueDescriptor):
    """
    Names a :class:`~sage_qd.LocalQueue` of this process; all threads that open the same name share one queue.

    It means nothing in another process, so it cannot be pickled; :meth:`to_serializable_descriptor` moves the queue to
    where other processes reach it.

    Args:
        queue_id: Any text; one is made up when there is none.
        maxsize: Most messages to hold; 0 or less for no bound.
    """

    queue_type = "local_queue"
    can_serialize = False
    class_names: ClassVar[tuple[str, ...]] = ("PythonQueueDescriptor",)
    uri_scheme: ClassVar[str | None] = "local"
    settings: ClassVar[tuple[Setting, ...]] = (
        Setting(name="maxsize", type=int, default=0, low=0, high=_LARGEST_MAXSIZE, uri_name="max_items"),
    )

    maxsize: int

    @overload
    def __init__(self, queue_id: str | None = None, *, maxsize: int = 0) -> None: ...
    @overload
    def __init__(self, maxsize: int, use_multiprocessing: bool = False, queue_id: str | None = None) -> None: ...

    def __init__(self, *positional: Any, **keywords: Any) -> None:
        given = arranged(positional, keywords, ("maxsize", "use_multiprocessing", "queue_id"))
        if given.pop("use_multiprocessing", False):
            raise ValueError("use_multiprocessing is for queues between processes: use SageQueueDescriptor instead")
        if type(given.get("maxsize")) is int:
            given["maxsize"] = max(given["maxsize"], 0)
        super().__init__(**given)

    def _open_queue(self, create: bool) -> LocalQueue[Any]:
        return LocalQueue.open(self.queue_id, self.maxsize, create=create)

    def to_serializable_descriptor(self) -> BaseQueueDescriptor:
        """
        Move the queue to a ring of the same name and return the descriptor of that.

        Every open handle of this queue works on the ring from then on, so nothing is lost and nothing is there twice.
        The ring lives while this process, or one that opened it, does.

        Raises:
            QueueExistsError: A ring of this name exists already.
            NotShareableError: Messages are out on lease.
            Exception: A message cannot be pickled; the queue goes on as it was.
        """
        queue = self.open()
        if not isinstance(queue, LocalQueue):
            raise TypeError(f"{queue!r} is no LocalQueue")
        if queue.moved_to is None:
            self._move(queue)
        target = queue.moved_to
        if target is None or not isinstance(target.descriptor, BaseQueueDescriptor):
            raise AssertionError("a queue that was moved knows where to")
        return target.descriptor

    def _move(self, queue: LocalQueue[Any]) -> None:
        """Move to a ring, taking a larger one until everything fits."""
        capacity_bytes = _FIRST_CAPACITY_BYTES
        while True:
            wanted = SageQueueDescriptor(queue_id=self.queue_id, maxsize=self.maxsize, capacity_bytes=capacity_bytes)
            target = wanted.create()
            try:
                queue.move_to(target)
            except Full:
                target.close()
                if capacity_bytes >= _LARGEST_CAPACITY_BYTES:
                    raise
                capacity_bytes *= 2
                continue
            except BaseException:
                target.close()
                raise
            return
