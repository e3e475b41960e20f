"""What each operation of a ring does when nothing is in its way, and what it answers when something is."""

from collections.abc import Callable

import numpy as np
import pytest

from sage_qd import errors
from sage_qd.ring import Ring

pytestmark = pytest.mark.timeout(60)
NewRing = Callable[..., Ring]


# -- One item ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("payload", [b"", b"x", b"x" * 15, b"x" * 16, b"x" * 17, bytes(range(256)) * 300])
def test_get_returns_the_bytes_that_were_put(ring: Ring, payload: bytes) -> None:
    ring.put(payload)

    assert ring.get() == payload


def test_items_come_in_the_order_they_were_put(ring: Ring) -> None:
    for number in range(1000):
        ring.put(b"%d" % number)

    assert [ring.get() for _ in range(1000)] == [b"%d" % number for number in range(1000)]


@pytest.mark.parametrize(
    "data",
    [bytearray(b"abcd"), memoryview(b"abcd"), memoryview(b"abcdef")[:4], np.frombuffer(b"abcd", dtype=np.uint16)],
    ids=["bytearray", "memoryview", "slice", "array"],
)
def test_put_takes_any_contiguous_buffer(ring: Ring, data: object) -> None:
    ring.put(data)

    assert ring.get() == b"abcd"


@pytest.mark.parametrize("data", ["text", None, 7, [b"x"]])
def test_put_refuses_what_is_no_buffer_and_leaves_the_ring_as_it_was(ring: Ring, data: object) -> None:
    with pytest.raises(TypeError):
        ring.put(data)

    assert ring.stats().puts == 0


def test_put_refuses_a_buffer_with_gaps(ring: Ring) -> None:
    with pytest.raises(ValueError, match="contiguous"):
        ring.put(np.zeros((4, 4))[:, 1])

    assert ring.empty()


def test_get_raises_empty_at_once_without_blocking(ring: Ring) -> None:
    with pytest.raises(errors.Empty):
        ring.get(block=False)
    with pytest.raises(errors.Empty):
        ring.get_nowait()


def test_put_raises_full_at_once_without_blocking_and_changes_nothing(new_ring: NewRing) -> None:
    ring = new_ring(max_items=1)
    ring.put(b"first")

    with pytest.raises(errors.Full):
        ring.put(b"second", block=False)
    with pytest.raises(errors.Full):
        ring.put_nowait(b"second")

    assert (ring.qsize(), ring.get()) == (1, b"first")


def test_the_payload_is_a_copy_of_what_was_put(ring: Ring) -> None:
    data = bytearray(b"before")
    ring.put(data)

    data[:] = b"after!"

    assert ring.get() == b"before"


# -- Parts and buffers of the caller ----------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 2, 8, 9, 4096])
def test_put_vectored_makes_one_item_of_all_parts(ring: Ring, count: int) -> None:
    parts = [b"%d," % number for number in range(count)]

    ring.put_vectored(parts)

    assert (ring.qsize(), ring.get()) == (1, b"".join(parts))


def test_put_vectored_takes_an_iterator_and_parts_of_several_kinds(ring: Ring) -> None:
    ring.put_vectored(iter([b"a", bytearray(b"b"), np.array([1, 2], dtype=np.uint8), memoryview(b"")]))

    assert ring.get() == b"ab\x01\x02"


def test_put_vectored_refuses_more_parts_than_it_can_take(ring: Ring) -> None:
    with pytest.raises(ValueError, match="4096"):
        ring.put_vectored([b""] * 4097)


def test_put_vectored_with_a_bad_part_puts_nothing_and_releases_the_others(ring: Ring) -> None:
    good = bytearray(b"good")

    with pytest.raises(TypeError):
        ring.put_vectored([good, 7])

    good.append(0)  # BufferError, if somebody still held it
    assert ring.empty()


@pytest.mark.parametrize("tag", [-1, 256])
def test_put_vectored_refuses_a_tag_beyond_one_byte(ring: Ring, tag: int) -> None:
    with pytest.raises(OverflowError):
        ring.put_vectored([b"x"], tag=tag)


