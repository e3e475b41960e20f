"""Descriptor of the queue between threads."""

from typing import TYPE_CHECKING, Any, ClassVar, Final, overload

from sage_qd.descriptors.base import BaseQueueDescriptor
from sage_qd.descriptors.document import Members
from sage_qd.descriptors.registry import queue_kind
from sage_qd.descriptors.sage import SageQueueDescriptor
from sage_qd.descriptors.settings import Setting, arranged
from sage_qd.errors import DescriptorError, Full
from sage_qd.queues.base import Capabilities
from sage_qd.queues.local import LocalQueue

__all__ = ["LocalQueueDescriptor", "PythonQueueDescriptor"]

_LARGEST_MAXSIZE: Final = 2**31 - 1
_SHIPPED_ORDER: Final = ("maxsize", "use_multiprocessing", "queue_id")
_BETWEEN_PROCESSES: Final = "shm_queue"
_FIRST_CAPACITY_BYTES: Final = 1 << 20
_LARGEST_CAPACITY_BYTES: Final = 1 << 34


class LocalQueueDescriptor(BaseQueueDescriptor):
    """
    Names a :class:`~sage_qd.LocalQueue` of this process; all threads that open the same name share one queue.

    It means nothing in another process, so it cannot be pickled; :meth:`to_serializable_descriptor` moves the queue to
    where other processes reach it.

    Args:
        queue_id: Any text; one is made up when there is none.
        maxsize: Most messages to hold; 0 or less for no bound. ``max_items`` is the same.
        use_multiprocessing: Make the descriptor of a portable queue between processes instead, a
            ``SharedMemoryQueueDescriptor`` of the same name and bound.
    """

    queue_type = "local_queue"
    can_serialize = False
    class_names: ClassVar[tuple[str, ...]] = ("PythonQueueDescriptor",)
    uri_scheme: ClassVar[str | None] = "local"
    settings: ClassVar[tuple[Setting, ...]] = (
        Setting(name="maxsize", type=int, default=0, low=0, high=_LARGEST_MAXSIZE, uri_name="max_items"),
    )
    capabilities: ClassVar[Capabilities | None] = LocalQueue.capabilities

    maxsize: int

    if not TYPE_CHECKING:  # a type checker shall see the constructor below only

        def __new__(cls, *positional: Any, **keywords: Any) -> BaseQueueDescriptor:
            """Return an object of the other kind for ``use_multiprocessing``; the constructor is not called then."""
            if cls is not LocalQueueDescriptor:  # which may take other arguments
                return super().__new__(cls)
            given = arranged(positional, keywords, _SHIPPED_ORDER)
            if not _is_true(given.pop("use_multiprocessing", False)):
                return super().__new__(cls)
            return queue_kind(_BETWEEN_PROCESSES)(**given)

    @overload
    def __init__(self, queue_id: str | None = None, *, maxsize: int = 0, max_items: int = 0) -> None: ...
    @overload
    def __init__(self, maxsize: int, use_multiprocessing: bool = False, queue_id: str | None = None) -> None: ...

    def __init__(self, *positional: Any, **keywords: Any) -> None:
        given = arranged(positional, keywords, _SHIPPED_ORDER)
        if _is_true(given.pop("use_multiprocessing", False)):  # only a subclass comes here with it
            raise ValueError(f"use_multiprocessing is for PythonQueueDescriptor, and {type(self).__name__} is another")
        super().__init__(**given)

    @classmethod
    def _of_earlier_release(cls, members: Members) -> tuple[type[BaseQueueDescriptor], Members]:
        """Read ``use_multiprocessing``, which documents of earlier releases have among their metadata."""
        if members.is_complete or "use_multiprocessing" not in members.metadata:
            return cls, members
        metadata = dict(members.metadata)
        try:
            is_shared = _is_true(metadata.pop("use_multiprocessing"))
        except TypeError as error:
            raise DescriptorError(pointer="/metadata/use_multiprocessing", reason=str(error)) from error
        if not is_shared:
            return cls, members._replace(metadata=metadata)
        return queue_kind(_BETWEEN_PROCESSES), members._replace(
            queue_type=_BETWEEN_PROCESSES, class_name=None, metadata=metadata
        )

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


PythonQueueDescriptor = LocalQueueDescriptor
"""The name of the class in earlier releases."""


def _is_true(value: object) -> bool:
    if type(value) is not bool:
        raise TypeError(f"use_multiprocessing must be true or false, not {value!r:.80}")
    return value
