"""
The counters for Prometheus, over HTTP: reading only, behind a token, to who calls this server by its own name.

A page in a browser can reach a server on loopback: it may send requests to it, and make its own name point there. So a
request needs the token, a ``Host`` that is one of this server's names, and no ``Origin`` of somebody else. There are no
verbs but GET, no payloads of queues and no secrets in the answer. A client that stays silent is dropped.

The one door to ``prometheus_client``, which the extra ``prometheus`` installs.
"""

import hmac
import os
import secrets
import socket
import stat
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any, ClassVar, Final

from sage_qd.errors import BackendUnavailableError, InsecureQueueError
from sage_qd.monitor.figures import METRICS, labels_of, measurements
from sage_qd.monitor.states import QueueState

__all__ = ["MetricsServer", "metrics_text", "new_token", "token_from_file"]

PREFIX: Final = "sage_qd"
PATH: Final = "/metrics"
SHORTEST_TOKEN: Final = 16
LONGEST_TOKEN: Final = 512
SECONDS_OF_SILENCE: Final = 5.0
SECONDS_PER_CLIENT: Final = 10.0
MOST_CLIENTS: Final = 16
"""Connections served at once; a further one is closed at once."""

States = Callable[[], Iterable[QueueState]]


def new_token() -> str:
    """Make a token that nobody can guess."""
    return secrets.token_urlsafe(32)


def token_from_file(path: Path) -> str:
    """
    Read the token from a file that only this user can read.

    Raises:
        InsecureQueueError: Others can read it, or it belongs to somebody else.
        ValueError: It holds no token: 16 to 512 visible ASCII characters.
        OSError: It cannot be read.
    """
    with open(path, "rb") as file:
        found = os.fstat(file.fileno())
        if found.st_uid != os.geteuid() or found.st_mode & 0o077 or not stat.S_ISREG(found.st_mode):
            raise InsecureQueueError(path=str(path), reason="a token must be in a file of this user alone", stat=found)
        text = file.read(2 * LONGEST_TOKEN).decode("ascii", errors="replace").strip()
    if not SHORTEST_TOKEN <= len(text) <= LONGEST_TOKEN or not all("!" <= letter <= "~" for letter in text):
        raise ValueError(f"{path} must hold {SHORTEST_TOKEN} to {LONGEST_TOKEN} visible ASCII characters")
    return text


def metrics_text(states: Iterable[QueueState]) -> bytes:
    """
    Return the metrics of these queues in Prometheus' text format.

    Raises:
        BackendUnavailableError: The library is missing.
    """
    try:
        from prometheus_client import CollectorRegistry, generate_latest
    except ImportError as error:
        raise BackendUnavailableError(
            backend="prometheus", missing="prometheus_client", install="pip install 'sage-qd[prometheus]'"
        ) from error
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(list(states)))
    text: bytes = generate_latest(registry)
    return text


