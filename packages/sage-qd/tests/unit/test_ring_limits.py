"""Sizes at their limits: payloads, offsets, bounds in items, counters about to wrap."""

import threading
from collections.abc import Callable

import pytest

from sage_qd import errors
from sage_qd.ring import Ring

pytestmark = pytest.mark.timeout(120)
NewRing = Callable[..., Ring]
UNIT = 16
SMALLEST = 4096


def pattern(length: int, seed: int) -> bytes:
    return bytes((seed + 7 * at) % 251 for at in range(min(length, 251))) * (length // 251 + 1)


# -- Payloads ---------------------------------------------------------------------------------------------------------


def test_the_longest_payload_is_the_capacity_less_two_units(new_ring: NewRing) -> None:
    assert new_ring(anonymous=True, capacity_bytes=SMALLEST).max_message_bytes == SMALLEST - 2 * UNIT


@pytest.mark.parametrize("capacity", [SMALLEST, 65536])
def test_a_payload_of_exactly_the_maximum_fits(new_ring: NewRing, capacity: int) -> None:
    ring = new_ring(anonymous=True, capacity_bytes=capacity)
    longest = pattern(ring.max_message_bytes, 1)[: ring.max_message_bytes]

    ring.put(longest, block=False)

    assert ring.get() == longest


@pytest.mark.parametrize("block", [True, False])
@pytest.mark.parametrize("make", [bytes, bytearray], ids=["bytes", "bytearray"])
def test_one_byte_more_is_refused_at_once_even_when_blocking(new_ring: NewRing, make: type, block: bool) -> None:
    ring = new_ring(anonymous=True, capacity_bytes=SMALLEST)
    limit = ring.max_message_bytes

    with pytest.raises(errors.MessageTooLargeError) as caught:
        ring.put(make(limit + 1), block=block)

    assert (caught.value.size, caught.value.limit) == (limit + 1, limit)
    assert ring.stats().puts == 0


def test_parts_that_are_too_long_together_are_refused(new_ring: NewRing) -> None:
    ring = new_ring(anonymous=True, capacity_bytes=SMALLEST)

    with pytest.raises(errors.MessageTooLargeError):
        ring.put_vectored([bytes(ring.max_message_bytes), b"x"])


def test_every_length_comes_back_from_every_offset(new_ring: NewRing) -> None:
    """Each length from 0 to beyond the wrap, with the start of the record moved on by one unit each time."""
    ring = new_ring(anonymous=True, capacity_bytes=SMALLEST)
    wrong = []

    for length in range(ring.max_message_bytes + 1):
        payload = pattern(length, length)[:length]
        ring.put(payload, block=False)
        if ring.get_nowait() != payload:
            wrong.append(length)

    assert wrong == []


@pytest.mark.parametrize("length", [0, 1, UNIT - 1, UNIT, UNIT + 1, 1000, 2032, SMALLEST - 2 * UNIT])
def test_one_length_comes_back_from_all_offsets(new_ring: NewRing, length: int) -> None:
    """The filler of one unit moves the start through all 256 units of the region."""
    ring = new_ring(anonymous=True, capacity_bytes=SMALLEST)
    wrong = []

    for offset in range(3 * SMALLEST // UNIT):
        payload = pattern(length, offset)[:length]
        ring.put(payload, block=False)
        if ring.get_nowait() != payload:
            wrong.append(offset)
        ring.put(b"", block=False)
        ring.get_nowait()

    assert wrong == []


def test_a_buffer_that_another_thread_changes_meanwhile_keeps_its_size(ring: Ring) -> None:
    data = bytearray(200_000)
    stop = threading.Event()

    def change() -> None:
        while not stop.is_set():
            data[:] = bytes([(data[0] + 1) % 256]) * len(data)

    writer = threading.Thread(target=change)
    writer.start()
    sizes = set()
    for _ in range(50):
        ring.put(data)
        sizes.add(len(ring.get()))
    stop.set()
    writer.join()

    assert sizes == {200_000}


# -- Bounds in items --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bound", [1, 2, 3, 63, 64, 65])
@pytest.mark.parametrize("sizes", [[0], [1, 100, 1000], [40_000, 0]], ids=["empty", "mixed", "large"])
def test_exactly_max_items_are_taken_in_whatever_their_sizes(new_ring: NewRing, bound: int, sizes: list[int]) -> None:
    ring = new_ring(max_items=bound, capacity_bytes=1 << 22)

    for number in range(bound):
        ring.put(bytes(sizes[number % len(sizes)]), block=False)

    assert (ring.qsize(), ring.full()) == (bound, True)
    with pytest.raises(errors.Full):
        ring.put(b"", block=False)
    ring.get()
    ring.put(b"", block=False)
    with pytest.raises(errors.Full):
        ring.put(b"", block=False)


@pytest.mark.parametrize("bound", [0, -1, -(1 << 40)])
def test_no_bound_in_items_means_bounded_by_bytes(new_ring: NewRing, bound: int) -> None:
    ring = new_ring(max_items=bound, capacity_bytes=SMALLEST)

    put = ring.put_many([b""] * 1000, timeout=0)

    assert ring.max_items == 0
    assert 250 <= put <= SMALLEST // UNIT


def test_bytes_run_out_before_a_generous_bound_in_items(new_ring: NewRing) -> None:
    ring = new_ring(max_items=1000, capacity_bytes=SMALLEST, spill_threshold=SMALLEST)
    ring.put(bytes(2000))

    with pytest.raises(errors.Full):
        ring.put(bytes(2100), block=False)
    assert ring.qsize() == 1


def test_leased_items_count_for_the_bound(new_ring: NewRing) -> None:
    ring = new_ring(max_items=2)
    ring.put_many([b"a", b"b"])

    with ring.lease():
        assert (ring.qsize(), ring.full()) == (1, True)
        with pytest.raises(errors.Full):
            ring.put(b"c", block=False)
    ring.put(b"c", block=False)


# -- Counters about to wrap -------------------------------------------------------------------------------------------

WRAPS = [(2**32 - 5, 2**32 - 5), (2**31 - 5, 2**31 - 5), (2**32 - 300, 0), (0, 2**32 - 2), (2**64 - 5, 2**64 - 5)]


@pytest.mark.parametrize("begin", WRAPS, ids=str)
def test_items_pass_the_wrap_of_all_counters_in_order(new_ring: NewRing, begin: tuple[int, int]) -> None:
    ring = new_ring(start=begin, capacity_bytes=SMALLEST)
    taken = []

    for number in range(500):
        ring.put(b"%d" % number)
        ring.put(b"%d+" % number)
        taken += [ring.get(), ring.get()]

    assert taken == [b"%d%s" % (number, plus) for number in range(500) for plus in (b"", b"+")]


@pytest.mark.parametrize("begin", WRAPS, ids=str)
def test_the_bound_and_the_figures_are_exact_across_the_wrap(new_ring: NewRing, begin: tuple[int, int]) -> None:
    ring = new_ring(start=begin, max_items=3)

    for _ in range(10):
        assert ring.put_many([b"x"] * 5, timeout=0) == 3
        assert (ring.qsize(), ring.full()) == (3, True)
        assert len(ring.get_many(5)) == 3

    stats = ring.stats()
    assert (stats.puts, stats.gets, stats.depth, stats.depth_bytes) == (30, 30, 0, 0)


@pytest.mark.parametrize("begin", WRAPS, ids=str)
def test_leases_work_across_the_wrap(new_ring: NewRing, begin: tuple[int, int]) -> None:
    ring = new_ring(start=begin)
    ring.put_many([b"%d" % number for number in range(20)])
    leases = [ring.lease() for _ in range(20)]

    for lease in leases[::2]:
        lease.nack()
    for lease in leases[1::2]:
        lease.ack()

    assert ring.get_many(20) == [b"%d" % number for number in range(0, 20, 2)]
    assert ring.stats().depth_bytes == 0


@pytest.mark.parametrize("begin", WRAPS, ids=str)
def test_clear_and_resize_work_across_the_wrap(new_ring: NewRing, begin: tuple[int, int]) -> None:
    ring = new_ring(start=begin, capacity_bytes=SMALLEST)
    ring.put_many([b"%d" % number for number in range(20)])

    ring.resize(4 * SMALLEST)

    assert ring.get() == b"0"
    assert ring.clear() == 19
    assert ring.stats().depth_bytes == 0
