"""
Queue for a Ray cluster, as its handles see it: on the ring at the queue's home, through the actor elsewhere.

Nothing here imports Ray; how requests reach the actor is a :class:`Link`, made in :mod:`sage_qd.queues.ray_actor`.
"""

import os
import select
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from queue import SimpleQueue
from time import monotonic
from types import TracebackType
from typing import Any, ClassVar, Final, Generic, NoReturn, Protocol, Self, TypeVar, cast

from sage_qd.codecs import Codec, get_codec
from sage_qd.errors import (
    Empty,
    Full,
    NotShareableError,
    PayloadError,
    QueueClosedError,
    QueueLostError,
    QueueMovedError,
    QueueUnavailableError,
    ShutDown,
)
from sage_qd.queues.abilities import RAY
from sage_qd.queues.base import Capabilities, Lease, QueueStats
from sage_qd.queues.moving import Follower, follows
from sage_qd.queues.ray_store import Facts, Message
from sage_qd.queues.sage_ring import SageQueue
from sage_qd.queues.waiting import check_batch, deadline_of, remaining

__all__ = ["HomeRayQueue", "Link", "RayQueue", "RemoteRayQueue", "Request", "later"]

T = TypeVar("T")
R = TypeVar("R")

SLICE_SECONDS: Final = 1.0
"""How long a request may wait at the actor; the handle asks again until its own time is over."""
BATCH_MESSAGES: Final = 4096
BATCH_BYTES: Final = 1 << 18
"""A request that puts carries at most this, or one message."""


class Request(Protocol):
    """A request that is under way."""

    @property
    def number(self) -> int:
        """Counts the requests of the handle."""


class Link(Protocol):
    """The way from one handle to the actor."""

    facts: Facts
    endpoint: str

    def send(self, verb: str, *arguments: Any) -> Any:
        """Send a request without waiting for its answer."""

    def answer(self, request: Any) -> Any:
        """
        Wait for the answer: return it, or raise what it is.

        Raises:
            QueueLostError: The actor is gone.
            OutcomeUnknownError: It was sent, and no answer came.
        """

    def call(self, verb: str, *arguments: Any) -> Any:
        """Send a request and wait for its answer."""

    def lost(self) -> QueueLostError:
        """The error of a handle whose actor is gone."""

    def leave(self) -> None:
        """Leave the queue; twice is once. A queue that is gone is left already."""


