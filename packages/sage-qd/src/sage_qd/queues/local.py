"""
Queue between the threads of one process: the words and manners of ``queue.Queue``, with leases and batches.

A :class:`LocalQueue` is a handle; what is queued is in a :class:`Store` that all handles of one name share. A store
that is to leave its process is *moved*: its messages go to another queue, and every handle follows from then on.
"""

import threading
from collections.abc import Callable, Iterable
from functools import partial
from math import inf
from time import monotonic
from types import TracebackType
from typing import Any, ClassVar, Final, Generic, NoReturn, Self, TypeVar, cast
from weakref import WeakValueDictionary

from sage_qd.errors import (
    Empty,
    Full,
    GeometryMismatchError,
    MessageTooLargeError,
    NotShareableError,
    QueueClosedError,
    QueueMovedError,
    QueueNotFoundError,
    ShutDown,
)
from sage_qd.queues.base import Capabilities, Delivery, Lease, Queue, QueueStats, Reach
from sage_qd.queues.local_store import SLICE_SECONDS, Held, Store
from sage_qd.queues.moving import Succession
from sage_qd.queues.waiting import TRY_ONCE, check_batch, deadline_of, wait_until

__all__ = ["LocalLease", "LocalQueue"]

T = TypeVar("T")
R = TypeVar("R")


_named_stores: WeakValueDictionary[str, Store] = WeakValueDictionary()
_named_stores_mutex: Final = threading.Lock()
_left_behind: Final[dict[str, Store]] = {}
"""Stores that stay although nobody has a handle; who opens the name takes one over."""


