"""
The server: one loop that owns the socket, the sessions and the queues.

The loop never waits for a message or for room: such calls are parked (:mod:`sage_qd.queues.rpc.hosting`). What a client
sends can end its own session and nothing else. Payloads stay bytes: no codec is loaded here.

If the server dies, so do its sessions: the answers it remembers, and with them the proof that a repeated request was
carried out already. Clients see another ``server_id`` and report :class:`~sage_qd.OutcomeUnknownError` for what was
under way. Leases are the ring's own, so they come back with the death of this process; messages on a ring that is kept
stay.
"""

import heapq
import secrets
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from math import inf
from time import monotonic
from types import FrameType, TracebackType
from typing import Any, Final, Self

from sage_qd.errors import (
    GeometryMismatchError,
    ProtocolError,
    QueueNotFoundError,
    QueueUnavailableError,
    SageQueueError,
    StaleDescriptorError,
)
from sage_qd.queues.rpc import wire
from sage_qd.queues.rpc.faults import fault_of
from sage_qd.queues.rpc.hosting import Hosted, HostedDescriptor
from sage_qd.queues.rpc.keys import KeyPair, check_public_key, is_loopback
from sage_qd.queues.rpc.sessions import ServerLimits, Session, Waiting, WaitingLook, WaitingPut, WaitingTake
from sage_qd.queues.rpc.sockets import Arrived, Doorbell, ServerSocket

__all__ = ["QueueServer", "ServerLimits", "serve"]

_TICK_SECONDS: Final = 0.5
_CLIENT_ID_BYTES: Final = 16
_FRAMES_AT_A_TIME: Final = 256
_LONGEST_NAME: Final = 1024

MakeDescriptor = Callable[[str, int], HostedDescriptor]
"""Makes the descriptor of a queue that a client asks for, from its name and ``maxsize``."""