class RayQueue(Follower[T]):
    """
    Queue of objects for a Ray cluster: an actor owns the ring of the queue, on the *home* node.

    Open one through its descriptor, in the driver, in a task or in an actor. On the home node the handle works on the
    ring itself, at its speed; on other nodes it sends requests to the actor, whole batches where it can. Both are the
    same queue with the same rules; what they add to the interface:

    * ``put`` copies, so changing a message afterwards changes nothing in the queue.
    * A handle belongs to one life of the actor. When the actor dies, every waiting and every later call raises
      ``QueueLostError``; a durable queue can be opened again then, and has its messages.
    * A forked child cannot use an inherited handle: its calls raise ``QueueClosedError``.
    * ``seal`` refuses a durable queue with ``NotShareableError``.

    Args:
        link: The way to the actor, which let us in.
        queue_id: The name that the user gave.
    """

    capabilities: ClassVar[Capabilities] = RAY

    def __init__(self, link: Link, queue_id: str) -> None:
        self._link = link
        self._queue_id = queue_id
        self._closed = False
        self._end = weakref.finalize(self, later, link.leave)
        self._end.atexit = False  # Ray tells the actor of the end of a process
        _handles.add(self)

    @property
    def queue_id(self) -> str:
        """The name that the user gave."""
        return self._queue_id

    @property
    def instance(self) -> str:
        """32 hexadecimal digits that no other queue has; a durable queue keeps them when its actor is restarted."""
        return self._link.facts.instance

    @property
    def incarnation(self) -> str:
        """32 hexadecimal digits of the actor's life; other ones after each restart."""
        return self._link.facts.incarnation

    @property
    def at_home(self) -> bool:
        """Whether this handle works on the ring itself."""
        return isinstance(self, HomeRayQueue)

    @property
    def maxsize(self) -> int:
        """Most messages the queue holds; 0 when bounded by bytes alone."""
        return cast(int, self._link.facts.settings["maxsize"])

    @property
    def codec(self) -> str:
        """Name of the codec."""
        return cast(str, self._link.facts.settings["codec"])

    @property
    def closed(self) -> bool:
        """Whether this handle was closed."""
        return self._closed

    def shutdown(self, immediate: bool = False) -> int:
        """End the queue for everybody; see :meth:`Queue.shutdown`."""
        if (target := self._followed("shutdown")) is not None:
            return int(target.shutdown(immediate)) + (self.clear() if immediate else 0)
        return cast(int, self._asked("shutdown", immediate))

    def seal(self, successor: str) -> int:
        """End this queue in favour of another one; see :meth:`Queue.seal`."""
        return cast(int, self._asked("seal", successor))

    def successor(self) -> str | None:
        """What this queue was sealed with."""
        return cast("str | None", self._asked("successor"))

    def destroy(self) -> None:
        """End the queue with its messages and its actor: all other handles find it lost. Closes this one."""
        self._asked("end")
        self.close()

    def close(self) -> None:
        """Give up this handle; the last one of all ends the queue, unless it is detached or durable."""
        if not self._closed:
            self._close_successor()
            self._closed = True
            self._end.detach()
            self._link.leave()

    def _after_fork(self) -> None:
        """In a forked child: be closed without a word to the actor, which knows the parent only."""
        self._closed = True
        self._end.detach()

    def _asked(self, verb: str, *arguments: Any) -> Any:
        self._check_open()
        try:
            return self._link.call(verb, *arguments)
        except (QueueClosedError, QueueMovedError) as error:
            raise self._named(error) from None

    def _check_open(self) -> None:
        if self._closed:
            raise QueueClosedError(name=self._queue_id)

    def _named(self, error: QueueClosedError | QueueMovedError) -> Exception:
        """The same error with the name of the queue, which the actor leaves out."""
        if isinstance(error, QueueMovedError):
            return QueueMovedError(name=self._queue_id, successor=error.successor)
        return QueueClosedError(name=self._queue_id)

    def __reduce__(self) -> NoReturn:
        raise NotShareableError(
            what=f"an open {type(self).__name__}", instead="send queue.descriptor and open it on the other side"
        )

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._queue_id!r}, {self.codec}, {'closed' if self._closed else 'open'}>"


