"""Spill files when somebody dies, cleans, spoils them, or the system is out of something."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from sage_qd import errors
from sage_qd.ring import Ring, clean_segments
from sage_qd.ring.spill import SpillFiles

pytestmark = pytest.mark.timeout(60)
NewRing = Callable[..., Ring]
LARGE = os.urandom(100_000)


@pytest.fixture
def small(new_ring: NewRing) -> Ring:
    """Return a ring of 4 KiB, which LARGE could never fit into."""
    return new_ring(capacity_bytes=4096)


def files(ring: Ring) -> list[str]:
    return SpillFiles(ring.path or "").listed()


# -- Somebody dies ----------------------------------------------------------------------------------------------------


def test_what_a_killed_producer_put_can_be_got(small: Ring, start: Callable) -> None:
    process = start("""
ring = attach("ring", namespace=sys.argv[1])
ring.put(b"y" * 100_000)
os.kill(os.getpid(), signal.SIGKILL)
""")
    process.end()

    assert small.get() == b"y" * 100_000


def test_clean_removes_what_a_producer_killed_before_its_put_left(
    new_ring: NewRing, start: Callable, eventually: Callable, namespace: str
) -> None:
    """The producer waits for room, with its file written already."""
    ring = new_ring(capacity_bytes=65536, max_items=1)
    ring.put(LARGE)
    process = start("""
ring = attach("ring", namespace=sys.argv[1])
say("ready")
ring.put(b"y" * 100_000)
""")
    process.hear()
    eventually(lambda: ring.stats().put_waiters)
    assert (clean_segments(namespace), len(files(ring))) == ([], 2)

    process.kill()

    assert len(clean_segments(namespace)) == 1
    assert (len(files(ring)), ring.get()) == (1, LARGE)


def test_a_killed_holder_of_a_spilled_item_gives_it_back(small: Ring, start: Callable) -> None:
    small.put(LARGE)
    process = start("""
ring = attach("ring", namespace=sys.argv[1])
lease = ring.lease()
say(len(lease.value))
hear()
""")
    process.hear()
    process.kill()

    with small.lease(timeout=20) as lease:
        assert (lease.attempt, lease.value) == (1, LARGE)


def test_orphans_beside_a_ring_with_a_single_consumer_wait_for_its_end(
    new_ring: NewRing, start: Callable, eventually: Callable, namespace: str
) -> None:
    """Its consumer works without the lock; whoever walked its records to find orphans could take them for damage."""
    ring = new_ring(max_items=1, single_consumer=True, spill_threshold=1000)
    ring.put(b"x")
    process = start("""
ring = attach("ring", namespace=sys.argv[1])
say("ready")
ring.put(b"y" * 100_000)
""")
    process.hear()
    eventually(lambda: ring.stats().put_waiters)
    process.kill()

    assert (clean_segments(namespace), len(files(ring))) == ([], 1)
    ring.close()
    assert files(ring) == []


# -- Files that somebody spoiled --------------------------------------------------------------------------------------


@pytest.mark.parametrize("get", [Ring.get, Ring.lease, lambda ring: ring.get_many(1)], ids=["get", "lease", "get_many"])
@pytest.mark.parametrize("spoil", [os.unlink, lambda path: os.truncate(path, 10)], ids=["removed", "short"])
def test_a_spoiled_file_costs_its_own_item_only(small: Ring, get: Callable, spoil: Callable) -> None:
    small.put_many([LARGE, b"next"])
    spoil(files(small)[0])

    with pytest.raises(errors.CorruptQueueError, match="spill"):
        get(small)

    assert (small.get(), small.stats().is_poisoned, files(small)) == (b"next", False, [])


def test_peek_at_a_spoiled_file_says_so_and_leaves_the_item(small: Ring) -> None:
    small.put(LARGE)
    os.unlink(files(small)[0])

    for _ in range(2):
        with pytest.raises(errors.CorruptQueueError, match="spill file"):
            small.peek()
    assert small.qsize() == 1


def test_an_item_is_not_lost_when_its_file_cannot_be_opened_just_now(start: Callable) -> None:
    process = start("""
import resource
with create("ring", namespace=sys.argv[1], capacity_bytes=4096) as ring:
    ring.put(b"x")
    ring.lease().ack()  # registers: that opens a file too
    ring.put(bytes(100_000))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    while os.dup(0) < ring.fileno():  # leave no smaller number free
        pass
    resource.setrlimit(resource.RLIMIT_NOFILE, (ring.fileno() + 1, hard))
    try:
        ring.get()
    except OSError as error:
        say(error.strerror)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    say(len(ring.get(timeout=20)))
""")

    assert [process.hear(), process.hear()] == ["Too many open files", "100000"]
    process.finish()


def test_a_full_file_system_is_said_and_nothing_is_left(start: Callable, unshare: Callable, tmp_path: Path) -> None:
    process = start(
        """
import subprocess
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", sys.argv[2]], check=True)
with create(path=sys.argv[2] + "/ring", capacity_bytes=4096) as ring:
    try:
        ring.put(bytes(1 << 20))
    except errors.QueueNoSpaceError as error:
        say(error.wanted, os.listdir(sys.argv[2]), ring.qsize())
    ring.put(bytes(1 << 16))
    say(len(ring.get()))
""",
        tmp_path,
        prefix=unshare("--mount"),
    )

    assert [process.hear(), process.hear()] == ["1048576 ['ring'] 0", "65536"]
    process.finish()
