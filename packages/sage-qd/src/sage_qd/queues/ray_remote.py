"""A Ray queue from another node: everything is a request to the actor, whole batches where it can be."""

import pickle
import weakref
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import accumulate
from time import monotonic
from types import TracebackType
from typing import Any, Final, Generic, Self, TypeVar, cast

from sage_qd.codecs import Codec, get_codec
from sage_qd.codecs.base import PICKLE_TAG, RAW_TAG
from sage_qd.codecs.pickled import PickleCodec, plain_pickles
from sage_qd.errors import (
    Empty,
    Full,
    OutcomeUnknownError,
    PayloadError,
    QueueClosedError,
    QueueLostError,
    QueueMovedError,
    QueueUnavailableError,
    ShutDown,
)
from sage_qd.queues.base import Lease, QueueStats
from sage_qd.queues.moving import follows
from sage_qd.queues.ray_queue import Link, RayQueue, later
from sage_qd.queues.ray_store import Batch, Message
from sage_qd.queues.waiting import check_batch, deadline_of, remaining

__all__ = ["RemoteRayQueue"]

T = TypeVar("T")

SLICE_SECONDS: Final = 1.0
"""How long a request may wait at the actor; the handle asks again until its own time is over."""
BATCH_MESSAGES: Final = 4096
BATCH_BYTES: Final = 1 << 18
"""A request that puts carries at most this, or one message."""


