"""
The old path of a Ray cluster: an actor that holds the messages in its memory, as the old queues had it.

It needs nothing of the ring: where that cannot be built or fails, this works. The messages lie in a queue between
threads, and a handle asks the actor for each call. Nothing here imports Ray; the door to it is
:mod:`sage_compat.legacy.ray_actor`.
"""

import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, ClassVar, Final, Protocol, TypeVar, cast

from sage_qd.errors import Empty, Full, NotShareableError, QueueClosedError, QueueMovedError, ShutDown
from sage_qd.queues.base import Capabilities, Delivery, Lease, Ordering, QueueStats, Reach
from sage_qd.queues.moving import Follower, follows
from sage_qd.queues.travel import reduced
from sage_qd.queues.waiting import check_batch, deadline_of

__all__ = ["LEGACY_RAY", "LegacyRayQueue", "Link"]

T = TypeVar("T")

SLICE_SECONDS: Final = 0.2
"""Longest wait inside the actor; a handle that is closed meanwhile notices then."""
LEGACY_RAY: Final = Capabilities(
    reach=Reach.HOSTS,
    delivery=Delivery.WITH_THE_PROCESS,
    survives_crash=False,
    lease=False,
    views=False,
    joins=False,
    same_object=False,
    bounded_by_bytes=False,
    uri_scheme="legacy_ray_queue",
    ordering=Ordering.PER_PRODUCER,
    movable=True,
)


class Link(Protocol):
    """The way from one handle to the actor."""

    instance: str
    maxsize: int

    def ask(self, verb: str, *arguments: Any) -> Any:
        """Have the actor do something; return the answer, or raise what it is."""

    def drop(self) -> None:
        """Give the actor up; it ends with whoever made it and all who were handed its queue."""


