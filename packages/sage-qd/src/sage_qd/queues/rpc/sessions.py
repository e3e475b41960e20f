"""
What a server remembers of one client, across its connections.

A session ends when its client begins another one, when its connection is gone and it does not come back within a grace,
or when it is silent for too long. Its leases are given back then, and calls that wait for it are dropped. Nothing of a
session outlives the server: a client that finds another server under the address is told so, and reports what it cannot
know.
"""

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from time import monotonic
from typing import Any, Final

from sage_qd.errors import (
    Empty,
    FencedError,
    Full,
    MessageTooLargeError,
    ProtocolError,
    QueueClosedError,
    QueueMovedError,
    QueueUnavailableError,
    SageQueueError,
    ShutDown,
)
from sage_qd.queues.rpc.faults import fault_of
from sage_qd.queues.rpc.held import Held
from sage_qd.queues.rpc.hosting import Hosted
from sage_qd.queues.rpc.wire import (
    BATCH_BYTES,
    FRAME_ROOM,
    Answer,
    Done,
    Failed,
    Item,
    Put,
    Take,
    Taken,
    Wait,
    size_of,
)

__all__ = ["ServerLimits", "Session", "Waiting"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ServerLimits:
    """
    What one server allows.

    Attributes:
        largest_frame: Bytes of a frame, in either direction.
        sessions: Clients at a time.
        in_flight: Unanswered requests of one client.
        client_bytes: Bytes that wait here for one client: items without room, answers that it has not confirmed.
        handles: Open queues of one client.
        dead_seconds: A client that is silent for so long is taken for dead. At least 3: clients speak every 1.5 s.
        grace_seconds: A client whose connection is gone may come back for so long.
    """

    largest_frame: int = 64 << 20
    sessions: int = 1024
    in_flight: int = 4096
    client_bytes: int = 256 << 20
    handles: int = 4096
    dead_seconds: float = 15.0
    grace_seconds: float = 2.0


class Session:
    """
    One client.

    Args:
        client: The number it gave itself.
        user: Its public key, "" without keys.
        limits: What it may use.
        talking: Sessions with something in their outbox; the session adds itself.
    """

    def __init__(self, client: bytes, user: str, limits: ServerLimits, talking: "set[Session]") -> None:
        self.client: Final = client
        self.user: Final = user
        self.limits: Final = limits
        self.route: bytes | None = None
        self.heard = self.told = monotonic()
        self.gone_since: float | None = None
        self.outbox: list[tuple[Answer, int]] = []
        self._talking = talking
        self.handles: dict[int, Hosted] = {}
        self.waiting: dict[int, Waiting] = {}
        self.held_bytes = 0
        self._leases: dict[int, tuple[int, Held]] = {}
        self._answers: dict[int, tuple[Answer, int]] = {}
        self._done = 1
        self._last_handle = 0
        self._last_lease = 0

    @property
    def peer(self) -> str:
        """How errors name this client."""
        return f"client {self.user or self.client.hex()}"

    # -- Answers ------------------------------------------------------------------------------------------------------

    def confirm(self, done: int, ended: list[int]) -> None:
        """The answers to all numbers below the first, and to the others, have arrived: forget them."""
        for number in ended:
            self._forget(number)
        if done <= self._done:
            return
        self._done = done
        for number in [number for number in self._answers if number < done]:
            self._forget(number)

    def _forget(self, number: int) -> None:
        if (answered := self._answers.pop(number, None)) is not None:
            self.held_bytes -= answered[1]

    def is_new(self, number: int) -> bool:
        """Whether a request was never seen before. The answer to one that was is sent again, if there is one yet."""
        if number == 0:
            return True
        if number < self._done or number in self.waiting:
            return False
        if (answered := self._answers.get(number)) is not None:
            self.say(*answered)
            return False
        if len(self._answers) + len(self.waiting) >= 2 * self.limits.in_flight:
            raise ProtocolError(peer=self.peer, reason=f"it has more than {self.limits.in_flight:,} requests under way")
        return True

    def answer(self, number: int, value: Any, size: int = 0) -> None:
        """Say that a request was carried out."""
        self._remember(number, Done(number, value), size)

    def give(self, taken: Taken, size: int) -> None:
        """Send what a request took."""
        self._remember(taken.number, taken, size)

    def fail(self, number: int, error: BaseException) -> None:
        """Say how a request failed."""
        self._remember(number, Failed(number, *fault_of(error)), 0)

    def _remember(self, number: int, answer: Answer, size: int) -> None:
        if number:
            self._answers[number] = (answer, size)
            self.held_bytes += size
            self.say(answer, size)

    def say(self, answer: Answer, size: int = 0) -> None:
        """Send this with the next frame; ``size`` is that of the items in it."""
        self.outbox.append((answer, size))
        self._talking.add(self)

    def check_memory(self, size: int) -> None:
        """
        Refuse what would take too much memory.

        Raises:
            QueueUnavailableError: This client has its share.
        """
        if self.held_bytes + size > self.limits.client_bytes:
            raise QueueUnavailableError(
                endpoint=self.peer, reason=f"{self.limits.client_bytes:,} bytes wait for this client already"
            )

    # -- Handles and leases -------------------------------------------------------------------------------------------

    def opened(self, hosted: Hosted) -> int:
        """Return a new handle of a queue."""
        if len(self.handles) >= self.limits.handles:
            raise ProtocolError(peer=self.peer, reason=f"it has {self.limits.handles:,} queues open already")
        self._last_handle += 1
        self.handles[self._last_handle] = hosted
        hosted.handles += 1
        return self._last_handle

    def hosted(self, handle: int) -> Hosted:
        """
        Return the queue of a handle.

        Raises:
            QueueClosedError: There is no such handle any more.
        """
        found = self.handles.get(handle)
        if found is None:
            raise QueueClosedError(name=None)
        return found

    def close_handle(self, handle: int) -> Hosted:
        """End a handle: what waits on it is told, its leases are given back."""
        hosted = self.hosted(handle)
        for waiting in [each for each in self.waiting.values() if each.handle == handle]:
            waiting.drop(QueueClosedError(name=hosted.name))
        for lease in [each for each, (owner, _) in self._leases.items() if owner == handle]:
            give_back(self._leases.pop(lease)[1], hosted)
        del self.handles[handle]
        hosted.handles -= 1
        return hosted

    def leased(self, handle: int, held: Held) -> int:
        """Keep what a request leased for the client; returns the number of the lease."""
        self._last_lease += 1
        self._leases[self._last_lease] = (handle, held)
        return self._last_lease

    def settle(self, number: int, handle: int, lease: int, acked: int) -> None:
        """Ack the first messages of a lease and give back the others, all of them; the first fault is the answer."""
        owner, held = self._leases.get(lease, (0, None))
        if held is None or owner != handle:
            self.fail(number, FencedError(pid=0, epoch=lease))
            return
        if not 0 <= acked <= len(held):
            raise ProtocolError(peer=self.peer, reason=f"it acks {acked:,} messages of {len(held):,}")
        del self._leases[lease]
        try:
            held.settle(acked)
        except Exception as error:  # noqa: BLE001  (whatever the queue says is the client's answer)
            self.fail(number, error)
        else:
            self.answer(number, None)

    def end(self) -> list[Hosted]:
        """Give everything back; returns the queues that this client had open."""
        return [self.close_handle(handle) for handle in list(self.handles)]


def give_back(held: Held, hosted: Hosted) -> None:
    """Give back what a client had, which is not there to be told when that fails; others go on."""
    try:
        held.settle(0)
    except Exception:  # noqa: BLE001  (whatever the queue says; it is logged, and the server goes on)
        _log.exception("messages of %r that a client had could not be given back", hosted.name)


class Waiting(ABC):
    """A request that may have to wait for its answer."""

    answered = False

    def __init__(self, session: Session, hosted: Hosted, request: Put | Take | Wait) -> None:
        self.session = session
        self.hosted = hosted
        self.number = request.number
        self.handle = request.handle
        seconds = request.seconds
        if seconds is not None and seconds != seconds:
            raise ValueError("the time to wait is not a number")
        self.may_wait = seconds is None or seconds > 0
        self.deadline = inf if seconds is None else monotonic() + seconds

    def attempt(self) -> bool:
        """Try, without waiting; True when there is an answer, which was given."""
        try:
            return self._attempt()
        except Exception as error:  # noqa: BLE001  (whatever the queue says is the client's answer)
            self._fail(error)
            return True

    @abstractmethod
    def _attempt(self) -> bool:
        """Try, without waiting; what the queue raises is the answer."""

    @abstractmethod
    def expire(self) -> None:
        """Answer for good: the time is up."""

    def drop(self, error: BaseException) -> None:
        """End without having done anything more."""
        self._fail(error)

    def park(self) -> None:
        """Wait from now on."""
        self.session.waiting[self.number] = self

    def _answer(self, value: Any, size: int = 0) -> None:
        self._settled()
        self.session.answer(self.number, value, size)

    def _fail(self, error: BaseException) -> None:
        self._settled()
        self.session.fail(self.number, error)

    def _settled(self) -> None:
        self.answered = True
        if self.session.waiting.pop(self.number, None) is not None:
            self.hosted.forget(self)


class WaitingPut(Waiting):
    """Items on their way in. They count against the memory of the client until they are."""

    def __init__(self, session: Session, hosted: Hosted, request: Put) -> None:
        super().__init__(session, hosted, request)
        self._items = hosted.taken_in(request.items)
        self._put = 0
        self._size = sum(map(len, self._items))
        session.check_memory(self._size)

    def _attempt(self) -> bool:
        items = self._items[self._put :] if self._put else self._items
        try:
            self._put += self.hosted.queue.put_many(items, 0)
        except Full:
            return False
        except (ShutDown, QueueMovedError):
            if not self._put:
                raise
            self._answer(self._put)
            return True
        if self._put < len(self._items):
            return False
        self._answer(self._put)
        return True

    def park(self) -> None:
        """Wait, as far as there is memory."""
        super().park()
        self.session.held_bytes += self._size

    def expire(self) -> None:
        """Say how many items are in."""
        if self._put:
            self._answer(self._put)
        else:
            self._fail(Full(f"queue {self.hosted.name!r} is full"))

    def drop(self, error: BaseException) -> None:
        """Some may be in already, and then that is the answer."""
        if self._put:
            self._answer(self._put)
        else:
            self._fail(error)

    def _settled(self) -> None:
        if self.number in self.session.waiting:
            self.session.held_bytes -= self._size
        super()._settled()


class WaitingTake(Waiting):
    """
    Messages on their way out.

    Taken for good in one step only when the client asked for that and does not collect; otherwise leased for it, so
    that nothing is lost when it goes away meanwhile.
    """

    def __init__(self, session: Session, hosted: Hosted, request: Take, at: Callable[["Waiting"], None]) -> None:
        super().__init__(session, hosted, request)
        if request.count < 1 or request.most_bytes < 0 or request.linger != request.linger:
            raise ValueError("max_items must be at least 1, max_bytes at least 0, and linger a number")
        self._request = request
        self._held = Held()
        self._size = 0
        self._is_collecting = False
        self._at = at

    def _attempt(self) -> bool:
        request = self._request
        self.session.check_memory(0)
        if request.auto and request.linger <= 0:
            return self._take_for_good()
        ended = False
        try:
            self._lease_some()
            ended = True
        except Empty:
            if not self._held:
                return False
            # What is leased here keeps the queue from being over, so it does not say that it was shut down.
            ended = self._is_collecting and self.hosted.queue.stats().is_shutdown
        except SageQueueError:  # the shutdown, most likely; the next call tells of it
            if not self._held:
                raise
            ended = True
        if ended or request.linger <= 0 or (self._is_collecting and monotonic() >= self.deadline):
            self._give_held()
            return True
        if not self._is_collecting:
            self._is_collecting = True
            self.deadline = monotonic() + request.linger
            self.may_wait = True
            self._at(self)
        return False

    def _take_for_good(self) -> bool:
        request, queue = self._request, self.hosted.queue
        largest = self.hosted.largest_message
        try:
            if largest is None or largest > self._frame_bytes:
                # Found out before it is taken; what somebody else makes the oldest meanwhile is at most once, too.
                self._check_fits(size_of(self.hosted.given_out(queue.peek())))
            taken = queue.get_many(request.count, min(request.most_bytes or BATCH_BYTES, BATCH_BYTES), 0)
        except Empty:
            return False
        items = [self.hosted.given_out(message) for message in taken]
        self._give(0, [], items, sum(map(size_of, items)))
        return True

    def _lease_some(self) -> None:
        """Lease until there are enough; raises ``Empty`` before that."""
        held, count = self._held, self._request.count
        most = min(self._request.most_bytes or self._frame_bytes, self._frame_bytes)
        while len(held) < count and self._size < BATCH_BYTES:
            found = self.hosted.lease_many(count - len(held), max(min(most, BATCH_BYTES) - self._size, 0))
            if found:
                held.add_many(found)
                self._size += found.nbytes
            elif not self._lease_one(most):
                return

    def _lease_one(self, most: int) -> bool:
        """Lease one more, if it is not too large to go with the others."""
        queue, given_out, held = self.hosted.queue, self.hosted.given_out, self._held
        if self._request.most_bytes and held and self._size + size_of(given_out(queue.peek())) > most:
            return False
        lease = queue.lease(False)
        item = given_out(lease.value)
        size = size_of(item)
        if self._size + size > most and (held or size > self._frame_bytes):
            lease.nack()
            self._check_fits(size)
            return False
        held.add(lease, item)
        self._size += size
        return True

    @property
    def _frame_bytes(self) -> int:
        return self.session.limits.largest_frame - FRAME_ROOM

    def _check_fits(self, size: int) -> None:
        """
        Refuse to take what cannot be sent; it stays in the queue, where processes of the host can take it.

        Raises:
            MessageTooLargeError: It is beyond the limit of a frame.
        """
        if size > self._frame_bytes and not self._held:
            raise MessageTooLargeError(size=size, limit=self._frame_bytes)

    def _give_held(self) -> None:
        held, self._held = self._held, Held()
        if self._request.auto:
            held.settle(len(held))
        lease = 0 if self._request.auto else self.session.leased(self.handle, held)
        self._give(lease, held.attempts if lease else [], held.items, self._size)

    def _give(self, lease: int, attempts: list[int], items: list[Item], size: int) -> None:
        self._settled()
        self.session.give(Taken(self.number, lease, attempts, items), size)

    def expire(self) -> None:
        """Give what there is."""
        if not self._held:
            self._fail(Empty(f"queue {self.hosted.name!r} holds no message"))
            return
        try:
            self._give_held()
        except Exception as error:  # noqa: BLE001  (whatever the queue says is the client's answer)
            self._fail(error)

    def drop(self, error: BaseException) -> None:
        """Give back what was collected."""
        held, self._held = self._held, Held()
        give_back(held, self.hosted)
        self._fail(error)


class WaitingLook(Waiting):
    """Somebody who wants to know when there is something."""

    def __init__(self, session: Session, hosted: Hosted, request: Wait) -> None:
        super().__init__(session, hosted, request)
        self._for_room = request.for_room

    def _attempt(self) -> bool:
        queue = self.hosted.queue
        if not (queue.wait_room(0) if self._for_room else queue.wait_message(0)):
            return False
        self._answer(True)
        return True

    def expire(self) -> None:
        """Say that there was nothing."""
        self._answer(False)