@follows
class RemoteRayQueue(RayQueue[T]):
    """
    A handle on another node: everything is a request to the actor.

    ``put_many`` sends batches without waiting for each to be answered, ``window`` at a time; the actor puts them in
    order, and none after one that did not fit. A call that was interrupted, by Ctrl-C, may already have been given
    messages: the next get of this handle returns them.

    Args:
        link: The way to the actor.
        queue_id: The name that the user gave.
        window: How many batches may be under way.
    """

    _at_home = False

    def __init__(self, link: Link, queue_id: str, window: int) -> None:
        super().__init__(link, queue_id)
        self._window = window
        self._encoding: Codec = get_codec(link.facts.settings["codec"])
        self._pickles = isinstance(self._encoding, PickleCodec)
        self._interrupted: deque[Any] = deque()
        self._surplus: deque[tuple[Any, int]] = deque()

    # -- Write side ---------------------------------------------------------------------------------------------------

    def put(self, item: T, block: bool = True, timeout: float | None = None) -> None:
        """Append one message; see :meth:`Queue.put`."""
        self._check_open()
        self._put_all([item], deadline_of(block, timeout))

    def put_nowait(self, item: T) -> None:
        """Append one message without waiting."""
        self.put(item, False)

    def put_many(self, items: Iterable[T], timeout: float | None = None) -> int:
        """Append many messages; see :meth:`Queue.put_many`."""
        self._check_open()
        deadline = deadline_of(True, timeout)
        queued = list(items)
        return self._put_all(queued, deadline) if queued else 0

    def _encoded(self, items: list[T]) -> Batch:
        """The messages as they travel."""
        if self._pickles and bytes not in set(map(type, items)):
            with suppress(TypeError):  # one of them has buffers, or cannot be pickled: the codec knows
                return plain_pickles(items), bytes([PICKLE_TAG]) * len(items)
        payloads, tags = [], bytearray()
        for item in items:
            tag, parts = (RAW_TAG, (cast(bytes, item),)) if type(item) is bytes else self._encoding.encode(item)
            payloads.append(b"".join(parts))
            tags.append(tag)
        return payloads, bytes(tags)

    def _put_all(self, items: list[T], deadline: float) -> int:
        done, (payloads, tags) = 0, self._encoded(items)
        while True:
            try:
                done += self._put_window(payloads[done:], tags[done:], _slice(deadline))
            except Full:
                pass  # the time of one request is over; ours may not be
            except ShutDown:
                if done:
                    return done
                raise
            except QueueMovedError as error:
                return self._put_rest(error, done, items[done:], deadline)
            if done == len(payloads):
                return done
            if deadline <= monotonic():
                if done:
                    return done
                raise Full

    def _put_window(self, payloads: list[bytes], tags: bytes, seconds: float) -> int:
        """Send batches, a window at a time, and return how many messages were put: always the first ones."""
        under_way: deque[Any] = deque()
        put, fits, after = 0, True, None
        batches = _batches(payloads, tags)
        while fits or under_way:
            batch = next(batches, None) if fits and len(under_way) < self._window else None
            if batch is not None:
                request = self._link.send("put", batch, after, seconds)
                after = request.number
                under_way.append(request)
            elif under_way:
                try:
                    done, wanted = self._answered(under_way.popleft())
                except (Full, ShutDown, QueueMovedError):
                    if not put and fits:
                        for request in under_way:  # none of these was put: they come after this one
                            self._answered_quietly(request)
                        raise
                    done, wanted = 0, 1
                put += done
                fits = fits and done == wanted
            else:
                break
        return put

    def _answered_quietly(self, request: Any) -> None:
        """Wait for an answer that is known to be that nothing was put."""
        try:
            self._answered(request)
        except (Full, ShutDown, QueueMovedError):
            return

    # -- Read side ----------------------------------------------------------------------------------------------------

    def get(self, block: bool = True, timeout: float | None = None) -> T:
        """Take the oldest message; see :meth:`Queue.get`."""
        return self._decoded(*self._take(1, None, deadline_of(block, timeout)))[0]

    def get_nowait(self) -> T:
        """Take the oldest message without waiting."""
        return self.get(False)

    def get_many(
        self, max_items: int, max_bytes: int | None = None, timeout: float | None = None, linger: float = 0
    ) -> list[T]:
        """Take what is there; see :meth:`Queue.get_many`."""
        check_batch(max_items, max_bytes)
        patience = deadline_of(True, linger) - monotonic() if linger else 0
        payloads, tags = self._take(max_items, max_bytes, deadline_of(True, timeout))
        end = monotonic() + patience
        while len(payloads) < max_items and monotonic() < end:
            left = max_bytes - sum(map(len, payloads)) if max_bytes else None
            if left is not None and left <= 0:
                break
            try:
                more, their_tags = self._take(max_items - len(payloads), left, end, strict=True)
            except (Empty, ShutDown, QueueMovedError):
                break
            if not more:
                break
            payloads += more
            tags += their_tags
        return self._decoded(payloads, tags)

    def _take(self, max_items: int, max_bytes: int | None, deadline: float, strict: bool = False) -> Batch:
        self._check_open()
        while True:
            while self._interrupted:
                self._surplus += zip(*self._answered(self._interrupted.popleft()), strict=True)
            if self._surplus:
                found = [self._surplus.popleft() for _ in range(min(max_items, len(self._surplus)))]
                return [payload for payload, _ in found], bytes(tag for _, tag in found)
            request = self._link.send("take", max_items, max_bytes, _slice(deadline), strict)
            try:
                batch: Batch = self._answered(request)
            except Empty:
                if deadline <= monotonic():
                    raise Empty from None
            except Exception:
                raise
            except BaseException:
                self._interrupted.append(request)
                raise
            else:
                return batch

    def _decoded(self, payloads: list[Any], tags: bytes) -> list[T]:
        """
        Return the messages as objects.

        Raises:
            PayloadError: One cannot be decoded. Others that cannot be are such errors among its ``items``.
        """
        if self._pickles and tags.count(PICKLE_TAG) == len(tags):
            with suppress(Exception):  # whatever it is, it is met again below
                return list(map(pickle.loads, payloads))
        objects: list[Any] = []
        failed: PayloadError | None = None
        for tag, payload in zip(tags, payloads, strict=True):
            try:
                objects.append(payload if tag == RAW_TAG else self._encoding.decode(tag, payload))
            except Exception as error:  # noqa: BLE001  (whatever it is, it becomes the cause of PayloadError)
                spoilt = PayloadError(tag=tag, payload=bytes(payload))
                spoilt.__cause__ = error
                if failed is None:
                    failed = spoilt
                else:
                    objects.append(spoilt)
        if failed is not None:
            raise PayloadError(tag=failed.tag, payload=failed.payload, items=objects) from failed.__cause__
        return objects

    def _message(self, message: Message) -> T:
        tag, payload = message if isinstance(message, tuple) else (RAW_TAG, message)
        return self._decoded([payload], bytes([tag]))[0]

    def lease(self, block: bool = True, timeout: float | None = None) -> Lease[T]:
        """Take the oldest message on trial; see :meth:`Queue.lease`."""
        deadline = deadline_of(block, timeout)
        self._check_open()
        while True:
            try:
                number, message, attempt = self._answered(self._link.send("lease", _slice(deadline)))
            except Empty:
                if deadline <= monotonic():
                    raise Empty from None
            else:
                return _RemoteLease(self, number, message, attempt)

    def peek(self) -> T:
        """Look at the oldest message; see :meth:`Queue.peek`."""
        return self._message(self._asked("peek"))

    def clear(self) -> int:
        """Drop every message that nobody holds, and return how many."""
        return cast(int, self._asked("clear"))

    # -- Waiting and inspection ---------------------------------------------------------------------------------------

    def wait_message(self, timeout: float | None = None) -> bool:
        """Wait until a get has an answer; see :meth:`Queue.wait_message`."""
        return self._waited("wait_message", timeout)

    def wait_room(self, timeout: float | None = None) -> bool:
        """Wait until a put has an answer; see :meth:`Queue.wait_room`."""
        return self._waited("wait_room", timeout)

    def _waited(self, verb: str, timeout: float | None) -> bool:
        deadline = deadline_of(True, timeout)
        while not self._asked(verb, _slice(deadline)):
            if deadline <= monotonic():
                return False
        return True

    def qsize(self) -> int:
        """Messages that could be taken now."""
        return cast(int, self._asked("qsize"))

    def empty(self) -> bool:
        """Whether nothing can be taken now."""
        return cast(bool, self._asked("empty"))

    def full(self) -> bool:
        """Whether a put would have to wait now."""
        return cast(bool, self._asked("full"))

    def stats(self) -> QueueStats:
        """Counters since the queue was made, of all its users."""
        return cast(QueueStats, self._asked("stats"))

    def _answered(self, request: Any) -> Any:
        try:
            return self._link.answer(request)
        except (QueueClosedError, QueueMovedError) as error:
            raise self._named(error) from None


