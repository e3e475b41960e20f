"""The contract of queues and descriptors, for the SQLite kind."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sage_qd import AutoQueueDescriptor, BaseQueueDescriptor, PayloadError, Queue, known_queue_types
from sage_qd.testing import DescriptorContract, QueueContract

sqlite_kind = pytest.importorskip("sage_qd_sqlite", reason="install the package first: pip install .")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the test's own."""
    monkeypatch.setenv("SAGE_QD_SQLITE", str(tmp_path))
    return tmp_path


class TestSQLiteQueue(QueueContract):
    """The queue."""

    def make_descriptor(self, **settings: Any) -> Any:
        return sqlite_kind.SQLiteQueueDescriptor(**settings)


class TestSQLiteQueueDescriptor(DescriptorContract):
    """The descriptor."""

    def make_descriptor(self, **settings: Any) -> Any:
        return sqlite_kind.SQLiteQueueDescriptor(**settings)


def test_the_entry_point_makes_it_known() -> None:
    """Nothing was imported or registered for that."""
    assert "sqlite_queue" in known_queue_types()


def test_the_last_handle_takes_the_file_along(folder: Path) -> None:
    """Only the gate stays, which is empty."""
    with sqlite_kind.SQLiteQueueDescriptor("jobs").open() as queue:
        queue.put(1)

    assert [path.suffix for path in folder.iterdir()] == [".gate"]


def test_it_is_among_those_that_a_need_of_durability_leads_to() -> None:
    """The needs say what, and the installed kinds who."""
    answers = json.loads(AutoQueueDescriptor("jobs", durable=True, maxsize=5).explain().to_json())["kinds"]

    assert {"sage_queue", "sqlite_queue"} <= {answer["kind"] for answer in answers if answer["fits"]}


class Spoilt:
    """A message that cannot be decoded."""

    def __reduce__(self) -> Any:
        return int, ("no number",)


def value_of_a_lease(queue: Queue[Any]) -> Any:
    """Return what is leased, after it was acknowledged."""
    with queue.lease() as lease:
        lease.ack()
        return lease.value


def test_a_message_that_cannot_be_decoded_is_handed_out_as_bytes_and_stops_nobody() -> None:
    """By get, in a batch, and by lease."""
    with sqlite_kind.SQLiteQueueDescriptor("jobs").open() as queue:
        queue.put_many([Spoilt(), 1, Spoilt(), 2, Spoilt(), 3])

        for take, after in ((queue.get, [1]), (lambda: queue.get_many(5), [2]), (lambda: value_of_a_lease(queue), [3])):
            with pytest.raises(PayloadError) as caught:
                take()
            assert b"no number" in caught.value.payload
            assert queue.get_many(5) == after


def test_what_a_batch_had_collected_is_in_the_error() -> None:
    """A batch that lingers loses nothing."""
    with sqlite_kind.SQLiteQueueDescriptor("jobs").open() as queue:
        queue.put_many([1, Spoilt()])

        with pytest.raises(PayloadError) as caught:
            queue.get_many(5, linger=60)

        assert caught.value.items == [1]


KILLED = """
import os, signal, sys
from sage_qd import BaseQueueDescriptor
queue = BaseQueueDescriptor.from_json(sys.argv[1]).open()
queue.put_many(["first", "second"])
lease = queue.lease()
print(lease.value, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_put_and_held_is_there() -> None:
    """The messages outlive it, and its lease ends."""
    descriptor = sqlite_kind.SQLiteQueueDescriptor("jobs", durable=True)

    ran = subprocess.run(
        [sys.executable, "-c", KILLED, descriptor.to_json()], env=os.environ, capture_output=True, text=True, timeout=60
    )

    assert (ran.stdout, ran.returncode) == ("first\n", -signal.SIGKILL), ran.stderr
    again = BaseQueueDescriptor.from_json(descriptor.to_json()).attach()
    lease = again.lease(timeout=60)
    assert (lease.value, lease.redelivered) == ("first", True)
    lease.ack()
    assert again.get(timeout=0) == "second"
    again.close()
