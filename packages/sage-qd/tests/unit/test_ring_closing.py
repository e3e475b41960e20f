"""Closing a handle: once, twice, under waiting threads, with views, by the collector; and what use after it says."""

import gc
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from sage_qd import errors
from sage_qd import ring as rings
from sage_qd.ring import Ring, segment

pytestmark = pytest.mark.timeout(60)
NewRing = Callable[..., Ring]

OPERATIONS = {
    "put": lambda ring: ring.put(b"x"),
    "put of a bytearray": lambda ring: ring.put(bytearray(b"x")),
    "put of much": lambda ring: ring.put(bytes(50_000)),
    "put_nowait": lambda ring: ring.put_nowait(b"x"),
    "put_many": lambda ring: ring.put_many([b"x"]),
    "put_many of nothing": lambda ring: ring.put_many([]),
    "put_vectored": lambda ring: ring.put_vectored([b"x"]),
    "get": Ring.get,
    "get_nowait": Ring.get_nowait,
    "get_into": lambda ring: ring.get_into(bytearray(9)),
    "get_many": lambda ring: ring.get_many(3),
    "peek": Ring.peek,
    "lease": Ring.lease,
    "clear": Ring.clear,
    "shutdown": Ring.shutdown,
    "resize": lambda ring: ring.resize(1 << 21),
    "qsize": Ring.qsize,
    "empty": Ring.empty,
    "full": Ring.full,
    "stats": Ring.stats,
    "spilled_ids": Ring.spilled_ids,
    "unlink": Ring.unlink,
    "fileno": Ring.fileno,
    "wait": lambda ring: rings.wait([ring]),
    "capacity_bytes": lambda ring: ring.capacity_bytes,
    "max_message_bytes": lambda ring: ring.max_message_bytes,
}


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("settings", [{}, {"single_producer": True, "single_consumer": True}], ids=["shared", "single"])
def test_use_after_close_says_that_this_handle_is_closed(new_ring: NewRing, operation: str, settings: dict) -> None:
    ring = new_ring(**settings)
    ring.put(b"x")
    ring.close()

    with pytest.raises(errors.QueueClosedError) as caught:
        OPERATIONS[operation](ring)

    assert caught.value.name == "ring"


def test_what_needs_no_memory_is_still_answered_after_close(ring: Ring) -> None:
    before = ring.name, ring.namespace, ring.path, ring.instance, ring.max_items, ring.codec, ring.checksum
    ring.close()

    assert ring.closed
    assert (ring.name, ring.namespace, ring.path, ring.instance, ring.max_items, ring.codec, ring.checksum) == before
    assert repr(ring) == "<Ring 'ring', closed>"


def test_closing_twice_does_nothing_more(ring: Ring, attached: NewRing) -> None:
    other = attached()

    ring.close()
    ring.close()
    del ring

    other.put(b"x")
    assert other.get() == b"x"


def test_the_ring_lives_on_for_the_others(ring: Ring, attached: NewRing) -> None:
    other = attached()
    ring.put(b"x")

    ring.close()

    assert other.get() == b"x"
    assert attached().closed is False


def test_the_last_handle_takes_the_name_along(ring: Ring, attached: NewRing) -> None:
    other, path = attached(), Path(ring.path or "")

    ring.close()
    assert path.exists()
    other.close()
    assert not path.exists()


def test_the_with_statement_closes_even_when_its_body_fails(namespace: str) -> None:
    with pytest.raises(LookupError), rings.create("ring", namespace=namespace) as ring:
        raise LookupError

    assert ring.closed


BLOCKED = {
    "get": (lambda ring: ring.get(), 0),
    "get_into": (lambda ring: ring.get_into(bytearray(9)), 0),
    "get_many": (lambda ring: ring.get_many(3), 0),
    "lease": (lambda ring: ring.lease(), 0),
    "wait": (lambda ring: rings.wait([ring]), 0),
    "put": (lambda ring: ring.put(b"y"), 1),
    "put of much": (lambda ring: ring.put(bytes(50_000)), 1),
    "put of a spill file": (lambda ring: ring.put(bytes(500_000)), 1),
    "put_many": (lambda ring: ring.put_many([b"y"]), 1),
    "put_vectored": (lambda ring: ring.put_vectored([b"y"]), 1),
}


@pytest.mark.parametrize("operation", BLOCKED)
@pytest.mark.parametrize("settings", [{}, {"single_producer": True, "single_consumer": True}], ids=["shared", "single"])
def test_closing_ends_the_calls_that_wait_in_other_threads(
    new_ring: NewRing, in_thread: Callable, eventually: Callable, operation: str, settings: dict
) -> None:
    ring = new_ring(max_items=1, **settings)
    call, items = BLOCKED[operation]
    ring.put_many([b"x"] * items)
    answers = [in_thread(lambda: call(ring)) for _ in range(3)]
    eventually(lambda: ring.stats().get_waiters + ring.stats().put_waiters >= 3)

    ring.close()

    for answer in answers:
        with pytest.raises(errors.QueueClosedError):
            answer()


@pytest.mark.parametrize("settings", [{}, {"single_consumer": True}], ids=["shared", "single"])
def test_what_a_call_leases_from_a_handle_that_is_being_closed_goes_to_others(
    new_ring: NewRing, attached: NewRing, in_thread: Callable, eventually: Callable, settings: dict
) -> None:
    ring = new_ring(**settings)
    other = attached()
    answer = in_thread(ring.lease)
    eventually(lambda: other.stats().get_waiters)

    ring.close()
    other.put(b"x")  # wakes it in the middle of its slice

    with pytest.raises(errors.QueueClosedError):
        answer()
    assert other.get(timeout=30) == b"x"
    assert other.stats().leased == 0


