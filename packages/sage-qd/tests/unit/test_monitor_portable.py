"""Queues of kind shm_queue, seen from outside."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sage_qd import QueueNotFoundError, SageQueueDescriptor, SharedMemoryQueueDescriptor, clean_shared_memory
from sage_qd.monitor import inspect_queue
from sage_qd.monitor.portable import list_states
from sage_qd.queues.shm_places import folder


def test_seen_and_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGE_QD_SHM_FOLDER", str(tmp_path))
    queue = SharedMemoryQueueDescriptor("jobs").create()
    queue.put(1)
    damaged = folder() / "damaged"
    damaged.write_bytes(b"x")
    os.chmod(damaged, 0o600)
    bad, good = list_states()
    assert bad.figures is None
    assert bad.problem
    assert good.figures is not None
    assert (good.queue_id, good.figures.depth, good.in_use) == ("jobs", 1, True)
    damaged.unlink()
    queue.close()


def test_what_a_killed_process_left_is_shown_named_and_then_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAGE_QD_SHM_FOLDER", str(tmp_path))
    source = """
from sage_qd import SharedMemoryQueueDescriptor
queue = SharedMemoryQueueDescriptor("left").open()
queue.put(1)
print("ready", flush=True)
queue.join()
"""
    process = subprocess.Popen([sys.executable, "-c", source], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    assert clean_shared_memory(dry_run=True) == []
    assert [state.in_use for state in list_states()] == [True]
    process.send_signal(signal.SIGKILL)
    process.communicate()

    would = clean_shared_memory(dry_run=True)

    assert [state.in_use for state in list_states()] == [False]
    assert Path(would[0]).name == "left"
    assert sorted(clean_shared_memory()) == sorted(would)
    assert list_states() == []


def test_a_portable_queue_is_inspected_by_name_from_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGE_QD_SHM_FOLDER", str(tmp_path))
    name = f"looked-at-{os.getpid()}"
    descriptor = SharedMemoryQueueDescriptor(name, maxsize=5)
    with descriptor.open() as queue, SageQueueDescriptor(name, namespace=f"inspect-{os.getpid()}").open():
        queue.put_many(["leased", "oldest"])
        lease = queue.lease()
        for text in (descriptor.to_json(), descriptor.to_uri()):
            found = inspect_queue(text)
            assert (found["kind"], found["queue_id"], found["in_use"]) == ("shm_queue", name, True)
            assert (found["capacity_items"], found["stats"]["depth"], found["stats"]["leased"]) == (5, 1, 1)
            assert 0 < found["stats"]["oldest_age_ns"] < queue.stats().oldest_age_ns
        with pytest.raises(ValueError, match=f"fits 2 queues: sage_queue .*/{name}, shm_queue {name}"):
            inspect_queue(name)
        lease.ack()
        queue.get()
        assert list_states()[0].figures == queue.stats()
    with pytest.raises(QueueNotFoundError, match=name):
        inspect_queue(name)
    with pytest.raises(QueueNotFoundError, match=name):
        inspect_queue(descriptor.to_uri())
