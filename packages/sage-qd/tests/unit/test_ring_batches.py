"""put_many() and get_many(): whole items, in order, always a prefix."""

from collections.abc import Callable

import numpy as np
import pytest

from sage_qd import errors
from sage_qd.ring import Ring

pytestmark = pytest.mark.timeout(60)
NewRing = Callable[..., Ring]


def numbered(count: int, size: int = 0) -> list[bytes]:
    return [b"%d" % number + b"." * size for number in range(count)]


def drained(ring: Ring) -> list[bytes]:
    return [ring.get_nowait() for _ in range(ring.qsize())]


# -- put_many ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 2, 255, 256, 257, 1000])
def test_put_many_puts_all_in_order(ring: Ring, count: int) -> None:
    assert ring.put_many(numbered(count)) == count
    assert drained(ring) == numbered(count)


def test_put_many_takes_any_iterable_and_mixed_buffers(ring: Ring) -> None:
    assert ring.put_many(iter([b"a", bytearray(b"b"), np.array([99], dtype=np.uint8), b""])) == 4
    assert drained(ring) == [b"a", b"b", b"c", b""]


def test_put_many_mixes_small_and_large_items_in_order(ring: Ring) -> None:
    items = [b"a", b"b" * 40_000, b"c", b"d" * 100_000, b"e"]

    ring.put_many(items)

    assert drained(ring) == items


def test_put_many_answers_the_prefix_that_found_room(new_ring: NewRing) -> None:
    ring = new_ring(max_items=5)

    assert ring.put_many(numbered(8), timeout=0) == 5
    assert drained(ring) == numbered(5)


def test_put_many_answers_the_prefix_when_bytes_run_out(new_ring: NewRing) -> None:
    ring = new_ring(capacity_bytes=4096, spill_threshold=4096)

    put = ring.put_many(numbered(10, size=1000), timeout=0)

    assert 1 <= put < 10
    assert drained(ring) == numbered(10, size=1000)[:put]


def test_put_many_raises_full_when_not_even_the_first_fits(new_ring: NewRing) -> None:
    ring = new_ring(max_items=1)
    ring.put(b"x")

    with pytest.raises(errors.Full):
        ring.put_many([b"y"], timeout=0)
    assert drained(ring) == [b"x"]


def test_put_many_of_nothing_is_no_operation_even_when_full(new_ring: NewRing) -> None:
    ring = new_ring(max_items=1)
    ring.put(b"x")

    assert ring.put_many([]) == 0
    assert (ring.qsize(), ring.stats().puts) == (1, 1)


def test_put_many_with_one_item_that_can_never_fit_puts_none(new_ring: NewRing) -> None:
    ring = new_ring(anonymous=True, capacity_bytes=4096)

    with pytest.raises(errors.MessageTooLargeError) as caught:
        ring.put_many([b"a", b"b" * 5000, b"c"])

    assert (caught.value.size, caught.value.limit) == (5000, ring.max_message_bytes)
    assert ring.empty()


@pytest.mark.parametrize("bad", ["text", None, np.zeros((4, 4))[:, 1]], ids=["text", "none", "gaps"])
def test_put_many_with_one_bad_item_puts_none(ring: Ring, bad: object) -> None:
    with pytest.raises((TypeError, BufferError)):
        ring.put_many([b"a", bad])

    assert ring.empty()


def test_put_many_reads_the_iterable_before_it_puts_anything(ring: Ring) -> None:
    def items() -> object:
        yield b"a"
        raise LookupError("in the middle")

    with pytest.raises(LookupError):
        ring.put_many(items())

    assert ring.empty()


def test_put_many_to_a_ring_that_is_shut_down_raises(ring: Ring) -> None:
    ring.shutdown()

    with pytest.raises(errors.ShutDown):
        ring.put_many([b"a", b"b"])


def test_put_many_of_more_than_fits_goes_on_when_a_consumer_makes_room(new_ring: NewRing, start: Callable) -> None:
    ring = new_ring(capacity_bytes=4096)
    consumer = start("""
ring = attach("ring", namespace=sys.argv[1])
say(b",".join(ring.get() for _ in range(2000)) == b",".join(b"%d" % n for n in range(2000)))
""")

    assert ring.put_many(numbered(2000)) == 2000
    assert consumer.hear() == "True"
    consumer.finish()


# -- get_many ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("most", [1, 2, 255, 256, 257, 999, 1000, 5000])
def test_get_many_takes_at_most_what_was_asked_in_order(ring: Ring, most: int) -> None:
    ring.put_many(numbered(1000))

    taken = ring.get_many(most)

    assert taken == numbered(min(most, 1000))
    assert drained(ring) == numbered(1000)[len(taken) :]