class _Collector:
    """Hands one snapshot to the library."""

    def __init__(self, states: Sequence[QueueState]) -> None:
        self._states = states

    def collect(self) -> Iterator[Any]:
        """Called by the registry."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        names = ["kind", "namespace", "queue", "instance_id"]
        for metric in METRICS:
            family = (CounterMetricFamily if metric.grows else GaugeMetricFamily)(
                f"{PREFIX}_{metric.name}", metric.help, labels=names
            )
            for state, value in measurements(metric, self._states):
                labels = labels_of(state)
                family.add_metric([labels[name] for name in names], value)
            yield family


class MetricsServer:
    """
    Serves :func:`metrics_text` at ``/metrics`` until it is closed.

    Args:
        states: Called for each request.
        token: What clients send as ``Authorization: Bearer``.
        host: Address to listen on.
        port: Port; 0 for any that is free.
        beyond_loopback: Allow an address that other machines can reach.
        names: Further names by which clients may call this server, as ``name`` or ``name:port``.

    Raises:
        ValueError: The address is not loopback, and that was not allowed; or it is no address.
        OSError: It cannot be listened on.
        BackendUnavailableError: The library is missing.
    """

    def __init__(
        self,
        states: States,
        *,
        token: str,
        host: str = "127.0.0.1",
        port: int = 9464,
        beyond_loopback: bool = False,
        names: Iterable[str] = (),
    ) -> None:
        if not SHORTEST_TOKEN <= len(token) <= LONGEST_TOKEN:
            raise ValueError(f"a token has {SHORTEST_TOKEN} to {LONGEST_TOKEN} characters, not {len(token)}")
        address = ip_address(host)
        if not address.is_loopback and not beyond_loopback:
            raise ValueError(f"{host} can be reached from other machines; to listen there, say so explicitly")
        metrics_text(())  # the library is there, or says what is missing before anybody waits for an answer
        family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
        self._server = _Server((host, port), family, partial(_Handler, states, token))
        self._server.names = frozenset(self._own_names(host, names))
        self._thread: threading.Thread | None = None

    @property
    def port(self) -> int:
        """Where it listens."""
        port: int = self._server.server_address[1]
        return port

    @property
    def url(self) -> str:
        """Where the metrics are."""
        host = str(self._server.server_address[0])
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}{PATH}"

    def _own_names(self, host: str, names: Iterable[str]) -> Iterator[str]:
        shown = f"[{host}]" if ":" in host else host
        own = [shown, "localhost"] if ip_address(host).is_loopback else [shown]
        for name in (*own, *names):
            yield name.lower()
            if name.startswith("[") or ":" not in name:
                yield f"{name}:{self.port}".lower()

    def serve(self) -> None:
        """Answer requests until :meth:`close`, which another thread calls, or an exception such as Ctrl-C."""
        self._server.serve_forever(poll_interval=0.05)

    def start(self) -> None:
        """Answer requests in a thread."""
        self._thread = threading.Thread(target=self.serve, name="sage-qd metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop, and free the port."""
        if self._thread is not None:
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    """Bounded in connections; quiet about clients that go away."""

    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    request_queue_size = 4 * MOST_CLIENTS  # whom the kernel turns away knocks again after 1 s, then 2 s, then 4 s
    names: frozenset[str] = frozenset()

    def __init__(self, address: tuple[str, int], family: int, handler: Callable[..., BaseHTTPRequestHandler]) -> None:
        self.address_family = family
        self._room = threading.BoundedSemaphore(MOST_CLIENTS)
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._room.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._room.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        end = threading.Timer(SECONDS_PER_CLIENT, _hang_up, [request])  # who sends a byte now and then is dropped, too
        end.daemon = True
        end.start()
        try:
            super().process_request_thread(request, client_address)
        finally:
            end.cancel()
            self._room.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away, or sent nonsense, is no news; anything else is printed by the base class."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


def _hang_up(request: socket.socket) -> None:
    with suppress(OSError):  # it ended by itself
        request.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    timeout = SECONDS_OF_SILENCE
    server_version = "sage-qd"
    sys_version = ""
    server: _Server
    error_content_type = "text/plain; charset=utf-8"
    error_message_format = "%(code)d %(message)s\n"
    _refused_headers: ClassVar[dict[str, str]] = {"WWW-Authenticate": 'Bearer realm="sage-qd"'}

    def __init__(self, states: States, token: str, *arguments: Any) -> None:
        self._states = states
        self._token = token
        super().__init__(*arguments)

    def do_GET(self) -> None:
        """Answer, if everything about the request is right."""
        refusal = self._refusal()
        if refusal is not None:
            self._answer(refusal, f"{refusal.value} {refusal.phrase}\n".encode(), "text/plain; charset=utf-8")
            return
        self._answer(HTTPStatus.OK, metrics_text(self._states()), "text/plain; version=0.0.4; charset=utf-8")

    def _refusal(self) -> HTTPStatus | None:
        """Why there is no answer: who is asked and by whom comes first, so a stranger learns nothing about tokens."""
        hosts = self.headers.get_all("Host", [])
        if len(hosts) != 1 or hosts[0].strip().lower() not in self.server.names:
            return HTTPStatus.MISDIRECTED_REQUEST
        origin = self.headers.get("Origin")
        if origin is not None and origin.lower().removeprefix("http://") not in self.server.names:
            return HTTPStatus.FORBIDDEN
        scheme, _, given = self.headers.get("Authorization", "").partition(" ")
        expected = self._token.encode()
        if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode("utf-8", "replace"), expected):
            return HTTPStatus.UNAUTHORIZED
        return None if self.path == PATH else HTTPStatus.NOT_FOUND

    def _answer(self, status: HTTPStatus, body: bytes, kind: str) -> None:
        self.send_response(status)
        headers = {
            "Content-Type": kind,
            "Content-Length": str(len(body)),
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
            "Connection": "close",
        }
        for name, value in (headers | (self._refused_headers if status == HTTPStatus.UNAUTHORIZED else {})).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002  (the name in the base class)
        """Say nothing: a scrape every few seconds is no news."""
