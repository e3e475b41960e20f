"""Leases within one process: who holds what, in which order it comes back, and what a view shows."""

import gc
import os
from collections.abc import Callable

import pytest

from sage_qd import errors
from sage_qd.ring import Ring

pytestmark = pytest.mark.timeout(60)
NewRing = Callable[..., Ring]


@pytest.fixture(params=[{}, {"single_consumer": True}, {"single_producer": True}], ids=["shared", "taker", "putter"])
def filled(new_ring: NewRing, request: pytest.FixtureRequest) -> Ring:
    """Return a ring that holds a, b, c, d and e."""
    ring = new_ring(**request.param)
    ring.put_many([b"a", b"b", b"c", b"d", b"e"])
    return ring


def test_a_leased_item_is_hidden_and_the_next_one_comes(filled: Ring) -> None:
    with filled.lease() as first, filled.lease() as second:
        assert (first.value, second.value, filled.peek()) == (b"a", b"b", b"c")
        assert (filled.qsize(), filled.stats().leased) == (3, 2)


def test_ack_takes_the_item_out(filled: Ring) -> None:
    lease = filled.lease()

    lease.ack()

    assert lease.settled
    assert filled.get_many(9) == [b"b", b"c", b"d", b"e"]
    assert (filled.stats().gets, filled.stats().depth_bytes) == (5, 0)


def test_nack_gives_the_item_back_before_everything_younger(filled: Ring) -> None:
    lease = filled.lease()
    assert filled.get() == b"b"

    lease.nack()

    assert lease.settled
    assert filled.get_many(9) == [b"a", b"c", b"d", b"e"]


def test_several_come_back_in_their_first_order_whatever_the_order_of_nacks(filled: Ring) -> None:
    leases = [filled.lease() for _ in range(5)]

    for at in (3, 0, 4, 2, 1):
        leases[at].nack()

    assert filled.get_many(9) == [b"a", b"b", b"c", b"d", b"e"]


def test_acks_may_come_in_any_order_and_room_is_free_once_the_oldest_is_settled(filled: Ring) -> None:
    leases = [filled.lease() for _ in range(5)]
    used = filled.stats().depth_bytes

    for at in (4, 2, 1, 3):
        leases[at].ack()
    assert (filled.stats().depth_bytes, filled.stats().gets) == (used, 4)
    leases[0].ack()

    assert (filled.stats().depth_bytes, filled.stats().gets, filled.qsize()) == (0, 5, 0)


def test_attempts_are_counted_and_mark_the_item_as_redelivered(filled: Ring) -> None:
    seen = []
    for _ in range(4):
        with filled.lease() as lease:
            seen.append((lease.value, lease.attempt, lease.redelivered))
            lease.nack()

    assert seen == [(b"a", 0, False), (b"a", 1, True), (b"a", 2, True), (b"a", 3, True)]
    assert filled.stats().redeliveries == 4


def test_the_attempt_stops_counting_at_255(ring: Ring) -> None:
    ring.put(b"x")
    for _ in range(300):
        ring.lease().nack()

    with ring.lease() as lease:
        assert lease.attempt == 255


def test_the_with_statement_acks_at_its_end(filled: Ring) -> None:
    with filled.lease():
        pass

    assert filled.get() == b"b"


def test_the_with_statement_gives_back_on_an_exception(filled: Ring) -> None:
    with pytest.raises(LookupError), filled.lease():
        raise LookupError

    assert filled.get() == b"a"


@pytest.mark.parametrize("settle", ["ack", "nack"])
def test_the_with_statement_leaves_a_settled_lease_alone(filled: Ring, settle: str) -> None:
    with filled.lease() as lease:
        getattr(lease, settle)()

    assert filled.stats().redeliveries == (settle == "nack")


@pytest.mark.parametrize("first", ["ack", "nack"])
@pytest.mark.parametrize("second", ["ack", "nack"])
def test_a_lease_can_be_settled_once(filled: Ring, first: str, second: str) -> None:
    lease = filled.lease()
    getattr(lease, first)()

    with pytest.raises(ValueError, match="settled already"):
        getattr(lease, second)()


def test_a_lease_settled_twice_through_two_handles_cannot_harm_the_next_holder(filled: Ring) -> None:
    stale = filled.lease()
    stale.nack()
    holder = filled.lease()

    with pytest.raises(ValueError, match="settled already"):
        stale.ack()

    assert (holder.value, filled.stats().leased) == (b"a", 1)
    holder.ack()


