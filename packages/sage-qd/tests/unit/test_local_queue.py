"""Queues between threads: what the contract does not say, because other kinds differ or have no such thing."""

import gc
import queue as standard
import threading
import time
from typing import Any

import pytest

from sage_qd import (
    Full,
    GeometryMismatchError,
    LocalQueue,
    LocalQueueDescriptor,
    NotShareableError,
    QueueExistsError,
    QueueNotFoundError,
    SageQueueDescriptor,
    ShutDown,
)
from sage_qd.queues.waiting import TRY_ONCE, deadline_of, wait_until
from sage_qd.testing import background, wait_for

# -- Names ------------------------------------------------------------------------------------------------------------


def test_queues_without_a_name_are_private() -> None:
    one, other = LocalQueue[int](), LocalQueue[int]()
    one.put(1)

    assert other.empty()
    assert one.instance != other.instance
    assert one.name is None


def test_handles_of_one_name_share_the_queue() -> None:
    one, other = LocalQueue[int].open("shared"), LocalQueue[int].open("shared")
    one.put(1)

    assert other.get(timeout=0) == 1
    assert one.instance == other.instance


def test_a_named_queue_ends_with_its_last_handle() -> None:
    one, other = LocalQueue[int].open("short"), LocalQueue[int].open("short")
    one.put(1)
    one.close()
    assert LocalQueue[int].open("short", create=False).qsize() == 1

    other.close()
    gc.collect()

    with pytest.raises(QueueNotFoundError):
        LocalQueue[int].open("short", create=False)


def test_a_forgotten_handle_counts_as_closed() -> None:
    handle = LocalQueue[int].open("forgotten")
    handle.put(1)

    del handle
    gc.collect()

    assert LocalQueue[int].open("forgotten").empty()


def test_another_maxsize_is_a_mismatch() -> None:
    kept = LocalQueue[int].open("bounded", 3)

    with pytest.raises(GeometryMismatchError, match="maxsize is 3, wanted 4"):
        LocalQueue[int].open("bounded", 4)

    assert kept.maxsize == 3


@pytest.mark.parametrize("maxsize", [True, 1.0, "1", None])
def test_maxsize_must_be_an_integer(maxsize: Any) -> None:
    with pytest.raises(TypeError, match="maxsize"):
        LocalQueue(maxsize)


def test_negative_maxsize_is_no_bound() -> None:
    assert LocalQueue[int](-3).maxsize == 0


# -- Standard library -------------------------------------------------------------------------------------------------


def test_exceptions_are_those_of_the_standard_library() -> None:
    queue = LocalQueue[int](1)

    with pytest.raises(standard.Empty):
        queue.get_nowait()
    queue.put(1)
    with pytest.raises(standard.Full):
        queue.put_nowait(2)


def test_arguments_have_the_names_of_the_standard_library() -> None:
    queue = LocalQueue[int]()

    queue.put(item=1, block=True, timeout=None)
    queue.put_nowait(item=2)

    assert [queue.get(block=True, timeout=None), queue.get_nowait()] == [1, 2]


def test_full_and_empty_say_what_happened() -> None:
    queue = LocalQueue[int](1)
    queue.put(1)

    with pytest.raises(Full, match="1 messages"):
        queue.put_nowait(2)


# -- Leases and work --------------------------------------------------------------------------------------------------


def test_ack_counts_as_task_done() -> None:
    queue = LocalQueue[int]()
    queue.put(1)
    joining = background(queue.join)

    with queue.lease():
        pass

    joining.result()


def test_join_returns_when_a_dropped_lease_was_worked_off_by_another() -> None:
    queue = LocalQueue[int]()
    queue.put(1)
    lease = queue.lease()
    joining = background(queue.join)

    del lease
    gc.collect()
    with queue.lease() as again:
        assert again.redelivered

    joining.result()


def test_join_returns_after_an_immediate_shutdown() -> None:
    queue = LocalQueue[int]()
    queue.put_many([1, 2])
    joining = background(queue.join)

    queue.shutdown(immediate=True)

    joining.result()


def test_a_message_given_back_after_an_immediate_shutdown_is_dropped() -> None:
    queue = LocalQueue[int]()
    queue.put(1)
    lease = queue.lease()
    queue.shutdown(immediate=True)

    lease.nack()

    assert (queue.qsize(), queue.stats().leased, queue.stats().dropped) == (0, 0, 1)


def test_a_lease_shows_whether_it_is_settled() -> None:
    queue = LocalQueue[int]()
    queue.put(1)
    lease: Any = queue.lease()
    before = lease.settled
    lease.ack()

    assert (before, lease.settled) == (False, True)


def test_a_lease_cannot_be_pickled() -> None:
    queue = LocalQueue[int]()
    queue.put(1)

    with pytest.raises(NotShareableError, match="lease"), queue.lease() as lease:
        lease.__reduce__()


def test_high_water_is_the_most_that_was_held() -> None:
    queue = LocalQueue[int]()
    queue.put_many([1, 2, 3])
    queue.get_many(3)
    queue.put(4)

    assert queue.stats().high_water == 3


# -- Waiting ----------------------------------------------------------------------------------------------------------


