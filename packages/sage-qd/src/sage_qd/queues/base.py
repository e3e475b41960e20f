"""
The interface that every queue kind implements, with the whole contract.

Words and exceptions are those of the standard library's ``queue``; an implementation documents only what differs. What
not every kind can do is declared in :class:`Capabilities`, read by the contract tests and by the reference table.
"""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from functools import partial
from types import TracebackType
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar

from sage_qd.errors import Full, MessageTooLargeError, NotShareableError, QueueMovedError, ShutDown
from sage_qd.queues.turns import attempts
from sage_qd.queues.waiting import deadline_of, remaining

__all__ = [
    "Capabilities",
    "Delivery",
    "Descriptor",
    "Lease",
    "Ordering",
    "Queue",
    "QueueFigures",
    "QueueStats",
    "Reach",
]

T = TypeVar("T")
R = TypeVar("R")
T_co = TypeVar("T_co", covariant=True)


class Reach(Enum):
    """How far apart the two ends of a queue may be."""

    THREADS = "threads of one process"
    PROCESSES = "processes of one host"
    HOSTS = "hosts"


class Ordering(Enum):
    """In which order messages are taken."""

    FIFO = "one line: whatever was put first is taken first"
    PER_PRODUCER = "the messages of one producer in the order in which it put them"


class Delivery(Enum):
    """What the death of a consumer does to what it was handed."""

    WITH_THE_PROCESS = "items live and die with their process"
    ONCE_OR_LEASED = "get: at most once; lease: at least once"
    LEASED_OR_ONCE = "get: at least once, or at most once with ack='auto'; lease: at least once"


@dataclass(frozen=True, kw_only=True)
class Capabilities:
    """
    What a queue kind can do.

    Attributes:
        reach: How far apart producers and consumers may be.
        delivery: What becomes of an item when its consumer dies.
        survives_crash: Whether a process killed at any instruction leaves the queue usable for the others.
        lease: Whether ``lease`` works: items on trial, settled by ack or nack.
        views: Whether a leased message is shown in place, without a copy.
        joins: Whether ``task_done`` and ``join`` work.
        same_object: Whether ``get`` returns the very object that was put, instead of an equal one.
        bounded_by_bytes: Whether room runs out by bytes too, and ``max_bytes`` counts encoded bytes.
        uri_scheme: How the URI of its descriptor begins.
        ordering: In which order messages are taken.
        durable: Whether it can be made so that accepted messages outlive everybody who uses it.
        movable: Whether :func:`sage_qd.migrate` can move it to another kind while it is used.
    """

    reach: Reach
    delivery: Delivery
    survives_crash: bool
    lease: bool
    views: bool
    joins: bool
    same_object: bool
    bounded_by_bytes: bool
    uri_scheme: str
    ordering: Ordering = Ordering.FIFO
    durable: bool = False
    movable: bool = False


class Descriptor(Protocol):
    """What a queue knows of the data that names it: how to come back to the same queue."""

    @property
    def queue_id(self) -> str:
        """The name, any text."""

    def open(self, create: bool | None = None) -> Any:
        """Open the queue that this names."""