class QueueServer:
    """
    Hosts queues for clients on other hosts, or on this one.

    Args:
        served: Queues by the name that clients know them by. They are opened at once and stay as long as the server.
        make: Makes descriptors of queues that clients may create; None when they may not. Such a queue goes when the
            last client that has it open closes it or dies.
        host: Address to bind to.
        port: Port; 0 for any that is free, see :attr:`port`.
        keys: The server's key; clients that do not know its public half cannot connect.
        clients: Public keys of the clients that are let in; None for all that know the server's key.
        allow_pickle: Let pickles pass between clients. Needs keys and an allow-list: who can send one can run code in
            the process that takes it.
        insecure: Bind beyond this machine without keys and allow-list: everybody can read, write and take.
        limits: What one client, and all of them, may use.

    Raises:
        ValueError: Beyond this machine without keys and allow-list, or pickles without.
        UntrustedPayloadError: A served ring has pickles in it, and those are not allowed.
        QueueUnavailableError: The address cannot be bound.
    """

    def __init__(
        self,
        served: Mapping[str, HostedDescriptor] | None = None,
        *,
        make: MakeDescriptor | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        keys: KeyPair | None = None,
        clients: Iterable[str] | None = None,
        allow_pickle: bool = False,
        insecure: bool = False,
        limits: ServerLimits | None = None,
    ) -> None:
        allowed = None if clients is None else frozenset(clients)
        for key in allowed or ():
            check_public_key(key)
        is_closed = keys is not None and allowed is not None
        if allowed is not None and keys is None:
            raise ValueError("an allow-list of clients needs a key of the server")
        if not (is_loopback(host) or is_closed or insecure):
            raise ValueError(
                f"{host!r} is reached from other hosts: give keys and clients, or insecure=True to let everybody in"
            )
        if allow_pickle and not is_closed:
            raise ValueError("allow_pickle=True needs keys and clients: whoever sends a pickle can run code")
        self.server_id: Final = secrets.token_hex(16)
        self._make = make
        self._allow_pickle = allow_pickle
        self._limits = limits or ServerLimits()
        self._keys = keys
        self._host = host
        self._hosted: dict[str, Hosted] = {}
        self._sessions: dict[tuple[str, bytes], Session] = {}
        self._routes: dict[bytes, Session] = {}
        self._talking: set[Session] = set()
        self._touched: set[Hosted] = set()
        self._woken: deque[Hosted] = deque()
        self._timers: list[tuple[float, int, Waiting]] = []
        self._timed = 0
        self._next_tick = 0.0
        self._bell = Doorbell()
        self._stopping = False
        self._thread: threading.Thread | None = None
        try:
            for name, descriptor in (served or {}).items():
                self._hosted[name] = self._host_queue(descriptor, kept=True)
            self._socket = ServerSocket(
                "127.0.0.1" if host == "localhost" else host,
                port,
                pair=None if keys is None else (keys.public, keys.secret),
                clients=allowed,
                largest_frame=self._limits.largest_frame,
            )
        except BaseException:
            self._close_queues()
            self._bell.close()
            raise
        self._socket.watch(self._bell)
        self.port: Final = self._socket.port

    @property
    def endpoint(self) -> str:
        """Where clients find the server: ``host:port``."""
        return f"{self._host}:{self.port}"

    @property
    def public_key(self) -> str | None:
        """What clients must know as ``server_key``; None without keys."""
        return None if self._keys is None else self._keys.public

    # -- Running ------------------------------------------------------------------------------------------------------

    def start(self) -> Self:
        """Serve in a thread of this process."""
        self._thread = threading.Thread(target=self.run, name="sage-qd-rpc-server", daemon=True)
        self._thread.start()
        return self

    def run(self) -> None:
        """Serve in this thread until :meth:`stop`, then close everything."""
        try:
            while not self._stopping:
                self._step()
        finally:
            self._close()

    def stop(self) -> None:
        """End :meth:`run`: give back what clients hold, close the queues. From any thread, and from signal handlers."""
        self._stopping = True
        self._bell.ring()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _step(self) -> None:
        """Wait for something to happen and do what follows from it."""
        self._socket.poll(self._seconds_to_wait())
        self._bell.clear()
        for _ in range(_FRAMES_AT_A_TIME):
            arrived = self._socket.receive()
            if arrived is None:
                break
            self._take_frame(arrived)
        while self._woken:
            self._touched.add(self._woken.popleft())
        self._expire_waiting()
        self._retry_touched()
        now = monotonic()
        if now >= self._next_tick:
            self._next_tick = now + _TICK_SECONDS
            self._tick(now)
        for session in list(self._talking):
            self._flush(session)

    def _seconds_to_wait(self) -> float:
        if self._woken or self._touched:
            return 0
        timer = self._timers[0][0] if self._timers else inf
        # One millisecond more than is left, since the library counts whole ones: better late than early and again.
        return max(min(timer - monotonic() + 0.001, _TICK_SECONDS), 0)

    def _wake(self, hosted: Hosted) -> None:
        """Called from watching threads."""
        self._woken.append(hosted)
        self._bell.ring()

    def _retry_touched(self) -> None:
        while self._touched:
            hosted = self._touched.pop()
            hosted.retry()

    def _expire_waiting(self) -> None:
        now = monotonic()
        while self._timers and self._timers[0][0] <= now:
            waiting = heapq.heappop(self._timers)[2]
            if not waiting.answered and waiting.deadline <= now:
                self._touched.add(waiting.hosted)
                self._talking.add(waiting.session)
                if not waiting.attempt():
                    waiting.expire()

    def _at_deadline(self, waiting: Waiting) -> None:
        if waiting.deadline < inf:
            self._timed += 1
            heapq.heappush(self._timers, (waiting.deadline, self._timed, waiting))

    # -- Frames -------------------------------------------------------------------------------------------------------

    def _take_frame(self, arrived: Arrived) -> None:
        session = self._routes.get(arrived.route)
        try:
            frame = wire.unpack_requests(
                arrived.frame, session.peer if session else "a client", self._limits.largest_frame
            )
            if session is None:
                self._greet(arrived, frame)
            else:
                self._take_requests(session, frame)
        except SageQueueError as error:
            self._say_bye(arrived.route, error)

    def _greet(self, arrived: Arrived, frame: wire.Requests) -> None:
        """Begin a session, or go on with one."""
        hello = frame.entries[0] if len(frame.entries) == 1 else None
        if not isinstance(hello, wire.Hello):
            raise ProtocolError(peer="a client", reason="the server knows of no session with it")
        if hello.version != wire.VERSION or len(hello.client) != _CLIENT_ID_BYTES:
            raise ProtocolError(peer="a client", reason=f"it speaks version {hello.version}, not {wire.VERSION}")
        name = (arrived.user, hello.client)
        session = self._sessions.get(name)
        resumed = session is not None and hello.resume
        if session is not None and not hello.resume:
            self._end_session(session)
            session = None
        if session is None:
            if len(self._sessions) >= self._limits.sessions:
                raise QueueUnavailableError(
                    endpoint=self.endpoint, reason=f"it serves {len(self._sessions):,} clients and no more"
                )
            session = self._sessions[name] = Session(hello.client, arrived.user, self._limits, self._talking)
        if session.route is not None:
            self._routes.pop(session.route, None)
            self._socket.forget(session.route)
        session.route, session.gone_since, session.heard = arrived.route, None, monotonic()
        session.outbox.clear()
        self._routes[arrived.route] = session
        self._socket.remember(arrived.route, arrived.user)
        limits = self._limits
        session.say(
            wire.Welcome(
                wire.VERSION,
                self.server_id,
                resumed,
                limits.largest_frame,
                limits.in_flight,
                limits.client_bytes // 2,
            )
        )

    def _take_requests(self, session: Session, frame: wire.Requests) -> None:
        session.heard = monotonic()
        session.confirm(frame.done, frame.ended)
        self._talking.add(session)
        for request in frame.entries:
            if isinstance(request, wire.Cancel):
                if (waiting := session.waiting.get(request.number)) is not None:
                    self._touched.add(waiting.hosted)
                    waiting.drop(QueueUnavailableError(endpoint=self.endpoint, reason="the call was given up"))
            elif isinstance(request, wire.Ping):
                session.say(wire.Pong())
            elif isinstance(request, wire.Hello):
                raise ProtocolError(peer=session.peer, reason="it said hello twice")
            elif request.number < 0 or (request.number == 0 and not isinstance(request, wire.Settle)):
                raise ProtocolError(peer=session.peer, reason=f"its request has the number {request.number}")
            elif session.is_new(request.number):
                try:
                    self._carry_out(session, request)
                except ProtocolError:
                    raise
                except Exception as error:  # noqa: BLE001  (whatever the queue says is the client's answer)
                    session.fail(request.number, error)

    def _carry_out(self, session: Session, request: Any) -> None:
        if isinstance(request, wire.OpenHandle):
            session.answer(request.number, self._open(session, request))
            return
        if isinstance(request, wire.CloseHandle):
            self._let_go(session.close_handle(request.handle))
            session.answer(request.number, None)
            return
        hosted = session.hosted(request.handle)
        if isinstance(request, wire.Settle):
            session.settle(request.number, request.handle, request.lease, request.acked)
        elif isinstance(request, wire.Ask):
            session.answer(request.number, hosted.ask(request.verb, request.argument))
        else:
            self._try_or_park(session, hosted, request)
        if not isinstance(request, wire.Ask) or request.verb in ("clear", "shutdown", "seal"):
            self._touched.add(hosted)

    def _try_or_park(self, session: Session, hosted: Hosted, request: wire.Put | wire.Take | wire.Wait) -> None:
        waiting: Waiting
        if isinstance(request, wire.Put):
            waiting, for_room = WaitingPut(session, hosted, request), True
        elif isinstance(request, wire.Take):
            waiting, for_room = WaitingTake(session, hosted, request, self._at_deadline), False
        else:
            waiting, for_room = WaitingLook(session, hosted, request), request.for_room
        if hosted.try_or_park(waiting, for_room=for_room):
            waiting.park()
            self._at_deadline(waiting)

    # -- Queues -------------------------------------------------------------------------------------------------------

    def _open(self, session: Session, request: wire.OpenHandle) -> dict[str, Any]:
        """Open a queue for a client and tell its properties."""
        if not 0 < len(request.name.encode()) <= _LONGEST_NAME or request.maxsize < 0:
            raise ValueError("a queue has a name of 1 to 1,024 bytes, and a maxsize of at least 0")
        hosted = self._hosted.get(request.name)
        if hosted is None:
            if self._make is None or not request.create:
                raise QueueNotFoundError(name=request.name)
            hosted = self._host_queue(self._make(request.name, request.maxsize), kept=False)
            self._hosted[request.name] = hosted
        try:
            hosted.check_codec(request.codec)
            maxsize = hosted.queue.maxsize
            if request.maxsize not in (0, maxsize):
                raise GeometryMismatchError(
                    name=request.name, wanted={"maxsize": request.maxsize}, found={"maxsize": maxsize}
                )
            if request.instance is not None and request.instance != hosted.instance:
                raise StaleDescriptorError(wanted=request.instance, found=str(hosted.instance))
            handle = session.opened(hosted)
        except BaseException:
            self._remove_unused(hosted)
            raise
        return {
            "handle": handle,
            "instance": hosted.instance,
            "maxsize": maxsize,
            "largest_message": hosted.largest_message,
            "bounded_by_bytes": hosted.queue.capabilities.bounded_by_bytes,
        }

    def _host_queue(self, descriptor: HostedDescriptor, *, kept: bool) -> Hosted:
        return Hosted(descriptor, self._wake, kept=kept, allow_pickle=self._allow_pickle)

    def _let_go(self, hosted: Hosted) -> None:
        """A client closed its handle: the others may have what it held; a queue that nobody has open may go."""
        self._touched.add(hosted)
        self._remove_unused(hosted)

    def _remove_unused(self, hosted: Hosted) -> None:
        if not (hosted.kept or hosted.handles):
            self._touched.discard(hosted)
            self._hosted = {name: each for name, each in self._hosted.items() if each is not hosted}
            hosted.close()

    # -- Sessions -----------------------------------------------------------------------------------------------------

    def _tick(self, now: float) -> None:
        """Find out who is dead; say something to those that hear nothing else, which shows whose connection is gone."""
        for session in list(self._sessions.values()):
            is_dead = now - session.heard > self._limits.dead_seconds
            is_gone = session.gone_since is not None and now - session.gone_since > self._limits.grace_seconds
            if is_dead or is_gone:
                self._end_session(session)
            elif session.gone_since is None and now - session.told > 2 * _TICK_SECONDS:
                session.say(wire.Pong())

    def _flush(self, session: Session) -> None:
        """Send a client its answers, in frames that are not too large."""
        self._talking.discard(session)
        answers, session.outbox = session.outbox, []
        if session.route is None or not answers:
            return
        session.told = monotonic()
        for frame in _frames(answers):
            outcome = self._socket.send(session.route, frame)
            if outcome == "slow":
                self._end_session(session)
                return
            if outcome == "gone":
                session.gone_since = session.gone_since or monotonic()
                return

    def _say_bye(self, route: bytes, error: SageQueueError) -> None:
        """End the session of a route, if it has one, and tell the reason."""
        session = self._routes.get(route)
        if session is not None:
            self._end_session(session)
        self._socket.send(route, wire.pack(wire.Answers([wire.Bye(*fault_of(error))])))  # gone or slow: it knows

    def _end_session(self, session: Session) -> None:
        self._sessions.pop((session.user, session.client), None)
        self._talking.discard(session)
        if session.route is not None:
            self._routes.pop(session.route, None)
            self._socket.forget(session.route)
            session.route = None
        for hosted in session.end():
            self._let_go(hosted)

    def _close(self) -> None:
        for session in list(self._sessions.values()):
            self._end_session(session)
        self._close_queues()
        self._socket.close()
        self._bell.close()

    def _close_queues(self) -> None:
        for hosted in self._hosted.values():
            hosted.close()
        self._hosted.clear()


