"""Waiting on several queues of the same and of different kinds."""

import uuid
from collections.abc import Callable
from typing import Any

import pytest

from sage_qd import LocalQueue, QueueClosedError, SageQueueDescriptor, migrate, wait
from sage_qd.testing import background, wait_for

pytestmark = pytest.mark.timeout(60)
NAMESPACE = f"wait-{uuid.uuid4().hex}"


@pytest.fixture
def ring_queues(opened: Callable[[Any], Any]) -> list[Any]:
    return [opened(SageQueueDescriptor(f"q{number}", namespace=NAMESPACE).open()) for number in range(2)]


@pytest.fixture
def mixed(ring_queues: list[Any]) -> list[Any]:
    return [LocalQueue(), *ring_queues, LocalQueue()]


def test_those_that_are_ready_are_returned_in_order(mixed: list[Any]) -> None:
    mixed[2].put(1)
    mixed[3].put(1)

    assert wait(mixed) == [mixed[2], mixed[3]]
    assert wait(iter(mixed[:2]), timeout=0) == []


@pytest.mark.parametrize("place", range(4))
def test_a_message_in_any_of_them_ends_the_wait(mixed: list[Any], place: int) -> None:
    waiting = background(wait, mixed)
    assert waiting.is_waiting()

    mixed[place].put("late")

    assert waiting.result() == [mixed[place]]
    assert mixed[place].get(timeout=0) == "late"


def test_rings_alone_are_watched_together(ring_queues: list[Any]) -> None:
    waiting = background(wait, ring_queues)
    wait_for(lambda: all(queue.stats().get_waiters for queue in ring_queues), "it sleeps on both")

    ring_queues[1].put("late")

    assert waiting.result() == [ring_queues[1]]


def test_time_runs_out_for_mixed_kinds_too(mixed: list[Any]) -> None:
    assert wait(mixed, timeout=0.02) == []


def test_shutdown_is_an_answer_and_a_closed_queue_an_error(mixed: list[Any]) -> None:
    mixed[0].shutdown()
    assert wait(mixed) == [mixed[0]]
    waiting = background(wait, mixed[1:])

    mixed[3].close()

    with pytest.raises(QueueClosedError):
        waiting.result()


def test_several_calls_wait_for_the_same_queue(mixed: list[Any]) -> None:
    calls = [background(wait, mixed) for _ in range(5)]

    mixed[0].put("for whoever takes it")

    assert [call.result() for call in calls] == [[mixed[0]]] * 5


def test_a_moved_queue_is_watched_where_it_went(mixed: list[Any]) -> None:
    source = mixed[1].descriptor
    target = SageQueueDescriptor("moved", namespace=NAMESPACE)
    new = target.open()
    waiting = background(wait, mixed)
    migrate(source, target)

    new.put("there")

    assert waiting.result() == [mixed[1]]
    assert mixed[1].get(timeout=0) == "there"
    new.close()


def test_malformed_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        wait([])
    with pytest.raises(TypeError, match="queues"):
        wait([LocalQueue(), "no queue"])  # type: ignore[list-item]
