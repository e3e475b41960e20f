"""
The way to a Ray queue: the actor that owns it, and how a handle finds it, asks it, and learns of its death.

This is the only module that imports Ray, and it never initialises it.

Who is alive. A handle *stays*: it calls a method of the actor that returns when the handle has left, and hands the
reference of that pending answer to the actor. The process of the handle owns the reference, so when that process or its
node dies, Ray ends the actor's wait for it with ``OwnerDiedError``: no heart-beat, and no guess about who is slow. It
takes as long as Ray takes to be sure of the death, a few seconds. In the other direction every request to a dead actor
ends with ``ActorDiedError``, and handles on the home node watch the actor's process itself.
"""

import asyncio
import itertools
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

import ray
from ray.exceptions import ActorUnavailableError, ActorUnschedulableError, OwnerDiedError, RayActorError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sage_qd.errors import (
    OutcomeUnknownError,
    QueueClosedError,
    QueueLostError,
    QueueNotFoundError,
    QueueUnavailableError,
)
from sage_qd.queues.ray_home import HomeRayQueue
from sage_qd.queues.ray_queue import RayQueue
from sage_qd.queues.ray_remote import RemoteRayQueue
from sage_qd.queues.ray_store import RING_NAMESPACE, Answer, Facts, RayStore, host_facts
from sage_qd.queues.ray_stream import BrokenStreamError, Door, Stream, StreamServer
from sage_qd.queues.sage_ring import SageQueue

__all__ = ["clean", "connected", "open_queue"]

_log = logging.getLogger(__name__)

PREFIX: Final = "sage-qd/"
"""The name of a queue's actor is this and the queue id."""
CALLS_AT_ONCE: Final = 10_000
"""Requests that may be under way at one actor; each that waits is one of them, for a second at most."""
UNUSED_SECONDS: Final = 60.0
"""An actor that nobody has entered for so long after its start ends: who made it has died."""
ENDING_SECONDS: Final = 0.05
"""Between the end of the queue and that of the actor: for the answers that are on their way. Nothing depends on it."""
UNREACHED_SECONDS: Final = 30.0
"""How long a request is sent again while Ray cannot reach the actor; Ray takes a few seconds to be sure of a death."""
LONGEST_PAUSE_SECONDS: Final = 0.5
"""Between two of these; they grow up to it."""
OPENINGS: Final = 2000
"""How often opening starts again because the queue of this name was just ending; about twenty seconds."""
PAUSE_SECONDS: Final = 0.01
REACHED_SECONDS: Final = 10.0
"""How long the head of a cluster may take to answer that it is there."""
DEATHS: Final = (RayActorError, ActorUnschedulableError)
"""What Ray says of an actor that is dead; the second one where it cannot be restarted, as its node is dead, too."""


