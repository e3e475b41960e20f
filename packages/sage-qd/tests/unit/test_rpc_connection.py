"""Connections that are refused, break, or lead to a server that died: what callers are told, and what is lost."""

import os
import signal
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("zmq", reason="needs pip install 'sage-qd[rpc]'")

import sage_qd
from sage_qd import (
    AuthenticationError,
    BackendUnavailableError,
    DescriptorError,
    FencedError,
    LocalQueueDescriptor,
    OutcomeUnknownError,
    QueueLostError,
    QueueServer,
    QueueUnavailableError,
    RPCQueueDescriptor,
    SageQueueDescriptor,
    UntrustedPayloadError,
    generate_keys,
)
from sage_qd import ring as rings
from sage_qd.testing import background, wait_for

KEPT_SERVER = """
import sys
from sage_qd import LocalQueueDescriptor, SageQueueDescriptor, serve

namespace, port = sys.argv[1:]
serve(
    {
        "kept": SageQueueDescriptor("kept", namespace=namespace, codec="msgpack", auto_cleanup=False, maxsize=100),
        "memory": LocalQueueDescriptor("memory", maxsize=1),
    },
    port=int(port),
    ready=lambda server: print(server.port, flush=True),
)
"""


class ServerProcess:
    """A server that can be killed, and started again at its port."""

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace
        self.port = 0
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", KEPT_SERVER, self._namespace, str(self.port)], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def server() -> Iterator[ServerProcess]:
    namespace = f"rpc-{uuid.uuid4().hex}"
    made = ServerProcess(namespace)
    yield made
    made.kill()
    SageQueueDescriptor("kept", namespace=namespace, codec="msgpack", auto_cleanup=False, maxsize=100).destroy()
    (rings.directory() / namespace).rmdir()


@pytest.fixture
def opened() -> Iterator[Callable[..., Any]]:
    """Open a queue; it is closed in the end."""
    queues: list[Any] = []

    def opener(port: int, queue_id: str = "q", **settings: Any) -> Any:
        queues.append(RPCQueueDescriptor(queue_id, port=port, enable_pooling=False, **settings).open())
        return queues[-1]

    yield opener
    for queue in queues:
        queue.close()


def make(name: str, maxsize: int) -> LocalQueueDescriptor:
    return LocalQueueDescriptor(f"rpc-connection-{name}", maxsize=maxsize)


# -- Refused -----------------------------------------------------------------------------------------------------------


def test_a_client_that_is_not_on_the_list_is_told_so(tmp_path: Path) -> None:
    keys, ours = generate_keys(tmp_path / "server"), generate_keys(tmp_path / "ours")
    stranger = generate_keys(tmp_path / "stranger")
    with QueueServer(make=make, keys=keys, clients=[ours.public]) as server:
        for client in (tmp_path / "stranger", None):
            descriptor = RPCQueueDescriptor(
                "q", port=server.port, server_key=keys.public, key_file=client and str(client)
            )
            with pytest.raises(AuthenticationError) as caught:
                descriptor.open()
            assert stranger.secret not in str(caught.value)


def test_a_wrong_key_of_the_server_is_told(tmp_path: Path) -> None:
    keys, other = generate_keys(tmp_path / "server"), generate_keys(tmp_path / "other")
    with QueueServer(make=make, keys=keys) as server, pytest.raises(AuthenticationError, match="server_key"):
        RPCQueueDescriptor("q", port=server.port, server_key=other.public).open()


def test_keys_on_one_side_only_are_told(tmp_path: Path) -> None:
    keys = generate_keys(tmp_path / "server")
    with QueueServer(make=make, keys=keys) as server, pytest.raises(AuthenticationError, match="one side"):
        RPCQueueDescriptor("q", port=server.port).open()
    with QueueServer(make=make) as server, pytest.raises(AuthenticationError):
        RPCQueueDescriptor("q", port=server.port, server_key=keys.public).open()


def test_nobody_there_is_told_in_time() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        descriptor = RPCQueueDescriptor("q", port=free.getsockname()[1], connection_timeout=0.3)

        with pytest.raises(QueueUnavailableError) as caught:
            descriptor.open()
    assert caught.value.endpoint.startswith("rpc://127.0.0.1:")


def test_somebody_who_says_nothing_is_told_in_time() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()

        with pytest.raises(QueueUnavailableError):
            RPCQueueDescriptor("q", port=silent.getsockname()[1], connection_timeout=0.3).open()


def test_a_descriptor_leads_to_allowed_hosts_only(monkeypatch: pytest.MonkeyPatch) -> None:
    descriptor = RPCQueueDescriptor("q", host="192.0.2.1", connection_timeout=0.1)

    with pytest.raises(DescriptorError) as caught:
        descriptor.open()
    assert caught.value.pointer == "/metadata/host"

    monkeypatch.setenv("SAGE_QD_RPC_HOSTS", "example.org, 192.0.2.1")
    with pytest.raises(QueueUnavailableError):
        descriptor.open()


