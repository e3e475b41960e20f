"""wait(): one sleep on several rings."""

from collections.abc import Callable

import pytest

from sage_qd import errors
from sage_qd.ring import Ring, wait

pytestmark = pytest.mark.timeout(60)
NewRing = Callable[..., Ring]


@pytest.fixture
def three(new_ring: NewRing) -> list[Ring]:
    return [new_ring(name) for name in ("a", "b", "c")]


def test_rings_that_hold_something_are_returned_at_once(three: list[Ring]) -> None:
    three[0].put(b"x")
    three[2].put(b"y")

    assert wait(three) == [three[0], three[2]]


def test_the_rings_are_not_changed(three: list[Ring]) -> None:
    three[1].put(b"x")

    wait(three)

    assert (three[1].qsize(), three[1].stats().gets) == (1, 0)


@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_put_into_any_of_them_ends_the_wait(
    three: list[Ring], attached: NewRing, in_thread: Callable, eventually: Callable, at: int
) -> None:
    answer = in_thread(lambda: wait(three))
    other = attached("abc"[at])
    eventually(lambda: other.stats().get_waiters)

    other.put(b"x")

    assert answer() == [three[at]]


def test_a_put_of_another_process_ends_the_wait(three: list[Ring], start: Callable) -> None:
    process = start("""
with attach("b", namespace=sys.argv[1]) as ring:
    while not ring.stats().get_waiters:
        pass
    ring.put(b"x")
""")

    assert wait(three) == [three[1]]
    process.finish()


def test_a_nack_ends_the_wait(three: list[Ring], attached: NewRing, in_thread: Callable, eventually: Callable) -> None:
    three[0].put(b"x")
    lease = attached("a").lease()
    answer = in_thread(lambda: wait(three))
    eventually(lambda: three[1].stats().get_waiters)

    lease.nack()

    assert answer() == [three[0]]


def test_an_item_that_somebody_else_takes_first_does_not_end_an_endless_wait(
    three: list[Ring], in_thread: Callable, eventually: Callable
) -> None:
    answer = in_thread(lambda: wait(three))

    for _ in range(200):  # each may or may not be seen by the one who waits
        eventually(lambda: three[0].stats().get_waiters or three[0].stats().depth == 0)
        three[1].put(b"x")
        try:
            three[1].get_nowait()
        except errors.Empty:
            pytest.fail("wait() took it")
    three[2].put(b"y")

    assert answer() != []


def test_one_ring_may_be_there_twice(three: list[Ring]) -> None:
    three[0].put(b"x")

    assert wait([three[0], three[0]]) == [three[0], three[0]]


@pytest.mark.parametrize("count", [0, 129])
def test_the_number_of_rings_has_its_limits(ring: Ring, count: int) -> None:
    with pytest.raises(ValueError, match="128"):
        wait([ring] * count, 0)


def test_the_most_rings_at_once(ring: Ring) -> None:
    assert wait([ring] * 128, 0) == []
    ring.put(b"x")
    assert wait([ring] * 128) == [ring] * 128


@pytest.mark.parametrize("thing", [None, "ring", b"x"])
def test_what_is_no_ring_is_refused(ring: Ring, thing: object) -> None:
    with pytest.raises(TypeError):
        wait([ring, thing], 0)  # type: ignore[list-item]


def test_a_closed_ring_is_refused_and_the_others_can_still_be_closed(three: list[Ring]) -> None:
    import os

    three[1].close()
    descriptor = three[0].fileno()

    with pytest.raises(errors.QueueClosedError):
        wait(three)
    three[0].close()

    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_closing_one_of_them_ends_the_wait(three: list[Ring], in_thread: Callable, eventually: Callable) -> None:
    answer = in_thread(lambda: wait(three))
    eventually(lambda: three[2].stats().get_waiters)

    three[1].close()

    with pytest.raises(errors.QueueClosedError):
        answer()


def test_a_consumer_of_several_rings_gets_everything(three: list[Ring], start: Callable) -> None:
    producers = [
        start(
            """
with attach(sys.argv[2], namespace=sys.argv[1]) as ring:
    for number in range(1000):
        ring.put(b"%d" % number)
""",
            name,
        )
        for name in "abc"
    ]
    taken: dict[str | None, list[bytes]] = {ring.name: [] for ring in three}

    while sum(map(len, taken.values())) < 3000:
        for ring in wait(three):
            taken[ring.name] += ring.get_many(100, timeout=0)

    assert all(items == [b"%d" % number for number in range(1000)] for items in taken.values())
    for producer in producers:
        producer.finish()


@pytest.mark.parametrize("single_consumer", [False, True])
def test_items_that_others_hold_or_took_are_nothing_to_wait_for(new_ring: NewRing, single_consumer: bool) -> None:
    ring = new_ring(single_consumer=single_consumer)
    ring.put(b"kept")
    ring.put(b"dropped")
    lease = ring.lease()
    assert ring.clear() == 1
    lease.nack()  # from here on, whoever looks begins before both
    lease = ring.lease()

    assert not ring.wait_message(timeout=0)
    assert wait([ring], timeout=0.01) == []
    lease.nack()
    assert ring.wait_message(timeout=0)