class QueueActor:
    """The actor of one queue: a :class:`RayStore`, and the users that Ray knows to be alive."""

    def __init__(self, ring: str, settings: dict[str, Any]) -> None:
        self._store = RayStore(ring, settings, ray.get_runtime_context().get_node_id())
        self._watches: set[asyncio.Task[None]] = set()
        self._itself = ray.get_runtime_context().current_actor
        self._is_ending = False
        self._streams = StreamServer(self.call)
        self._door: asyncio.Future[Door] | None = None
        self._keep(self._end_when_nobody_comes())

    async def enter(self, user: str, wanted: dict[str, Any], queue_id: str, presence: list[Any]) -> Answer:
        """Let a handle in, as long as its process owns the pending answer of :meth:`stay`."""
        try:
            facts = self._store.enter(user, wanted, queue_id=queue_id)
        except Exception as error:  # noqa: BLE001  (whatever it is, the handle raises it)
            return False, error
        self._keep(self._watch(user, presence[0]))
        return True, facts

    async def stay(self, user: str) -> None:
        """Return when the handle has left."""
        await self._store.gone(user)

    async def call(self, user: str, number: int, settled: int, verb: str, arguments: tuple[Any, ...]) -> Answer:
        """Do what a handle asks; see :meth:`RayStore.call`."""
        answer = await self._store.call(user, number, settled, verb, arguments)
        self._end_if_closed()
        return answer

    async def door(self) -> Door | None:
        """Where handles on other nodes may connect; None where Ray encrypts, which we do not."""
        if os.environ.get("RAY_USE_TLS", "0") not in ("", "0"):
            return None
        if self._door is None:
            self._door = asyncio.ensure_future(self._streams.listen(ray.util.get_node_ip_address()))
        return await asyncio.shield(self._door)

    async def leave(self, user: str) -> None:
        """Let a handle go."""
        self._store.leave(user)
        self._end_if_closed()

    async def end_if_unused(self, discard: bool, dry_run: bool) -> bool:
        """End when there is no user, and no message either unless they may be discarded; whether it ends, or would."""
        if dry_run:
            return self._store.is_unused(discard=discard)
        ended = self._store.end_if_unused(discard=discard)
        self._end_if_closed()
        return ended

    def _end_if_closed(self) -> None:
        if self._store.closed and not self._is_ending:
            self._is_ending = True
            self._streams.close()
            asyncio.get_running_loop().call_later(ENDING_SECONDS, ray.kill, self._itself)

    async def _watch(self, user: str, presence: Any) -> None:
        """Have the handle leave when its process is gone."""
        try:
            await presence
        except OwnerDiedError:
            self._store.leave(user)
            self._end_if_closed()

    async def _end_when_nobody_comes(self) -> None:
        await asyncio.sleep(UNUSED_SECONDS)
        if not self._store.stays:
            self._store.end_if_unused()
            self._end_if_closed()

    def _keep(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._watches.add(task)
        task.add_done_callback(self._watches.discard)


@dataclass(frozen=True)
class _Request:
    """A request under way: enough to send it again, and where its answer will come: from a stream, or from Ray."""

    number: int
    verb: str
    arguments: tuple[Any, ...]
    answer: Any


class _ActorLink:
    """
    The way from one handle to its actor.

    Args:
        actor: Ray's handle of it.
        queue_id: The name that the user gave, for errors.
        namespace: Likewise.
    """

    facts: Facts

    def __init__(self, actor: Any, queue_id: str, namespace: str) -> None:
        self.endpoint = _endpoint(queue_id, namespace)
        self._actor = actor
        self._queue_id = queue_id
        self._user = uuid.uuid4().hex
        self._numbers = itertools.count(1)
        self._under_way: set[int] = set()
        self._mutex = threading.Lock()
        self._presence: Any = None
        self._door: Door | None = None
        self._stream: Stream | None = None
        self._has_left = False

    def enter(self, wanted: dict[str, Any]) -> Facts:
        """Enter the queue."""
        self._presence = self._actor.stay.remote(self._user)
        entering = self._actor.enter.remote(self._user, wanted, self._queue_id, [self._presence])
        self.facts = _result(ray.get(entering))
        return self.facts

    def connect(self) -> None:
        """Have a connection of our own from now on; where the network lets none through, requests go through Ray."""
        self._door = ray.get(self._actor.door.remote())
        self._streamed()

    def _streamed(self) -> Stream | None:
        """The connection, made anew when the last one broke; None when there can be none."""
        stream = self._stream
        if stream is not None and not stream.broken:
            return stream
        with self._mutex:
            if self._door is not None and (self._stream is stream) and not self._has_left:
                try:
                    self._stream = Stream(self._door)
                except OSError as error:
                    level = logging.WARNING if stream is None else logging.INFO  # a later one: the actor has died
                    _log.log(level, "%s: no connection of its own, so it goes through Ray: %s", self.endpoint, error)
                    self._door = self._stream = None
            return self._stream

    def send(self, verb: str, *arguments: Any) -> _Request:
        """Send a request without waiting for its answer."""
        with self._mutex:
            number = next(self._numbers)
            self._under_way.add(number)
        return self._sent(number, verb, arguments)

    def _sent(self, number: int, verb: str, arguments: tuple[Any, ...]) -> _Request:
        self._check_connected()
        with self._mutex:
            settled = min(self._under_way, default=number)
        answer: Any = self._streamed()
        if answer is not None:
            try:
                answer.send(self._user, number, settled, verb, arguments)
            except BrokenStreamError:
                answer = None
        if answer is None:
            answer = self._actor.call.remote(self._user, number, settled, verb, arguments)
        return _Request(number, verb, arguments, answer)

    def answer(self, request: _Request) -> Any:
        """Wait for the answer: return it, or raise what it is."""
        answer = self._arrived(request)
        with self._mutex:
            self._under_way.discard(request.number)
        return _result(answer)

    def _arrived(self, request: _Request) -> Answer:
        give_up, pause, sent_again = time.monotonic() + UNREACHED_SECONDS, PAUSE_SECONDS, False
        while True:
            try:
                if isinstance(request.answer, Stream):
                    done, value = request.answer.answer(request.number)
                else:
                    done, value = ray.get(request.answer)
            except BrokenStreamError:
                answer = self._actor.call.remote(self._user, request.number, 0, request.verb, request.arguments)
                request, sent_again = replace(request, answer=answer), True
                give_up = time.monotonic() + UNREACHED_SECONDS
                continue
            except ActorUnavailableError:
                if time.monotonic() >= give_up:
                    return False, self._unknown(request)
                time.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
                request, sent_again = self._sent(request.number, request.verb, request.arguments), True
                continue
            except DEATHS:
                done, value = False, self.lost()
            if isinstance(value, QueueLostError):
                if self._has_left:
                    value = QueueClosedError(name=self._queue_id)
                elif request.verb == "put" and not value.items_lost and sent_again:
                    value = self._unknown(request)  # the life before this one may have put it
                else:
                    value = self.lost()
            return done, value

    def call(self, verb: str, *arguments: Any) -> Any:
        """Send a request and wait for its answer."""
        return self.answer(self.send(verb, *arguments))

    def lost(self) -> QueueLostError:
        """
        The error of a handle whose actor is gone; messages of a durable queue are safe while its home node lives.

        Who has left the cluster cannot ask for that, and takes the node to live.
        """
        kept = self.facts.settings["durable"] and (not ray.is_initialized() or self.facts.node in _living_nodes())
        return QueueLostError(endpoint=self.endpoint, items_lost=not kept)

    def leave(self) -> None:
        """Leave the queue; a queue that is gone is left already."""
        self._has_left = True
        if (stream := self._stream) is not None:
            stream.close()
        if not ray.is_initialized():
            return
        try:
            ray.get(self._actor.leave.remote(self._user))
        except DEATHS:
            return

    def _unknown(self, request: _Request) -> OutcomeUnknownError:
        return OutcomeUnknownError(request_id=f"{self._user}:{request.number}")

    def _check_connected(self) -> None:
        if not ray.is_initialized():
            raise QueueUnavailableError(endpoint=self.endpoint, reason="this process has left the Ray cluster")


def _living_nodes() -> set[str]:
    return {node["NodeID"] for node in ray.nodes() if node["Alive"]}


def _result(answer: Answer) -> Any:
    done, value = answer
    if done:
        return value
    raise value


def _endpoint(queue_id: str, namespace: str) -> str:
    return f"Ray queue {queue_id!r} in namespace {namespace!r}"


# -- Opening ----------------------------------------------------------------------------------------------------------


def open_queue(
    queue_id: str, *, namespace: str, settings: dict[str, Any], window: int, node_id: str | None, create: bool
) -> RayQueue[Any]:
    """
    Open the queue of this name, making it if it is missing and that is allowed; free of races in the whole cluster.

    Args:
        queue_id: Any text.
        namespace: Ray namespace of the actor.
        settings: What :class:`RayStore` takes.
        window: How many batches of a handle on another node may be under way.
        node_id: The home, where it is made here; None for the node of this process.
        create: Whether it may be made.

    Raises:
        QueueUnavailableError: Ray is not initialised in this process, or the home node is not alive.
        QueueNotFoundError: It does not exist and may not be made.
        GeometryMismatchError: It exists with other settings.
    """
    if not ray.is_initialized():
        raise QueueUnavailableError(
            endpoint=_endpoint(queue_id, namespace), reason="Ray is not initialised here; call ray.init() first"
        )
    for _ in range(OPENINGS):
        try:
            return _opened(
                _actor(queue_id, namespace, settings, node_id, create), queue_id, namespace, settings, window
            )
        except QueueNotFoundError:
            if not create:
                raise
            time.sleep(PAUSE_SECONDS)
        except ActorUnschedulableError as error:
            raise QueueUnavailableError(endpoint=_endpoint(queue_id, namespace), reason=str(error)) from error
        except (RayActorError, QueueLostError):
            time.sleep(PAUSE_SECONDS)  # being restarted, or just ending: then its name is free in a moment
    raise QueueUnavailableError(
        endpoint=_endpoint(queue_id, namespace), reason="its actor ends again and again; see the logs of Ray"
    )


def _actor(queue_id: str, namespace: str, settings: dict[str, Any], node_id: str | None, create: bool) -> Any:
    """
    Ray's handle of the actor, which is made if that is allowed.

    For Ray every one is detached, because it ends by itself with its last user, which need not be the one that made it.
    """
    name = PREFIX + queue_id
    if not create:
        try:
            return ray.get_actor(name, namespace)
        except ValueError as error:
            raise QueueNotFoundError(name=queue_id) from error
    home = node_id if node_id is not None else ray.get_runtime_context().get_node_id()
    options = {
        "name": name,
        "namespace": namespace,
        "get_if_exists": True,
        "lifetime": "detached",
        "num_cpus": 0,
        "max_concurrency": CALLS_AT_ONCE,
        "max_restarts": -1 if settings["durable"] else 0,
        "max_task_retries": 0,  # we send again ourselves, with the same number
        "scheduling_strategy": NodeAffinitySchedulingStrategy(home, soft=False),
    }
    return ray.remote(QueueActor).options(**options).remote(uuid.uuid4().hex, settings)


def _opened(actor: Any, queue_id: str, namespace: str, settings: dict[str, Any], window: int) -> RayQueue[Any]:
    link = _ActorLink(actor, queue_id, namespace)
    facts = link.enter(settings)
    try:
        if facts.host == host_facts() and facts.node == ray.get_runtime_context().get_node_id():
            return _at_home(link, queue_id)
        link.connect()
        return RemoteRayQueue(link, queue_id, window)
    except BaseException:
        link.leave()
        raise


def _at_home(link: _ActorLink, queue_id: str) -> RayQueue[Any]:
    facts = link.facts
    try:
        process = os.pidfd_open(facts.pid)
    except ProcessLookupError:
        raise link.lost() from None
    try:
        link.call("qsize")  # so it lives after the descriptor was opened, which therefore is that of no other process
        ring = SageQueue[Any].open(
            facts.ring,
            namespace=RING_NAMESPACE,
            codec=facts.settings["codec"],
            create=False,
            keep=facts.settings["durable"],
            max_items=facts.settings["maxsize"],
        )
    except BaseException:
        os.close(process)
        raise
    return HomeRayQueue(link, queue_id, ring, process)


# -- Cleaning ---------------------------------------------------------------------------------------------------------


@contextmanager
def connected(address: str) -> Iterator[None]:
    """Be a driver of the cluster, for a program that is none; see :func:`sage_qd.clean_ray`."""
    if ray.is_initialized():
        raise RuntimeError("Ray is initialised here already; leave the address out")
    try:
        host, separator, port = address.rpartition(":")
        if separator and port.isdigit():  # Ray itself tries for minutes
            socket.create_connection((host, int(port)), REACHED_SECONDS).close()
        ray.init(address=address, logging_level="error", log_to_driver=False)
    except (OSError, ValueError, RuntimeError, RayError) as error:
        raise QueueUnavailableError(endpoint=f"the Ray cluster at {address!r}", reason=str(error)) from error
    try:
        yield
    finally:
        ray.shutdown()


def clean(namespace: str | None, discard: bool, dry_run: bool) -> list[str]:
    """End the queues that nobody uses; see :func:`sage_qd.clean_ray`."""
    if not ray.is_initialized():
        raise QueueUnavailableError(endpoint="the Ray cluster", reason="Ray is not initialised here; call ray.init()")
    cleaned: list[str] = []
    for named in ray.util.list_named_actors(all_namespaces=True):
        name, found = named["name"], named["namespace"]
        if not name.startswith(PREFIX) or namespace not in (None, found):
            continue
        try:
            if ray.get(ray.get_actor(name, found).end_if_unused.remote(discard, dry_run)):
                cleaned.append(f"{found}/{name.removeprefix(PREFIX)}")
        except (ValueError, RayError):
            continue  # it ended by itself meanwhile
    return sorted(cleaned)