def test_put_vectored_waits_for_room_like_put(new_ring: NewRing) -> None:
    ring = new_ring(max_items=1)
    ring.put(b"first")

    with pytest.raises(errors.Full):
        ring.put_vectored([b"second"], block=False)


def test_get_into_fills_the_start_of_the_buffer(ring: Ring) -> None:
    room = bytearray(b"........")
    ring.put(b"abc")

    assert ring.get_into(room) == 3
    assert room == b"abc....."


def test_get_into_takes_an_item_that_just_fits(ring: Ring) -> None:
    room = bytearray(3)
    ring.put(b"abc")

    assert (ring.get_into(room), room) == (3, b"abc")


def test_get_into_a_buffer_that_is_too_small_leaves_the_item(ring: Ring) -> None:
    ring.put(b"abc")

    with pytest.raises(errors.MessageTooLargeError) as caught:
        ring.get_into(bytearray(2))

    assert (caught.value.size, caught.value.limit) == (3, 2)
    assert ring.get() == b"abc"


def test_get_into_refuses_memory_that_it_may_not_write(ring: Ring) -> None:
    ring.put(b"abc")

    with pytest.raises(BufferError):
        ring.get_into(b"...")

    assert ring.get() == b"abc"


def test_get_into_raises_empty(ring: Ring) -> None:
    with pytest.raises(errors.Empty):
        ring.get_into(bytearray(8), block=False)


# -- Looking and dropping ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 5, 1024, 1025, 100_000])
def test_peek_shows_the_oldest_item_and_leaves_it(ring: Ring, size: int) -> None:
    ring.put(b"x" * size)
    ring.put(b"younger")

    assert ring.peek() == ring.peek() == b"x" * size
    assert (ring.qsize(), ring.get()) == (2, b"x" * size)


def test_peek_raises_empty(ring: Ring) -> None:
    with pytest.raises(errors.Empty):
        ring.peek()


def test_peek_does_not_count_as_a_delivery(ring: Ring) -> None:
    ring.put(b"x")
    ring.peek()

    with ring.lease() as lease:
        assert (lease.attempt, lease.redelivered) == (0, False)


def test_clear_drops_everything_and_says_how_many(ring: Ring) -> None:
    ring.put_many([b"x"] * 300)

    assert (ring.clear(), ring.qsize(), ring.clear()) == (300, 0, 0)
    ring.put(b"after")
    assert ring.get() == b"after"


def test_clear_makes_room(new_ring: NewRing) -> None:
    ring = new_ring(max_items=2)
    ring.put_many([b"a", b"b"])

    ring.clear()

    assert ring.put_many([b"c", b"d"], timeout=0) == 2


def test_qsize_empty_and_full_follow_the_items(new_ring: NewRing) -> None:
    ring = new_ring(max_items=2)
    seen = [(ring.qsize(), ring.empty(), ring.full())]

    for act in (lambda: ring.put(b"a"), lambda: ring.put(b"b"), ring.get, ring.get):
        act()
        seen.append((ring.qsize(), ring.empty(), ring.full()))

    assert seen == [(0, True, False), (1, False, False), (2, False, True), (1, False, False), (0, True, False)]


def test_full_says_when_bytes_run_out(new_ring: NewRing) -> None:
    ring = new_ring(capacity_bytes=4096, spill_threshold=4096)
    ring.put(b"x" * ring.max_message_bytes)

    assert ring.full()


def test_repr_names_the_ring_and_what_is_in_it(ring: Ring) -> None:
    ring.put(b"x")

    assert repr(ring) == "<Ring 'ring', 1 items, 1,048,576 bytes>"


def test_only_the_functions_of_the_module_make_rings_and_leases() -> None:
    from sage_qd.ring import Lease

    with pytest.raises(TypeError, match="create"):
        Ring()
    with pytest.raises(TypeError, match="lease"):
        Lease()


def test_a_ring_that_was_never_attached_is_a_closed_one() -> None:
    blank = Ring.__new__(Ring)

    with pytest.raises(errors.QueueClosedError):
        blank.put(b"x")
    blank.close()
    assert blank.closed
