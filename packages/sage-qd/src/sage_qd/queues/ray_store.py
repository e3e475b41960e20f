"""
What the actor behind a Ray queue keeps and does; knows nothing of Ray.

The messages are in a ring on the node of the actor, the *home* of the queue. Handles on that node use the ring itself.
For all others the actor does what they ask: steps that do not wait, repeated by :mod:`sage_qd.queues.turns` while
there is reason to wait. So order, bound, leases, shutdown and figures are those of the ring for everybody.

A handle is a *user* here. Each of its requests has a number, and the answer is kept until the handle says that it
needs it no more: a request that is sent again because its answer did not come is answered, not done again. When a user
leaves or dies, what it waits for is called off and what it leased is given back.

What a death leaves behind. The death of the actor at any instruction: the ring is in the state that the ring's own
rules describe, because the actor is a process like any other; without ``durable`` it goes with its last user. The death
of a user: the actor gives back its leases; a batch that was taken for it and did not arrive is lost with it, as a
message is that the user got and did not work off.
"""

import asyncio
import os
import uuid
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any, Final, TypeAlias, TypeVar, cast

from sage_qd.codecs import Payload
from sage_qd.errors import (
    Empty,
    Full,
    GeometryMismatchError,
    NotShareableError,
    QueueClosedError,
    QueueLostError,
    QueueMovedError,
    QueueNotFoundError,
    ShutDown,
)
from sage_qd.queues.sage_ring import SageQueue
from sage_qd.queues.turns import attempts
from sage_qd.ring import Ring, RingStats, wait
from sage_qd.ring import segment as segments

__all__ = ["RING_NAMESPACE", "Answer", "Batch", "Facts", "Message", "RayStore", "host_facts"]

R = TypeVar("R")

RING_NAMESPACE: Final = "ray"
"""Where the rings of Ray queues lie; their names are made up, so clusters of one host do not meet."""

Message: TypeAlias = bytes | tuple[int, Payload]
"""How a single message travels: exact ``bytes``, or the tag of its codec and the payload."""

Batch: TypeAlias = tuple[list[Any], bytes]
"""How many travel: the payload and the tag of each; tag 0 for exact ``bytes``."""

Answer: TypeAlias = tuple[bool, Any]
"""True and the result, or False and the exception."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """
    What a handle is told when it enters.

    Attributes:
        instance: Of the ring; the same after a restart of a durable queue.
        incarnation: Of the actor; another one after each restart.
        pid: The actor's process.
        node: The node that Ray runs it on.
        host: What :func:`host_facts` says where the actor is.
        ring: Name of the ring.
        settings: What the queue was made with.
    """

    instance: str
    incarnation: str
    pid: int
    node: str
    host: tuple[str, int, int]
    ring: str
    settings: dict[str, Any]


def host_facts() -> tuple[str, int, int]:
    """Boot, PID namespace and user: processes for which these are equal can share a ring and see each other die."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return boot, os.stat("/proc/self/ns/pid").st_ino, os.geteuid()


class _User:
    """One handle: the answers to its requests, and what it holds."""

    def __init__(self, gone: asyncio.Event) -> None:
        self.gone = gone
        self.leases: dict[int, Any] = {}
        self.begun: set[int] = set()
        self.tasks: set[asyncio.Task[Any]] = set()
        self._answers: dict[int, asyncio.Future[Answer]] = {}

    def answer(self, number: int) -> asyncio.Future[Answer]:
        """The answer to a request, which may not have arrived yet."""
        if number not in self._answers:
            self._answers[number] = asyncio.get_running_loop().create_future()
        return self._answers[number]

    def forget(self, settled: int) -> None:
        """Drop the answers to all requests before this one: they have arrived."""
        for number in [number for number in self._answers if number < settled]:
            del self._answers[number]
            self.begun.discard(number)


