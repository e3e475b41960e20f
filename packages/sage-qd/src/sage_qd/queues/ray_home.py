"""A Ray queue on its home node: the handle works on the ring itself, and watches the process of the actor."""

import os
import select
import threading
import weakref
from collections.abc import Callable, Iterable
from dataclasses import replace
from types import TracebackType
from typing import Any, ClassVar, Generic, Self, TypeVar

from sage_qd.errors import Full, QueueClosedError, QueueMovedError, ShutDown
from sage_qd.queues.base import Capabilities, Lease, QueueStats
from sage_qd.queues.moving import follows
from sage_qd.queues.ray_queue import Link, RayQueue
from sage_qd.queues.sage_ring import SageQueue
from sage_qd.queues.waiting import deadline_of, remaining

__all__ = ["HomeRayQueue"]

T = TypeVar("T")
R = TypeVar("R")


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
    _at_home = True

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
        queued, done = list(items), 0
        deadline = deadline_of(True, timeout)
        try:
            while True:
                done += self._of_ring(self._ring.put_many, queued[done:], remaining(deadline))
                if done == len(queued):
                    return done
        except (Full, ShutDown):
            if done:
                return done
            raise
        except QueueMovedError as error:
            return self._put_rest(error, done, queued[done:], deadline)

    def get_many(
        self, max_items: int, max_bytes: int | None = None, timeout: float | None = None, linger: float = 0
    ) -> list[T]:
        """Take what is there; see :meth:`Queue.get_many`."""
        return self._of_ring(self._ring.get_many, max_items, max_bytes, timeout, linger)

    def lease(self, block: bool = True, timeout: float | None = None) -> Lease[T]:
        """Take the oldest message on trial; see :meth:`Queue.lease`."""
        return _HomeLease(self, self._of_ring(self._ring.lease, block, timeout))

    def view(self, block: bool = True, timeout: float | None = None) -> Lease[T]:
        """Take the oldest message on trial and show it in place; see :meth:`Queue.view`."""
        return _HomeLease(self, self._of_ring(self._ring.view, block, timeout))

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


class _HomeLease(Generic[T]):
    """A lease of the ring, whose errors are those of the queue; see :class:`~sage_qd.Lease`."""

    __slots__ = ("_lease", "_queue")

    def __init__(self, queue: HomeRayQueue[T], lease: Lease[T]) -> None:
        self._queue = queue
        self._lease = lease

    @property
    def value(self) -> T:
        """The message; may refer to the queue's memory, and is good until settled."""
        try:
            return self._lease.value
        except QueueClosedError as error:
            raise self._queue._explained(error) from None

    @property
    def attempt(self) -> int:
        """How many times somebody held this message before."""
        return self._lease.attempt

    @property
    def redelivered(self) -> bool:
        """Whether somebody held this message before."""
        return self._lease.redelivered

    def ack(self) -> None:
        """Take the message out for good; see :meth:`Lease.ack`."""
        self._queue._of_ring(self._lease.ack)

    def nack(self) -> None:
        """Give the message back; see :meth:`Lease.nack`."""
        self._queue._of_ring(self._lease.nack)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._queue._of_ring(self._lease.__exit__, kind, value, trace)


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