@follows
class HomeRayQueue(RayQueue[T]):
    """
    A handle on the node of the actor: the ring is its own, the actor is asked only to end the queue.

    A thread sleeps until the kernel says that the actor's process has ended; then it closes our handle of the ring,
    which ends every call that waits on it, and from then on the queue is lost.

    Args:
        link: The way to the actor.
        queue_id: The name that the user gave.
        ring: Our handle of the queue's ring; closed with this one.
        actor: The process of the actor, as a descriptor of ``pidfd_open``; closed here.
    """

    capabilities: ClassVar[Capabilities] = replace(RayQueue.capabilities, views=True)

    def __init__(self, link: Link, queue_id: str, ring: SageQueue[T], actor: int) -> None:
        super().__init__(link, queue_id)
        self._ring = ring
        self._lost = False
        self._watch = _DeathWatch(actor, weakref.WeakMethod(self._lose))

    def _lose(self) -> None:
        """The actor is dead: end what waits, and say so from now on."""
        self._lost = True
        self._ring.close()

    def _explained(self, error: Exception) -> Exception:
        """What an error of the ring means for this queue."""
        if isinstance(error, ShutDown):
            successor = self._link.call("successor")
            return error if successor is None else QueueMovedError(name=self._queue_id, successor=successor)
        if self._lost and not self._closed:
            return self._link.lost()
        return QueueClosedError(name=self._queue_id)

    def _of_ring(self, call: Callable[..., R], *arguments: Any) -> R:
        try:
            return call(*arguments)
        except (ShutDown, QueueClosedError) as error:
            raise self._explained(error) from None

    # The methods for single messages spell out what _of_ring does: they are called a million times a second.

    def put(self, item: T, block: bool = True, timeout: float | None = None) -> None:
        """Append one message; see :meth:`Queue.put`."""
        try:
            self._ring.put(item, block, timeout)
        except (ShutDown, QueueClosedError) as error:
            raise self._explained(error) from None

    def put_nowait(self, item: T) -> None:
        """Append one message without waiting."""
        try:
            self._ring.put_nowait(item)
        except (ShutDown, QueueClosedError) as error:
            raise self._explained(error) from None

    def get(self, block: bool = True, timeout: float | None = None) -> T:
        """Take the oldest message; see :meth:`Queue.get`."""
        try:
            return self._ring.get(block, timeout)
        except (ShutDown, QueueClosedError) as error:
            raise self._explained(error) from None

    def get_nowait(self) -> T:
        """Take the oldest message without waiting."""
        try:
            return self._ring.get_nowait()
        except (ShutDown, QueueClosedError) as error:
            raise self._explained(error) from None

    def put_many(self, items: Iterable[T], timeout: float | None = None) -> int:
        """Append many messages; see :meth:`Queue.put_many`."""
        return self._of_ring(self._ring.put_many, items, timeout)

    def get_many(
        self, max_items: int, max_bytes: int | None = None, timeout: float | None = None, linger: float = 0
    ) -> list[T]:
        """Take what is there; see :meth:`Queue.get_many`."""
        return self._of_ring(self._ring.get_many, max_items, max_bytes, timeout, linger)

    def lease(self, block: bool = True, timeout: float | None = None) -> Lease[T]:
        """Take the oldest message on trial; see :meth:`Queue.lease`."""
        return self._of_ring(self._ring.lease, block, timeout)

    def view(self, block: bool = True, timeout: float | None = None) -> Lease[T]:
        """Take the oldest message on trial and show it in place; see :meth:`Queue.view`."""
        return self._of_ring(self._ring.view, block, timeout)

    def wait_message(self, timeout: float | None = None) -> bool:
        """Wait until a get has an answer; see :meth:`Queue.wait_message`."""
        return self._of_ring(self._ring.wait_message, timeout)

    def wait_room(self, timeout: float | None = None) -> bool:
        """Wait until a put has an answer; see :meth:`Queue.wait_room`."""
        return self._of_ring(self._ring.wait_room, timeout)

    def peek(self) -> T:
        """Look at the oldest message; see :meth:`Queue.peek`."""
        return self._of_ring(self._ring.peek)

    def clear(self) -> int:
        """Drop every message that nobody holds, and return how many."""
        return self._of_ring(self._ring.clear)

    def qsize(self) -> int:
        """Messages that could be taken now."""
        return self._of_ring(self._ring.qsize)

    def empty(self) -> bool:
        """Whether nothing can be taken now."""
        return self._of_ring(self._ring.empty)

    def full(self) -> bool:
        """Whether a put would have to wait now."""
        return self._of_ring(self._ring.full)

    def stats(self) -> QueueStats:
        """Counters since the queue was made, of all its users."""
        return self._of_ring(self._ring.stats)

    def close(self) -> None:
        """Give up this handle; the last one of all ends the queue, unless it is detached or durable."""
        super().close()
        self._watch.stop()
        self._ring.close()

    def _after_fork(self) -> None:
        super()._after_fork()
        self._ring.close()

    def __del__(self) -> None:
        if (watch := vars(self).get("_watch")) is not None:
            watch.stop()


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

    def __init__(self, link: Link, queue_id: str, window: int) -> None:
        super().__init__(link, queue_id)
        self._window = window
        self._encoding: Codec = get_codec(link.facts.settings["codec"])
        self._interrupted: deque[Any] = deque()
        self._surplus: deque[Message] = deque()

    # -- Write side ---------------------------------------------------------------------------------------------------

    def put(self, item: T, block: bool = True, timeout: float | None = None) -> None:
        """Append one message; see :meth:`Queue.put`."""
        self._check_open()
        self._put_all([self._encoded(item)], deadline_of(block, timeout))

    def put_nowait(self, item: T) -> None:
        """Append one message without waiting."""
        self.put(item, False)

    def put_many(self, items: Iterable[T], timeout: float | None = None) -> int:
        """Append many messages; see :meth:`Queue.put_many`."""
        self._check_open()
        deadline = deadline_of(True, timeout)
        messages = [self._encoded(item) for item in items]
        return self._put_all(messages, deadline) if messages else 0

    def _encoded(self, item: T) -> Message:
        """The message as it travels."""
        if type(item) is bytes:
            return cast(bytes, item)
        tag, parts = self._encoding.encode(item)
        return tag, b"".join(parts)

    def _put_all(self, messages: list[Message], deadline: float) -> int:
        done = 0
        while True:
            try:
                done += self._put_window(messages[done:], _slice(deadline))
            except Full:
                pass  # the time of one request is over; ours may not be
            except (ShutDown, QueueMovedError):
                if done:
                    return done
                raise
            if done == len(messages):
                return done
            if deadline <= monotonic():
                if done:
                    return done
                raise Full

    def _put_window(self, messages: list[Message], seconds: float) -> int:
        """Send batches, a window at a time, and return how many messages were put: always the first ones."""
        under_way: deque[Any] = deque()
        put, fits, after = 0, True, None
        batches = _batches(messages)
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
        return self._decoded(self._take(1, None, deadline_of(block, timeout)))[0]

    def get_nowait(self) -> T:
        """Take the oldest message without waiting."""
        return self.get(False)

    def get_many(
        self, max_items: int, max_bytes: int | None = None, timeout: float | None = None, linger: float = 0
    ) -> list[T]:
        """Take what is there; see :meth:`Queue.get_many`."""
        check_batch(max_items, max_bytes)
        patience = deadline_of(True, linger) - monotonic() if linger else 0
        messages = self._take(max_items, max_bytes, deadline_of(True, timeout))
        end = monotonic() + patience
        while len(messages) < max_items and monotonic() < end:
            left = max_bytes - sum(map(_length, messages)) if max_bytes else None
            if left is not None and left <= 0:
                break
            try:
                more = self._take(max_items - len(messages), left, end, strict=True)
            except (Empty, ShutDown, QueueMovedError):
                break
            if not more:
                break
            messages += more
        return self._decoded(messages)

    def _take(self, max_items: int, max_bytes: int | None, deadline: float, strict: bool = False) -> list[Message]:
        self._check_open()
        while True:
            while self._interrupted:
                self._surplus += self._answered(self._interrupted.popleft())
            if self._surplus:
                return [self._surplus.popleft() for _ in range(min(max_items, len(self._surplus)))]
            request = self._link.send("take", max_items, max_bytes, _slice(deadline), strict)
            try:
                messages: list[Message] = self._answered(request)
            except Empty:
                if deadline <= monotonic():
                    raise Empty from None
            except Exception:
                raise
            except BaseException:
                self._interrupted.append(request)
                raise
            else:
                return messages

    def _decoded(self, messages: list[Message]) -> list[T]:
        """
        Return the messages as objects.

        Raises:
            PayloadError: One cannot be decoded. Others that cannot be are such errors among its ``items``.
        """
        objects: list[Any] = []
        failed: PayloadError | None = None
        for message in messages:
            if isinstance(message, bytes):
                objects.append(message)
                continue
            try:
                objects.append(self._encoding.decode(*message))
            except Exception as error:  # noqa: BLE001  (whatever it is, it becomes the cause of PayloadError)
                spoilt = PayloadError(tag=message[0], payload=bytes(message[1]))
                spoilt.__cause__ = error
                if failed is None:
                    failed = spoilt
                else:
                    objects.append(spoilt)
        if failed is not None:
            raise PayloadError(tag=failed.tag, payload=failed.payload, items=objects) from failed.__cause__
        return objects

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
        return self._decoded([self._asked("peek")])[0]

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
            self._value = self._queue._decoded([self._message])
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
    """Nack a lease that was dropped; a queue that is closed or lost has given it back already."""
    held = queue()
    if held is not None:
        try:
            held._asked("settle", number, False)
        except (QueueClosedError, QueueLostError, QueueUnavailableError):
            return


