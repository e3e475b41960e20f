"""
Queue between the processes of one host, on the ring in shared memory.

The ring does the work. A :class:`SageQueue` gives it a codec, so that it speaks objects, and then takes the ring's own
methods as its own: a put is one call of compiled code, with no Python in between for ``bytes``.
"""

import os
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Final, Self, TypeVar, cast

from sage_qd.codecs import codec_name, get_codec
from sage_qd.errors import (
    GeometryMismatchError,
    QueueExistsError,
    QueueNotFoundError,
    UntrustedPayloadError,
)
from sage_qd.queues.abilities import SAGE
from sage_qd.queues.base import Capabilities, Descriptor, Lease, Queue
from sage_qd.queues.moving import Succession
from sage_qd.queues.names import segment_name
from sage_qd.queues.travel import reduced
from sage_qd.ring import Ring, RingStats, attach, attach_or_create
from sage_qd.ring import create as create_ring
from sage_qd.ring.places import in_named_folder, named_folder

__all__ = ["SageQueue"]

T = TypeVar("T")

_OF_THE_RING: Final = (
    "put",
    "put_nowait",
    "put_many",
    "get",
    "get_nowait",
    "get_many",
    "lease",
    "view",
    "peek",
    "wait_message",
    "wait_room",
    "clear",
    "qsize",
    "empty",
    "full",
    "stats",
    "shutdown",
)