class LocalQueue(Queue[T]):
    """
    Queue between threads; hands over the very objects that were put.

    Made by itself it has no name and this is its only handle; :meth:`open` shares one queue under a name among all the
    threads of the process, until the last handle is closed or gone.

    Args:
        maxsize: Most messages to hold; 0 or less for no bound.
    """

    capabilities: ClassVar[Capabilities] = Capabilities(
        reach=Reach.THREADS,
        delivery=Delivery.WITH_THE_PROCESS,
        survives_crash=False,
        lease=True,
        views=False,
        joins=True,
        same_object=True,
        bounded_by_bytes=False,
        uri_scheme="local",
        movable=True,
    )

    def __init__(self, maxsize: int = 0) -> None:
        if isinstance(maxsize, bool) or not isinstance(maxsize, int):
            raise TypeError(f"maxsize must be an int, not {maxsize!r}")
        self._store = Store(None, max(maxsize, 0))
        self._store.handles.add(self)
        self._succession: Succession | None = None
        self._closed = False
        self._held: dict[int, Held] = {}

    @classmethod
    def open(cls, name: str, maxsize: int = 0, *, create: bool = True) -> Self:
        """
        Return a new handle of the queue of this name, making the queue if need be.

        Args:
            name: Any text.
            maxsize: As for a new queue; one that exists must have the same.
            create: Whether the queue may be made here.

        Raises:
            GeometryMismatchError: The queue exists with another ``maxsize``.
            QueueNotFoundError: There is no such queue in this process, and ``create`` is False.
        """
        handle = cls(maxsize)
        with _named_stores_mutex:
            store = _left_behind.pop(name, None) or _named_stores.get(name)
            if store is None:
                if not create:
                    raise QueueNotFoundError(name=name)
                store = handle._store
                store.name = name
                _named_stores[name] = store
        if store.maxsize != max(maxsize, 0):
            raise GeometryMismatchError(name=name, wanted={"maxsize": maxsize}, found={"maxsize": store.maxsize})
        handle._store = store
        store.handles.add(handle)
        return handle

    # -- Write side ---------------------------------------------------------------------------------------------------

    def put(self, item: T, block: bool = True, timeout: float | None = None) -> None:
        """Append one message; see :meth:`Queue.put`."""
        store = self._store
        deadline = deadline_of(block, timeout)
        with store.mutex:
            # The first half is the common case, without a call.
            if not (store.maxsize or store.ended or self._closed) or self._may_put(deadline):
                store.append(item)
                return
            target = self._put_target()
        if target is None:
            raise Full(f"the queue holds {store.maxsize:,} messages")
        self._follow(lambda seconds: target.put(item, True, seconds), deadline)

    def put_nowait(self, item: T) -> None:
        """Append one message without waiting."""
        self.put(item, False)

    def put_many(self, items: Iterable[T], timeout: float | None = None) -> int:
        """Append many messages; see :meth:`Queue.put_many`."""
        queued = list(items)
        deadline = deadline_of(True, timeout)
        store = self._store
        done = 0
        with store.mutex:
            while done < len(queued) and self._may_put(deadline, done > 0):
                store.append(queued[done])
                done += 1
            self._check_open()
            target = self._put_target()
        if target is not None:
            while done < len(queued):
                step = partial(target.put_many, queued[done:])
                try:
                    done += self._follow(step, deadline)
                except (Full, ShutDown, QueueMovedError, MessageTooLargeError):
                    if done:
                        return done
                    raise
        if queued and not done:
            raise Full(f"the queue holds {store.maxsize:,} messages")
        return done

    def _may_put(self, deadline: float, no_raise: bool = False) -> bool:
        """Wait for room. False: the deadline passed, the queue was moved, or it was shut down and may not raise."""
        store = self._store
        store.collect()
        while True:
            self._check_open()
            if store.moved_to is not None:
                return False
            if store.shut:
                if no_raise or self._may_go_over():
                    return False
                raise ShutDown("the queue was shut down")
            if store.has_room():
                return True
            if not store.wait_for_room(deadline):
                return False
            store.collect()

    # -- Read side ----------------------------------------------------------------------------------------------------

    def get(self, block: bool = True, timeout: float | None = None) -> T:
        """Take the oldest message; see :meth:`Queue.get`."""
        store = self._store
        deadline = deadline_of(block, timeout)
        with store.mutex:
            # The first half is the common case, without a call.
            if (store.messages and not (store.ended or store.dropped_leases or self._closed)) or self._may_take(
                deadline
            ):
                return store.pop_message()  # type: ignore[no-any-return]  # a store holds what this queue put
            target = self._take_target()
        if target is None:
            raise Empty("the queue holds no message")
        return self._follow(lambda seconds: target.get(True, seconds), deadline)

    def get_nowait(self) -> T:
        """Take the oldest message without waiting."""
        return self.get(False)

    def get_many(
        self, max_items: int, max_bytes: int | None = None, timeout: float | None = None, linger: float = 0
    ) -> list[T]:
        """Take what is there; see :meth:`Queue.get_many`."""
        check_batch(max_items, max_bytes)
        collecting = deadline_of(True, linger)
        store = self._store
        deadline = deadline_of(True, timeout)
        with store.mutex:
            if self._may_take(deadline):
                taken: list[T] = []
                while not self._take_more(taken, max_items, max_bytes or 0) and self._may_collect(collecting):
                    pass
                return taken
            target = self._take_target()
        if target is None:
            raise Empty("the queue holds no message")
        return self._follow(lambda seconds: target.get_many(max_items, max_bytes, seconds, linger), deadline)

    def _take_more(self, taken: list[T], max_items: int, max_bytes: int) -> bool:
        """Take what is there; True when the batch is complete."""
        store = self._store
        if not max_bytes:
            taken += [store.pop_message() for _ in range(min(max_items - len(taken), store.depth()))]
        total = sum(map(_size, taken)) if max_bytes else 0
        while len(taken) < max_items and store.depth():
            total += _size(self._oldest())
            if total > max_bytes and taken:
                return True
            taken.append(store.pop_message())
        return len(taken) >= max_items

    def _may_collect(self, deadline: float) -> bool:
        """Wait for one more message; False when none comes. What ended the queue is told by the next call."""
        try:
            return self._may_take(deadline)
        except (ShutDown, QueueClosedError, QueueMovedError):
            return False

    def lease(self, block: bool = True, timeout: float | None = None) -> Lease[T]:
        """Take the oldest message on trial; see :meth:`Queue.lease`."""
        store = self._store
        deadline = deadline_of(block, timeout)
        with store.mutex:
            if self._may_take(deadline):
                return LocalLease(self, store, store.pop(self._held))
            target = self._take_target()
        if target is None:
            raise Empty("the queue holds no message")
        return self._follow(lambda seconds: target.lease(True, seconds), deadline)

    def peek(self) -> T:
        """Look at the oldest message; see :meth:`Queue.peek`."""
        store = self._store
        with store.mutex:
            if self._may_take(TRY_ONCE):
                return cast(T, self._oldest())
            target = self._take_target()
        if target is None:
            raise Empty("the queue holds no message")
        return target.peek()

    def _oldest(self) -> Any:
        store = self._store
        return store.returned[0].message if store.returned else store.messages[0]

    def _may_take(self, deadline: float) -> bool:
        """Wait for a message. False: the deadline passed, or the queue was moved."""
        store = self._store
        while True:
            store.collect()
            self._check_open()
            if store.moved_to is not None:
                return False
            if store.shut_immediately:
                raise ShutDown("the queue was shut down at once")
            if store.messages or store.returned:
                return True
            if store.shut and not store.leased:
                if self._may_go_over():
                    return False
                raise ShutDown("the queue was shut down, and nothing is left")
            if not store.wait_for_message(deadline):
                return False

    def _may_go_over(self) -> bool:
        """Whether this handle follows to a successor; raises where the queue has one and the handle does not follow."""
        if self._store.successor is None:
            return False
        if self._succession is None:
            raise QueueMovedError(name=self._store.name, successor=self._store.successor)
        return True

    def _put_target(self, verb: str = "put") -> Queue[T] | None:
        """The queue that takes what is put now, if it is not this one. Under the mutex."""
        store = self._store
        if store.successor is None or self._succession is None:
            return store.moved_to
        error = QueueMovedError(name=store.name, successor=store.successor)
        return cast(Queue[T], self._succession.go_over(error, verb))

    def _take_target(self) -> Queue[T] | None:
        """The queue that has what is to be taken now, if it is not this one. Under the mutex."""
        store = self._store
        return store.moved_to if store.depth() or store.leased else self._put_target("get")

    def clear(self) -> int:
        """Drop every message that nobody holds, and return how many."""
        store = self._store
        with store.mutex:
            self._check_open()
            store.collect()
            dropped = store.drop_all()
            target = self._put_target("clear")
        return dropped if target is None else dropped + target.clear()

    def _follow(self, step: Callable[[float], R], deadline: float) -> R:
        """Do something on the queue that took over, in slices, so that closing this handle ends the wait."""
        while True:
            self._check_open()
            seconds = min(max(deadline - monotonic(), 0), SLICE_SECONDS)
            try:
                return step(seconds)
            except (Empty, Full):
                if monotonic() >= deadline:
                    raise

    # -- Waiting without taking ---------------------------------------------------------------------------------------

    def wait_message(self, timeout: float | None = None) -> bool:
        """Wait until a get has an answer; see :meth:`Queue.wait_message`."""
        deadline = deadline_of(True, timeout)
        target = self._ready(self._may_take, self._take_target, deadline)
        return self._wait_there(target.wait_message, deadline) if isinstance(target, Queue) else target

    def wait_room(self, timeout: float | None = None) -> bool:
        """Wait until a put has an answer; see :meth:`Queue.wait_room`."""
        deadline = deadline_of(True, timeout)
        target = self._ready(self._may_put, self._put_target, deadline)
        return self._wait_there(target.wait_room, deadline) if isinstance(target, Queue) else target

    def _ready(
        self, may: Callable[[float], bool], target: Callable[[], Queue[T] | None], deadline: float
    ) -> Queue[T] | bool:
        """Wait here; the queue that took over, if the answer is there."""
        store = self._store
        with store.mutex:
            try:
                if may(deadline):
                    store.not_empty.notify()  # this one took no message and no room: another that waits may
                    store.not_full.notify()
                    return True
            except (ShutDown, QueueMovedError):
                return True
            return target() or False

    def _wait_there(self, wait: Callable[[float], bool], deadline: float) -> bool:
        """Wait on the queue that took over, in slices, so that closing this handle ends the wait."""
        while not wait(min(max(deadline - monotonic(), 0), SLICE_SECONDS)):
            self._check_open()
            if monotonic() >= deadline:
                return False
        return True

    # -- Work done ----------------------------------------------------------------------------------------------------

    def task_done(self) -> None:
        """Say that a message taken by get is worked off."""
        store = self._store
        with store.mutex:
            self._check_counted()
            if store.unfinished <= 0:
                raise ValueError("task_done() was called more often than there were messages")
            store.finish(1)

    def join(self) -> None:
        """Wait until every message ever put was worked off."""
        store = self._store
        with store.mutex:
            self._check_counted()
            while store.unfinished:
                wait_until(store.all_done, inf, SLICE_SECONDS if store.leased else inf)
                store.collect()
                self._check_counted()

    def _check_counted(self) -> None:
        self._check_open()
        if self._store.moved_to is not None:
            self._store.moved_to.join()

    # -- Inspection ---------------------------------------------------------------------------------------------------

    @property
    def maxsize(self) -> int:
        """Most messages the queue holds; 0 for no bound. Setting it changes the bound for everybody."""
        return self._store.maxsize

    @maxsize.setter
    def maxsize(self, maxsize: int) -> None:
        store = self._store
        with store.mutex:
            self._check_open()
            store.maxsize = max(maxsize, 0)
            store.not_full.notify_all()

    @property
    def unfinished_tasks(self) -> int:
        """Messages put and not worked off yet, under the name that ``queue.Queue`` has for it."""
        return self._store.unfinished

    @property
    def is_shutdown(self) -> bool:
        """Whether the queue was shut down; the name is that of ``queue.Queue``."""
        return self._store.shut

    @property
    def name(self) -> str | None:
        """The name it is shared under in this process, if any."""
        return self._store.name

    @property
    def instance(self) -> str:
        """32 hexadecimal digits that no other queue has, not even a later one of the same name."""
        return self._store.instance

    @property
    def closed(self) -> bool:
        """Whether this handle was closed."""
        return self._closed

    @property
    def moved_to(self) -> Queue[T] | None:
        """The queue that took over; None while this one holds its messages itself."""
        return self._store.moved_to

    def qsize(self) -> int:
        """Messages that could be taken now."""
        return self.stats().depth

    def empty(self) -> bool:
        """Whether nothing can be taken now."""
        return self.qsize() == 0

    def full(self) -> bool:
        """Whether a put would have to wait now."""
        store = self._store
        with store.mutex:
            self._check_open()
            target = self._put_target("full")
            if target is None:
                store.collect()
                return not store.has_room()
        return target.full()

    def stats(self) -> QueueStats:
        """Counters since the queue was made."""
        store = self._store
        with store.mutex:
            self._check_open()
            store.collect()
            target = self._take_target()
            if target is None:
                return store.figures()
        return target.stats()

    # -- Ending -------------------------------------------------------------------------------------------------------

    def shutdown(self, immediate: bool = False) -> int:
        """End the queue for everybody; see :meth:`Queue.shutdown`."""
        store = self._store
        with store.mutex:
            self._check_open()
            dropped = 0
            if store.moved_to is None:
                store.shut = store.ended = True
                store.collect()
                if immediate:
                    store.shut_immediately = True
                    dropped = store.drop_all()
                store.notify_everybody()
            target = self._put_target("shutdown")
        return dropped if target is None else dropped + target.shutdown(immediate)

    def is_drained(self) -> bool:
        """Whether this very queue holds no message, leased ones included, wherever its calls are led."""
        with self._store.mutex:
            return not self._store.depth() + self._store.leased

    def is_shared(self) -> bool:
        """Whether anybody else has a handle of this queue."""
        return len(self._store.handles) > 1

    def leave_behind(self) -> None:
        """Let the queue stay when this handle is closed as the last one."""
        if self._store.name is not None:
            _left_behind[self._store.name] = self._store
        if self._succession is not None:
            self._succession.leave_behind()

    def seal(self, successor: str) -> int:
        """End this queue in favour of another one; see :meth:`Queue.seal`."""
        store = self._store
        with store.mutex:
            self._check_open()
            store.collect()
            if store.moved_to is None:
                if store.successor is not None:
                    raise QueueMovedError(name=store.name, successor=store.successor)
                if store.shut:
                    raise ShutDown("the queue was shut down")
                store.successor = successor
                store.shut = store.ended = True
                store.notify_everybody()
                return store.depth() + store.leased
        return store.moved_to.seal(successor)

    def successor(self) -> str | None:
        """What this queue was sealed with."""
        return self._store.successor

    def follow(self, open_successor: Callable[[str, bool], Any] | None) -> None:
        """Go over to the successor when the queue is moved; see :meth:`Queue.follow`."""
        self._succession = None if open_successor is None else Succession(self, open_successor)

    def close(self) -> None:
        """Give up this handle; see :meth:`Queue.close`."""
        if self._succession is not None and not self._closed:
            self._succession.close()
        store = self._store
        with store.mutex:
            if self._closed:
                return
            self._closed = True
            store.handles.discard(self)
            for held in list(self._held.values()):
                store.give_back(held)
            store.notify_everybody()
        # What the queue held goes when nobody has a handle; those that wait on this one keep it until they noticed.
        self._store = Store(store.name, store.maxsize)

    def _check_open(self) -> None:
        if self._closed:
            raise QueueClosedError(name=self._store.name)

    def move_to(self, target: Queue[T]) -> int:
        """
        Hand everything over to another queue, in order; all handles follow it from now on.

        Either all messages are in ``target`` and this returns, or it raises and this queue goes on with all of them.

        Args:
            target: An empty queue that nobody else uses yet. It must take all the messages at once.

        Returns:
            How many messages were moved.

        Raises:
            NotShareableError: Messages are out on lease; let them be settled first.
            Exception: What ``target`` answered to the messages (too large, no plain data); it is cleared then.
        """
        store = self._store
        with store.mutex:
            self._check_open()
            store.collect()
            if store.moved_to is not None:
                return 0
            if store.leased:
                raise NotShareableError(
                    what=f"a queue with {store.leased:,} messages out on lease", instead="ack or give them back first"
                )
            messages = [held.message for held in store.returned] + list(store.messages)
            try:
                moved = target.put_many(messages, timeout=0) if messages else 0
                if moved < len(messages):
                    raise Full(f"the other queue took {moved:,} of {len(messages):,} messages")
            except BaseException:
                target.clear()
                raise
            if store.shut:
                target.shutdown(store.shut_immediately)
            store.moved_to = target
            store.ended = True
            store.messages.clear()
            store.returned.clear()
            store.notify_everybody()
            return moved

    def __reduce__(self) -> NoReturn:
        raise NotShareableError(
            what="a LocalQueue",
            instead="send what to_serializable_descriptor() of its descriptor returns",
        )

    def __repr__(self) -> str:
        store = self._store
        name = "" if store.name is None else f" {store.name!r}"
        state = "closed" if self._closed else f"{store.depth()} messages"
        return f"<LocalQueue{name}, {state}>"