class QueueStats(Protocol):
    """
    The counters that all kinds have. Each is read without stopping anybody, so they may differ by what is under way.

    Attributes:
        puts: Messages ever put.
        gets: Messages that ever left: by get, by ack, or dropped.
        depth: Messages that could be taken now.
        leased: Messages out on lease.
        high_water: Most messages the queue was seen to hold.
        redeliveries: Leases that ended without an ack.
        dropped: Messages that clear and shutdown dropped.
        bytes_put: Encoded bytes ever put; None for a kind that holds objects.
        bytes_taken: Encoded bytes that ever left; None likewise.
        put_blocked_ns: Nanoseconds that producers waited for room, summed over all of them.
        get_blocked_ns: Nanoseconds that consumers waited for messages, summed over all of them.
        put_waiters: Producers that wait now; may be too many after a kill.
        get_waiters: Consumers that wait now; likewise.
        oldest_age_ns: The oldest message is at least this old; 0 when nothing is known of it.
        is_shutdown: Whether the queue was shut down.
    """

    @property
    def puts(self) -> int: ...  # noqa: D102  (the class docstring lists them)
    @property
    def gets(self) -> int: ...  # noqa: D102
    @property
    def depth(self) -> int: ...  # noqa: D102
    @property
    def leased(self) -> int: ...  # noqa: D102
    @property
    def high_water(self) -> int: ...  # noqa: D102
    @property
    def redeliveries(self) -> int: ...  # noqa: D102
    @property
    def dropped(self) -> int: ...  # noqa: D102
    @property
    def bytes_put(self) -> int | None: ...  # noqa: D102
    @property
    def bytes_taken(self) -> int | None: ...  # noqa: D102
    @property
    def put_blocked_ns(self) -> int: ...  # noqa: D102
    @property
    def get_blocked_ns(self) -> int: ...  # noqa: D102
    @property
    def put_waiters(self) -> int: ...  # noqa: D102
    @property
    def get_waiters(self) -> int: ...  # noqa: D102
    @property
    def oldest_age_ns(self) -> int: ...  # noqa: D102
    @property
    def is_shutdown(self) -> bool: ...  # noqa: D102


@dataclass(frozen=True, kw_only=True, slots=True)
class QueueFigures:
    """The counters of :class:`QueueStats` as a plain value, for kinds that have no more than these."""

    puts: int
    gets: int
    depth: int
    leased: int
    high_water: int
    redeliveries: int
    dropped: int
    put_blocked_ns: int
    get_blocked_ns: int
    put_waiters: int
    get_waiters: int
    oldest_age_ns: int
    is_shutdown: bool
    bytes_put: int | None = None
    bytes_taken: int | None = None


