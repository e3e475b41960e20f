"""Queues of kind shm_queue, seen from outside."""

import os
from pathlib import Path

import pytest

from sage_qd import SharedMemoryQueueDescriptor
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