def test_without_the_library_the_hint_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("sage_qd.queues.rpc.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "zmq", None)

    with pytest.raises(BackendUnavailableError, match=r"pip install 'sage-qd\[rpc\]'"):
        RPCQueueDescriptor("q").open()


def test_a_ring_of_pickles_is_not_served_unless_that_is_allowed() -> None:
    ring = SageQueueDescriptor(f"rpc-{uuid.uuid4().hex}")

    with pytest.raises(UntrustedPayloadError):
        QueueServer({"q": ring})


def test_a_pickle_does_not_pass_a_server_that_does_not_allow_it(tmp_path: Path) -> None:
    keys = generate_keys(tmp_path / "server")
    with QueueServer(make=make, keys=keys) as server, pytest.raises(UntrustedPayloadError):
        RPCQueueDescriptor("q", port=server.port, server_key=keys.public, codec="pickle", allow_pickle=True).open()


# -- Status ------------------------------------------------------------------------------------------------------------


def test_status_tells_the_state_without_opening() -> None:
    with QueueServer(make=make) as server:
        descriptor = RPCQueueDescriptor("q", port=server.port)
        before = descriptor.get_connection_status()
        descriptor.open()
        after = descriptor.get_connection_status()
        descriptor.reconnect()

        assert (before["state"], before["connected"]) == ("lazy", False)
        assert (after["state"], after["server_id"]) == ("up", server.server_id)
        assert descriptor.get_connection_status()["connected"]
        descriptor.close()


# -- Broken ------------------------------------------------------------------------------------------------------------


class Proxy:
    """Passes bytes between a client and a server; cuts all connections when told to."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._pairs: list[socket.socket] = []
        self.drops_answers = self.refuses = False
        self._threads: list[threading.Thread] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        while True:
            try:
                ours, _ = self._listener.accept()
                if self.refuses:
                    ours.close()
                    continue
                theirs = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                return
            self._pairs += [ours, theirs]
            for passing in ((ours, theirs, False), (theirs, ours, True)):
                self._threads.append(threading.Thread(target=self._pass, args=passing, daemon=True))
                self._threads[-1].start()

    def _pass(self, source: socket.socket, target: socket.socket, is_answer: bool) -> None:
        try:
            while data := source.recv(65536):
                if not (is_answer and self.drops_answers):
                    target.sendall(data)
        except OSError:
            pass
        for each in (source, target):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def cut(self) -> None:
        for each in self._pairs:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join()
        for each in self._pairs:
            each.close()


@pytest.fixture
def between() -> Iterator[tuple[QueueServer, Proxy]]:
    with QueueServer(make=make) as server:
        proxy = Proxy(server.port)
        yield server, proxy
        proxy.close()


def test_a_put_whose_answer_was_lost_is_carried_out_once(
    between: tuple[QueueServer, Proxy], opened: Callable[..., Any]
) -> None:
    server, proxy = between
    queue, watcher = opened(proxy.port, "once"), opened(server.port, "once")
    proxy.drops_answers = True
    putting = background(queue.put, "once")
    wait_for(lambda: watcher.qsize() == 1, "the server has the message")
    assert putting.is_waiting()

    proxy.drops_answers = False
    proxy.cut()

    putting.result()
    assert watcher.qsize() == 1


def test_a_put_that_was_interrupted_before_it_was_sent_is_not_carried_out(
    between: tuple[QueueServer, Proxy], opened: Callable[..., Any]
) -> None:
    server, proxy = between
    queue, watcher = opened(proxy.port, "interrupted"), opened(server.port, "interrupted")
    proxy.refuses = True
    proxy.cut()
    wait_for(lambda: not queue.connection_status()["connected"], "the connection is down")
    interrupter = threading.Timer(0.2, os.kill, [os.getpid(), signal.SIGINT])
    interrupter.start()
    with pytest.raises(KeyboardInterrupt):
        queue.put("never")
    interrupter.join()

    proxy.refuses = False
    queue.put("then")

    assert watcher.get_many(2, timeout=0) == ["then"]


def test_a_queue_that_is_closed_while_the_connection_is_down_gives_its_leases_back(
    between: tuple[QueueServer, Proxy], opened: Callable[..., Any]
) -> None:
    server, proxy = between
    watcher = opened(server.port, "closed")
    queue, other = (RPCQueueDescriptor(name, port=proxy.port).open() for name in ("closed", "other"))
    queue.put("leased")
    lease = queue.lease()
    proxy.refuses = True
    proxy.cut()
    wait_for(lambda: not queue.connection_status()["connected"], "the connection is down")

    queue.close()
    proxy.refuses = False

    assert watcher.get(timeout=60) == lease.value == "leased"
    other.close()


def test_without_retries_a_lost_answer_is_told(between: tuple[QueueServer, Proxy], opened: Callable[..., Any]) -> None:
    server, proxy = between
    queue, watcher = opened(proxy.port, "told", retry_count=0), opened(server.port, "told")
    proxy.drops_answers = True
    putting = background(queue.put, "maybe")
    wait_for(lambda: watcher.qsize() == 1, "the server has the message")

    proxy.drops_answers = False
    proxy.cut()

    with pytest.raises(OutcomeUnknownError):
        putting.result()


def test_leases_survive_a_connection_that_comes_back(
    between: tuple[QueueServer, Proxy], opened: Callable[..., Any]
) -> None:
    server, proxy = between
    queue, watcher = opened(proxy.port, "leases"), opened(server.port, "leases")
    queue.put("work")
    lease = queue.lease()

    proxy.cut()

    lease.ack()
    assert watcher.stats().gets == 1
    assert watcher.empty()


def test_a_waiting_get_goes_on_after_a_break(between: tuple[QueueServer, Proxy], opened: Callable[..., Any]) -> None:
    server, proxy = between
    queue, other = opened(proxy.port, "waits"), opened(server.port, "waits")
    getting = background(queue.get)
    wait_for(lambda: queue.connection_status()["in_flight"] == 1, "it waits at the server")

    proxy.cut()
    other.put("late")

    assert getting.result() == "late"


def test_a_connection_that_fails_by_itself_leaves_nobody_waiting(
    between: tuple[QueueServer, Proxy], opened: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, _ = between
    queue = opened(server.port, "fails")
    getting = background(queue.get)
    wait_for(lambda: queue.connection_status()["in_flight"] == 1, "it waits at the server")

    def no_memory(*_: object, **__: object) -> None:
        raise MemoryError("not enough")

    monkeypatch.setattr(queue._connection._socket, "poll", no_memory)

    with pytest.raises(QueueUnavailableError, match="not enough"):
        getting.result()
    with pytest.raises(QueueUnavailableError, match="not enough"):
        queue.put("later")


# -- Killed ------------------------------------------------------------------------------------------------------------


def test_a_kept_ring_survives_the_death_of_the_server(server: ServerProcess, opened: Callable[..., Any]) -> None:
    queue = opened(server.port, "kept")
    queue.put_many(range(10))
    lease = queue.lease()
    first = queue.connection_status()["server_id"]

    server.kill()
    server.start()

    assert queue.get_many(20) == list(range(10))
    assert queue.connection_status()["server_id"] != first
    with pytest.raises(FencedError):
        lease.ack()


def test_a_queue_in_the_servers_memory_is_lost_with_it(server: ServerProcess, opened: Callable[..., Any]) -> None:
    queue = opened(server.port, "memory")
    queue.put("gone")
    waiting = background(queue.put, "waits for room")
    wait_for(lambda: queue.connection_status()["in_flight"] == 1, "it waits at the server")

    server.kill()
    server.start()

    # The answer that does not come, or the loss of the queue: whichever the connection learns of first.
    with pytest.raises((OutcomeUnknownError, QueueLostError)):
        waiting.result()
    with pytest.raises(QueueLostError) as caught:
        queue.get()
    assert caught.value.items_lost is True


def test_calls_end_when_the_server_stays_away(server: ServerProcess, opened: Callable[..., Any]) -> None:
    queue = opened(server.port, "kept", connection_timeout=0.5)
    getting = background(queue.get)
    wait_for(lambda: queue.connection_status()["in_flight"] == 1, "it waits at the server")

    server.kill()

    with pytest.raises(QueueUnavailableError):
        getting.result()
    with pytest.raises(QueueUnavailableError):
        queue.put("nobody there")
    server.start()


CLIENT = """
import sys, time
from sage_qd import RPCQueueDescriptor
queue = RPCQueueDescriptor("kept", port=int(sys.argv[1])).open()
lease = queue.lease()
print(lease.value, flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("death", [signal.SIGKILL, signal.SIGTERM])
def test_a_dead_client_gives_its_leases_back(server: ServerProcess, opened: Callable[..., Any], death: int) -> None:
    queue = opened(server.port, "kept")
    queue.put("held")
    client = subprocess.Popen([sys.executable, "-c", CLIENT, str(server.port)], stdout=subprocess.PIPE, text=True)
    assert client.stdout is not None
    assert client.stdout.readline() == "held\n"

    os.kill(client.pid, death)
    client.wait()
    client.stdout.close()

    with queue.lease() as lease:
        assert (lease.value, lease.redelivered) == ("held", True)


def test_a_stopped_server_ends_cleanly_on_sigterm(server: ServerProcess) -> None:
    os.kill(server.process.pid, signal.SIGTERM)

    assert server.process.wait(60) == 0


def test_import_of_the_package_loads_no_socket_library() -> None:
    code = "import sys, sage_qd; sage_qd.RPCQueueDescriptor('q'); sys.exit('zmq' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    assert sage_qd.RPCQueueDescriptor("q").to_uri() == "rpc://127.0.0.1:8000/q"