class Lease(Protocol[T_co]):
    """
    A message on trial: nobody else sees it, and it leaves the queue only by :meth:`ack`.

    As a context manager it acks when the block ends, and gives the message back when the block raises. Dropped without
    either, it gives the message back.
    """

    @property
    def value(self) -> T_co:
        """The message; where the kind has views, it may refer to the queue's memory, and is good until settled."""

    @property
    def attempt(self) -> int:
        """How many times somebody held this message before."""

    @property
    def redelivered(self) -> bool:
        """Whether somebody held this message before."""

    def ack(self) -> None:
        """
        Take the message out for good.

        Raises:
            FencedError: It was given to somebody else meanwhile.
            ValueError: The lease is settled already.
        """

    def nack(self) -> None:
        """
        Give the message back; it comes before everything younger, marked as redelivered.

        Raises:
            FencedError: It was given to somebody else meanwhile.
            ValueError: The lease is settled already.
        """

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Queue(ABC, Generic[T]):
    """
    Messages from producers to consumers, first in, first out.

    **Order.** Messages of one producer are taken in the order in which it put them; one that was leased and given back
    comes before everything younger. **Bound.** With ``maxsize`` above 0 the next put after that many messages waits;
    leased messages count. **Waiting.** ``block`` and ``timeout`` are those of ``queue.Queue``: ``timeout`` in seconds,
    ``None`` (or infinity) waits without end, zero or less tries once. Waits notice signals, ``close`` and ``shutdown``.
    **Threads.** Every method may be called from any thread. **Truth.** A queue is always true, however much it holds.

    Every method may raise :class:`~sage_qd.errors.QueueClosedError` after ``close``; ``TypeError`` or ``ValueError``
    answer a malformed argument, and leave the queue as it was. Every method may also raise ``CorruptQueueError`` where
    shared bytes break a rule, and ``QueueMovedError`` on a handle that cannot follow a move. Kinds whose messages are
    elsewhere (Ray, RPC) add ``QueueUnavailableError``, ``OutcomeUnknownError``, ``QueueLostError``,
    ``AuthenticationError`` and ``ProtocolError``.
    """

    capabilities: ClassVar[Capabilities]
    descriptor: Descriptor | None = None
    """The data that names this very queue and opens it elsewhere; None for a queue that was made without one."""

    # -- Write side ---------------------------------------------------------------------------------------------------

    @abstractmethod
    def put(self, item: T, block: bool = True, timeout: float | None = None) -> None:
        """
        Append one message, waiting while the queue is full.

        When this returns, the message is in the queue; when it raises, the queue is unchanged, unless the error is
        ``OutcomeUnknownError``: then nobody knows.

        Args:
            item: The message: what the kind carries: any object, or what its codec takes.
            block: Whether to wait for room at all.
            timeout: Seconds to wait.

        Raises:
            Full: No room within ``timeout``.
            ShutDown: The queue was shut down.
            MessageTooLargeError: It can never fit, however long one waits.
            QueueNoSpaceError: A large message needs a file of its own, and the file system is full.
            Exception: What the codec raises for an object that it does not take, as ``pickle.PicklingError``.
        """

    @abstractmethod
    def put_nowait(self, item: T) -> None:
        """Put without waiting: ``put(item, block=False)``."""

    @abstractmethod
    def put_many(self, items: Iterable[T], timeout: float | None = None) -> int:
        """
        Append many messages in order, waiting while the queue is full.

        Args:
            items: The messages; read to their end, and encoded, before the first is put; none is a no-op.
            timeout: Seconds to wait for all of them together.

        Returns:
            How many were put: always the first ones. Fewer than all when the time ran out or the queue was shut down;
            when it is moved meanwhile, the rest goes to its successor. What kept the rest out, the next call says.

        Raises:
            Full: Not even the first found room within ``timeout``.
            ShutDown: The queue was shut down before the first.
            MessageTooLargeError: One of them can never fit; none was put.
            QueueNoSpaceError: As put; those before it were put.
            Exception: What the codec raises for an object that it does not take; none was put.
        """

    # -- Read side ----------------------------------------------------------------------------------------------------

    @abstractmethod
    def get(self, block: bool = True, timeout: float | None = None) -> T:
        """
        Take the oldest message, waiting while there is none.

        Args:
            block: Whether to wait at all.
            timeout: Seconds to wait.

        Raises:
            Empty: Nothing came within ``timeout``.
            ShutDown: The queue was shut down, and nothing is left.
            PayloadError: The message was taken but could not be decoded; carries its bytes. The next get goes on.
        """

    @abstractmethod
    def get_nowait(self) -> T:
        """Take without waiting: ``get(block=False)``."""

    @abstractmethod
    def get_many(
        self, max_items: int, max_bytes: int | None = None, timeout: float | None = None, linger: float = 0
    ) -> list[T]:
        """
        Take what is there, in order: at least one message, waiting for that one.

        It may be fewer than there are: a very large message ends a batch.

        Args:
            max_items: Most messages to take, at least 1.
            max_bytes: Stop before the messages exceed this sum, but take the first; None or 0 for no bound. A kind that
                holds objects counts bytes-like ones only.
            timeout: Seconds to wait for the first message.
            linger: Seconds to go on collecting after the first message, until there are ``max_items``.

        Raises:
            Empty: Nothing came within ``timeout``.
            ShutDown: The queue was shut down, and nothing is left.
            PayloadError: One of them could not be decoded; carries its bytes, and the other messages in ``items``.
        """

    @abstractmethod
    def lease(self, block: bool = True, timeout: float | None = None) -> Lease[T]:
        """
        Take the oldest message on trial; see :class:`Lease`.

        Args:
            block: Whether to wait at all.
            timeout: Seconds to wait.

        Raises:
            Empty: Nothing came within ``timeout``.
            ShutDown: The queue was shut down, and nothing is left, nor out on lease.
        """

    def receive(self, block: bool = True, timeout: float | None = None) -> Lease[T]:
        """Lease under the name that reads well in ``with queue.receive() as lease:``; see :meth:`lease`."""
        return self.lease(block, timeout)

    def view(self, block: bool = True, timeout: float | None = None) -> Lease[T]:
        """
        Lease whose ``value`` is shown in place: an array on the queue's own memory, a ``memoryview`` for ``bytes``.

        Nothing is copied. The memory is read-only here, may be changed by others of this user, and is good until the
        lease is settled.

        Args:
            block: Whether to wait at all.
            timeout: Seconds to wait.

        Raises:
            Empty: Nothing came within ``timeout``.
            ShutDown: The queue was shut down, and nothing is left, nor out on lease.
            NotShareableError: The kind has no memory to show (``capabilities.views``).
        """
        raise NotShareableError(
            what=f"the memory of a {type(self).__name__}", instead="use lease(), which hands out a copy"
        )

    @abstractmethod
    def peek(self) -> T:
        """
        Look at the oldest message without taking it; it may be gone by the time this returns.

        Raises:
            Empty: There is none.
            ShutDown: The queue was shut down, and nothing is left.
        """

    @abstractmethod
    def clear(self) -> int:
        """Drop every message that nobody holds by lease, and return how many."""

    def __iter__(self) -> Iterator[T]:
        """Take messages one by one, waiting for each, until the queue is shut down and drained."""
        while True:
            try:
                message = self.get()
            except ShutDown:
                return
            yield message

    # -- Waiting without taking ---------------------------------------------------------------------------------------

    @abstractmethod
    def wait_message(self, timeout: float | None = None) -> bool:
        """
        Wait until a get has an answer: a message, or ``ShutDown``. Somebody else may be faster then.

        Args:
            timeout: Seconds to wait.

        Returns:
            Whether there is one; False when the time ran out.
        """

    @abstractmethod
    def wait_room(self, timeout: float | None = None) -> bool:
        """
        Wait until a put of a small message has an answer: room, or ``ShutDown``. Somebody else may be faster then.

        Args:
            timeout: Seconds to wait.

        Returns:
            Whether there is one; False when the time ran out.
        """

    # -- In asyncio ---------------------------------------------------------------------------------------------------

    async def aput(self, item: T, timeout: float | None = None) -> None:
        """Put, letting the event loop run while the queue is full; see :meth:`put`."""
        await self._attempts("wait_room", lambda: self.put_nowait(item), timeout)

    async def aput_many(self, items: Iterable[T], timeout: float | None = None) -> int:
        """Put many, letting the event loop run while the queue is full; see :meth:`put_many`."""
        queued = list(items)
        deadline = deadline_of(True, timeout)
        done = 0
        while done < len(queued):
            rest = queued[done:]
            try:
                done += await self._attempts("wait_room", partial(self._put_now, rest), remaining(deadline))
            except (Full, ShutDown, QueueMovedError, MessageTooLargeError):
                if done:
                    return done
                raise
        return done

    def _put_now(self, items: list[T]) -> int:
        return self.put_many(items, 0)

    async def aget(self, timeout: float | None = None) -> T:
        """Take, letting the event loop run while there is nothing; a cancelled call takes nothing. See :meth:`get`."""
        return await self._attempts("wait_message", lambda: self.get_nowait(), timeout)

    async def aget_many(self, max_items: int, max_bytes: int | None = None, timeout: float | None = None) -> list[T]:
        """Take what is there, letting the event loop run while there is nothing; see :meth:`get_many`."""
        return await self._attempts("wait_message", lambda: self.get_many(max_items, max_bytes, 0), timeout)

    async def alease(self, timeout: float | None = None) -> Lease[T]:
        """Lease, letting the event loop run while there is nothing; see :meth:`lease`."""
        return await self._attempts("wait_message", lambda: self.lease(False), timeout)

    async def areceive(self, timeout: float | None = None) -> Lease[T]:
        """Lease under its other name; see :meth:`receive`."""
        return await self.alease(timeout)

    async def __aiter__(self) -> AsyncIterator[T]:
        """Take messages one by one, waiting for each, until the queue is shut down and drained."""
        while True:
            try:
                message = await self.aget()
            except ShutDown:
                return
            yield message

    async def _attempts(self, wait: str, step: Callable[[], R], timeout: float | None) -> R:
        """Do a step that does not wait, again and again until it has an answer; see :mod:`sage_qd.queues.turns`."""
        return await attempts(self, wait, step, deadline_of(True, timeout))

    # -- Inspection ---------------------------------------------------------------------------------------------------

    @property
    @abstractmethod
    def maxsize(self) -> int:
        """Most messages the queue holds; 0 when only bytes or memory bound it."""

    @abstractmethod
    def qsize(self) -> int:
        """Messages that could be taken now: a moment's estimate while others are active, exact when nobody is."""

    @abstractmethod
    def empty(self) -> bool:
        """Whether nothing can be taken now: a moment's estimate."""

    @abstractmethod
    def full(self) -> bool:
        """Whether a put would have to wait now: a moment's estimate."""

    @abstractmethod
    def stats(self) -> QueueStats:
        """Counters since the queue was made, by all its users."""

    @property
    def is_shutdown(self) -> bool:
        """Whether the queue was shut down; the name is that of ``queue.Queue``."""
        return self.stats().is_shutdown

    @property
    @abstractmethod
    def closed(self) -> bool:
        """Whether this handle was closed."""

    # -- Ending -------------------------------------------------------------------------------------------------------

    @abstractmethod
    def shutdown(self, immediate: bool = False) -> int:
        """
        End the queue for everybody: put raises ``ShutDown`` from now on, get once everything was taken.

        All waiting calls notice. Shutting down twice does nothing more.

        Args:
            immediate: Also drop what is queued; get raises at once.

        Returns:
            How many messages were dropped.
        """

    def seal(self, successor: str) -> int:
        """
        End this queue in favour of another one; :func:`sage_qd.migrate` calls it.

        From the moment this returns, put raises ``QueueMovedError``, and so does get once everything was taken and no
        lease is out; both in all processes, for ever. The change is one step: whoever is killed in it leaves the queue
        as it was, or sealed.

        Args:
            successor: The JSON of the other queue's descriptor; the error carries it.

        Returns:
            How many messages were queued or out on lease at that moment.

        Raises:
            ShutDown: The queue was shut down, so there is nothing to move.
            QueueMovedError: It is sealed already.
            NotShareableError: The kind cannot be moved (``capabilities.movable``).
        """
        raise NotShareableError(
            what=f"the messages of a {type(self).__name__}", instead="drain it; this kind cannot be moved"
        )

    def successor(self) -> str | None:
        """What this queue was sealed with; None while it is not sealed."""
        return None

    def follow(self, open_successor: "Callable[[str, bool], Queue[Any]] | None") -> None:
        """
        Go over to the successor when the queue is moved, instead of raising ``QueueMovedError``.

        A descriptor says this to each queue that it opens. It changes nothing for a kind that cannot be moved.

        Args:
            open_successor: Opens the queue of a descriptor's JSON; with False only if it exists. None: raise the error.
        """

    def is_shared(self) -> bool:
        """Whether anybody else has a handle of this queue; True where the kind cannot tell."""
        return True

    def leave_behind(self) -> None:
        """Let the queue stay when this handle is closed as the last one, where it would go otherwise."""

    @abstractmethod
    def close(self) -> None:
        """
        Give up this handle; the queue lives on while anybody else holds one. Closing twice does nothing.

        Leases of this handle are given back; calls that wait on it in other threads raise ``QueueClosedError``.
        """

    def task_done(self) -> None:
        """
        Say that a message taken by get is worked off; acking a lease says it too.

        Raises:
            ValueError: More often than there were messages.
            NotShareableError: The kind does not count (``capabilities.joins``).
        """
        raise _uncounted(self)

    def join(self) -> None:
        """
        Wait until every message ever put was worked off.

        Raises:
            NotShareableError: The kind does not count (``capabilities.joins``).
        """
        raise _uncounted(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _uncounted(queue: Queue[Any]) -> NotShareableError:
    what = f"the count of unfinished tasks of a {type(queue).__name__}"
    return NotShareableError(what=what, instead="use lease() and ack() to settle work")