class SageQueue(Queue[T]):
    """
    Queue of objects between processes; crash-safe, see ``docs/explanation/memory-model.md``.

    Open one through its descriptor. The methods of the write and read side are those of the
    :class:`~sage_qd.ring.Ring`, bound to this object when it is made; with what they add to the interface:

    * ``put`` copies, so changing a message afterwards changes nothing in the queue. Exact ``bytes`` need no codec.
    * A message beyond the spill threshold lies in a file beside the ring until it is taken.
    * A forked child may go on using an inherited queue. To a process started otherwise, hand the queue over as an
      argument or send its descriptor; keep the queue open here until that process has opened it.
    * ``Lease.value`` of an array shows ring memory, read-only, until the lease is settled.

    Args:
        ring: The ring; the queue owns it from now on.
        codec: Name of the codec; the one that the ring records.
        queue_id: The name that the user gave.

    Raises:
        UntrustedPayloadError: The ring's messages are encoded with another codec. The ring is closed then.
    """

    capabilities: ClassVar[Capabilities] = SAGE

    def __init__(self, ring: Ring, codec: str = "pickle", *, queue_id: str | None = None) -> None:
        chosen = get_codec(codec)
        if ring.codec != chosen.number:
            found = codec_name(ring.codec)
            ring.close()
            raise UntrustedPayloadError(codec=found, allowed=[codec])
        if (plain := chosen.plain) is None:
            ring.set_codec(chosen.encode, chosen.decode)
        else:
            ring.set_codec(
                chosen.encode,
                chosen.decode,
                plain_encoder=plain.encode,
                plain_decoder=plain.decode,
                plain_tag=plain.tag,
            )
        self._ring = ring
        self._succession: Succession | None = None
        self._codec = codec
        self._queue_id = queue_id
        vars(self).update({name: getattr(ring, name) for name in _OF_THE_RING}, receive=ring.lease)

    @classmethod
    def open(
        cls,
        queue_id: str,
        *,
        namespace: str = "default",
        codec: str = "pickle",
        create: bool = True,
        exist_ok: bool = True,
        keep: bool = False,
        max_items: int = 0,
        capacity_bytes: int = 1 << 20,
        spill_threshold: int | None = None,
        single_producer: bool = False,
        single_consumer: bool = False,
        checksum: bool = False,
    ) -> Self:
        """
        Open the queue of this name, making it if it is missing and that is allowed.

        Args:
            queue_id: Any text, see :mod:`sage_qd.queues.names`.
            namespace: Any text; queues of the same name in two namespaces have nothing to do with each other.
            codec: Name of the codec.
            create: Whether the queue may be made here.
            exist_ok: Whether it may exist already.
            keep: Leave the segment when the last handle of all processes goes; :meth:`unlink` removes it.
            max_items: Exact bound in messages; 0 for bounded by bytes alone.
            capacity_bytes: Size of the ring, rounded up to a power of two.
            spill_threshold: Encoded bytes above which a message goes through a file; None for a quarter of the ring.
            single_producer: Only one handle may put.
            single_consumer: Only one handle may get.
            checksum: Verify a CRC-32C of every message.

        Raises:
            GeometryMismatchError: It exists with other settings.
            UntrustedPayloadError: It exists with another codec, and was only to be attached to.
            QueueExistsError: It exists and may not.
            QueueNotFoundError: It does not exist and may not be made.
            InvalidQueueNameError: The name or namespace cannot be written as a file name.
        """
        name, folder = segment_name(queue_id), segment_name(namespace)
        settings: dict[str, Any] = {
            "max_items": max_items,
            "single_producer": single_producer,
            "single_consumer": single_consumer,
            "checksum": checksum,
        }
        made_with = settings | {
            "capacity_bytes": capacity_bytes,
            "spill_threshold": spill_threshold,
            "codec": get_codec(codec).number,
        }
        try:
            if keep and create:
                make_kept = _attach_or_create_kept if exist_ok else create_ring
                ring = in_named_folder(folder, lambda made: make_kept(path=os.path.join(made, name), **made_with))
            elif keep:
                ring = attach(path=os.path.join(named_folder(folder, make=False), name))
            elif create:
                make = attach_or_create if exist_ok else create_ring
                ring = make(name, namespace=folder, **made_with)
            else:
                ring = attach(name, namespace=folder)
        except QueueExistsError as error:
            raise QueueExistsError(name=queue_id) from error
        except QueueNotFoundError as error:
            raise QueueNotFoundError(name=queue_id) from error
        except GeometryMismatchError as error:
            raise GeometryMismatchError(
                name=queue_id, wanted=_with_codec_name(error.wanted), found=_with_codec_name(error.found)
            ) from error
        found = {setting: getattr(ring, setting) for setting in settings}
        if found != settings:
            ring.close()
            raise GeometryMismatchError(name=queue_id, wanted=settings, found=found)
        return cls(ring, codec, queue_id=queue_id)

    # -- Inspection ---------------------------------------------------------------------------------------------------

    @property
    def ring(self) -> Ring:
        """The ring underneath, for what works on rings, as ``sage_qd.ring.wait``."""
        return self._ring

    @property
    def queue_id(self) -> str | None:
        """The name that the user gave."""
        return self._queue_id

    @property
    def codec(self) -> str:
        """Name of the codec."""
        return self._codec

    @property
    def maxsize(self) -> int:
        """Most messages the queue holds; 0 when bounded by bytes alone."""
        return self._ring.max_items

    @property
    def instance(self) -> str:
        """32 hexadecimal digits that no other queue has, not even a later one of the same name."""
        return self._ring.instance

    @property
    def closed(self) -> bool:
        """Whether this handle was closed."""
        return self._ring.closed

    def fileno(self) -> int:
        """The descriptor of the segment; never read or write it."""
        return self._ring.fileno()

    # -- Ending -------------------------------------------------------------------------------------------------------

    def resize(self, capacity_bytes: int, timeout: float | None = None) -> None:
        """Grow the ring; see :meth:`sage_qd.ring.Ring.resize`."""
        self._ring.resize(capacity_bytes, timeout)

    def unlink(self) -> None:
        """Remove the name: nobody can open the queue any more, who has it open goes on."""
        self._ring.unlink()

    def seal(self, successor: str) -> int:
        """End this queue in favour of another one; see :meth:`Queue.seal`."""
        return self._ring.seal(successor)

    def successor(self) -> str | None:
        """What this queue was sealed with."""
        return self._ring.successor()

    def follow(self, open_successor: Callable[[str, bool], Any] | None) -> None:
        """Go over to the successor when the queue is moved; see :meth:`Queue.follow`."""
        self._succession = None if open_successor is None else Succession(self, open_successor)
        self._ring.set_go_over(None if self._succession is None else self._succession.go_over)

    def close(self) -> None:
        """Give up this handle; the last one of all processes removes the segment, unless it is to be kept."""
        if self._succession is not None and not self._ring.closed:
            self._succession.close()
        self._ring.close()

    def is_drained(self) -> bool:
        """Whether this very queue holds no message, leased ones included, wherever its calls are led."""
        return self._ring.is_drained()

    def is_shared(self) -> bool:
        """Whether anybody else has a handle of this queue."""
        return self._ring.is_shared()

    def leave_behind(self) -> None:
        """Let the queue, and where it went, stay when this handle is closed as the last one."""
        self._ring.leave_behind()
        if self._succession is not None:
            self._succession.leave_behind()

    def __reduce__(self) -> tuple[Callable[[Descriptor], Any], tuple[Descriptor]]:
        return reduced(self)

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"{self._ring.qsize()} messages"
        return f"<SageQueue {self._queue_id!r}, {self._codec}, {state}>"

    # -- What the ring's own methods replace on each object; here for type checkers and readers -----------------------

    def put(self, item: T, block: bool = True, timeout: float | None = None) -> None:
        """Append one message; see :meth:`Queue.put`."""
        self._ring.put(item, block, timeout)

    def put_nowait(self, item: T) -> None:
        """Append one message without waiting."""
        self._ring.put_nowait(item)

    def put_many(self, items: Iterable[T], timeout: float | None = None) -> int:
        """Append many messages; see :meth:`Queue.put_many`."""
        return self._ring.put_many(items, timeout)

    def get(self, block: bool = True, timeout: float | None = None) -> T:
        """Take the oldest message; see :meth:`Queue.get`."""
        return cast(T, self._ring.get(block, timeout))

    def get_nowait(self) -> T:
        """Take the oldest message without waiting."""
        return cast(T, self._ring.get_nowait())

    def get_many(
        self, max_items: int, max_bytes: int | None = None, timeout: float | None = None, linger: float = 0
    ) -> list[T]:
        """Take what is there; see :meth:`Queue.get_many`."""
        return cast(list[T], self._ring.get_many(max_items, max_bytes, timeout, linger))

    def lease(self, block: bool = True, timeout: float | None = None) -> Lease[T]:
        """Take the oldest message on trial; see :meth:`Queue.lease`."""
        return cast(Lease[T], self._ring.lease(block, timeout))

    def view(self, block: bool = True, timeout: float | None = None) -> Lease[T]:
        """Take the oldest message on trial and show it in place; see :meth:`Queue.view`."""
        return cast(Lease[T], self._ring.view(block, timeout))

    def wait_message(self, timeout: float | None = None) -> bool:
        """Wait until a get has an answer; see :meth:`Queue.wait_message`."""
        return self._ring.wait_message(timeout)

    def wait_room(self, timeout: float | None = None) -> bool:
        """Wait until a put has an answer; see :meth:`Queue.wait_room`."""
        return self._ring.wait_room(timeout)

    def peek(self) -> T:
        """Look at the oldest message; see :meth:`Queue.peek`."""
        return cast(T, self._ring.peek())

    def clear(self) -> int:
        """Drop every message that nobody holds, and return how many."""
        return self._ring.clear()

    def qsize(self) -> int:
        """Messages that could be taken now."""
        return self._ring.qsize()

    def empty(self) -> bool:
        """Whether nothing can be taken now."""
        return self._ring.empty()

    def full(self) -> bool:
        """Whether a put would have to wait now."""
        return self._ring.full()

    def stats(self) -> RingStats:
        """Counters since the queue was made, of all processes."""
        return self._ring.stats()

    def shutdown(self, immediate: bool = False) -> int:
        """End the queue for everybody; see :meth:`Queue.shutdown`."""
        return self._ring.shutdown(immediate)


def _attach_or_create_kept(*, path: str, **settings: Any) -> Ring:
    """Open the ring in a file that stays, or make it; free of races."""
    while True:
        try:
            ring = attach(path=path)
        except QueueNotFoundError:
            try:
                return create_ring(path=path, **settings)
            except QueueExistsError:
                continue
        if ring.codec != settings["codec"]:
            wanted, found = {"codec": settings["codec"]}, {"codec": ring.codec}
            ring.close()
            raise GeometryMismatchError(wanted=wanted, found=found)
        return ring


def _with_codec_name(settings: dict[str, object]) -> dict[str, object]:
    """Say codecs by name."""
    number = settings.get("codec")
    return settings | {"codec": codec_name(number)} if isinstance(number, int) else settings