@follows
class LegacyRayQueue(Follower[T]):
    """
    Queue of objects between the processes of a Ray cluster, in the memory of an actor.

    Safe in threads, tasks and actors. It lives as long as whoever made it, or was handed it. It has no leases and no
    count of unfinished tasks, which the old queues did not have either.
    """

    capabilities: ClassVar[Capabilities] = LEGACY_RAY

    def __init__(self, link: Link, queue_id: str) -> None:
        self.queue_id = queue_id
        self._link = link
        self._closed = False

    def _ask(self, verb: str, *arguments: Any) -> Any:
        if self._closed:
            raise QueueClosedError(name=self.queue_id)
        return self._link.ask(verb, *arguments)

    def _waited(self, ask: Callable[[float], Any], nothing: type[Exception], deadline: float) -> Any:
        """Ask with a time for the actor to wait, again and again until there is an answer or the time ran out."""
        while True:
            seconds = max(min(deadline - time.monotonic(), SLICE_SECONDS), 0)
            try:
                return ask(seconds)
            except nothing:
                if time.monotonic() >= deadline:
                    raise

    # -- Write side ----------------------------------------------------------------------------------------------------

    def put(self, item: T, block: bool = True, timeout: float | None = None) -> None:
        """Append one message; see :meth:`Queue.put`."""
        self._waited(lambda seconds: self._ask("put", item, True, seconds), Full, deadline_of(block, timeout))

    def put_nowait(self, item: T) -> None:
        """Append one message without waiting."""
        self.put(item, block=False)

    def put_many(self, items: Iterable[T], timeout: float | None = None) -> int:
        """Append many messages; see :meth:`Queue.put_many`."""
        deadline = deadline_of(True, timeout)
        wanted = list(items)
        done = 0
        while done < len(wanted):
            ask = partial(self._ask, "put_many", wanted[done:])
            try:
                done += self._waited(ask, Full, deadline)
            except (Full, ShutDown):
                if done:
                    break
                raise
            except QueueMovedError as error:
                return self._put_rest(error, done, wanted[done:], deadline)
        return done

    # -- Read side -----------------------------------------------------------------------------------------------------

    def get(self, block: bool = True, timeout: float | None = None) -> T:
        """Take the oldest message; see :meth:`Queue.get`."""
        ask: Callable[[float], Any] = lambda seconds: self._ask("get", True, seconds)  # noqa: E731
        return cast(T, self._waited(ask, Empty, deadline_of(block, timeout)))

    def get_nowait(self) -> T:
        """Take the oldest message without waiting."""
        return self.get(block=False)

    def get_many(
        self, max_items: int, max_bytes: int | None = None, timeout: float | None = None, linger: float = 0
    ) -> list[T]:
        """Take what is there; see :meth:`Queue.get_many`."""
        check_batch(max_items, max_bytes)
        ask: Callable[[float], Any] = lambda seconds: self._ask("get_many", max_items, max_bytes, seconds, linger)  # noqa: E731
        return cast(list[T], self._waited(ask, Empty, deadline_of(True, timeout)))

    def lease(self, block: bool = True, timeout: float | None = None) -> Lease[T]:
        """Refuse: the old queues had no leases."""
        self._ask("qsize")
        raise NotShareableError(what=f"a lease of {self.queue_id!r}", instead="the old path has none; use get()")

    def peek(self) -> T:
        """Look at the oldest message; see :meth:`Queue.peek`."""
        return cast(T, self._ask("peek"))

    def clear(self) -> int:
        """Drop every message, and return how many."""
        return int(self._ask("clear"))

    def wait_message(self, timeout: float | None = None) -> bool:
        """Wait until a get has an answer; see :meth:`Queue.wait_message`."""
        return self._ready("wait_message", timeout)

    def wait_room(self, timeout: float | None = None) -> bool:
        """Wait until a put has an answer; see :meth:`Queue.wait_room`."""
        return self._ready("wait_room", timeout)

    def _ready(self, verb: str, timeout: float | None) -> bool:
        deadline = deadline_of(True, timeout)
        while True:
            if self._ask(verb, max(min(deadline - time.monotonic(), SLICE_SECONDS), 0)):
                return True
            if time.monotonic() >= deadline:
                return False

    # -- Inspection ----------------------------------------------------------------------------------------------------

    @property
    def instance(self) -> str:
        """32 hexadecimal digits that no other queue has."""
        return self._link.instance

    @property
    def maxsize(self) -> int:
        """Most messages the queue holds; 0 for no bound."""
        return self._link.maxsize

    @property
    def closed(self) -> bool:
        """Whether this handle was closed."""
        return self._closed

    def qsize(self) -> int:
        """Messages that could be taken now."""
        return int(self._ask("qsize"))

    def empty(self) -> bool:
        """Whether nothing can be taken now."""
        return not self.qsize()

    def full(self) -> bool:
        """Whether a put would have to wait."""
        return bool(self._ask("full"))

    def stats(self) -> QueueStats:
        """Counters since the queue was made, of all processes."""
        return cast(QueueStats, self._ask("stats"))

    # -- Ending --------------------------------------------------------------------------------------------------------

    def shutdown(self, immediate: bool = False) -> int:
        """End the queue for everybody; see :meth:`Queue.shutdown`."""
        return int(self._ask("shutdown", immediate))

    def seal(self, successor: str) -> int:
        """End this queue in favour of another one; see :meth:`Queue.seal`."""
        return int(self._ask("seal", successor))

    def successor(self) -> str | None:
        """What this queue was sealed with."""
        return cast("str | None", self._ask("successor"))

    def leave_behind(self) -> None:
        """Let the successor stay; this queue stays as long as whoever made it, whichever handle goes."""
        self._leave_successor_behind()

    def close(self) -> None:
        """Give up this handle."""
        if not self._closed:
            self._close_successor()
            self._closed = True
            self._link.drop()

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return reduced(self)

    def __repr__(self) -> str:
        return f"<LegacyRayQueue {self.queue_id!r}>"