def _frames(answers: list[tuple[wire.Answer, int]]) -> Iterable[bytes]:
    """Pack answers into frames, each of them as soon as it is large enough."""
    entries: list[wire.Answer] = []
    size = 0
    for answer, its_size in answers:
        if entries and size + its_size > wire.BATCH_BYTES:
            yield wire.pack(wire.Answers(entries))
            entries, size = [], 0
        entries.append(answer)
        size += its_size
    if entries:
        yield wire.pack(wire.Answers(entries))


def serve(
    served: Mapping[str, HostedDescriptor] | None = None,
    *,
    ready: Callable[[QueueServer], object] | None = None,
    **settings: Any,
) -> None:
    """
    Serve until SIGINT or SIGTERM, then give back what clients hold and close the queues. For the main thread.

    Args:
        served: Queues by name, see :class:`QueueServer`.
        ready: Called once the server listens; None prints where, and the public key, in one line each.
        **settings: Those of :class:`QueueServer`.
    """
    server = QueueServer(served, **settings)

    def end(number: int, frame: FrameType | None) -> None:
        server._stopping = True
        server._bell.ring()

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        (ready or _print_ready)(server)
        server.run()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _print_ready(server: QueueServer) -> None:
    print(f"serving on rpc://{server.endpoint}", flush=True)
    if server.public_key is not None:
        print(f"server key {server.public_key}", flush=True)