@pytest.mark.parametrize(
    ("bound", "count"), [(1, 1), (9, 1), (10, 1), (19, 1), (20, 2), (29, 2), (30, 3), (1000, 5), (0, 5)]
)
def test_get_many_stops_before_the_sum_of_bytes_exceeds_the_bound(ring: Ring, bound: int, count: int) -> None:
    ring.put_many([b"x" * 10] * 5)

    assert len(ring.get_many(100, max_bytes=bound)) == count
    assert ring.qsize() == 5 - count


def test_get_many_returns_a_first_item_beyond_the_bound(ring: Ring) -> None:
    ring.put_many([b"x" * 50_000, b"y"])

    assert ring.get_many(10, max_bytes=100) == [b"x" * 50_000]
    assert ring.qsize() == 1


def test_get_many_starts_with_a_large_item_and_goes_on_with_small_ones(ring: Ring) -> None:
    ring.put_many([b"x" * 50_000, b"y", b"z"])

    assert ring.get_many(10) == [b"x" * 50_000, b"y", b"z"]


def test_get_many_stops_at_a_large_item_that_comes_later(ring: Ring) -> None:
    ring.put_many([b"x", b"y" * 50_000])

    assert ring.get_many(10) == [b"x"]
    assert ring.get_many(10) == [b"y" * 50_000]


def test_get_many_raises_empty(ring: Ring) -> None:
    with pytest.raises(errors.Empty):
        ring.get_many(10, timeout=0)


def test_get_many_waits_for_the_first_item_only(ring: Ring, start: Callable) -> None:
    producer = start("""
ring = attach("ring", namespace=sys.argv[1])
say("attached")
hear()
ring.put(b"one")
""")
    producer.hear()
    producer.tell()

    assert ring.get_many(10) == [b"one"]
    producer.finish()


@pytest.mark.parametrize("most", [0, -1])
def test_get_many_refuses_to_take_nothing(ring: Ring, most: int) -> None:
    with pytest.raises(ValueError, match="max_items"):
        ring.get_many(most)


def test_get_many_refuses_a_negative_sum(ring: Ring) -> None:
    with pytest.raises(ValueError, match="max_bytes"):
        ring.get_many(1, max_bytes=-1)


def test_get_many_drains_a_ring_that_is_shut_down_and_then_raises(ring: Ring) -> None:
    ring.put_many(numbered(3))
    ring.shutdown()

    assert ring.get_many(10) == numbered(3)
    with pytest.raises(errors.ShutDown):
        ring.get_many(10)


# -- payloads ---------------------------------------------------------------------------------------------------------


def test_payloads_go_in_and_come_out_with_their_tags_and_meet_no_codec(ring: Ring) -> None:
    ring.set_codec(None, lambda tag, payload: (tag, payload))
    payloads, tags = [b"a", b"b" * 40_000, b"", b"d" * 300_000, b"e"], bytes([0, 1, 7, 129, 0])

    assert ring.put_payloads(payloads, tags, 0) == 5
    taken: list[bytes] = []
    marks = b""
    while len(taken) < 5:
        some, theirs = ring.get_payloads(2)
        taken += some
        marks += theirs

    assert (taken, marks) == (payloads, tags)
    assert [type(each) for each in taken] == [bytes, bytes, bytes, bytearray, bytes]


def test_payloads_without_tags_are_plain_bytes(ring: Ring) -> None:
    ring.put_payloads(numbered(1000))

    assert ring.get() == b"0"
    assert ring.get_payloads(5) == (numbered(6)[1:], bytes(5))


def test_payloads_are_a_prefix_when_there_is_no_room(new_ring: NewRing) -> None:
    ring = new_ring(max_items=3)

    assert ring.put_payloads(numbered(5), b"\1" * 5, 0) == 3
    with pytest.raises(errors.Full):
        ring.put_payloads([b"x"], None, 0)
    assert ring.get_payloads(9) == (numbered(3), b"\1" * 3)
    with pytest.raises(errors.Empty):
        ring.get_payloads(9)
    ring.shutdown()
    with pytest.raises(errors.ShutDown):
        ring.get_payloads(9)


def test_payloads_keep_to_their_bytes(ring: Ring) -> None:
    ring.put_payloads([b"x" * 10] * 5)

    assert [len(ring.get_payloads(9, most)[0]) for most in (1, 25, 0)] == [1, 2, 2]


def test_payloads_that_are_none_put_nothing(ring: Ring) -> None:
    with pytest.raises(TypeError, match="must be bytes, not str"):
        ring.put_payloads([b"a", "b"])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="2 payloads have 1 tags"):
        ring.put_payloads([b"a", b"b"], b"\1")
    assert ring.empty()
