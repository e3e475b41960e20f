"""Descriptor of the queue between the processes of a host."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, ClassVar, Final, overload

from sage_qd.codecs import check_codec_name
from sage_qd.descriptors.base import BaseQueueDescriptor
from sage_qd.descriptors.settings import Setting, arranged
from sage_qd.errors import BackendUnavailableError
from sage_qd.queues.abilities import SAGE
from sage_qd.queues.base import Capabilities
from sage_qd.queues.names import segment_name

if TYPE_CHECKING:
    from sage_qd.queues.sage_ring import SageQueue

__all__ = ["SageQueueDescriptor"]

DEFAULT_NAMESPACE: Final = "default"
_LARGEST_MAXSIZE: Final = 2**31 - 1
_SHIPPED_ORDER: Final = ("maxsize", "auto_cleanup", "namespace", "enable_multi_tenant", "queue_id")


class SageQueueDescriptor(BaseQueueDescriptor):
    """
    Names a :class:`~sage_qd.SageQueue`: a crash-safe ring in shared memory, for the processes of one Linux host.

    Args:
        queue_id: Any text that fits a file name as :mod:`sage_qd.queues.names` writes it; made up when there is none.
        maxsize: Exact bound in messages; 0 or less for bounded by bytes alone. ``max_items`` is the same.
        capacity_bytes: Size of the ring, rounded up to a power of two.
        namespace: Any text; queues of the same name in two namespaces have nothing to do with each other.
        codec: How messages become bytes: ``pickle``, ``msgpack``, ``json`` or ``raw``.
        spill_threshold: Encoded bytes above which a message goes through a file; None for a quarter of the ring.
        single_producer: Only one handle may put, which makes it cheaper.
        single_consumer: Only one handle may get, which makes it cheaper.
        checksum: Verify a CRC-32C of every message.
        auto_cleanup: Whether the last handle of all processes that goes takes the queue along. Otherwise it stays, with
            its messages, until :meth:`destroy` or the end of the host's uptime.
        enable_multi_tenant: False puts the queue into the namespace that all programs share, ``default``.
    """

    queue_type = "sage_queue"
    can_serialize = True
    uri_scheme: ClassVar[str | None] = "sage"
    capabilities: ClassVar[Capabilities | None] = SAGE
    settings: ClassVar[tuple[Setting, ...]] = (
        Setting(name="maxsize", type=int, default=0, low=0, high=_LARGEST_MAXSIZE, uri_name="max_items"),
        Setting(name="capacity_bytes", type=int, default=1 << 20, low=1, high=1 << 34),
        Setting(name="namespace", type=str, default=DEFAULT_NAMESPACE, check=segment_name),
        Setting(name="codec", type=str, default="pickle", check=check_codec_name),
        Setting(name="spill_threshold", type=int, default=None, optional=True, low=1, high=1 << 34),
        Setting(name="single_producer", type=bool, default=False),
        Setting(name="single_consumer", type=bool, default=False),
        Setting(name="checksum", type=bool, default=False),
        Setting(name="auto_cleanup", type=bool, default=True),
        Setting(name="enable_multi_tenant", type=bool, default=True),
    )

    maxsize: int
    capacity_bytes: int
    namespace: str
    codec: str
    spill_threshold: int | None
    single_producer: bool
    single_consumer: bool
    checksum: bool
    auto_cleanup: bool
    enable_multi_tenant: bool

    @overload
    def __init__(
        self,
        queue_id: str | None = None,
        *,
        maxsize: int = 0,
        max_items: int = 0,
        capacity_bytes: int = 1 << 20,
        namespace: str | None = None,
        codec: str = "pickle",
        spill_threshold: int | None = None,
        single_producer: bool = False,
        single_consumer: bool = False,
        checksum: bool = False,
        auto_cleanup: bool = True,
        enable_multi_tenant: bool = True,
    ) -> None: ...
    @overload
    def __init__(
        self,
        maxsize: int,
        auto_cleanup: bool = True,
        namespace: str | None = None,
        enable_multi_tenant: bool = True,
        queue_id: str | None = None,
        *,
        capacity_bytes: int = 1 << 20,
        codec: str = "pickle",
        spill_threshold: int | None = None,
        single_producer: bool = False,
        single_consumer: bool = False,
        checksum: bool = False,
    ) -> None: ...

    def __init__(self, *positional: Any, **keywords: Any) -> None:
        given = arranged(positional, keywords, _SHIPPED_ORDER)
        if given.get("namespace", "") is None:
            del given["namespace"]
        super().__init__(**given)
        if not self.enable_multi_tenant and self.namespace != DEFAULT_NAMESPACE:
            raise ValueError(f"namespace {self.namespace!r} needs enable_multi_tenant=True")

    @property
    def max_items(self) -> int:
        """The same as ``maxsize``."""
        return self.maxsize

    @classmethod
    def _check_queue_id(cls, queue_id: str) -> None:
        super()._check_queue_id(queue_id)
        segment_name(queue_id)

    def _open_queue(self, create: bool) -> "SageQueue[Any]":
        return self._opened_ring(create=create, exist_ok=True)

    def create(self) -> "SageQueue[Any]":
        """
        Make the queue, which must not exist, and return a handle; :meth:`open` goes on returning its own.

        Raises:
            QueueExistsError: It exists.
        """
        queue = self._opened_ring(create=True, exist_ok=False)
        queue.descriptor = self._copy(queue_id=self.queue_id, instance=queue.instance)
        return queue

    def _opened_ring(self, *, create: bool, exist_ok: bool) -> "SageQueue[Any]":
        try:
            from sage_qd.queues.sage_ring import SageQueue
        except ImportError as error:
            raise BackendUnavailableError(
                backend=self.queue_type,
                missing=f"the compiled ring ({error})",
                install="on Linux, install a wheel for this system, or build from the sources with a C compiler: "
                "pip install ./packages/sage-qd",
            ) from error
        return SageQueue.open(
            self.queue_id,
            namespace=self.namespace,
            codec=self.codec,
            create=create,
            exist_ok=exist_ok,
            keep=not self.auto_cleanup,
            max_items=self.maxsize,
            capacity_bytes=self.capacity_bytes,
            spill_threshold=self.spill_threshold,
            single_producer=self.single_producer,
            single_consumer=self.single_consumer,
            checksum=self.checksum,
        )

    def get_stats(self) -> dict[str, Any]:
        """Counters since the queue was made, as a dictionary."""
        return asdict(self.open().stats())

    def destroy(self) -> None:
        """
        Remove the queue: nobody can open it any more, who has it open goes on. Closes it here.

        Raises:
            QueueNotFoundError: It does not exist.
        """
        queue = self.open(create=False)
        queue.unlink()
        queue.close()

    if TYPE_CHECKING:  # the same methods; only the type of the queue is known here

        def open(self, create: bool | None = None) -> "SageQueue[Any]": ...  # noqa: D102
        def attach(self) -> "SageQueue[Any]": ...  # noqa: D102
