"""Rates between two looks, and the consumer that holds the others up."""

import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from sage_qd.errors import Full
from sage_qd.monitor import Sample, Sampler
from sage_qd.monitor.processes import LABEL_VARIABLE
from sage_qd.ring import Ring, create

pytestmark = pytest.mark.timeout(120)


class Clock:
    """A second passes when the test says so."""

    seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def look(namespace: str, clock: Clock) -> Callable[[], Sample]:
    """Look at the one queue there is, a second later each time."""
    sampler = Sampler(namespace, clock=clock)

    def again() -> Sample:
        clock.seconds += 1
        (sample,) = sampler.look()
        return sample

    return again


def test_the_first_look_has_no_rates(ring: Ring, look: Callable[[], Sample]) -> None:
    ring.put(b"message")

    assert (look().seconds, look().seconds) == (0.0, 1.0)


def test_rates_are_what_moved_in_a_second(ring: Ring, look: Callable[[], Sample]) -> None:
    look()
    ring.put_many([b"12345"] * 10)
    ring.get_many(4)

    sample = look()

    assert (sample.puts_per_second, sample.gets_per_second, sample.bytes_per_second) == (10.0, 4.0, 50.0)


def test_a_new_queue_of_the_same_name_starts_anew(namespace: str, look: Callable[[], Sample]) -> None:
    with create("ring", namespace=namespace) as ring:
        ring.put_many([b"a"] * 10)
        look()
    with create("ring", namespace=namespace):
        sample = look()

    assert (sample.seconds, sample.puts_per_second) == (0.0, 0.0)


def test_json_form_is_that_of_the_state_and_the_rates(ring: Ring, look: Callable[[], Sample]) -> None:
    sample = look()

    document = sample.as_dict()

    assert document.keys() - sample.state.as_dict().keys() == {"rates", "slow_consumers"}
    assert document["rates"]["seconds"] == 0.0


def test_the_slow_consumer_is_named(
    namespace: str,
    new_ring: Callable[..., Ring],
    look: Callable[[], Sample],
    start: Callable,
    eventually: Callable,
    monkeypatch: pytest.MonkeyPatch,
    clock: Clock,
) -> None:
    ring = new_ring(max_items=5)
    monkeypatch.setenv(LABEL_VARIABLE, "map-2")
    reader = start("""
ring = attach("ring", namespace=sys.argv[1])
lease = ring.lease()
say("leased")
hear()
lease.ack()
""")
    monkeypatch.delenv(LABEL_VARIABLE)
    ring.put_many([b"message"] * 5)
    reader.hear()
    writer = start('ring = attach("ring", namespace=sys.argv[1])\nsay("ready")\nring.put(b"x")')
    writer.hear()

    eventually(lambda: look().slow)
    clock.seconds += 9
    (slow,) = eventually(lambda: look().slow)

    assert (slow.pid, slow.label, slow.items_behind, slow.certain) == (reader.pid, "map-2", 5, True)
    assert slow.idle_seconds >= 10
    assert slow.blocked_on is None
    assert str(slow).startswith(f"reader pid {reader.pid}, task map-2, 5 items behind, nothing taken for ")
    reader.tell()
    reader.finish()
    writer.finish()
    assert eventually(lambda: look().state.figures is not None)
    assert look().slow == ()


def test_a_slow_consumer_that_is_blocked_itself_says_where(
    namespace: str, new_ring: Callable[..., Ring], start: Callable, eventually: Callable
) -> None:
    new_ring("jobs", max_items=2)
    results = new_ring("results", max_items=1)
    worker = start("""
jobs, results = (attach(name, namespace=sys.argv[1]) for name in ("jobs", "results"))
say("ready")
while True:
    with jobs.lease() as lease:
        results.put(lease.value)
""")
    worker.hear()
    writer = start('ring = attach("jobs", namespace=sys.argv[1])\nsay("ready")\nwhile True: ring.put(b"x")')
    writer.hear()
    sampler = Sampler(namespace)

    def blocked() -> Any:
        slow = [each for sample in sampler.look() if sample.state.queue_id == "jobs" for each in sample.slow]
        return [each for each in slow if each.blocked_on and each.certain]  # one look may be from two moments

    (slow,) = eventually(blocked)

    assert (slow.pid, slow.blocked_on, slow.certain) == (worker.pid, f"put {namespace}/results", True)
    assert f"s (put {namespace}/results)" in str(slow)
    assert eventually(lambda: results.stats().put_waiters)  # a sleeper takes its mark back for a moment with each slice


def test_without_a_known_reader_whoever_else_uses_the_queue_is_named_with_doubt(
    namespace: str, new_ring: Callable[..., Ring], look: Callable[[], Sample], start: Callable, eventually: Callable
) -> None:
    ring = new_ring(max_items=1)
    with suppress(Full):
        ring.put(b"x", timeout=0)
    writer = start('ring = attach("ring", namespace=sys.argv[1])\nsay("ready")\nring.put(b"x")')
    writer.hear()

    (slow,) = eventually(lambda: [each for each in look().slow if each.pid != writer.pid])

    assert (slow.pid, slow.certain) == (os.getpid(), False)
    assert str(slow).endswith("seen to use the queue, not yet to read it")
