"""shutdown(): for everybody in every process, at once, and for ever."""

from collections.abc import Callable

import pytest

from sage_qd import errors
from sage_qd.ring import Ring, wait

pytestmark = pytest.mark.timeout(60)
NewRing = Callable[..., Ring]

PUTS = {
    "put": lambda ring: ring.put(b"x"),
    "put_nowait": lambda ring: ring.put_nowait(b"x"),
    "put of much": lambda ring: ring.put(bytes(50_000)),
    "put of a spill file": lambda ring: ring.put(bytes(500_000)),
    "put_many": lambda ring: ring.put_many([b"x", b"y"]),
    "put_vectored": lambda ring: ring.put_vectored([b"x"]),
}
GETS = {
    "get": Ring.get,
    "get_nowait": Ring.get_nowait,
    "get_into": lambda ring: ring.get_into(bytearray(9)),
    "get_many": lambda ring: ring.get_many(9),
    "lease": Ring.lease,
    "peek": Ring.peek,
}
SETTINGS = pytest.mark.parametrize(
    "settings", [{}, {"single_producer": True, "single_consumer": True}], ids=["shared", "single"]
)


@SETTINGS
@pytest.mark.parametrize("immediate", [False, True])
@pytest.mark.parametrize("operation", PUTS)
def test_no_put_succeeds_any_more(new_ring: NewRing, operation: str, immediate: bool, settings: dict) -> None:
    ring = new_ring(**settings)
    ring.shutdown(immediate)

    with pytest.raises(errors.ShutDown):
        PUTS[operation](ring)

    assert ring.stats().puts == 0


@SETTINGS
@pytest.mark.parametrize("operation", GETS)
def test_what_is_queued_is_handed_out_and_then_get_raises(new_ring: NewRing, operation: str, settings: dict) -> None:
    ring = new_ring(**settings)
    ring.put_many([b"a", b"b"])

    assert ring.shutdown() == 0
    assert [ring.get(), ring.get_nowait()] == [b"a", b"b"]
    with pytest.raises(errors.ShutDown):
        GETS[operation](ring)


@SETTINGS
@pytest.mark.parametrize("operation", GETS)
def test_an_immediate_shutdown_drops_what_is_queued_and_counts_it(
    new_ring: NewRing, operation: str, settings: dict
) -> None:
    ring = new_ring(**settings)
    ring.put_many([b"x"] * 5)
    with ring.lease():  # claims the role where there is one
        pass

    assert ring.shutdown(immediate=True) == 4
    with pytest.raises(errors.ShutDown):
        GETS[operation](ring)
    assert (ring.qsize(), ring.stats().dropped) == (0, 4)


def test_shutting_down_twice_does_nothing_more_and_may_become_immediate(ring: Ring) -> None:
    ring.put_many([b"a", b"b"])

    assert [ring.shutdown(), ring.shutdown(), ring.shutdown(True), ring.shutdown(True)] == [0, 0, 2, 0]
    assert ring.stats().is_shutdown


def test_a_lease_outlives_a_shutdown_and_its_item_comes_back_by_nack(ring: Ring) -> None:
    ring.put(b"a")
    lease = ring.lease()
    ring.shutdown()

    with pytest.raises(errors.Empty):
        ring.get_nowait()
    lease.nack()

    assert ring.get() == b"a"
    with pytest.raises(errors.ShutDown):
        ring.get()


def test_a_lease_outlives_an_immediate_shutdown_until_it_is_acked(ring: Ring) -> None:
    ring.put_many([b"a", b"b"])
    lease = ring.lease()

    assert ring.shutdown(immediate=True) == 1
    assert lease.value == b"a"
    lease.ack()
    assert ring.stats().depth_bytes == 0


def test_those_who_attach_later_find_it_shut_down(ring: Ring, attached: NewRing) -> None:
    ring.put(b"a")
    ring.shutdown()
    other = attached()

    assert other.get() == b"a"
    with pytest.raises(errors.ShutDown):
        other.get()
    with pytest.raises(errors.ShutDown):
        other.put(b"x")


def test_wait_on_rings_reports_a_ring_that_was_shut_down(ring: Ring, new_ring: NewRing) -> None:
    other = new_ring("other")
    other.shutdown()

    assert wait([ring, other]) == [other]


WAITER = """
ring = attach("{name}", namespace=sys.argv[1])
say("ready")
try:
    ring.{call}
except errors.ShutDown:
    say("shut down")
ring.close()
"""


@pytest.mark.parametrize("immediate", [False, True])
def test_all_waiters_in_all_processes_notice(
    new_ring: NewRing, start: Callable, eventually: Callable, immediate: bool
) -> None:
    empty, full = new_ring("empty"), new_ring("full", max_items=1)
    full.put(b"x")
    calls = [("empty", "get()"), ("empty", "lease()"), ("empty", "get_many(3)"), ("empty", "get(timeout=1e6)")]
    calls += [("full", "put(b'y')"), ("full", "put_many([b'y'])"), ("full", "put(bytes(500_000))")]
    processes = [start(WAITER.format(name=name, call=call)) for name, call in calls]
    for process in processes:
        process.hear()
    eventually(lambda: empty.stats().get_blocked >= 4 and full.stats().put_blocked >= 3)

    empty.shutdown(immediate)
    full.shutdown(immediate)

    assert [process.hear() for process in processes] == ["shut down"] * len(processes)
    for process in processes:
        process.finish()


def test_every_item_put_before_the_shutdown_is_delivered(new_ring: NewRing, start: Callable) -> None:
    """Producers are cut off in full flight; what their puts returned from is exactly what consumers get."""
    ring = new_ring(capacity_bytes=1 << 16)
    producers = [
        start(
            """
ring, number = attach("ring", namespace=sys.argv[1]), 0
try:
    while True:
        ring.put(sys.argv[2].encode() + b":%d" % number)
        number += 1
except errors.ShutDown:
    say(number)
""",
            name,
        )
        for name in ("a", "b")
    ]
    taken = [ring.get() for _ in range(2000)]

    ring.shutdown()

    while ring.stats().depth:
        taken += ring.get_many(100)
    for name, producer in zip(("a", "b"), producers, strict=True):
        count = int(producer.hear())
        taken += ring.get_many(100) if not ring.empty() else []
        own = [item for item in taken if item.startswith(name.encode())]
        assert own == [b"%s:%d" % (name.encode(), number) for number in range(count)]
        producer.finish()


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_shutdown_by_somebody_who_dies_at_once_holds(ring: Ring, start: Callable, moment: str) -> None:
    process = start(
        """
ring = attach("ring", namespace=sys.argv[1])
if sys.argv[2] == "after":
    ring.put(b"x")
ring.shutdown()
os.kill(os.getpid(), signal.SIGKILL)
""",
        moment,
    )
    process.end()

    with pytest.raises(errors.ShutDown):
        ring.put(b"y")
    assert ring.qsize() == (1 if moment == "after" else 0)
