"""
The queue of a client: the words of :class:`~sage_qd.Queue`, spoken over a connection.

How often a message arrives, by name:

* ``put``: exactly once within one life of the server, however often the connection breaks. If the server died between
  taking the message and saying so, :class:`~sage_qd.OutcomeUnknownError` says that nobody knows.
* ``get`` with ``ack="lease"``: at least once. The server leases the message to this client, and it is acked when
  ``get`` returns; a client that dies before gives it back. ``lease`` is the same with the ack in your hands.
* ``get`` with ``ack="auto"``: at most once. The message is gone when the server sends it.
"""

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, ClassVar, Final, TypeVar, cast

from sage_qd.codecs import get_codec
from sage_qd.errors import (
    Full,
    MessageTooLargeError,
    OutcomeUnknownError,
    PayloadError,
    ProtocolError,
    QueueClosedError,
    QueueLostError,
    QueueMovedError,
    QueueUnavailableError,
    ShutDown,
)
from sage_qd.queues.abilities import RPC
from sage_qd.queues.base import Capabilities, Descriptor, Lease, QueueFigures
from sage_qd.queues.moving import Follower, follows
from sage_qd.queues.rpc import wire
from sage_qd.queues.rpc.calls import Address, Call, Handle, put_request, seconds_until
from sage_qd.queues.rpc.client import Connection, connection_to, release
from sage_qd.queues.rpc.lease import RPCLease
from sage_qd.queues.rpc.pipeline import BATCH_ITEMS, Pipeline
from sage_qd.queues.travel import reduced
from sage_qd.queues.waiting import check_batch, deadline_of, remaining

__all__ = ["RPCQueue"]

T = TypeVar("T")

_EACH_ITEM_BYTES: Final = 16
"""What an item takes in a frame beside its bytes, at most."""


