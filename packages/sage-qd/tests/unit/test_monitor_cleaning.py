"""Cleaning a host: what was moved is spared while its name leads somewhere."""

import itertools
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sage_qd import BaseQueueDescriptor, SageQueueDescriptor, SharedMemoryQueueDescriptor, clean_shared_memory
from sage_qd.monitor.cleaning import clean_host
from sage_qd.queues.names import segment_name
from sage_qd.queues.shm_places import memory_path
from sage_qd.ring import clean_segments, directory, places

pytestmark = pytest.mark.timeout(60)
NAMESPACE = "cleaning"
MOVER = """
import sys
from sage_qd import BaseQueueDescriptor, migrate
from sage_qd.ring import places
places.SHARED_MEMORY = sys.argv[1]
chain = [BaseQueueDescriptor.from_json(text) for text in sys.argv[2:]]
handles = [chain[0].open()]
for source, target in zip(chain, chain[1:]):
    migrate(source, target)
    handles.append(target.attach())
print("moved", flush=True)
sys.stdin.read()
"""
_numbers = itertools.count()


@pytest.fixture(autouse=True)
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host of the test alone: cleaning would take along what other programs left."""
    monkeypatch.setenv("SAGE_QD_SHM_FOLDER", str(tmp_path))
    monkeypatch.setattr(places, "SHARED_MEMORY", str(tmp_path))


def ring_queue(*, auto_cleanup: bool = True) -> SageQueueDescriptor:
    return SageQueueDescriptor(f"q{next(_numbers)}", namespace=NAMESPACE, auto_cleanup=auto_cleanup)


def shm_queue() -> SharedMemoryQueueDescriptor:
    return SharedMemoryQueueDescriptor(f"q{next(_numbers)}")


def moved_and_killed(*chain: BaseQueueDescriptor) -> list[str]:
    """Move a queue along a chain in a process that is killed then; the files of the queues."""
    words = [sys.executable, "-c", MOVER, places.SHARED_MEMORY, *(each.to_json() for each in chain)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "moved\n"
        process.send_signal(signal.SIGKILL)
    return [path_of(each) for each in chain]


def path_of(descriptor: BaseQueueDescriptor) -> str:
    if isinstance(descriptor, SageQueueDescriptor):
        return str(directory() / NAMESPACE / segment_name(descriptor.queue_id))
    return memory_path(descriptor.queue_id)


def queues(removed: list[str]) -> list[str]:
    """Those that are queues; what lies beside them goes along."""
    return sorted(path for path in removed if "~" not in Path(path).name)


def test_a_moved_queue_is_spared_while_its_successor_is_in_use() -> None:
    chain = [ring_queue(), shm_queue(), ring_queue()]
    paths = moved_and_killed(*chain)
    with chain[-1].attach() as last:
        assert clean_host(dry_run=True) == []
        assert clean_host() == []
        chain[0].put("the first name still leads here")
        assert last.get(timeout=0) == "the first name still leads here"
        chain[0].close()
        assert clean_host() == []
    assert queues(clean_host()) == sorted(paths[:2])
    assert [path for path in paths if Path(path).exists()] == []


def test_a_chain_of_moved_queues_goes_when_nobody_uses_its_end() -> None:
    paths = moved_and_killed(ring_queue(), shm_queue(), ring_queue(), shm_queue())

    would = clean_host(dry_run=True)

    assert queues(would) == sorted(paths)
    assert clean_host() == would
    assert [path for path in paths if Path(path).exists()] == []


def test_a_moved_queue_stays_for_a_successor_that_was_made_to_stay() -> None:
    paths = moved_and_killed(shm_queue(), ring_queue(auto_cleanup=False))

    assert clean_host() == []
    clean_shared_memory()
    assert clean_segments(NAMESPACE, kept=True) == paths[1:]
