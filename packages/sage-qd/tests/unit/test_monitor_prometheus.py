"""The metrics server: what it serves, and whom it refuses; real requests over real sockets."""

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("prometheus_client")

from prometheus_client.parser import text_string_to_metric_families

from sage_qd.errors import InsecureQueueError
from sage_qd.monitor import QueueState, prometheus, queue_states
from sage_qd.monitor.figures import METRICS
from sage_qd.monitor.prometheus import MOST_CLIENTS, MetricsServer, metrics_text, new_token, token_from_file
from sage_qd.ring import Ring

pytestmark = pytest.mark.timeout(60)
TOKEN = "a-token-of-the-test"


@pytest.fixture
def server(namespace: str) -> Iterator[MetricsServer]:
    server = MetricsServer(lambda: queue_states(namespace), token=TOKEN, port=0)
    server.start()
    yield server
    server.close()


@pytest.fixture
def ask(server: MetricsServer) -> Callable[..., tuple[int, str, Any]]:
    """Ask as a good client does, but for the headers given; None leaves one out."""

    def request(path: str = "/metrics", method: str = "GET", **headers: str | None) -> tuple[int, str, Any]:
        connection = HTTPConnection("127.0.0.1", server.port, timeout=30)
        given = {"Host": f"127.0.0.1:{server.port}", "Authorization": f"Bearer {TOKEN}", **headers}
        connection.putrequest(method, path, skip_host=True)
        for name, value in given.items():
            if value is not None:
                connection.putheader(name, value)
        connection.endheaders()
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        return answer.status, text, answer.headers

    return request


def values(text: str) -> dict[str, list[tuple[dict[str, str], float]]]:
    """Read with the library that Prometheus' own tests use."""
    return {
        sample.name: [(each.labels, each.value) for each in family.samples]
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_metrics_are_those_of_the_queues(ring: Ring, namespace: str, ask: Callable) -> None:
    ring.put_many([b"12345"] * 10)
    ring.get_many(3)

    status, text, headers = ask()

    found = values(text)
    labels = {"kind": "sage_queue", "namespace": namespace, "queue": "ring", "instance_id": ring.instance}
    assert status == 200
    assert headers["Content-Type"].startswith("text/plain; version=0.0.4")
    assert found["sage_qd_puts_total"] == [(labels, 10.0)]
    assert found["sage_qd_gets_total"] == [(labels, 3.0)]
    assert found["sage_qd_put_bytes_total"] == [(labels, 50.0)]
    assert found["sage_qd_depth"] == [(labels, 7.0)]
    assert found["sage_qd_in_use"] == [(labels, 1.0)]


def test_every_metric_is_served(ring: Ring, ask: Callable) -> None:
    _, text, _ = ask()

    names = {name.removesuffix("_total") for name in values(text)}
    optional = {"sage_qd_capacity_messages"}  # the ring is bounded by bytes alone
    assert names == {f"sage_qd_{metric.name}" for metric in METRICS} - optional


def test_names_in_any_script_survive(ask: Callable, namespace: str) -> None:
    state = QueueState(kind="k", queue_id='a"b\\c\n结果', namespace="", where="", in_use=True)

    found = values(metrics_text([state]).decode())

    assert found["sage_qd_in_use"][0][0]["queue"] == 'a"b\\c\n结果'


def test_payloads_never_leave(ring: Ring, ask: Callable) -> None:
    ring.put(b"a very secret payload")

    assert "secret" not in ask()[1]


@pytest.mark.parametrize("given", [None, "", "Bearer", "Bearer wrong-token-of-this", f"Basic {TOKEN}", "Bearer é"])
def test_without_the_token_there_is_no_answer(ring: Ring, ask: Callable, given: str | None) -> None:
    status, text, headers = ask(Authorization=given)

    assert (status, text) == (401, "401 Unauthorized\n")
    assert headers["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.parametrize(
    "host", [None, "", "evil.example", "evil.example:{port}", "127.0.0.1:1", "127.0.0.1.evil:{port}"]
)
def test_a_name_that_is_not_the_servers_is_refused(ask: Callable, server: MetricsServer, host: str | None) -> None:
    """A page can make its own name lead to this address; its requests still say its name."""
    status, text, _ = ask(Host=None if host is None else host.format(port=server.port))

    assert (status, text) == (421, "421 Misdirected Request\n")


@pytest.mark.parametrize("host", ["127.0.0.1:{port}", "localhost:{port}", "LOCALHOST:{port}", "localhost"])
def test_names_of_the_server_are_answered(ask: Callable, server: MetricsServer, host: str) -> None:
    assert ask(Host=host.format(port=server.port))[0] == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "https://127.0.0.1", "http://127.0.0.1:1", ""])
def test_pages_of_other_origins_are_refused(ask: Callable, origin: str) -> None:
    assert ask(Origin=origin)[0] == 403


def test_its_own_origin_is_answered(ask: Callable, server: MetricsServer) -> None:
    status, _, headers = ask(Origin=f"http://127.0.0.1:{server.port}")

    assert status == 200
    assert "Access-Control-Allow-Origin" not in headers


def test_there_is_one_path_and_one_verb(ask: Callable) -> None:
    assert ask("/")[0] == ask("/metrics/../secret")[0] == 404
    assert [ask(method=method)[0] for method in ("POST", "PUT", "DELETE", "HEAD", "OPTIONS")] == [501] * 5


def test_silent_clients_are_dropped_and_do_not_keep_others_out(
    ask: Callable, server: MetricsServer, monkeypatch: pytest.MonkeyPatch, eventually: Callable
) -> None:
    monkeypatch.setattr(prometheus._Handler, "timeout", 0.2)
    silent = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(2 * MOST_CLIENTS)]

    def answered() -> bool:
        try:
            return bool(ask()[0] == 200)
        except (ConnectionError, OSError):
            return False  # all places are taken

    eventually(answered)
    for each in silent:
        each.settimeout(30)
        with suppress(ConnectionResetError):
            assert each.recv(1) == b""
        each.close()


def test_a_client_that_dribbles_is_dropped_too(server: MetricsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prometheus, "SECONDS_PER_CLIENT", 0.3)
    client = socket.create_connection(("127.0.0.1", server.port))

    def dribble() -> None:
        while True:
            client.sendall(b"G")
            time.sleep(0.05)

    with client, pytest.raises(OSError, match=r"reset|pipe"):
        dribble()


def test_beyond_loopback_only_on_demand(namespace: str) -> None:
    with pytest.raises(ValueError, match="say so explicitly"):
        MetricsServer(list, token=TOKEN, host="0.0.0.0", port=0)

    server = MetricsServer(list, token=TOKEN, host="0.0.0.0", port=0, beyond_loopback=True, names=["here"])
    assert f"here:{server.port}" in server._server.names
    assert "localhost" not in server._server.names
    server.close()


def test_a_token_must_be_hard_to_guess() -> None:
    with pytest.raises(ValueError, match="16 to 512 characters"):
        MetricsServer(list, token="short", port=0)
    assert len({new_token() for _ in range(100)}) == 100
    assert min(len(new_token()) for _ in range(100)) >= 32


def test_a_token_comes_from_a_file_of_this_user_alone(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    file.chmod(0o644)
    with pytest.raises(InsecureQueueError, match="this user alone"):
        token_from_file(file)
    file.chmod(0o600)
    assert token_from_file(file) == TOKEN
    for wrong in ("", "short", "with space in the middle", "ü" * 20, "x" * 513):
        file.write_text(wrong)
        with pytest.raises(ValueError, match="visible ASCII"):
            token_from_file(file)
