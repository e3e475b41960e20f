"""The kind ``legacy_queue``: the old path as a descriptor, so that queues can be moved to it and from it."""

from typing import Any, ClassVar

from sage_compat.legacy.file_queue import FILE_QUEUE, FileQueue
from sage_qd import BaseQueueDescriptor, Capabilities, Setting, register_queue_type
from sage_qd.queues.names import segment_name

__all__ = ["LegacyQueueDescriptor"]


class LegacyQueueDescriptor(BaseQueueDescriptor):
    """
    Names a :class:`~sage_compat.legacy.file_queue.FileQueue`.

    Args:
        queue_id: Any text that fits a file name.
        maxsize: Exact bound in messages; 0 for bounded by bytes alone.
        capacity_bytes: Room in bytes, rounded up to a power of two.
        auto_cleanup: Whether the last handle of all processes that goes takes the queue along.
    """

    queue_type = "legacy_queue"
    can_serialize = True
    uri_scheme: ClassVar[str | None] = "legacy_queue"
    capabilities: ClassVar[Capabilities | None] = FILE_QUEUE
    settings: ClassVar[tuple[Setting, ...]] = (
        Setting(name="maxsize", type=int, default=0, low=0, high=2**31 - 1),
        Setting(name="capacity_bytes", type=int, default=1 << 20, low=1, high=1 << 34),
        Setting(name="auto_cleanup", type=bool, default=True),
    )

    maxsize: int
    capacity_bytes: int
    auto_cleanup: bool

    @classmethod
    def _check_queue_id(cls, queue_id: str) -> None:
        super()._check_queue_id(queue_id)
        segment_name(queue_id)

    def _open_queue(self, create: bool) -> FileQueue[Any]:
        return FileQueue.open(
            self.queue_id,
            capacity_bytes=self.capacity_bytes,
            max_items=self.maxsize,
            create=create,
            keep=not self.auto_cleanup,
        )


register_queue_type(LegacyQueueDescriptor.queue_type, LegacyQueueDescriptor)  # spares a look at entry points
