"""
The only door to the socket library: sockets of both sides, with CURVE, limits and heartbeats set.

CURVE encrypts, proves the server's key to the client and the client's key to the server, and refuses replays; it is
part of the library's handshake, which ends a connection before a single frame of it is seen here. A socket belongs to
the thread that uses it, and a context to the process that made it.
"""

import socket
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, Literal

import zmq
from zmq.utils import z85
from zmq.utils.monitor import parse_monitor_message

from sage_qd.errors import QueueUnavailableError

__all__ = ["ClientSocket", "Doorbell", "Gone", "ServerSocket", "new_pair", "public_of"]

HANDSHAKE_MS: Final = 5_000
HEARTBEAT_MS: Final = 5_000
DEAD_MS: Final = 15_000
_SLACK: Final = 1 << 16
"""The library cuts frames a little later than we do, so that those just too large are told by name."""
_QUEUED_FRAMES: Final = 1_000
_ZAP: Final = "inproc://zeromq.zap.01"

_EVENTS: Final = {
    zmq.EVENT_CONNECTED: "connected",
    zmq.EVENT_HANDSHAKE_SUCCEEDED: "up",
    zmq.EVENT_HANDSHAKE_FAILED_AUTH: "refused",
    zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL: "mismatch",
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL: "down",
    zmq.EVENT_DISCONNECTED: "down",
    zmq.EVENT_CLOSED: "down",
}

Gone = Literal["gone", "slow"]


def new_pair() -> tuple[str, str]:
    """Return a new public and secret key."""
    public, secret = zmq.curve_keypair()
    return public.decode(), secret.decode()


def public_of(secret: str) -> str:
    """
    Return the public key of a secret one.

    Raises:
        ValueError: It is no key.
    """
    try:
        return zmq.curve_public(secret.encode()).decode()
    except (ValueError, zmq.ZMQError):
        raise ValueError("it is no CURVE key of 40 Z85 characters") from None


class Doorbell:
    """Wakes the thread that polls a socket; rung from any thread, however often."""

    def __init__(self) -> None:
        self._heard, self._rung = socket.socketpair()
        self._heard.setblocking(False)
        self._rung.setblocking(False)
        self.is_heard = False

    def fileno(self) -> int:
        """What to poll."""
        return self._heard.fileno()

    def ring(self) -> None:
        """Wake the thread; a bell that is full rings already."""
        try:
            self._rung.send(b"!")
        except OSError:  # full, so it rings; or closed, so nobody is there to be woken
            return

    def clear(self) -> None:
        """Take what was rung."""
        if self.is_heard:
            self.is_heard = False
            self._heard.recv(4096)

    def close(self) -> None:
        """Give up both ends."""
        self._heard.close()
        self._rung.close()


def _limit(made: Any, largest_frame: int) -> None:
    made.linger = 0
    made.maxmsgsize = largest_frame + _SLACK
    made.sndhwm = made.rcvhwm = _QUEUED_FRAMES
    made.handshake_ivl = HANDSHAKE_MS
    made.heartbeat_ivl = HEARTBEAT_MS
    made.heartbeat_timeout = DEAD_MS
    made.setsockopt(zmq.IPV6, 1)