class RayStore:
    """
    The ring, its users, and their requests. All methods run in one event loop.

    Args:
        name: Of the ring: a text that nobody else makes up. A restarted actor is given the same one again.
        settings: ``maxsize``, ``capacity_bytes``, ``codec``, ``durable`` and ``detached``.
        node: What Ray calls the node of this process.
    """

    def __init__(self, name: str, settings: Mapping[str, Any], node: str) -> None:
        self.settings = dict(settings)
        self.closed = False
        self._name = name
        self._node = node
        self._durable: bool = settings["durable"]
        self.stays = self._durable or settings["detached"]
        queue = SageQueue[Any].open(
            name,
            namespace=RING_NAMESPACE,
            codec=settings["codec"],
            keep=self._durable,
            max_items=settings["maxsize"],
            capacity_bytes=settings["capacity_bytes"],
        )
        self._ring: Ring = queue.ring
        # Whatever travels was encoded by the handle that puts it and is decoded by the one that takes it.
        self._ring.set_codec(None, _passed_on)
        self._incarnation = uuid.uuid4().hex
        self._users: dict[str, _User] = {}
        self._departures: dict[str, asyncio.Event] = {}
        self._lease_numbers = iter(range(1, 1 << 62))
        self._successor: str | None = None
        if not self._durable:
            # What actors that were killed left behind goes now; whatever anybody is attached to is not touched.
            segments.clean_segments(RING_NAMESPACE)

    # -- Users --------------------------------------------------------------------------------------------------------

    @property
    def users(self) -> int:
        """How many handles there are."""
        return len(self._users)

    def enter(self, user: str, wanted: Mapping[str, Any], *, queue_id: str) -> Facts:
        """
        Let a handle in; twice is once.

        Raises:
            QueueNotFoundError: The queue has ended.
            GeometryMismatchError: It has other settings.
        """
        if self.closed:
            raise QueueNotFoundError(name=queue_id)
        if dict(wanted) != self.settings:
            raise GeometryMismatchError(name=queue_id, wanted=wanted, found=self.settings)
        if user not in self._users:
            self._users[user] = _User(self._gone(user))
        return Facts(
            instance=self._ring.instance,
            incarnation=self._incarnation,
            pid=os.getpid(),
            node=self._node,
            host=host_facts(),
            ring=self._name,
            settings=self.settings,
        )

    async def gone(self, user: str) -> None:
        """Wait until a handle has left; it may not have entered yet, as requests may overtake each other."""
        await self._gone(user).wait()

    def _gone(self, user: str) -> asyncio.Event:
        return self._departures.setdefault(user, asyncio.Event())

    def leave(self, user: str) -> None:
        """Let a handle go: call off what it waits for, give back what it leased; the last one ends the queue."""
        left = self._users.pop(user, None)
        if left is None:
            return
        del self._departures[user]
        left.gone.set()
        for task in left.tasks:
            task.cancel()
        for lease in left.leases.values():
            lease.nack()
        if not self.stays:
            self.end_if_unused()

    def end_if_unused(self, *, discard: bool = True) -> bool:
        """End the queue if it has no user (and, without ``discard``, no message); whether this ended it."""
        ends = self.is_unused(discard=discard)
        if ends:
            self.end()
        return ends

    def is_unused(self, *, discard: bool = True) -> bool:
        """Whether the queue has no user (and, without ``discard``, no message), and has not ended yet."""
        return not self._users and not self.closed and (discard or self._ring.empty())

    def end(self) -> None:
        """End the queue with its messages; handles that are left find it lost."""
        self.closed = True
        for user in self._users.values():
            user.gone.set()
            for task in user.tasks:
                task.cancel()
        self._users.clear()
        if self._durable:
            self._ring.unlink()
        self._ring.close()

    # -- Requests -----------------------------------------------------------------------------------------------------

    async def call(self, name: str, number: int, settled: int, verb: str, arguments: tuple[Any, ...]) -> Answer:
        """
        Do what a user asks, once for each number.

        Args:
            name: The user.
            number: Counts the user's requests.
            settled: The answers to all numbers before this one have arrived.
            verb: A method of this class, without its ``do_``.
            arguments: For it.
        """
        user = self._users.get(name)
        if user is None:
            return False, QueueLostError(endpoint="this incarnation of the queue", items_lost=not self._durable)
        user.forget(settled)
        answer = user.answer(number)
        if number not in user.begun:
            user.begun.add(number)
            task = asyncio.ensure_future(self._answered(user, verb, arguments))
            user.tasks.add(task)
            try:
                result = await task
            except asyncio.CancelledError:
                if not user.gone.is_set():
                    raise
                result = False, QueueClosedError(name=None)
            finally:
                user.tasks.discard(task)
            answer.set_result(result)
        return await asyncio.shield(answer)

    async def _answered(self, user: _User, verb: str, arguments: tuple[Any, ...]) -> Answer:
        method: Callable[..., Coroutine[Any, Any, Any]] = getattr(self, f"do_{verb}")
        try:
            return True, await method(user, *arguments)
        except Exception as error:  # noqa: BLE001  (whatever it is, the handle raises it)
            return False, error

    async def _attempts(self, wait: str, step: Callable[[], R], seconds: float) -> R:
        return await attempts(self, wait, step, monotonic() + seconds)

    async def do_put(self, user: _User, batch: Batch, after: int | None, seconds: float) -> tuple[int, int]:
        """
        Put the first ones of these messages, waiting for room for the first: how many were put, of how many.

        Args:
            user: Whose request this is.
            batch: The messages, in order.
            after: The request that must have put all of its messages, otherwise none of these is put.
            seconds: How long to wait.
        """
        payloads, tags = batch
        if after is not None:
            done, put = await asyncio.shield(user.answer(after))
            if not done or put[0] < put[1]:
                return 0, len(payloads)
        try:
            step = partial(self._ring.put_payloads, payloads, tags, 0)
            return await self._attempts("wait_room", step, seconds), len(payloads)
        except ShutDown as error:
            raise self._ended(error) from None

    async def do_take(self, user: _User, max_items: int, max_bytes: int | None, seconds: float, strict: bool) -> Batch:
        """Take what is there, waiting for the first; ``strict`` holds ``max_bytes`` for that one too."""

        def step() -> Batch:
            if strict and max_bytes and _length_of(self._ring.peek()) > max_bytes:
                return [], b""
            return self._ring.get_payloads(max_items, max_bytes)

        try:
            return await self._attempts("wait_message", step, seconds)
        except ShutDown as error:
            raise self._ended(error) from None

    async def do_lease(self, user: _User, seconds: float) -> tuple[int, Message, int]:
        """Lease the oldest message: the number of the lease, the message, and how often it was held before."""
        try:
            lease = await self._attempts("wait_message", lambda: self._ring.lease(False), seconds)
        except ShutDown as error:
            raise self._ended(error) from None
        number = next(self._lease_numbers)
        user.leases[number] = lease
        return number, lease.value, lease.attempt

    async def do_settle(self, user: _User, number: int, ack: bool) -> None:
        """Ack or nack a lease."""
        lease = user.leases.pop(number)
        if ack:
            lease.ack()
        else:
            lease.nack()

    async def do_peek(self, user: _User) -> Message:
        """Look at the oldest message."""
        try:
            message: Message = self._ring.peek()
        except ShutDown as error:
            raise self._ended(error) from None
        return message

    async def do_wait_message(self, user: _User, seconds: float) -> bool:
        """Wait until a get has an answer."""
        return await self._until("wait_message", Empty, seconds)

    async def do_wait_room(self, user: _User, seconds: float) -> bool:
        """Wait until a put has an answer."""
        return await self._until("wait_room", Full, seconds)

    async def _until(self, wait: str, missing: type[Empty | Full], seconds: float) -> bool:
        def step() -> bool:
            if not getattr(self, wait)(0):
                raise missing
            return True

        try:
            return await self._attempts(wait, step, seconds)
        except missing:
            return False

    async def do_clear(self, user: _User) -> int:
        """Drop what nobody holds."""
        return self._ring.clear()

    async def do_qsize(self, user: _User) -> int:
        """Messages that could be taken."""
        return self._ring.qsize()

    async def do_empty(self, user: _User) -> bool:
        """Whether there is none."""
        return self._ring.empty()

    async def do_full(self, user: _User) -> bool:
        """Whether there is no room."""
        return self._ring.full()

    async def do_stats(self, user: _User) -> RingStats:
        """The figures of the ring."""
        return self._ring.stats()

    async def do_shutdown(self, user: _User, immediate: bool) -> int:
        """End the queue for everybody."""
        return self._ring.shutdown(immediate)

    async def do_seal(self, user: _User, successor: str) -> int:
        """
        Shut down in favour of another queue. Shutting down is the one step: handles that meet it ask for the successor.

        Whoever dies between the first line and the shutdown takes the successor along: the queue is as it was.
        """
        if self._durable:
            raise NotShareableError(what="the messages of a durable RayQueue", instead="drain it and open the other")
        stats = self._ring.stats()
        if stats.is_shutdown:
            raise self._ended(ShutDown())
        self._successor = successor
        self._ring.shutdown()
        stats = self._ring.stats()
        return stats.depth + stats.leased

    async def do_end(self, user: _User) -> None:
        """End the queue with its messages; see :meth:`end`."""
        user.tasks.discard(cast("asyncio.Task[Any]", asyncio.current_task()))  # this one is to be answered
        self.end()

    async def do_successor(self, user: _User) -> str | None:
        """The queue in whose favour this one was sealed."""
        return self._successor

    def _ended(self, error: ShutDown) -> ShutDown | QueueMovedError:
        """What a user is told when the ring is shut down."""
        return error if self._successor is None else QueueMovedError(name=None, successor=self._successor)

    # -- Waiting, in the threads of the watches -----------------------------------------------------------------------

    def wait_message(self, timeout: float | None) -> bool:
        """Wait until a get has an answer."""
        return bool(wait([self._ring], timeout))

    def wait_room(self, timeout: float | None) -> bool:
        """Wait until a put has an answer."""
        return self._ring.wait_room(timeout)


def _length_of(message: Message) -> int:
    """Bytes of the message as it lies in the ring."""
    return len(message[1] if isinstance(message, tuple) else message)


def _passed_on(tag: int, payload: Payload) -> Message:
    """The decoder of the actor's own handle: what it leases or peeks at is copied, to travel."""
    return tag, bytes(payload) if isinstance(payload, memoryview) else payload