def test_a_dropped_lease_is_given_back(filled: Ring) -> None:
    lease = filled.lease()

    del lease
    gc.collect()

    with filled.lease() as again:
        assert (again.value, again.attempt) == (b"a", 1)


def test_lease_raises_empty_when_all_there_is_is_leased(filled: Ring) -> None:
    leases = [filled.lease() for _ in range(5)]

    for call in (filled.lease, filled.get):
        with pytest.raises(errors.Empty):
            call(block=False)
        with pytest.raises(errors.Empty):
            call(timeout=0.01)
    assert len(leases) == 5


def test_a_nack_wakes_whoever_waits(ring: Ring, attached: NewRing, in_thread: Callable, eventually: Callable) -> None:
    ring.put(b"x")
    lease = ring.lease()
    answer = in_thread(attached().get)
    eventually(lambda: ring.stats().get_waiters)

    lease.nack()

    assert answer() == b"x"


def test_an_ack_wakes_whoever_waits_for_room(
    new_ring: NewRing, attached: NewRing, in_thread: Callable, eventually: Callable
) -> None:
    ring = new_ring(max_items=1)
    ring.put(b"x")
    lease = ring.lease()
    other = attached()
    answer = in_thread(lambda: other.put(b"y"))
    eventually(lambda: ring.stats().put_waiters)

    lease.ack()

    answer()
    assert ring.get() == b"y"


def test_gets_go_on_behind_a_lease_until_the_room_is_used_up(new_ring: NewRing) -> None:
    ring = new_ring(capacity_bytes=4096)
    ring.put(b"held")
    lease = ring.lease()
    passed = 0

    while not ring.full():
        ring.put(b"x", block=False)
        passed += ring.get() == b"x"
    with pytest.raises(errors.Full):
        ring.put(b"x" * 32, block=False)
    lease.ack()

    assert passed > 100
    ring.put(b"after", block=False)
    assert ring.get() == b"after"


def test_clear_leaves_leased_items_to_their_holders(filled: Ring) -> None:
    lease = filled.lease()

    assert filled.clear() == 4
    lease.nack()

    assert filled.get_many(9) == [b"a"]


# -- Many at a time ---------------------------------------------------------------------------------------------------


def test_many_are_leased_in_order_and_settled_together(filled: Ring) -> None:
    leases = filled.lease_many(3)

    assert (leases.items, leases.attempts, len(leases), leases.nbytes) == ([b"a", b"b", b"c"], [], 3, 3)
    assert (filled.qsize(), filled.stats().leased, filled.peek()) == (2, 3, b"d")
    leases.settle()
    assert (filled.stats().leased, filled.stats().gets, filled.get_many(9)) == (0, 3, [b"d", b"e"])


def test_of_many_the_first_are_acked_and_the_others_come_back_before_everything_younger(filled: Ring) -> None:
    filled.lease_many(4).settle(2)

    again = filled.lease_many(9)
    assert (again.items, again.attempts) == ([b"c", b"d", b"e"], [1, 1, 0])
    again.settle()
    assert (filled.stats().gets, filled.stats().redeliveries, filled.stats().depth_bytes) == (5, 2, 0)


def test_many_that_are_dropped_come_back(filled: Ring) -> None:
    leases = filled.lease_many(2)

    del leases
    gc.collect()

    assert (filled.stats().leased, filled.get_many(9)) == (0, [b"a", b"b", b"c", b"d", b"e"])


def test_many_are_settled_once(filled: Ring) -> None:
    leases = filled.lease_many(2)
    leases.settle(1)

    with pytest.raises(ValueError, match="settled already"):
        leases.settle()
    assert filled.get() == b"b"


def test_many_pass_over_what_others_hold(filled: Ring) -> None:
    with filled.lease() as first:
        leases = filled.lease_many(9)
        assert (first.value, leases.items) == (b"a", [b"b", b"c", b"d", b"e"])
        leases.settle(0)

    assert filled.get_many(9) == [b"b", b"c", b"d", b"e"]


def test_many_end_before_too_many_bytes_and_after_256(new_ring: NewRing) -> None:
    ring = new_ring()
    ring.put_many([b"x" * 10] * 300)

    assert [len(ring.lease_many(1000, most)) for most in (9, 10, 29, None)] == [0, 1, 2, 256]