def test_closing_one_handle_does_not_end_the_waits_of_another(
    ring: Ring, attached: NewRing, in_thread: Callable, eventually: Callable
) -> None:
    other = attached()
    answer = in_thread(other.get)
    eventually(lambda: ring.stats().get_waiters)
    blocked = ring.stats().get_blocked

    attached().close()
    eventually(lambda: ring.stats().get_blocked >= blocked + 3)  # it slept on for three slices
    ring.put(b"x")

    assert answer() == b"x"


def test_closing_from_several_threads_at_once_closes_once(ring: Ring, in_thread: Callable) -> None:
    ring.put(b"x")
    lease = ring.lease()

    for answer in [in_thread(ring.close) for _ in range(8)]:
        answer()

    assert ring.closed
    del lease


def test_the_file_is_left_before_a_call_that_ends_lets_the_descriptor_go(
    ring: Ring, in_thread: Callable, eventually: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """close() is halfway through leaving the file when the last call of another thread ends."""
    answer = in_thread(ring.get)
    eventually(lambda: ring.stats().get_waiters)
    is_last = segment.is_last

    def is_last_when_the_call_has_ended(descriptor: int) -> bool:
        with pytest.raises(errors.QueueClosedError):
            answer()
        return is_last(descriptor)

    monkeypatch.setattr(segment, "is_last", is_last_when_the_call_has_ended)
    path, descriptor = Path(ring.path or ""), ring.fileno()

    ring.close()

    assert not path.exists()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


# -- Views ------------------------------------------------------------------------------------------------------------


def test_views_stay_readable_after_close(ring: Ring) -> None:
    ring.put(b"abc" * 1000)
    lease = ring.lease()
    view = lease.data

    ring.close()
    gc.collect()

    assert bytes(view) == b"abc" * 1000
    del lease
    assert view[:3] == b"abc"


def is_mapped(inode: int) -> bool:
    return any(line.split()[4] == str(inode) for line in Path("/proc/self/maps").read_text().splitlines())


def test_the_memory_and_the_descriptor_go_with_the_last_view(ring: Ring) -> None:
    ring.put(b"abc")
    descriptor, first = ring.fileno(), ring.lease().data
    inode, second = os.fstat(descriptor).st_ino, memoryview(first)
    ring.close()
    assert is_mapped(inode)

    first.release()
    assert is_mapped(inode)
    second.release()

    assert not is_mapped(inode)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_no_new_view_of_a_lease_whose_ring_is_closed(ring: Ring) -> None:
    ring.put(b"abc")
    lease = ring.lease()

    ring.close()

    for look in (lambda: lease.data, lambda: memoryview(lease), lambda: lease.value, lease.ack, lease.nack):
        with pytest.raises(errors.QueueClosedError):
            look()


def test_closing_gives_leased_items_back_in_order(ring: Ring, attached: NewRing) -> None:
    other = attached()
    ring.put_many([b"a", b"b", b"c"])
    leases = [other.lease(), other.lease()]

    other.close()

    assert [(ring.qsize(), ring.stats().leased)] == [(3, 0)]
    with ring.lease() as lease:
        assert (lease.value, lease.attempt) == (b"a", 1)
    assert ring.get_many(5) == [b"b", b"c"]
    del leases


# -- The collector ----------------------------------------------------------------------------------------------------


def test_a_forgotten_ring_is_closed_by_the_collector(namespace: str) -> None:
    ring = rings.create("ring", namespace=namespace)
    path, descriptor = Path(ring.path or ""), ring.fileno()

    del ring
    gc.collect()

    assert not path.exists()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


class Holder:
    """Makes a cycle through the ring's codec."""

    def encode(self, item: object) -> bytes:
        return b""


def test_a_forgotten_ring_in_a_cycle_is_closed_by_the_collector(namespace: str) -> None:
    ring = rings.create("ring", namespace=namespace)
    ring.put_many([b"x", b"y"])
    holder = Holder()
    holder.ring, holder.lease, holder.view = ring, ring.lease(), ring.lease().data  # type: ignore[attr-defined]
    ring.set_codec(holder.encode, None)
    path, descriptor = Path(ring.path or ""), ring.fileno()

    del ring, holder
    gc.collect()

    assert not path.exists()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_a_forgotten_lease_in_a_cycle_is_given_back(ring: Ring) -> None:
    ring.put(b"x")
    cycle: list = [ring.lease()]
    cycle.append(cycle)

    del cycle
    gc.collect()

    assert (ring.stats().leased, ring.get_nowait()) == (0, b"x")


def test_a_thousand_rings_leave_no_descriptor_behind(namespace: str) -> None:
    before = len(os.listdir("/proc/self/fd"))

    for _ in range(1000):
        with rings.create("ring", namespace=namespace, capacity_bytes=4096) as ring:
            ring.put(b"x")

    assert len(os.listdir("/proc/self/fd")) <= before  # fewer when something of earlier tests was collected


def test_a_descriptor_that_somebody_else_closed_and_reused_is_left_alone(ring: Ring, tmp_path: Path) -> None:
    number = ring.fileno()
    stranger = os.open(tmp_path / "file", os.O_CREAT | os.O_RDWR)
    os.dup2(stranger, number)
    path = Path(ring.path or "")

    ring.put(b"x")
    assert ring.get() == b"x"
    ring.close()

    assert os.fstat(number).st_ino == os.fstat(stranger).st_ino
    os.close(number)
    os.close(stranger)
    path.unlink()  # nobody could tell whether it was the last