def test_deadlines() -> None:
    now = time.monotonic()

    assert deadline_of(True, None) == float("inf")
    assert deadline_of(True, float("inf")) == float("inf")
    assert deadline_of(True, 1e30) == float("inf")
    assert (
        deadline_of(False, None) == deadline_of(False, 5) == deadline_of(True, 0) == deadline_of(True, -1) == TRY_ONCE
    )
    assert now + 5 <= deadline_of(True, 5) <= time.monotonic() + 5


def test_an_interrupted_wait_hands_its_wake_up_on() -> None:
    """The wait of the first is made to end with an exception after it was notified."""
    condition = threading.Condition()
    woken = threading.Event()

    def second() -> None:
        with condition:
            wait_until(condition, float("inf"))
            woken.set()

    class Interrupted(threading.Condition):
        def wait(self, timeout: float | None = None) -> bool:
            raise KeyboardInterrupt

    waiting = background(second)
    interrupted = Interrupted(condition._lock)  # type: ignore[attr-defined]
    interrupted.notify = condition.notify  # type: ignore[method-assign]
    wait_for(lambda: bool(condition._waiters), "the second waits")  # type: ignore[attr-defined]
    with interrupted, pytest.raises(KeyboardInterrupt):
        wait_until(interrupted, float("inf"))

    waiting.result()
    assert woken.is_set()


# -- Moving to where processes reach it -------------------------------------------------------------------------------


@pytest.fixture
def local() -> Any:
    descriptor = LocalQueueDescriptor(f"moving-{time.monotonic_ns()}")
    yield descriptor
    if (queue := descriptor.queue_instance) is not None and queue.moved_to is not None:
        queue.moved_to.close()
    descriptor.close()


def test_promotion_moves_messages_in_order_and_all_handles_follow(local: Any) -> None:
    other = local.attach() if local.is_initialized() else LocalQueue[Any].open(local.queue_id)
    local.put_many(range(5))

    shareable = local.to_serializable_descriptor()
    other.put("after")

    assert shareable.can_serialize
    assert shareable.queue_id == local.queue_id
    assert [local.get(), other.get(), shareable.open().get()] == [0, 1, 2]
    assert other.get_many(5) == [3, 4, "after"]
    assert local.qsize() == other.qsize() == 0


def test_promotion_keeps_the_bound_and_what_came_back_from_leases(local: Any) -> None:
    bounded = LocalQueueDescriptor(local.queue_id, maxsize=3)
    bounded.put_many([1, 2])
    bounded.lease().nack()

    shareable = bounded.to_serializable_descriptor()
    bounded.put(3)

    assert (shareable.maxsize, bounded.full()) == (3, True)
    with pytest.raises(Full):
        bounded.put(4, timeout=0.01)
    assert [bounded.get(), bounded.get(), bounded.get()] == [1, 2, 3]
    bounded.close()


def test_promotion_twice_gives_the_same_queue(local: Any) -> None:
    local.put(1)

    assert local.to_serializable_descriptor().instance == local.to_serializable_descriptor().instance


def test_calls_that_wait_follow_the_promotion(local: Any) -> None:
    getter = background(local.open().get)
    shareable = local.to_serializable_descriptor()

    shareable.put("through the ring")

    assert getter.result() == "through the ring"


def test_closing_ends_a_wait_on_the_promoted_queue(local: Any) -> None:
    local.to_serializable_descriptor()
    getter = background(local.open().get)

    local.queue_instance.close()

    with pytest.raises(ValueError, match="closed"):
        getter.result()


def test_promotion_moves_more_than_the_first_ring_holds(local: Any) -> None:
    messages = [bytes([number]) * 200_000 for number in range(20)]
    local.put_many(messages)

    local.to_serializable_descriptor()

    assert local.get_many(100)[:1] == messages[:1]


def test_promotion_needs_settled_leases(local: Any) -> None:
    local.put(1)
    lease = local.lease()

    with pytest.raises(NotShareableError, match="on lease"):
        local.to_serializable_descriptor()

    lease.nack()
    assert local.get(timeout=0) == 1


def test_a_message_that_cannot_travel_leaves_the_queue_as_it_was(local: Any) -> None:
    lock = threading.Lock()
    local.put_many([1, lock])

    with pytest.raises(TypeError, match="lock"):
        local.to_serializable_descriptor()

    assert [local.get(timeout=0), local.get(timeout=0)] == [1, lock]
    with pytest.raises(QueueNotFoundError):
        SageQueueDescriptor(local.queue_id).attach()


def test_promotion_never_joins_a_ring_that_exists(local: Any) -> None:
    local.put("mine")
    with SageQueueDescriptor(local.queue_id).open() as stranger:
        stranger.put("theirs")

        with pytest.raises(QueueExistsError):
            local.to_serializable_descriptor()

        assert stranger.qsize() == 1
    assert local.get(timeout=0) == "mine"


def test_a_shut_down_queue_stays_so_when_promoted(local: Any) -> None:
    local.put(1)
    local.shutdown()

    local.to_serializable_descriptor()

    with pytest.raises(ShutDown):
        local.put(2)
    assert local.get(timeout=0) == 1
    with pytest.raises(ShutDown):
        local.get()


def test_a_promoted_queue_no_longer_counts_tasks(local: Any) -> None:
    local.to_serializable_descriptor()

    with pytest.raises(NotShareableError):
        local.join()
    with pytest.raises(NotShareableError):
        local.task_done()