class ClientSocket:
    """
    One attempt after the other to be connected to a server; each starts clean, with nothing left from the one before.

    Args:
        endpoint: ``tcp://host:port``.
        server_key: The server's public key; None for a server without keys.
        pair: Our public and secret key; a new pair when there is a ``server_key`` and nothing else is said.
        largest_frame: Bytes of a frame that is let in.
        bell: Ends :meth:`poll` when it rings.
    """

    def __init__(
        self,
        endpoint: str,
        *,
        server_key: str | None,
        pair: tuple[str, str] | None,
        largest_frame: int,
        bell: Doorbell,
    ) -> None:
        self._endpoint = endpoint
        self._server_key = server_key
        self._pair = pair or (None if server_key is None else new_pair())
        self._largest_frame = largest_frame
        self._bell = bell
        self._context = zmq.Context()
        self._socket: Any = None
        self._monitor: Any = None
        self._has_events = self._waits_for_room = False
        self._poller = zmq.Poller()

    def connect(self) -> None:
        """Start an attempt; the one before, and what it had not sent, is forgotten."""
        self.disconnect()
        self._has_events = self._waits_for_room = False
        self._socket = self._context.socket(zmq.DEALER)
        _limit(self._socket, self._largest_frame)
        self._socket.reconnect_ivl = -1
        self._socket.setsockopt(zmq.CONNECT_TIMEOUT, HANDSHAKE_MS)
        if self._server_key is not None and self._pair is not None:
            self._socket.curve_serverkey = self._server_key.encode()
            self._socket.curve_publickey = self._pair[0].encode()
            self._socket.curve_secretkey = self._pair[1].encode()
        self._monitor = self._socket.get_monitor_socket(sum(_EVENTS))
        self._poller = zmq.Poller()
        self._poller.register(self._monitor, zmq.POLLIN)
        self._poller.register(self._socket, zmq.POLLIN)
        self._poller.register(self._bell.fileno(), zmq.POLLIN)
        self._socket.connect(self._endpoint)

    def disconnect(self) -> None:
        """End the attempt, or the connection that came of it."""
        if self._socket is not None:
            self._socket.disable_monitor()
            self._monitor.close(0)
            self._socket.close(0)
            self._socket = self._monitor = None
            self._poller = zmq.Poller()
            self._poller.register(self._bell.fileno(), zmq.POLLIN)

    def poll(self, seconds: float, *, for_room: bool) -> None:
        """Wait until there is something to do, or room to send."""
        if for_room != self._waits_for_room and self._socket is not None:
            self._waits_for_room = for_room
            self._poller.modify(self._socket, zmq.POLLIN | zmq.POLLOUT if for_room else zmq.POLLIN)
        ready = [each for each, _ in self._poller.poll(max(int(seconds * 1000), 0))]
        self._has_events = self._monitor in ready
        self._bell.is_heard = self._bell.fileno() in ready

    def events(self) -> Iterable[str]:
        """What happened to the connection: ``connected``, ``up``, ``down``, ``refused`` or ``mismatch``."""
        while self._has_events and self._monitor is not None and self._monitor.poll(0):
            event = zmq.Event(parse_monitor_message(self._monitor.recv_multipart())["event"])
            yield _EVENTS[event]

    def send(self, frame: bytes) -> bool:
        """Send a frame; False when it must wait."""
        try:
            self._socket.send(frame, zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True

    def receive(self) -> bytes | None:
        """Return the next frame, or None. Frames of several parts are none of ours: their parts come joined."""
        if self._socket is None:
            return None
        try:
            return b"".join(self._socket.recv_multipart(zmq.NOBLOCK))
        except zmq.Again:
            return None

    def close(self) -> None:
        """End the connection for good."""
        self.disconnect()
        self._context.term()


@dataclass(frozen=True)
class Arrived:
    """A frame that arrived at a server; ``user`` is the public key of its sender, "" without keys."""

    route: bytes
    frame: bytes
    user: str


class ServerSocket:
    """
    The socket of a server: bound to one address, every client by a route of its own.

    Args:
        host: Address to bind to.
        port: Port; 0 for any that is free.
        pair: The server's public and secret key; None to serve without keys.
        clients: Public keys of the clients that are let in; None for all that have any.
        largest_frame: Bytes of a frame that is let in.
    """

    def __init__(
        self, host: str, port: int, *, pair: tuple[str, str] | None, clients: frozenset[str] | None, largest_frame: int
    ) -> None:
        self._context = zmq.Context()
        self._clients = clients
        self._poller = zmq.Poller()
        # The library asks this socket about every client; it must be there before the first one comes.
        self._zap = self._context.socket(zmq.REP)
        self._zap.linger = 0
        self._zap.bind(_ZAP)
        self._poller.register(self._zap, zmq.POLLIN)
        self._socket = self._context.socket(zmq.ROUTER)
        _limit(self._socket, largest_frame)
        self._socket.router_mandatory = 1
        self._socket.backlog = 1024
        if pair is not None:
            self._socket.curve_server = 1
            self._socket.curve_publickey = pair[0].encode()
            self._socket.curve_secretkey = pair[1].encode()
            self._socket.zap_domain = b"sage-qd"
        self._poller.register(self._socket, zmq.POLLIN)
        self._known: dict[bytes, str] = {}
        address = f"[{host}]" if ":" in host else host
        try:
            self._socket.bind(f"tcp://{address}:{port or '*'}")
        except zmq.ZMQError as error:
            self.close()
            raise QueueUnavailableError(endpoint=f"tcp://{address}:{port}", reason=f"cannot listen: {error}") from None
        self.port = int(self._socket.getsockopt_string(zmq.LAST_ENDPOINT).rpartition(":")[2])

    def watch(self, bell: Doorbell) -> None:
        """Let the bell end :meth:`poll`, too."""
        self._bell = bell
        self._poller.register(bell.fileno(), zmq.POLLIN)

    def poll(self, seconds: float) -> None:
        """Wait until there is something to do, and answer the library's questions about clients."""
        ready = [each for each, _ in self._poller.poll(max(int(seconds * 1000), 0))]
        self._bell.is_heard = self._bell.fileno() in ready
        if self._zap in ready:
            self._answer(self._zap.recv_multipart())

    def _answer(self, question: list[bytes]) -> None:
        """Say whether a client is let in: version, id, domain, address, identity, mechanism, credentials."""
        request, mechanism, credentials = question[1], question[5], question[6:]
        user = z85.encode(credentials[0]).decode() if mechanism == b"CURVE" and credentials else ""
        allowed = bool(user) and (self._clients is None or user in self._clients)
        code, text = (b"200", b"OK") if allowed else (b"400", b"this key is not on the list")
        self._zap.send_multipart([b"1.0", request, code, text, user.encode() if allowed else b"", b""])

    def receive(self) -> Arrived | None:
        """Return the next frame, or None."""
        try:
            parts = self._socket.recv_multipart(zmq.NOBLOCK, copy=False)
        except zmq.Again:
            return None
        route = parts[0].bytes
        user = self._known.get(route)
        if user is None:
            try:
                user = str(parts[-1].get("User-Id"))
            except zmq.ZMQError:
                user = ""
        frame = parts[1].bytes if len(parts) == 2 else b"".join(part.bytes for part in parts[1:])
        return Arrived(route, frame, user)

    def remember(self, route: bytes, user: str) -> None:
        """Do not ask the library again who this is."""
        self._known[route] = user

    def forget(self, route: bytes) -> None:
        """The opposite of :meth:`remember`."""
        self._known.pop(route, None)

    def send(self, route: bytes, frame: bytes) -> Gone | None:
        """Send a frame; says when the client is ``gone``, or too ``slow`` to take it."""
        try:
            self._socket.send_multipart([route, frame], zmq.NOBLOCK)
        except zmq.Again:
            return "slow"
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            return "gone"
        return None

    def close(self) -> None:
        """Stop listening and end every connection."""
        self._socket.close(0)
        self._zap.close(0)
        self._context.term()
