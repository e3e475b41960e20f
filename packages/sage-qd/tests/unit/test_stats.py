"""Figures of a ring: each counts what it says, for all processes, and survives them."""

import dataclasses
import signal
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from sage_qd import errors
from sage_qd.ring import Ring, RingStats
from sage_qd.ring.stats import upper_edge_ns

pytestmark = pytest.mark.timeout(60)
NewRing = Callable[..., Ring]
ZERO_AT_FIRST = [
    "puts", "gets", "bytes_put", "bytes_taken", "depth", "depth_bytes", "high_water", "dropped", "spills",
    "redeliveries", "leased", "put_blocked_ns", "put_blocked", "get_blocked_ns", "get_blocked", "put_recoveries",
    "get_recoveries", "put_waiters", "get_waiters", "put_lock_owner", "get_lock_owner", "oldest_age_ns", "samples",
]  # fmt: skip


@pytest.mark.parametrize("figure", ZERO_AT_FIRST)
def test_every_counter_of_a_new_ring_is_zero(ring: Ring, figure: str) -> None:
    assert getattr(ring.stats(), figure) == 0


def test_the_figures_of_a_new_ring_say_its_state(ring: Ring) -> None:
    stats = ring.stats()

    assert stats.capacity_bytes == 1 << 20
    assert (stats.is_shutdown, stats.is_poisoned, stats.unlinked) == (False, False, False)
    assert stats.latency_ns(0.5) is None


def test_figures_are_a_frozen_picture(ring: Ring) -> None:
    stats = ring.stats()
    ring.put(b"x")

    assert stats.puts == 0
    with pytest.raises(dataclasses.FrozenInstanceError):
        stats.puts = 1  # type: ignore[misc]
    assert all(isinstance(value, (int, tuple)) for value in dataclasses.asdict(stats).values())


def test_items_and_bytes_are_counted_on_both_sides(ring: Ring) -> None:
    ring.put(b"abc")
    ring.put_many([b"", b"12345"])
    ring.put_vectored([b"a", b"b"])
    ring.get()
    ring.get_many(2)

    stats = ring.stats()
    assert (stats.puts, stats.gets, stats.bytes_put, stats.bytes_taken, stats.depth) == (4, 3, 10, 8, 1)


def test_depth_in_bytes_counts_whole_units_with_their_headers(ring: Ring) -> None:
    ring.put(b"")  # the first record carries a time stamp, 16 bytes more
    ring.put(b"x" * 17)

    assert ring.stats().depth_bytes == 32 + 16 + 32


def test_leases_are_counted_while_they_are_held(ring: Ring) -> None:
    ring.put_many([b"a", b"bc", b"def"])
    leases = [ring.lease(), ring.lease()]
    seen = [(ring.stats().leased, ring.stats().depth, ring.stats().gets)]
    leases[1].ack()
    seen.append((ring.stats().leased, ring.stats().depth, ring.stats().gets))
    leases[0].nack()
    seen.append((ring.stats().leased, ring.stats().depth, ring.stats().gets))

    assert seen == [(2, 1, 0), (1, 1, 1), (0, 2, 1)]
    assert (ring.stats().redeliveries, ring.stats().bytes_taken) == (1, 2)


def test_dropped_items_are_counted_apart_and_as_taken(ring: Ring) -> None:
    ring.put_many([b"x"] * 10)
    ring.clear()
    ring.put_many([b"x"] * 3)
    ring.shutdown(immediate=True)

    stats = ring.stats()
    assert (stats.dropped, stats.gets, stats.depth, stats.is_shutdown) == (13, 13, 0, True)


def test_high_water_remembers_a_full_ring(new_ring: NewRing) -> None:
    ring = new_ring(max_items=10)
    ring.put_many([b"x"] * 20, timeout=0)
    ring.clear()
    ring.put(b"x")

    assert ring.stats().high_water == 10


def test_waits_for_items_are_counted_in_time_and_number(ring: Ring) -> None:
    with pytest.raises(errors.Empty):
        ring.get(timeout=0.12)
    once = ring.stats().get_blocked
    with pytest.raises(errors.Empty):
        ring.get(timeout=0.12)

    stats = ring.stats()
    assert once >= 1  # slices of at most 50 ms, and longer ones where the processor is busy with others
    assert stats.get_blocked > once
    assert stats.get_blocked_ns >= 220_000_000
    assert (stats.put_blocked, stats.put_blocked_ns) == (0, 0)


def test_waits_for_room_are_counted_in_time_and_number(new_ring: NewRing) -> None:
    ring = new_ring(max_items=1)
    ring.put(b"x")
    with pytest.raises(errors.Full):
        ring.put(b"y", timeout=0.12)
    once = ring.stats().put_blocked
    with pytest.raises(errors.Full):
        ring.put(b"y", timeout=0.12)

    stats = ring.stats()
    assert once >= 1
    assert stats.put_blocked > once
    assert stats.put_blocked_ns >= 220_000_000
    assert (stats.get_blocked, stats.get_blocked_ns) == (0, 0)