class _RemoteLease(Generic[T]):
    """A lease that the actor holds for a handle; see :class:`~sage_qd.Lease`."""

    def __init__(self, queue: RemoteRayQueue[T], number: int, message: Message, attempt: int) -> None:
        self._queue = queue
        self._number = number
        self._message = message
        self._value: list[T] = []
        self._attempt = attempt
        # Whoever drops a lease may be in the middle of anything, even of a request: another thread sends the nack.
        self._drop = weakref.finalize(self, later, _given_back, weakref.ref(queue), number)
        self._drop.atexit = False

    @property
    def value(self) -> T:
        """The message."""
        if not self._value:
            self._value = [self._queue._message(self._message)]
        return self._value[0]

    @property
    def attempt(self) -> int:
        """How many times somebody held this message before."""
        return self._attempt

    @property
    def redelivered(self) -> bool:
        """Whether somebody held this message before."""
        return self._attempt > 0

    def ack(self) -> None:
        """Take the message out for good; see :meth:`Lease.ack`."""
        self._settle(True)

    def nack(self) -> None:
        """Give the message back; see :meth:`Lease.nack`."""
        self._settle(False)

    def _settle(self, ack: bool) -> None:
        if self._drop.detach() is None:
            raise ValueError("this lease is settled already")
        self._queue._asked("settle", self._number, ack)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._drop.alive:
            self._settle(kind is None)


def _given_back(queue: "weakref.ref[RemoteRayQueue[Any]]", number: int) -> None:
    """Nack a dropped lease; a queue that is closed or lost did so itself, one that is silent does when we leave."""
    held = queue()
    if held is not None:
        try:
            held._asked("settle", number, False)
        except (QueueClosedError, QueueLostError, QueueUnavailableError, OutcomeUnknownError):
            return


def _slice(deadline: float) -> float:
    left = remaining(deadline)
    return SLICE_SECONDS if left is None else min(left, SLICE_SECONDS)


def _batches(payloads: list[bytes], tags: bytes) -> Iterator[Batch]:
    """Cut into batches of bounded count and bytes; a message beyond the bound travels alone."""
    ends = list(accumulate(map(len, payloads)))
    start = before = 0
    while start < len(payloads):
        end = max(bisect_right(ends, before + BATCH_BYTES, start, min(start + BATCH_MESSAGES, len(ends))), start + 1)
        yield payloads[start:end], tags[start:end]
        start, before = end, ends[end - 1]