def _slice(deadline: float) -> float:
    left = remaining(deadline)
    return SLICE_SECONDS if left is None else min(left, SLICE_SECONDS)


def _length(message: Message) -> int:
    return len(message if isinstance(message, bytes) else message[1])


def _batches(messages: list[Message]) -> Iterator[list[Message]]:
    """Cut into batches of bounded count and bytes; a message beyond the bound travels alone."""
    batch: list[Message] = []
    size = 0
    for message in messages:
        length = _length(message)
        if batch and (len(batch) == BATCH_MESSAGES or size + length > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(message)
        size += length
    if batch:
        yield batch


class _DeathWatch:
    """
    A thread that sleeps until a process has ended, or until it is told to stop.

    Args:
        process: A descriptor of ``pidfd_open``; closed here.
        then: What to call when the process has ended, as long as its object lives.
    """

    def __init__(self, process: int, then: "weakref.WeakMethod[Callable[[], None]]") -> None:
        self._process = process
        self._stopper = os.eventfd(0, os.EFD_CLOEXEC)
        self._ends = threading.Lock()
        self._ended = False
        self._then = then
        threading.Thread(target=self._run, name="sage-qd-ray-actor", daemon=True).start()

    def stop(self) -> None:
        """End the thread soon."""
        with self._ends:  # its descriptors are open as long as it has not ended
            if not self._ended:
                os.eventfd_write(self._stopper, 1)

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self._process, select.POLLIN)
        poll.register(self._stopper, select.POLLIN)
        ready = {descriptor for descriptor, _ in poll.poll()}
        with self._ends:
            self._ended = True
            os.close(self._process)
            os.close(self._stopper)
        if self._stopper not in ready and (then := self._then()) is not None:
            then()


# -- What is done later, by one thread of the process -----------------------------------------------------------------

_tasks: "SimpleQueue[tuple[Callable[..., None], tuple[Any, ...]]]" = SimpleQueue()
_courier: list[int] = []
_starting = threading.Lock()
_handles: "weakref.WeakSet[RayQueue[Any]]" = weakref.WeakSet()


def later(call: Callable[..., None], *arguments: Any) -> None:
    """
    Have another thread call this. Safe where the garbage collector runs, so in the middle of anything: no lock of ours
    is waited for, and ``SimpleQueue.put`` may interrupt itself.
    """
    _tasks.put((call, arguments))
    if os.getpid() not in _courier and _starting.acquire(blocking=False):
        try:
            if os.getpid() not in _courier:
                _courier[:] = [os.getpid()]
                threading.Thread(target=_carry, name="sage-qd-ray-courier", daemon=True).start()
        finally:
            _starting.release()


def _carry() -> None:
    while True:
        call, arguments = _tasks.get()
        call(*arguments)
        del call, arguments


def _forked() -> None:
    global _starting
    _starting = threading.Lock()
    for handle in list(_handles):
        handle._after_fork()


os.register_at_fork(after_in_child=_forked)