def test_many_leave_what_lies_in_a_file_to_lease(new_ring: NewRing) -> None:
    ring = new_ring(spill_threshold=64)
    ring.put_many([b"small", b"x" * 1000, b"after"])

    assert ring.lease_many(9).items == [b"small"]
    with ring.lease(), ring.lease() as spilled:
        assert (len(ring.lease_many(9)), spilled.value) == (1, b"x" * 1000)


def test_many_keep_the_tags_of_what_a_codec_made(ring: Ring) -> None:
    ring.put_vectored((b"one", b"two"), 7)
    ring.put(b"plain")

    assert ring.lease_many(9).items == [(7, b"onetwo"), b"plain"]


def test_there_may_be_none_to_lease(ring: Ring) -> None:
    nothing = ring.lease_many(9)

    assert (len(nothing), nothing.items, nothing.attempts) == (0, [], [])
    nothing.settle()
    ring.shutdown()
    assert len(ring.lease_many(9)) == 0
    ring.close()
    with pytest.raises(errors.QueueClosedError):
        ring.lease_many(9)


def test_settling_many_wakes_whoever_waits_for_room(
    new_ring: NewRing, attached: NewRing, in_thread: Callable, eventually: Callable
) -> None:
    ring = new_ring(max_items=2)
    ring.put_many([b"a", b"b"])
    leases = ring.lease_many(2)
    other = attached()
    answer = in_thread(lambda: other.put_many([b"c", b"d"]))
    eventually(lambda: ring.stats().put_waiters)

    leases.settle()

    answer()
    assert ring.get_many(9) == [b"c", b"d"]


def test_a_child_of_a_fork_cannot_settle_the_many_of_its_parent(filled: Ring) -> None:
    leases = filled.lease_many(2)
    child = os.fork()
    if not child:
        try:
            leases.settle()
        except (errors.FencedError, errors.RoleClaimedError):
            os._exit(7)
        os._exit(1)

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    leases.settle()
    assert filled.get_many(9) == [b"c", b"d", b"e"]


# -- Views ------------------------------------------------------------------------------------------------------------


def test_a_view_is_read_only_and_shows_the_payload(filled: Ring) -> None:
    with filled.lease() as lease:
        view = lease.data
        assert (bytes(view), view.readonly, view.format, view.nbytes) == (b"a", True, "B", 1)
        with pytest.raises(TypeError, match="read-only"):
            view[0] = 0


def test_a_lease_is_a_buffer_for_every_function_that_takes_one(filled: Ring) -> None:
    with filled.lease() as lease:
        assert (bytes(lease), bytearray(lease), b"".join([lease, lease])) == (b"a", bytearray(b"a"), b"aa")


def test_a_lease_refuses_writers(filled: Ring) -> None:
    with filled.lease() as lease, pytest.raises((BufferError, TypeError)):
        filled.get_into(lease)


def test_a_view_is_the_rings_own_memory(ring: Ring) -> None:
    """The same bytes, changed in the file behind it, change in the view."""
    import mmap

    ring.put(b"unmistakable")
    with ring.lease() as lease, open(ring.path or "", "r+b") as file, mmap.mmap(file.fileno(), 0) as outside:
        view = lease.data
        at = outside.find(b"unmistakable")

        outside[at : at + 2] = b"UN"

        assert bytes(view) == b"UNmistakable"


@pytest.mark.parametrize("length", [0, 1, 15, 16, 17, 4064])
def test_a_view_is_contiguous_at_every_offset(new_ring: NewRing, length: int) -> None:
    ring = new_ring(capacity_bytes=4096, spill_threshold=4096)
    wrong = []

    for offset in range(300):
        payload = bytes([offset % 256]) * length
        ring.put(payload, block=False)
        with ring.lease() as lease:
            if bytes(lease.data) != payload:
                wrong.append(offset)
        ring.put(b"", block=False)
        ring.get()

    assert wrong == []


@pytest.mark.parametrize("settle", ["ack", "nack"])
def test_a_settled_lease_gives_no_new_view_and_keeps_the_old_one_alive(filled: Ring, settle: str) -> None:
    lease = filled.lease()
    view = lease.data

    getattr(lease, settle)()

    with pytest.raises(ValueError, match="settled"):
        memoryview(lease)
    assert len(view) == 1


def test_repr_says_what_a_lease_is(filled: Ring) -> None:
    lease = filled.lease()
    shown = [repr(lease)]
    lease.ack()
    shown.append(repr(lease))

    assert shown == ["<Lease of 1 bytes, attempt 0, held>", "<Lease of 1 bytes, attempt 0, settled>"]
