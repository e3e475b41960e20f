"""Spill files: where payloads go that are too long for the ring, and that none is left over or removed too early."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import numpy as np
import pytest

from sage_qd import errors
from sage_qd.ring import Ring
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


WAYS = {
    "put": lambda ring: ring.put(LARGE),
    "put of a bytearray": lambda ring: ring.put(bytearray(LARGE)),
    "put_nowait": lambda ring: ring.put_nowait(LARGE),
    "put_many": lambda ring: ring.put_many([LARGE]),
    "put_vectored": lambda ring: ring.put_vectored([LARGE[:7], LARGE[7:50_000], b"", np.zeros((0, 3)), LARGE[50_000:]]),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "settings", [{}, {"single_producer": True, "single_consumer": True}, {"checksum": True}], ids=str
)
def test_a_payload_longer_than_the_ring_goes_through_a_file(new_ring: NewRing, way: str, settings: dict) -> None:
    ring = new_ring(capacity_bytes=4096, **settings)
    WAYS[way](ring)

    assert (len(files(ring)), os.stat(files(ring)[0]).st_size, ring.stats().spills) == (1, len(LARGE), 1)
    assert ring.get() == LARGE
    assert files(ring) == []


def test_no_byte_code_runs_between_the_put_and_its_end(small: Ring) -> None:
    """Ctrl-C is answered where byte code runs: a put that was done would raise, and its file be removed."""
    seen = []

    def look(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and small.qsize():
            seen.append(frame.f_code.co_qualname)

    sys.setprofile(look)
    small.put(LARGE)
    sys.setprofile(None)

    assert (seen, small.get()) == ([], LARGE)


def test_every_way_of_getting_reads_it(small: Ring) -> None:
    small.put_many([LARGE] * 5)

    assert small.peek() == LARGE
    assert [small.get_nowait(), *small.get_many(1), small.get(timeout=1)] == [LARGE] * 3
    with small.lease() as lease:
        assert (bytes(lease.data), lease.value) == (LARGE, LARGE)
    assert small.get_many(5) == [LARGE]
    assert files(small) == []


@pytest.mark.parametrize("large", [b"L" * 40_000, b"L" * 200_000], ids=["in the ring", "spilled"])
def test_a_batch_that_lingers_goes_on_over_large_items(new_ring: NewRing, large: bytes) -> None:
    ring = new_ring(capacity_bytes=1 << 18)
    ring.put_many([b"a", large, b"b"])

    assert ring.get_many(3, linger=60) == [b"a", large, b"b"]


def test_a_damaged_item_that_a_batch_meets_is_told_and_the_batch_comes_with_the_next_get(new_ring: NewRing) -> None:
    ring = new_ring(capacity_bytes=4096)
    ring.put_many([b"a", LARGE])
    os.unlink(files(ring)[0])

    with pytest.raises(errors.CorruptQueueError, match="spill file"):
        ring.get_many(2, linger=60)
    assert ring.get_nowait() == b"a"


def test_get_into_leaves_it_in_the_ring(small: Ring) -> None:
    small.put(LARGE)

    with pytest.raises(errors.MessageTooLargeError):
        small.get_into(bytearray(len(LARGE)))

    assert small.get() == LARGE


def test_looking_at_it_does_not_count_as_a_delivery(small: Ring) -> None:
    small.put(LARGE)

    assert small.peek() == small.peek() == LARGE

    with small.lease() as lease:
        assert lease.attempt == 0
    assert small.stats().redeliveries == 0


def test_small_and_large_items_stay_in_order(new_ring: NewRing) -> None:
    ring = new_ring(capacity_bytes=65536)
    items = [b"a", LARGE, b"b", b"c", LARGE[::-1], b"d"]

    ring.put_many(items)

    assert [ring.get() for _ in items] == items


@pytest.mark.parametrize(("threshold", "size", "spills"), [(100, 100, 0), (100, 101, 1), (1, 1, 0), (1, 2, 1)])
def test_the_threshold_is_the_longest_payload_that_does_not_spill(
    new_ring: NewRing, threshold: int, size: int, spills: int
) -> None:
    ring = new_ring(spill_threshold=threshold)
    ring.put(bytes(size))

    assert (len(files(ring)), ring.spill_threshold) == (spills, threshold)
    assert ring.get() == bytes(size)


@pytest.mark.parametrize("threshold", [None, 1 << 30])
def test_a_threshold_beyond_the_ring_means_what_fits(new_ring: NewRing, threshold: int | None) -> None:
    ring = new_ring(capacity_bytes=65536, spill_threshold=threshold)

    assert ring.spill_threshold == (ring.max_message_bytes if threshold else ring.max_message_bytes // 4)


def test_whoever_attaches_uses_the_threshold_of_the_creator(new_ring: NewRing, attached: NewRing) -> None:
    new_ring(spill_threshold=123)

    assert attached().spill_threshold == 123


def test_an_anonymous_ring_does_not_spill(new_ring: NewRing) -> None:
    ring = new_ring(anonymous=True, capacity_bytes=4096)

    with pytest.raises(errors.MessageTooLargeError):
        ring.put(LARGE)
    assert ring.spill_threshold is None


def test_a_ring_in_a_file_spills_beside_it(new_ring: NewRing, tmp_path: Path) -> None:
    ring = new_ring(path=tmp_path / "ring", capacity_bytes=4096)
    ring.put(LARGE)

    assert len(list(tmp_path.glob("ring~*"))) == 1
    assert ring.get() == LARGE


# -- None is left over ------------------------------------------------------------------------------------------------


def test_a_put_that_finds_no_room_leaves_no_file(new_ring: NewRing) -> None:
    ring = new_ring(max_items=1)
    ring.put(b"x")

    for put in (lambda: ring.put(bytes(500_000), timeout=0.01), lambda: ring.put_many([bytes(500_000)], timeout=0)):
        with pytest.raises(errors.Full):
            put()
    ring.shutdown()
    with pytest.raises(errors.ShutDown):
        ring.put(bytes(500_000))

    assert files(ring) == []


def test_clear_removes_the_files_and_counts_the_items(small: Ring) -> None:
    small.put_many([LARGE, b"x", LARGE])

    assert (small.clear(), files(small), small.qsize()) == (3, [], 0)


def test_clear_leaves_the_file_of_a_leased_item(small: Ring) -> None:
    small.put_many([LARGE, LARGE])
    lease = small.lease()

    assert (small.clear(), len(files(small))) == (1, 1)
    lease.nack()
    assert small.get() == LARGE


def test_an_immediate_shutdown_removes_the_files(small: Ring) -> None:
    small.put_many([LARGE, b"x", LARGE])

    assert (small.shutdown(immediate=True), files(small)) == (3, [])


def test_the_last_user_takes_the_files_along(new_ring: NewRing, attached: NewRing) -> None:
    ring = new_ring(capacity_bytes=4096)
    other = attached()
    ring.put_many([LARGE, LARGE])

    ring.close()
    assert len(files(ring)) == 2
    other.close()
    assert files(ring) == []


def test_nack_keeps_the_file_and_ack_removes_it(small: Ring) -> None:
    small.put(LARGE)
    small.lease().nack()
    assert len(files(small)) == 1

    with small.lease() as lease:
        assert (lease.attempt, lease.value) == (1, LARGE)
    assert files(small) == []


def test_a_view_outlives_its_file(small: Ring) -> None:
    small.put(LARGE)
    with small.lease() as lease:
        view = lease.data
    small.close()

    assert bytes(view) == LARGE


def test_an_unlinked_ring_keeps_its_spilled_items(small: Ring) -> None:
    small.put(LARGE)
    small.unlink()
    small.put(LARGE)

    assert [small.get(), small.get(), files(small)] == [LARGE, LARGE, []]


def test_an_unlinked_ring_whose_folder_is_gone_can_be_cleared_and_shut_down(small: Ring, new_ring: NewRing) -> None:
    small.put_many([b"x", b"y"])
    small.unlink()
    new_ring("other").close()  # takes the empty folder along
    assert not Path(small.path or "").parent.exists()

    assert (small.clear(), small.shutdown(immediate=True)) == (2, 0)
