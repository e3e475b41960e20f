"""
Portable queue between the processes of one host: shared memory, file locks and semaphores, without compiled code.

The bytes are in :mod:`sage_qd.queues.shm_layout`, the changes in :mod:`sage_qd.queues.shm_store`, the files in
:mod:`sage_qd.queues.shm_segment`, lock and waiting in :mod:`sage_qd.queues.shm_changes`. Here is what a user calls.
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from math import inf
from time import monotonic
from typing import Any, ClassVar, Final, Self, TypeVar

from sage_qd.codecs import RAW_TAG, codec_name, get_codec
from sage_qd.codecs.base import Codec
from sage_qd.errors import (
    Empty,
    Full,
    MessageTooLargeError,
    PayloadError,
    QueueClosedError,
    QueueMovedError,
    ShutDown,
    UntrustedPayloadError,
)
from sage_qd.queues.abilities import SHM
from sage_qd.queues.base import Capabilities, Descriptor, Lease, QueueFigures
from sage_qd.queues.moving import Follower, follows
from sage_qd.queues.shm_changes import Changes
from sage_qd.queues.shm_layout import SUCCESSOR_BYTES, Batch, Part, Payload, Settings, State
from sage_qd.queues.shm_lease import SharedMemoryLease
from sage_qd.queues.shm_segment import Segment, open_segment
from sage_qd.queues.shm_store import IDLE, MESSAGES, ROOM, Store
from sage_qd.queues.travel import reduced
from sage_qd.queues.waiting import check_batch, deadline_of

__all__ = ["SharedMemoryQueue"]

T = TypeVar("T")
R = TypeVar("R")

_SMALLEST_CAPACITY: Final = 4096

_ENDINGS: Final = (ShutDown, QueueMovedError)

_NO_MORE: Final[list[Payload]] = [(RAW_TAG, b"")]
"""The next message is too large for the batch."""


@follows
class SharedMemoryQueue(Follower[T]):
    """
    Queue of objects between processes, on any POSIX system.

    Open one through its descriptor. With what it adds to the interface:

    * ``put`` copies. A message must fit the ring: there is no spilling.
    * A process that is killed at any instruction leaves the queue whole, and its lock free.
    * A forked child may go on using an inherited queue; its parent's leases are not its own.
    * The queue lives while anybody has it open; :func:`~sage_qd.clean_shared_memory` removes what killed users left.
    * A process that is *stopped* in the middle of a change holds the others up until it continues or is killed.

    Args:
        segment: The files; the queue owns them from now on.
        codec: Name of the codec; the one that the header records.
        queue_id: The name that the user gave.

    Raises:
        UntrustedPayloadError: The messages are encoded with another codec. The segment is closed then.
    """

    capabilities: ClassVar[Capabilities] = SHM

    def __init__(self, segment: Segment, codec: str = "pickle", *, queue_id: str) -> None:
        self._codec: Codec = get_codec(codec)
        memory = segment.memory
        if memory.settings.codec != self._codec.number:
            segment.close()
            raise UntrustedPayloadError(codec=codec_name(memory.settings.codec), allowed=[codec])
        self._segment = segment
        self._queue_id = queue_id
        self._maxsize = memory.settings.maxsize
        self._largest = memory.largest_message
        self._instance = memory.instance
        self._store = Store(memory, queue_id, is_own=segment.is_own, is_alive=segment.is_alive, forget=segment.forget)
        self._changes = Changes(segment, self._store)
        self._undecoded: deque[Payload] = deque()
        """Messages that were taken, and whose decoding a signal handler's exception interrupted; the next ones."""
        segment.on_fork = self._undecoded.clear

    @classmethod
    def open(
        cls,
        queue_id: str,
        *,
        maxsize: int = 0,
        capacity_bytes: int = 1 << 20,
        codec: str = "pickle",
        create: bool = True,
        exist_ok: bool = True,
    ) -> Self:
        """
        Open the queue of this name, making it if it is missing and that is allowed.

        Args:
            queue_id: Any text, see :mod:`sage_qd.queues.names`.
            maxsize: Exact bound in messages; 0 for bounded by bytes alone.
            capacity_bytes: Size of the ring, rounded up to a multiple of 4 096.
            codec: Name of the codec.
            create: Whether the queue may be made here.
            exist_ok: Whether it may exist already.

        Raises:
            GeometryMismatchError: It exists with other settings.
            UntrustedPayloadError: It exists with another codec.
            QueueExistsError: It exists and may not.
            QueueNotFoundError: It does not exist and may not be made.
            InvalidQueueNameError: The name cannot be written as a file name.
        """
        rounded = -(-capacity_bytes // _SMALLEST_CAPACITY) * _SMALLEST_CAPACITY
        settings = Settings(maxsize, rounded, get_codec(codec).number)
        return cls(open_segment(queue_id, settings, create=create, exist_ok=exist_ok), codec, queue_id=queue_id)

    # -- Write side ---------------------------------------------------------------------------------------------------

    def put(self, item: T, block: bool = True, timeout: float | None = None) -> None:
        """Append one message; see :meth:`Queue.put`."""
        deadline = deadline_of(block, timeout)
        tag, parts = self._encoded(item)

        def step(state: State) -> int:
            return self._store.append(state, Batch([(tag, parts)]))

        at_once = partial(self._segment.memory.put_at_once, tag, parts[0]) if len(parts) == 1 else None
        if not self._changes.until(step, ROOM, deadline, at_once):
            raise self._full()

    def put_nowait(self, item: T) -> None:
        """Append one message without waiting."""
        self.put(item, False)

    def put_many(self, items: Iterable[T], timeout: float | None = None) -> int:
        """Append many messages; see :meth:`Queue.put_many`."""
        queued = list(items)
        batch = self._batch(queued)
        deadline = deadline_of(True, timeout)
        done, whole = 0, len(batch.ends)
        if not whole:
            self._changes.change(lambda state: None)  # a closed handle says so
        while done < whole:
            try:
                more = self._changes.until(partial(self._store.append, batch=batch, start=done), ROOM, deadline)
            except ShutDown:
                if done:
                    return done
                raise
            except QueueMovedError as error:
                return self._put_rest(error, done, queued[done:], deadline)
            if not more:
                break
            done += more
        if whole and not done:
            raise self._full()
        return done

    def _batch(self, items: Iterable[T]) -> Batch:
        return Batch(map(self._encoded, items))

    def _encoded(self, item: T) -> tuple[int, Sequence[Part]]:
        tag: int = RAW_TAG
        parts: Sequence[Part] = (item,) if isinstance(item, bytes) and type(item) is bytes else ()
        if not parts:
            tag, encoded = self._codec.encode(item)
            parts = [part if type(part) is bytes else memoryview(part).cast("B") for part in encoded]
        size = len(parts[0]) if len(parts) == 1 else sum(map(len, parts))
        if size > self._largest:
            raise MessageTooLargeError(size=size, limit=self._largest)
        return tag, parts

    def _full(self) -> Full:
        bound = f"{self._maxsize:,} messages" if self._maxsize else "as many bytes as it can"
        return Full(f"the queue holds {bound}")

    # -- Read side ----------------------------------------------------------------------------------------------------

    def get(self, block: bool = True, timeout: float | None = None) -> T:
        """Take the oldest message; see :meth:`Queue.get`."""
        deadline = deadline_of(block, timeout)
        if self._undecoded and not self.closed:
            return self._decoded([self._undecoded.popleft()])[0]
        taken = self._changes.until(self._take_one, MESSAGES, deadline, self._segment.memory.take_at_once)
        if not taken:
            raise Empty("the queue holds no message")
        return self._decoded(taken)[0]

    def _take_one(self, state: State) -> list[Payload]:
        return self._store.take(state, 1, 0)

    def get_nowait(self) -> T:
        """Take the oldest message without waiting."""
        return self.get(False)

    def get_many(
        self, max_items: int, max_bytes: int | None = None, timeout: float | None = None, linger: float = 0
    ) -> list[T]:
        """Take what is there; see :meth:`Queue.get_many`."""
        check_batch(max_items, max_bytes)
        deadline, lingering = deadline_of(True, timeout), deadline_of(True, linger)
        limit = max_bytes or 0
        taken = [self._undecoded.popleft() for _ in range(min(max_items, len(self._undecoded)))]
        if not taken:
            taken = (
                self._changes.until(lambda state: self._store.take(state, max_items, limit), MESSAGES, deadline) or []
            )
        if not taken:
            raise Empty("the queue holds no message")
        while len(taken) < max_items and lingering > monotonic():
            left = limit - sum(len(payload) for _, payload in taken) if limit else inf
            more = self._lingered(max_items - len(taken), left, lingering)
            if not more or more is _NO_MORE:
                break
            taken += more
        return self._decoded(taken)

    def _lingered(self, max_items: int, left: float, deadline: float) -> list[Payload]:
        """Wait for more messages of a batch; what ended the queue is told by the next call."""

        def step(state: State) -> list[Payload]:
            record = self._store.available(state)
            if record is None:
                return []
            if record.size > left or left <= 0:
                return _NO_MORE
            return self._store.take(state, max_items, 0 if left == inf else int(left))

        try:
            return self._changes.until(step, MESSAGES, deadline) or []
        except (*_ENDINGS, QueueClosedError):
            return []

    def _decoded(self, taken: list[Payload]) -> list[T]:
        """Turn payloads into messages; what an interrupt leaves undone is handed out by the next get."""
        decode = self._codec.decode
        messages: list[Any] = []
        failed: PayloadError | None = None
        for tag, payload in taken:
            try:
                messages.append(bytes(payload) if tag == RAW_TAG else decode(tag, payload))
            except Exception as error:  # noqa: BLE001  (whatever the bytes cause is chained, and raised below)
                failure = PayloadError(tag=tag, payload=bytes(payload))
                failure.__cause__ = error
                if failed is None:
                    failed = failure
                else:
                    messages.append(failure)
            except BaseException:
                self._undecoded.extendleft(reversed(taken))
                raise
        if failed is not None:
            raise PayloadError(tag=failed.tag, payload=failed.payload, items=messages) from failed.__cause__
        return messages

    def lease(self, block: bool = True, timeout: float | None = None) -> Lease[T]:
        """Take the oldest message on trial; see :meth:`Queue.lease`."""
        deadline = deadline_of(block, timeout)
        lease = SharedMemoryLease(self)
        step = partial(self._store.lease, holder_of_handle=self._segment.holder, keep=lease._keep)
        if not self._changes.until(step, MESSAGES, deadline):
            raise Empty("the queue holds no message")
        return lease

    def peek(self) -> T:
        """Look at the oldest message; see :meth:`Queue.peek`."""
        found = self._changes.change(self._store.peek)
        if found is None:
            raise Empty("the queue holds no message")
        return self._decoded([found])[0]

    def clear(self) -> int:
        """Drop every message that nobody holds, and return how many."""
        dropped = self._changes.change(self._store.clear)
        target = self._followed("clear")
        return dropped if target is None else dropped + int(target.clear())

    # -- Waiting without taking ---------------------------------------------------------------------------------------

    def wait_message(self, timeout: float | None = None) -> bool:
        """Wait until a get has an answer; see :meth:`Queue.wait_message`."""
        return self._answered(self._store.has_answer_for_get, MESSAGES, timeout)

    def wait_room(self, timeout: float | None = None) -> bool:
        """Wait until a put has an answer; see :meth:`Queue.wait_room`."""
        return self._answered(self._store.has_answer_for_put, ROOM, timeout)

    def _answered(self, step: Callable[[State], bool], side: int, timeout: float | None) -> bool:
        deadline = deadline_of(True, timeout)
        try:
            return bool(self._changes.until(step, side, deadline))
        except _ENDINGS:
            return True

    # -- Work done ----------------------------------------------------------------------------------------------------

    def task_done(self) -> None:
        """Say that a message taken by get is worked off."""
        self._changes.change(self._store.task_done)

    def join(self) -> None:
        """Wait until every message ever put was worked off."""
        self._changes.until(self._store.all_done, IDLE, inf)

    @property
    def unfinished_tasks(self) -> int:
        """Messages put and not worked off yet, under the name that ``queue.Queue`` has for it."""
        return self._changes.change(lambda state: state.unfinished)

    # -- Inspection ---------------------------------------------------------------------------------------------------

    @property
    def queue_id(self) -> str:
        """The name that the user gave."""
        return self._queue_id

    @property
    def codec(self) -> str:
        """Name of the codec."""
        return self._codec.name

    @property
    def maxsize(self) -> int:
        """Most messages the queue holds; 0 when bounded by bytes alone."""
        return self._maxsize

    @property
    def instance(self) -> str:
        """32 hexadecimal digits that no other queue has, not even a later one of the same name."""
        return self._instance

    @property
    def closed(self) -> bool:
        """Whether this handle was closed."""
        return self._segment.closed

    def qsize(self) -> int:
        """Messages that could be taken now."""
        return self._changes.change(self._store.depth)

    def empty(self) -> bool:
        """Whether nothing can be taken now."""
        return self.qsize() == 0

    def full(self) -> bool:
        """Whether a put would have to wait now."""
        return self._changes.change(self._store.is_full)

    def stats(self) -> QueueFigures:
        """Counters since the queue was made, of all processes."""
        return self._changes.change(self._store.figures)

    # -- Ending -------------------------------------------------------------------------------------------------------

    def shutdown(self, immediate: bool = False) -> int:
        """End the queue for everybody; see :meth:`Queue.shutdown`."""
        if (target := self._followed("shutdown")) is not None:
            dropped: int = target.shutdown(immediate)
            return dropped + (self._changes.change(self._store.clear) if immediate else 0)
        return self._changes.change(lambda state: self._store.shutdown(state, immediate))

    def seal(self, successor: str) -> int:
        """End the queue in favour of another one; see :meth:`Queue.seal`."""
        text = successor.encode()
        if len(text) > SUCCESSOR_BYTES:
            raise ValueError(f"successor must take at most {SUCCESSOR_BYTES:,} bytes, not {len(text):,}")
        return self._changes.change(lambda state: self._store.seal(state, text))

    def successor(self) -> str | None:
        """What this queue was sealed with."""
        return self._changes.change(self._store.successor)

    def is_shared(self) -> bool:
        """Whether anybody else has a handle of this queue."""
        return self._segment.is_shared()

    def leave_behind(self) -> None:
        """Let the queue, and where it went, stay when this handle is closed as the last one."""
        self._segment.stays = True
        self._leave_successor_behind()

    def close(self) -> None:
        """Give up this handle; the last one of all processes removes the queue. Whoever looks next takes our leases."""
        if not self.closed:
            self._close_successor()
        self._segment.close()

    def __reduce__(self) -> tuple[Callable[[Descriptor], Any], tuple[Descriptor]]:
        return reduced(self)

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"{self.qsize()} messages"
        return f"<SharedMemoryQueue {self._queue_id!r}, {self.codec}, {state}>"