def _size(message: Any) -> int:
    """Bytes of a bytes-like message; what is no bytes has no size before it is encoded."""
    return memoryview(message).nbytes if isinstance(message, (bytes, bytearray, memoryview)) else 0


class LocalLease(Generic[T]):
    """A message of a :class:`LocalQueue` on trial; see :class:`~sage_qd.queues.base.Lease`."""

    def __init__(self, queue: LocalQueue[T], store: Store, held: Held) -> None:
        self._queue = queue
        self._store = store
        self._held = held

    @property
    def value(self) -> T:
        """The message itself."""
        return cast(T, self._held.message)

    @property
    def attempt(self) -> int:
        """How many times somebody held this message before."""
        return self._held.attempt

    @property
    def redelivered(self) -> bool:
        """Whether somebody held this message before."""
        return self._held.attempt > 0

    @property
    def settled(self) -> bool:
        """Whether it was acked or given back."""
        return self._held.settled

    def ack(self) -> None:
        """Take the message out for good."""
        store = self._store
        with store.mutex:
            self._check_held()
            del self._held.among[self._held.place]
            store.leased -= 1
            store.gets += 1
            store.finish(1)
            store.not_full.notify()
            if store.shut:
                store.not_empty.notify_all()

    def nack(self) -> None:
        """Give the message back."""
        with self._store.mutex:
            self._check_held()
            self._store.give_back(self._held)

    def _check_held(self) -> None:
        self._queue._check_open()
        if self._held.settled:
            raise ValueError("the lease is settled already")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._held.settled:
            (self.ack if kind is None else self.nack)()

    def __del__(self) -> None:
        if not self._held.settled:
            self._store.dropped_leases.append(self._held)

    def __reduce__(self) -> NoReturn:
        raise NotShareableError(what="a lease", instead="send a copy of its value")
