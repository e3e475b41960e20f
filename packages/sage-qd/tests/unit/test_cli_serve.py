"""``sage-qd serve``: a real server in a process of its own, and a real client."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("zmq")

from sage_qd import RPCQueueDescriptor, SageQueueDescriptor

pytestmark = pytest.mark.timeout(120)
WORDS = [sys.executable, "-m", "sage_qd", "serve"]


@pytest.fixture
def served() -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """Start ``sage-qd serve`` with these words."""
    running: list[subprocess.Popen[str]] = []

    def start(*words: object) -> "subprocess.Popen[str]":
        running.append(
            subprocess.Popen(
                [*WORDS, "--listen", "127.0.0.1:0", *map(str, words)],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        return running[-1]

    yield start
    for process in running:
        if process.poll() is None:
            process.kill()
        process.communicate()


def port_of(process: "subprocess.Popen[str]") -> int:
    assert process.stdout is not None
    return int(process.stdout.readline().rpartition(":")[2])


def test_a_queue_is_served_to_clients_that_know_the_key(
    served: Callable[..., "subprocess.Popen[str]"], namespace: str, tmp_path: Path
) -> None:
    server_key = subprocess.run([*WORDS, "--make-key", tmp_path / "server"], capture_output=True, text=True, timeout=60)
    subprocess.run([*WORDS, "--make-key", tmp_path / "client"], check=True, capture_output=True, timeout=60)
    uri = SageQueueDescriptor("jobs", namespace=namespace, codec="msgpack").to_uri()
    process = served(uri, "--key-file", tmp_path / "server", "--clients", tmp_path / "client.pub")
    remote = RPCQueueDescriptor(
        "jobs",
        host="127.0.0.1",
        port=port_of(process),
        server_key=server_key.stdout.split()[-1],
        key_file=str(tmp_path / "client"),
    )

    with remote.open() as queue:
        queue.put("over the socket")
        with SageQueueDescriptor("jobs", namespace=namespace, codec="msgpack").open(create=False) as ring:
            assert ring.get(timeout=30) == "over the socket"
    process.send_signal(signal.SIGTERM)

    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ([], 2, "give at least one descriptor"),
        (["sage://a/b", "sage://c/b"], 2, "same queue id"),
        (["nonsense://x"], 2, "sage-qd: "),
        (["sage://a/b?codec=msgpack", "--listen", "0.0.0.0:0"], 2, "is reached from other hosts"),
        (["sage://a/b?codec=msgpack", "--key-file", "/no/such/file"], 4, "No such file or directory: /no/such/file"),
    ],
)
def test_wrong_input_is_refused(words: list[str], code: int, said: str) -> None:
    done = subprocess.run([*WORDS, *words], capture_output=True, text=True, timeout=60, env=os.environ)

    assert done.returncode == code
    assert said in done.stderr
    assert "Traceback" not in done.stderr
