"""
Queue for a Ray cluster: what all its handles share, and how they reach the actor.

On the home node a handle is a :class:`~sage_qd.queues.ray_home.HomeRayQueue`, elsewhere a
:class:`~sage_qd.queues.ray_remote.RemoteRayQueue`. Nothing here imports Ray; how requests reach the actor is a
:class:`Link`, made in :mod:`sage_qd.queues.ray_actor`.
"""

import logging
import os
import threading
import weakref
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, ClassVar, NoReturn, Protocol, TypeVar, cast

from sage_qd.errors import NotShareableError, QueueClosedError, QueueLostError, QueueMovedError
from sage_qd.queues.abilities import RAY
from sage_qd.queues.base import Capabilities
from sage_qd.queues.moving import Follower
from sage_qd.queues.ray_store import Facts

__all__ = ["Link", "RayQueue", "Request", "later"]

T = TypeVar("T")

_log = logging.getLogger(__name__)


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
    _at_home: ClassVar[bool]

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
        return self._at_home

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
        """
        End the queue with its messages and its actor: all other handles find it lost. Closes this one.

        Raises:
            QueueClosedError: This handle is closed.
            QueueLostError: The actor is gone already.
            OutcomeUnknownError: It was sent, and no answer came.
        """
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
        try:
            call(*arguments)
        except Exception:  # noqa: BLE001  (whatever it is, it must not end this thread)
            _log.exception("%r failed; what comes after it is done", call)
        del call, arguments


def _forked() -> None:
    global _starting
    _starting = threading.Lock()
    for handle in list(_handles):
        handle._after_fork()


os.register_at_fork(after_in_child=_forked)