@follows
class RPCQueue(Follower[T]):
    """
    Queue at a server, see :mod:`sage_qd.queues.rpc.queue`. Open one through its descriptor.

    A call waits at the server, not here. While the server cannot be reached, calls wait for it as long as the
    ``connection_timeout`` of the descriptor, whatever their own timeout. The asyncio face makes a round trip to the
    server in the event loop for each step that does not wait. A forked child that uses an inherited queue opens a
    connection of its own.

    Beside what every queue raises, each call may raise

    * ``QueueUnavailableError``: the server could not be reached, and nothing was sent;
    * ``OutcomeUnknownError``: the request was sent, and its answer was lost;
    * ``QueueLostError``: the server that held the messages is gone, and they with it;
    * ``AuthenticationError``: one of the two could not prove who it is;
    * ``ProtocolError``: the server sent what the protocol does not allow.

    Args:
        address: Where the server is.
        queue_id: The name of the queue there.
        codec: Name of the codec.
        maxsize: The bound it must have; 0 for whatever it has.
        auto_ack: Whether ``get`` takes for good, see above.
        is_shared: Whether to share one connection with the other queues of this process at the server.
        create: Whether the server may make the queue, if its owner lets it.
        instance: The very queue that is meant, if that matters.
    """

    capabilities: ClassVar[Capabilities] = RPC

    def __init__(
        self,
        address: Address,
        queue_id: str,
        *,
        codec: str = "msgpack",
        maxsize: int = 0,
        auto_ack: bool = False,
        is_shared: bool = True,
        create: bool = True,
        instance: str | None = None,
    ) -> None:
        self._address = address
        self._queue_id = queue_id
        self._codec_name = codec
        self._codec = get_codec(codec)
        self._auto = auto_ack
        self._is_shared = is_shared
        self._wanted_instance = instance
        self._closed = False
        self._ending = threading.Lock()
        self._pid = os.getpid()
        self._open(create, maxsize)

    def _open(self, create: bool, maxsize: int) -> None:
        """Open the queue on a connection of this process."""
        handle = Handle(self._queue_id, maxsize, self._codec_name)
        connection = connection_to(self._address, is_shared=self._is_shared)
        try:
            found = connection.call(Call(None, lambda number, _: wire.OpenHandle(
                number, self._queue_id, create, maxsize, self._codec_name, self._wanted_instance
            )))  # fmt: skip
            try:
                handle.remote, handle.instance = int(found["handle"]), found["instance"]
                self._maxsize, self._largest = int(found["maxsize"]), found["largest_message"]
            except (KeyError, TypeError, ValueError):
                reason = "it opens a queue without saying what it is"
                raise ProtocolError(peer=self._address.endpoint, reason=reason) from None
            vars(self)["capabilities"] = replace(
                type(self).capabilities,
                bounded_by_bytes=bool(found["bounded_by_bytes"]),
            )
        except BaseException:
            release(connection)
            raise
        connection.add_handle(handle)
        self._connection, self._handle, self._ending = connection, handle, threading.Lock()
        self._pid = os.getpid()

    def _here(self) -> Connection:
        """The connection of this process: a forked child makes its own, to the very queue that was open."""
        if self._closed:
            raise QueueClosedError(name=self._queue_id)
        if self._pid != os.getpid():
            with _reopening:
                if self._pid != os.getpid():
                    self._wanted_instance = self._handle.instance
                    self._open(False, 0)
        if self._handle.lost is not None:
            raise self._handle.lost
        return self._connection

    def _call(self, make: Callable[[int, int], wire.Request], *, is_repeatable: bool = False, size: int = 0) -> Any:
        self._here()
        return self._answered(Call(self._handle, make, is_repeatable=is_repeatable, size=size))

    def _answered(self, call: Call) -> Any:
        try:
            return self._connection.call(call)
        except QueueClosedError:
            if self._closed:
                raise QueueClosedError(name=self._queue_id) from None
            raise

    def _ask(self, verb: str, argument: bool | str | None = None, *, is_repeatable: bool = True) -> Any:
        return self._call(lambda number, handle: wire.Ask(number, handle, verb, argument), is_repeatable=is_repeatable)

    # -- Write side ---------------------------------------------------------------------------------------------------

    def put(self, item: T, block: bool = True, timeout: float | None = None) -> None:
        """Append one message; see :meth:`Queue.put`. One that the server may have is told by OutcomeUnknownError."""
        deadline = deadline_of(block, timeout)
        connection = self._here()
        encoded = self._encoded(item, connection)
        self._put_batch([encoded], wire.size_of(encoded), deadline)

    def put_nowait(self, item: T) -> None:
        """Append one message without waiting for room."""
        self.put(item, False)

    def put_many(self, items: Iterable[T], timeout: float | None = None) -> int:
        """Append many messages, up to 1,024 in one round trip; see :meth:`Queue.put_many`."""
        deadline = deadline_of(True, timeout)
        connection = self._here()
        queued = list(items)
        done = 0
        for batch, size in _batches(self._encoded(item, connection) for item in queued):
            try:
                put = self._put_batch(batch, size, deadline)
            except (Full, ShutDown):
                if done:
                    return done
                raise
            except QueueMovedError as error:
                return self._put_rest(error, done, queued[done:], deadline)
            done += put
            if put < len(batch):  # the time is up, or somebody ended the queue: asked again, it says which
                return done if remaining(deadline) == 0 else done + self._put_others(queued[done:], deadline)
        return done

    def _put_others(self, items: list[T], deadline: float) -> int:
        try:
            return self.put_many(items, remaining(deadline))
        except (Full, ShutDown, QueueMovedError):
            return 0

    def _put_batch(self, batch: list[wire.Item], size: int, deadline: float) -> int:
        return int(self._call(put_request(batch, deadline), size=max(size, 1)))

    def _encoded(self, item: T, connection: Connection) -> wire.Item:
        """Return a message as it travels."""
        if type(item) is bytes:
            encoded: wire.Item = cast(bytes, item)
            size = len(cast(bytes, item))
        else:
            tag, parts = self._codec.encode(item)
            payload = b"".join(parts)
            encoded, size = (tag, payload), len(payload)
        limit = connection.largest_frame - wire.FRAME_ROOM
        if self._largest is not None:
            limit = min(limit, int(self._largest))
        if size > limit:
            raise MessageTooLargeError(size=size, limit=limit)
        return encoded

    @contextmanager
    def pipeline(self, window: int = 4096) -> "Iterator[Pipeline[T]]":
        """
        Put without waiting for each answer: ``with queue.pipeline() as line: line.put(item)``.

        Up to ``window`` messages are under way. Unlike ``put`` of the queue, that of the pipeline returns before its
        message is in the queue; all are when the block has ended without an exception, or :meth:`Pipeline.flush` has.
        They arrive in order.

        Args:
            window: Most messages under way, at least 1.
        """
        line = Pipeline(self, window)
        yield line
        line.flush()

    # -- Read side ----------------------------------------------------------------------------------------------------

    def stream(self, window: int = 4096) -> "Iterator[T]":
        """
        Take messages one by one until the queue is shut down and drained, with the next ones on their way already.

        Up to ``window`` messages are leased to this client ahead; others do not see them. A batch of them is acked when
        its last message was handed out: a client that dies gives back what it had of it. Ending the loop gives the rest
        back. Messages that were given back come before everything younger, marked as redelivered.

        Args:
            window: Most messages on their way, at least 2.

        Raises:
            PayloadError: A message could not be decoded; it is gone, and those after it were given back.
        """
        if window < 2:
            raise ValueError(f"window must be at least 2, not {window!r}")
        return self._stream(min(window // 2, 2 * BATCH_ITEMS))

    def _stream(self, count: int) -> "Iterator[T]":
        connection = self._here()
        ahead = self._take_ahead(connection, count)
        try:
            while True:
                try:
                    answer = self._checked(ahead.wait())
                except ShutDown:
                    return
                epoch, taken = ahead.epoch, 0
                self._here()
                ahead = self._take_ahead(connection, count)
                try:
                    for taken, item in enumerate(answer.items, 1):  # noqa: B007  (the settle below uses it)
                        yield cast(T, item) if type(item) is bytes else self._decoded([item])[0]
                finally:
                    connection.settle(self._handle, epoch, answer.lease, taken)
        finally:
            connection.give_up(ahead)

    def _take_ahead(self, connection: Connection, count: int) -> Call:
        call = Call(
            self._handle,
            lambda number, handle: wire.Take(number, handle, count, 0, None, 0, False),
            is_repeatable=True,
        )
        connection.submit(call)
        return call

    def get(self, block: bool = True, timeout: float | None = None) -> T:
        """Take the oldest message; see :meth:`Queue.get`, and above for what a death costs."""
        return self._taken(1, 0, deadline_of(block, timeout), 0)[0]

    def get_nowait(self) -> T:
        """Take the oldest message without waiting for one."""
        return self.get(False)

    def get_many(
        self, max_items: int, max_bytes: int | None = None, timeout: float | None = None, linger: float = 0
    ) -> list[T]:
        """Take what is there, in one round trip; see :meth:`Queue.get_many`."""
        check_batch(max_items, max_bytes)
        collecting = remaining(deadline_of(True, linger))
        seconds = 1e9 if collecting is None else collecting
        return self._taken(max_items, max_bytes or 0, deadline_of(True, timeout), seconds)

    def _taken(self, count: int, most_bytes: int, deadline: float, linger: float) -> list[T]:
        answer, epoch = self._take(count, most_bytes, deadline, linger, auto=self._auto)
        if answer.lease:
            self._connection.settle(self._handle, epoch, answer.lease, len(answer.items))
        return self._decoded(answer.items)

    def _take(
        self, count: int, most_bytes: int, deadline: float, linger: float, *, auto: bool
    ) -> tuple[wire.Taken, int]:
        """Return what was taken, and the epoch that its lease belongs to."""

        def request(number: int, handle: int) -> wire.Take:
            return wire.Take(number, handle, count, most_bytes, seconds_until(deadline), linger, auto)

        self._here()
        call = Call(self._handle, request, is_repeatable=not auto)
        return self._checked(self._answered(call)), call.epoch

    def _checked(self, answer: Any) -> wire.Taken:
        """Return the answer to a take, if it is one."""
        if not isinstance(answer, wire.Taken) or not answer.items:
            raise ProtocolError(peer=self._address.endpoint, reason="it answers a take without messages")
        return answer

    def _decoded(self, items: Sequence[Any]) -> list[T]:
        """Decode what was taken; the first that cannot be is raised with the others, among which more may stand."""
        messages: list[Any] = []
        failed: PayloadError | None = None
        for item in items:
            try:
                messages.append(item if type(item) is bytes else self._codec.decode(item[0], item[1]))
            except Exception as error:  # noqa: BLE001  (whatever the codec meets is chained to the PayloadError)
                failure = PayloadError(tag=item[0], payload=item[1])
                failure.__cause__ = error
                if failed is None:
                    failed = failure
                else:
                    messages.append(failure)
        if failed is not None:
            raise PayloadError(tag=failed.tag, payload=failed.payload, items=messages) from failed.__cause__
        return messages

    def lease(self, block: bool = True, timeout: float | None = None) -> Lease[T]:
        """Take the oldest message on trial; see :meth:`Queue.lease`."""
        answer, epoch = self._take(1, 0, deadline_of(block, timeout), 0, auto=False)
        return RPCLease(self, answer.lease, epoch, answer.attempts[0] if answer.attempts else 0, answer.items[0])

    def peek(self) -> T:
        """Look at the oldest message; see :meth:`Queue.peek`."""
        return self._decoded([self._ask("peek")])[0]

    def clear(self) -> int:
        """Drop every message that nobody holds, and return how many."""
        return int(self._ask("clear", is_repeatable=False))

    # -- Waiting without taking ---------------------------------------------------------------------------------------

    def wait_message(self, timeout: float | None = None) -> bool:
        """Wait until a get has an answer; see :meth:`Queue.wait_message`."""
        return self._wait(False, deadline_of(True, timeout))

    def wait_room(self, timeout: float | None = None) -> bool:
        """Wait until a put has an answer; see :meth:`Queue.wait_room`."""
        return self._wait(True, deadline_of(True, timeout))

    def _wait(self, for_room: bool, deadline: float) -> bool:
        return bool(
            self._call(
                lambda number, handle: wire.Wait(number, handle, for_room, seconds_until(deadline)), is_repeatable=True
            )
        )

    # -- Inspection ---------------------------------------------------------------------------------------------------

    @property
    def queue_id(self) -> str:
        """The name of the queue at the server."""
        return self._queue_id

    @property
    def codec(self) -> str:
        """Name of the codec."""
        return self._codec_name

    @property
    def maxsize(self) -> int:
        """Most messages the queue holds; 0 when only bytes or memory bound it."""
        return self._maxsize

    @property
    def instance(self) -> str | None:
        """32 hexadecimal digits that no other queue has, not even a later one of the same name."""
        return self._handle.instance

    @property
    def closed(self) -> bool:
        """Whether this handle was closed."""
        return self._closed

    def qsize(self) -> int:
        """Messages that could be taken now."""
        return int(self._ask("qsize"))

    def empty(self) -> bool:
        """Whether nothing can be taken now."""
        return bool(self._ask("empty"))

    def full(self) -> bool:
        """Whether a put would have to wait now."""
        return bool(self._ask("full"))

    def stats(self) -> QueueFigures:
        """Counters since the queue was made, by all its users."""
        return QueueFigures(**self._ask("stats"))

    def connection_status(self) -> dict[str, Any]:
        """Figures of the connection; see :meth:`RPCQueueDescriptor.get_connection_status`."""
        return self._here().status()

    # -- Ending -------------------------------------------------------------------------------------------------------

    def shutdown(self, immediate: bool = False) -> int:
        """End the queue for everybody; see :meth:`Queue.shutdown`."""
        if (target := self._followed("shutdown")) is not None:
            dropped = int(target.shutdown(immediate))
            return dropped + (int(self._ask("clear", is_repeatable=False)) if immediate else 0)
        return int(self._ask("shutdown", bool(immediate), is_repeatable=False))

    def seal(self, successor: str) -> int:
        """End this queue in favour of another one, where the queue at the server can; see :meth:`Queue.seal`."""
        return int(self._ask("seal", successor, is_repeatable=False))

    def successor(self) -> str | None:
        """What this queue was sealed with."""
        found = self._ask("successor")
        return None if found is None else str(found)

    def close(self) -> None:
        """Give up this handle; the server gives its leases back and ends its waiting calls. Closing twice is fine."""
        if self._pid != os.getpid():  # the connection is the parent's, and so is the lock
            self._closed = True
            return
        if not self._closed:
            self._close_successor()
        with self._ending:
            if self._closed:
                return
            self._closed = True
        connection, handle = self._connection, self._handle
        try:
            if connection.is_up and handle.remote is not None:
                connection.call(Call(handle, wire.CloseHandle))
        except (QueueUnavailableError, OutcomeUnknownError, QueueLostError, QueueClosedError):
            return  # the server ends the handle with the session
        finally:
            connection.remove_handle(handle)
            connection.end_calls_of(handle, QueueClosedError(name=self._queue_id))
            connection.forget(handle)
            release(connection)

    def __reduce__(self) -> tuple[Callable[[Descriptor], Any], tuple[Descriptor]]:
        return reduced(self)

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open"
        return f"<RPCQueue {self._queue_id!r} at {self._address.endpoint}, {self._codec_name}, {state}>"


def _batches(items: Iterable[wire.Item]) -> Sequence[tuple[list[wire.Item], int]]:
    """Cut items into batches that fit a frame well. All are made before the first is used."""
    batches: list[tuple[list[wire.Item], int]] = []
    batch: list[wire.Item] = []
    size = 0
    for item in items:
        item_size = wire.size_of(item) + _EACH_ITEM_BYTES
        if batch and (len(batch) >= BATCH_ITEMS or size + item_size > wire.BATCH_BYTES):
            batches.append((batch, size))
            batch, size = [], 0
        batch.append(item)
        size += item_size
    return [*batches, (batch, size)] if batch else batches


_reopening = threading.Lock()


def _make_lock() -> None:
    """In a forked child: another thread of the parent may have held the lock."""
    global _reopening
    _reopening = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_make_lock)
