"""Descriptor of the portable queue between the processes of a host."""

from typing import TYPE_CHECKING, Any, ClassVar, Final

from sage_qd.codecs import check_codec_name
from sage_qd.descriptors.base import BaseQueueDescriptor
from sage_qd.descriptors.settings import Setting, arranged
from sage_qd.errors import BackendUnavailableError
from sage_qd.queues.abilities import SHM
from sage_qd.queues.base import Capabilities
from sage_qd.queues.names import segment_name

if TYPE_CHECKING:
    from sage_qd.queues.shared_memory import SharedMemoryQueue

__all__ = ["SHMQueueDescriptor", "SharedMemoryQueueDescriptor", "ShmQueueDescriptor"]

_LARGEST_MAXSIZE: Final = 2**31 - 1
_ORDER: Final = ("maxsize", "queue_id")


class SharedMemoryQueueDescriptor(BaseQueueDescriptor):
    """
    Names a :class:`~sage_qd.SharedMemoryQueue`: for the processes of one host, on any POSIX system.

    Args:
        queue_id: Any text that fits a file name as :mod:`sage_qd.queues.names` writes it; made up when there is none.
        maxsize: Exact bound in messages; 0 or less for bounded by bytes alone. ``max_items`` is the same.
        capacity_bytes: Size of the ring, rounded up to a multiple of 4 096; a message must fit it.
        codec: How messages become bytes: ``pickle``, ``msgpack``, ``json`` or ``raw``.
    """

    queue_type = "shm_queue"
    can_serialize = True
    uri_scheme: ClassVar[str | None] = "shm"
    capabilities: ClassVar[Capabilities | None] = SHM
    class_names: ClassVar[tuple[str, ...]] = ("SHMQueueDescriptor", "ShmQueueDescriptor")
    settings: ClassVar[tuple[Setting, ...]] = (
        Setting(name="maxsize", type=int, default=0, low=0, high=_LARGEST_MAXSIZE),
        Setting(name="capacity_bytes", type=int, default=1 << 20, low=1, high=1 << 34),
        Setting(name="codec", type=str, default="pickle", check=check_codec_name),
    )

    maxsize: int
    capacity_bytes: int
    codec: str

    def __init__(self, *positional: Any, **keywords: Any) -> None:
        given = arranged(positional, keywords, _ORDER)
        super().__init__(**given)

    @classmethod
    def _check_queue_id(cls, queue_id: str) -> None:
        super()._check_queue_id(queue_id)
        segment_name(queue_id)

    def _open_queue(self, create: bool) -> "SharedMemoryQueue[Any]":
        return self._opened_queue(create=create, exist_ok=True)

    def create(self) -> "SharedMemoryQueue[Any]":
        """
        Make the queue, which must not exist, and return a handle; :meth:`open` goes on returning its own.

        Raises:
            QueueExistsError: It exists.
        """
        queue = self._opened_queue(create=True, exist_ok=False)
        queue.descriptor = self._copy(queue_id=self.queue_id, instance=queue.instance)
        return queue

    def _opened_queue(self, *, create: bool, exist_ok: bool) -> "SharedMemoryQueue[Any]":
        try:
            from sage_qd.queues.shared_memory import SharedMemoryQueue
        except ImportError as error:
            raise BackendUnavailableError(
                backend=self.queue_type,
                missing=f"advisory file locks ({error})",
                install="it needs a POSIX system, as Linux, macOS or a BSD; use rpc_queue on others",
            ) from error
        return SharedMemoryQueue.open(
            self.queue_id,
            maxsize=self.maxsize,
            capacity_bytes=self.capacity_bytes,
            codec=self.codec,
            create=create,
            exist_ok=exist_ok,
        )

    if TYPE_CHECKING:  # the same methods; only the type of the queue is known here

        def open(self, create: bool | None = None) -> "SharedMemoryQueue[Any]": ...  # noqa: D102
        def attach(self) -> "SharedMemoryQueue[Any]": ...  # noqa: D102


SHMQueueDescriptor = ShmQueueDescriptor = SharedMemoryQueueDescriptor
"""Other names of the same class, as documents have them."""