def test_operations_that_need_not_wait_count_no_wait(ring: Ring) -> None:
    for _ in range(100):
        ring.put(b"x")
        ring.get()

    assert (ring.stats().put_blocked, ring.stats().get_blocked) == (0, 0)


def test_all_processes_are_counted_and_survived(ring: Ring, start: Callable) -> None:
    for _ in range(3):
        process = start("""
ring = attach("ring", namespace=sys.argv[1])
ring.put_many([b"xy"] * 100)
ring.get_many(10)
os.kill(os.getpid(), signal.SIGKILL)
""")
        process.end()

    stats = ring.stats()
    assert (stats.puts, stats.gets, stats.bytes_put, stats.bytes_taken, stats.depth) == (300, 30, 600, 60, 270)


def test_the_stopped_owner_of_a_lock_is_named(new_ring: NewRing, start: Callable, eventually: Callable) -> None:
    """A large copy under the lock is interrupted by SIGSTOP at some moment; whoever looks sees whose lock it is."""
    ring = new_ring(capacity_bytes=1 << 26, spill_threshold=1 << 26)
    process = start("""
ring = attach("ring", namespace=sys.argv[1])
payload = bytes(1 << 25)
say("ready")
while True:
    ring.put(payload)
    ring.get()
""")
    process.hear()
    owner = 0
    while not owner:
        process.signal(signal.SIGSTOP)
        eventually(lambda: Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T")
        owner = ring.stats().put_lock_owner
        if not owner:
            process.signal(signal.SIGCONT)

    assert owner == process.pid
    with pytest.raises(errors.Full):
        ring.put(b"x", timeout=0.1)
    assert ring.stats().put_lock_owner == process.pid
    process.signal(signal.SIGCONT)
    process.kill()
    ring.put(b"x", timeout=20)
    assert ring.stats().put_recoveries <= 1


# -- Latencies --------------------------------------------------------------------------------------------------------


def test_every_64th_item_is_a_sample(ring: Ring) -> None:
    for _ in range(64 * 5):
        ring.put(b"x")
        ring.get()

    assert (ring.stats().samples, sum(ring.stats().histogram)) == (5, 5)


def test_a_latency_is_between_what_was_waited_for_and_what_the_test_took(ring: Ring) -> None:
    begin = time.monotonic_ns()
    ring.put(b"x")
    while time.monotonic_ns() < begin + 3_000_000:
        continue
    waited = time.monotonic_ns() - begin
    ring.get()
    whole = time.monotonic_ns() - begin

    latency = ring.stats().latency_ns(0.5)
    assert latency is not None
    assert 0.8 * (waited - 1_000_000) <= latency <= 1.126 * whole


def test_the_age_of_the_oldest_item_grows_while_it_waits(ring: Ring, eventually: Callable) -> None:
    ring.put_many([b"x"] * 65)
    ring.get()  # the sampled one

    first = ring.stats().oldest_age_ns

    assert first > 0
    eventually(lambda: ring.stats().oldest_age_ns > first + 1_000_000)
    ring.clear()
    assert ring.stats().oldest_age_ns == 0


def made_up(counts: dict[int, int], state: int = 0) -> RingStats:
    derived = {"is_shutdown", "is_poisoned", "unlinked"}
    figures: dict[str, object] = {field.name: 0 for field in dataclasses.fields(RingStats) if field.name not in derived}
    histogram = [counts.get(bucket, 0) for bucket in range(320)]
    return RingStats.of(figures | {"state": state, "histogram": histogram}, unlinked=True)


@pytest.mark.parametrize(
    ("quantile", "bucket"), [(0, 20), (0.01, 20), (0.5, 20), (0.51, 50), (0.75, 50), (0.76, 90), (1, 90)]
)
def test_quantiles_name_the_bucket_that_reaches_the_share(quantile: float, bucket: int) -> None:
    assert made_up({20: 2, 50: 1, 90: 1}).latency_ns(quantile) == upper_edge_ns(bucket)


@pytest.mark.parametrize("quantile", [-0.1, 1.1, float("nan")])
def test_a_quantile_is_from_zero_to_one(quantile: float) -> None:
    with pytest.raises(ValueError, match="quantile"):
        made_up({1: 1}).latency_ns(quantile)


def test_buckets_follow_each_other_without_gap_each_an_eighth_wider() -> None:
    edges = [upper_edge_ns(bucket) for bucket in range(320)]

    assert edges[:10] == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]
    assert edges == sorted(set(edges))
    assert all(after <= before * 1.126 for before, after in pairwise(edges[8:]))


@pytest.mark.parametrize(
    ("state", "shown"), [(0, (False, False)), (1, (True, False)), (3, (True, False)), (4, (False, True))]
)
def test_the_state_word_is_read_bit_by_bit(state: int, shown: tuple[bool, bool]) -> None:
    stats = made_up({}, state)

    assert (stats.is_shutdown, stats.is_poisoned, stats.unlinked) == (*shown, True)
