"""What every queue does, whatever its kind, told as tests."""

# ruff: noqa: D102  (the name of a test is its documentation)

import gc
import math
import pickle
import time
import uuid
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest

from sage_qd.errors import Empty, Full, NotShareableError, QueueClosedError, ShutDown
from sage_qd.queues.base import Capabilities, Queue
from sage_qd.testing.watching import background, wait_for

__all__ = ["QueueContract"]


class QueueContract:
    """
    The contract of :class:`~sage_qd.Queue`; subclass it and say how to make a descriptor.

    The tests put ``bytes``, text, numbers and lists, which every codec but ``raw`` brings back as equal objects.
    """

    def make_descriptor(self, **settings: Any) -> Any:
        """
        Return a descriptor of the kind under test.

        Args:
            **settings: ``queue_id``, and ``maxsize`` where a test needs a bound.
        """
        raise NotImplementedError("a subclass says how to make a descriptor")

    @pytest.fixture
    def descriptor(self) -> Iterator[Any]:
        """A descriptor with a name of its own, closed afterwards."""
        descriptor = self.make_descriptor(queue_id=f"contract-{uuid.uuid4().hex}")
        yield descriptor
        descriptor.close()

    @pytest.fixture
    def queue(self, descriptor: Any) -> Queue[Any]:
        """An empty queue without a bound in messages."""
        queue: Queue[Any] = descriptor.open()
        return queue

    @pytest.fixture
    def small(self) -> Iterator[Queue[Any]]:
        """An empty queue for two messages."""
        descriptor = self.make_descriptor(queue_id=f"contract-{uuid.uuid4().hex}", maxsize=2)
        yield descriptor.open()
        descriptor.close()

    @staticmethod
    def need(queue: Queue[Any], capability: str) -> Capabilities:
        """Skip the test when the kind does not declare a capability."""
        if not getattr(queue.capabilities, capability):
            pytest.skip(f"this kind has no {capability}")
        return queue.capabilities

    # -- Messages -----------------------------------------------------------------------------------------------------

    def test_messages_come_in_the_order_they_were_put(self, queue: Queue[Any]) -> None:
        for number in range(1000):
            queue.put(number)

        assert [queue.get() for _ in range(1000)] == list(range(1000))

    @pytest.mark.parametrize(
        "message", [None, b"", b"bytes", "", "文字", 0, [], [b"nested", "文", None], {"a": [1, 2]}]
    )
    def test_a_message_arrives_equal_to_what_was_put(self, queue: Queue[Any], message: Any) -> None:
        queue.put(message)

        assert queue.get() == message
        assert queue.empty()

    def test_bytes_arrive_as_bytes(self, queue: Queue[Any]) -> None:
        queue.put(b"exact")

        assert type(queue.get()) is bytes

    def test_the_very_object_arrives_where_the_kind_says_so(self, queue: Queue[Any]) -> None:
        self.need(queue, "same_object")
        message = object()

        queue.put(message)

        assert queue.get() is message

    def test_a_copy_arrives_where_the_kind_says_so(self, queue: Queue[Any]) -> None:
        if queue.capabilities.same_object:
            pytest.skip("this kind hands over the object itself")
        message = [1, 2]

        queue.put(message)
        message.append(3)

        assert queue.get() == [1, 2]

    # -- Waiting ------------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("timeout", [0, -1, 0.0, Decimal(0), -math.inf, 1e-9])
    def test_get_raises_empty_when_nothing_comes_in_time(self, queue: Queue[Any], timeout: Any) -> None:
        with pytest.raises(Empty):
            queue.get(timeout=timeout)

    def test_get_nowait_raises_empty_at_once(self, queue: Queue[Any]) -> None:
        with pytest.raises(Empty):
            queue.get_nowait()
        with pytest.raises(Empty):
            queue.get(block=False)

    def test_get_is_never_early(self, queue: Queue[Any]) -> None:
        start = time.monotonic()

        with pytest.raises(Empty):
            queue.get(timeout=0.2)

        assert time.monotonic() - start >= 0.2

    @pytest.mark.parametrize("timeout", [None, math.inf, 1e300, 10**15])
    def test_get_waits_for_a_message(self, queue: Queue[Any], timeout: Any) -> None:
        getter = background(queue.get, True, timeout)

        queue.put("late")

        assert getter.result() == "late"

    def test_put_raises_full_when_no_room_comes_in_time(self, small: Queue[Any]) -> None:
        small.put(1)
        small.put(2)

        with pytest.raises(Full):
            small.put(3, timeout=0.01)
        with pytest.raises(Full):
            small.put_nowait(3)
        with pytest.raises(Full):
            small.put(3, block=False)

        assert [small.get(), small.get()] == [1, 2]
        assert small.empty()

    def test_put_waits_for_room(self, small: Queue[Any]) -> None:
        small.put(1)
        small.put(2)
        putter = background(small.put, 3)

        assert small.get() == 1

        putter.result()
        assert [small.get(), small.get()] == [2, 3]

    def test_negative_timeout_means_try_once(self, small: Queue[Any]) -> None:
        small.put(1, timeout=-1)
        small.put(2, timeout=0)

        with pytest.raises(Full):
            small.put(3, timeout=-1)
        assert small.get(timeout=-1) == 1

    @pytest.mark.parametrize("timeout", ["1", True, b"1", [], 1j])
    def test_timeout_of_a_wrong_type_is_a_type_error(self, small: Queue[Any], timeout: Any) -> None:
        with pytest.raises(TypeError):
            small.get(timeout=timeout)
        small.put_many([1, 2])
        with pytest.raises(TypeError):
            small.put(3, timeout=timeout)

    def test_timeout_that_is_no_number_is_a_value_error(self, queue: Queue[Any]) -> None:
        with pytest.raises(ValueError, match="nan"):
            queue.get(timeout=math.nan)

    # -- Bound and inspection -----------------------------------------------------------------------------------------

    def test_maxsize_is_exact(self, small: Queue[Any]) -> None:
        assert small.maxsize == 2
        assert not small.full()

        small.put("x" * 5000)
        assert not small.full()
        small.put(b"")

        assert small.full()
        assert small.qsize() == 2

    def test_qsize_counts_messages(self, queue: Queue[Any]) -> None:
        sizes = [queue.qsize()]
        for number in range(3):
            queue.put(number)
            sizes.append(queue.qsize())
        queue.get()

        assert [*sizes, queue.qsize()] == [0, 1, 2, 3, 2]

    def test_empty_says_whether_there_is_a_message(self, queue: Queue[Any]) -> None:
        assert queue.empty()
        queue.put(None)
        assert not queue.empty()

    def test_a_queue_is_true_even_when_empty(self, queue: Queue[Any]) -> None:
        assert bool(queue)

    def test_peek_leaves_the_message(self, queue: Queue[Any]) -> None:
        queue.put([1])
        queue.put([2])

        assert [queue.peek(), queue.peek(), queue.get(), queue.peek()] == [[1], [1], [1], [2]]

    def test_peek_raises_empty(self, queue: Queue[Any]) -> None:
        with pytest.raises(Empty):
            queue.peek()

    def test_clear_drops_and_counts(self, queue: Queue[Any]) -> None:
        queue.put_many(range(5))

        assert queue.clear() == 5
        assert queue.empty()
        assert queue.clear() == 0

    def test_clear_lets_waiting_producers_on(self, small: Queue[Any]) -> None:
        small.put_many([1, 2])
        putter = background(small.put, 3)

        assert small.clear() in (2, 3)

        putter.result()

    def test_stats_count_what_went_through(self, queue: Queue[Any]) -> None:
        queue.put_many(range(5))
        queue.get()
        queue.get_many(2)
        before = queue.stats()
        queue.clear()
        after = queue.stats()

        assert (before.puts, before.gets, before.depth, before.dropped) == (5, 3, 2, 0)
        assert (after.puts, after.gets, after.depth, after.dropped) == (5, 5, 0, 2)

    # -- Batches ------------------------------------------------------------------------------------------------------

    def test_put_many_keeps_the_order(self, queue: Queue[Any]) -> None:
        assert queue.put_many(iter(range(1000))) == 1000

        assert [queue.get() for _ in range(1000)] == list(range(1000))

    def test_put_many_of_nothing_does_nothing(self, small: Queue[Any]) -> None:
        small.put_many([1, 2])

        assert small.put_many([], timeout=0) == 0
        assert small.qsize() == 2

    def test_put_many_puts_a_prefix_when_time_runs_out(self, small: Queue[Any]) -> None:
        assert small.put_many([1, 2, 3, 4], timeout=0) == 2

        assert [small.get(), small.get()] == [1, 2]
        assert small.empty()

    def test_put_many_raises_full_when_not_even_the_first_fits(self, small: Queue[Any]) -> None:
        small.put_many([1, 2])

        with pytest.raises(Full):
            small.put_many([3, 4], timeout=0.01)

        assert small.qsize() == 2

    def test_put_many_waits_for_room(self, small: Queue[Any]) -> None:
        putter = background(small.put_many, range(10))

        assert [small.get() for _ in range(10)] == list(range(10))
        assert putter.result() == 10

    def test_put_many_reads_its_input_first(self, small: Queue[Any]) -> None:
        def failing() -> Iterator[int]:
            yield 1
            raise LookupError("no more")

        with pytest.raises(LookupError):
            small.put_many(failing())

        assert small.empty()

    def test_get_many_takes_what_is_there(self, queue: Queue[Any]) -> None:
        queue.put_many(range(5))

        assert queue.get_many(3) == [0, 1, 2]
        assert queue.get_many(100) == [3, 4]

    def test_get_many_waits_for_the_first_only(self, queue: Queue[Any]) -> None:
        getter = background(queue.get_many, 10)

        queue.put("one")

        assert getter.result() == ["one"]

    def test_get_many_raises_empty(self, queue: Queue[Any]) -> None:
        with pytest.raises(Empty):
            queue.get_many(3, timeout=0.01)

    def test_get_many_stops_before_too_many_bytes_but_takes_the_first(self, queue: Queue[Any]) -> None:
        queue.put_many([b"12345", b"12345", b"12345"])

        assert queue.get_many(10, max_bytes=12) == [b"12345", b"12345"]
        assert queue.get_many(10, max_bytes=1) == [b"12345"]

    @pytest.mark.parametrize("arguments", [(0,), (-1,), (1, -1)])
    def test_get_many_refuses_impossible_numbers(self, queue: Queue[Any], arguments: tuple[int, ...]) -> None:
        queue.put(1)

        with pytest.raises(ValueError, match="max_"):
            queue.get_many(*arguments)

        assert queue.qsize() == 1

    # -- Leases -------------------------------------------------------------------------------------------------------

    def test_ack_takes_a_leased_message_out(self, queue: Queue[Any]) -> None:
        self.need(queue, "lease")
        queue.put([1])

        lease = queue.lease()
        held = (lease.value, lease.attempt, lease.redelivered, queue.qsize(), queue.stats().leased)
        lease.ack()

        assert held == ([1], 0, False, 0, 1)
        assert (queue.qsize(), queue.stats().leased, queue.stats().gets) == (0, 0, 1)

    def test_a_leased_message_is_hidden_from_others(self, queue: Queue[Any]) -> None:
        self.need(queue, "lease")
        queue.put_many(["first", "second"])

        with queue.lease():
            assert queue.get() == "second"
            with pytest.raises(Empty):
                queue.get_nowait()
            with pytest.raises(Empty):
                queue.lease(block=False)

    def test_nack_gives_the_message_back_before_everything_younger(self, queue: Queue[Any]) -> None:
        self.need(queue, "lease")
        queue.put_many(range(4))

        leases = [queue.lease(), queue.lease(), queue.lease()]
        for number in (1, 0, 2):
            leases[number].nack()
        again = queue.lease()

        assert (again.value, again.attempt, again.redelivered) == (0, 1, True)
        again.ack()
        assert [queue.get() for _ in range(3)] == [1, 2, 3]
        assert queue.stats().redeliveries == 3

    def test_a_lease_acks_at_the_end_of_its_block(self, queue: Queue[Any]) -> None:
        self.need(queue, "lease")
        queue.put("work")

        with queue.receive() as lease:
            assert lease.value == "work"

        assert queue.empty()
        assert queue.stats().leased == 0

    def test_a_lease_gives_back_when_its_block_raises(self, queue: Queue[Any]) -> None:
        self.need(queue, "lease")
        queue.put("work")

        with pytest.raises(LookupError), queue.receive():
            raise LookupError("work failed")

        assert queue.get(timeout=0) == "work"

    def test_a_lease_that_is_dropped_gives_back(self, queue: Queue[Any]) -> None:
        self.need(queue, "lease")
        queue.put("work")
        lease = queue.lease()
        getter = background(queue.get)

        del lease
        gc.collect()

        assert getter.result() == "work"

    def test_a_lease_is_settled_once(self, queue: Queue[Any]) -> None:
        self.need(queue, "lease")
        queue.put("work")
        lease = queue.lease()
        lease.ack()

        with pytest.raises(ValueError, match="settled"):
            lease.nack()
        with pytest.raises(ValueError, match="settled"):
            lease.ack()

        assert queue.empty()

    def test_leased_messages_count_for_the_bound(self, small: Queue[Any]) -> None:
        self.need(small, "lease")
        small.put_many([1, 2])

        with small.lease():
            assert small.full()
            with pytest.raises(Full):
                small.put_nowait(3)
        small.put_nowait(3)

        assert [small.get(), small.get()] == [2, 3]

    def test_ack_makes_room_for_a_waiting_producer(self, small: Queue[Any]) -> None:
        self.need(small, "lease")
        small.put_many([1, 2])
        lease = small.lease()
        putter = background(small.put, 3)

        lease.ack()

        putter.result()
        assert [small.get(), small.get()] == [2, 3]

    def test_nack_wakes_a_waiting_consumer(self, queue: Queue[Any]) -> None:
        self.need(queue, "lease")
        queue.put("work")
        lease = queue.lease()
        getter = background(queue.get)

        lease.nack()

        assert getter.result() == "work"

    def test_clear_leaves_what_is_leased(self, queue: Queue[Any]) -> None:
        self.need(queue, "lease")
        queue.put_many(["held", "dropped"])
        lease = queue.lease()

        assert queue.clear() == 1

        lease.nack()
        assert queue.get(timeout=0) == "held"

    # -- Work done ----------------------------------------------------------------------------------------------------

    def test_join_returns_when_everything_was_worked_off(self, queue: Queue[Any]) -> None:
        self.need(queue, "joins")
        queue.put_many([1, 2])
        joining = background(queue.join)
        queue.get()
        queue.task_done()
        assert joining.is_waiting()
        with queue.receive():
            assert joining.is_waiting()

        joining.result()

    def test_task_done_too_often_is_a_value_error(self, queue: Queue[Any]) -> None:
        self.need(queue, "joins")

        with pytest.raises(ValueError, match="task_done"):
            queue.task_done()

    def test_kinds_that_do_not_count_say_so(self, queue: Queue[Any]) -> None:
        if queue.capabilities.joins:
            pytest.skip("this kind counts unfinished tasks")

        with pytest.raises(NotShareableError, match=r"lease\(\) and ack\(\)"):
            queue.join()
        with pytest.raises(NotShareableError, match=r"lease\(\) and ack\(\)"):
            queue.task_done()

    # -- Shutting down ------------------------------------------------------------------------------------------------

    def test_shutdown_refuses_puts_and_lets_gets_drain(self, queue: Queue[Any]) -> None:
        queue.put_many([1, 2])

        assert queue.shutdown() == 0

        for put in (lambda: queue.put(3), lambda: queue.put_nowait(3), lambda: queue.put_many([3])):
            with pytest.raises(ShutDown):
                put()
        assert [queue.get(), queue.get_many(5)] == [1, [2]]
        for take in (queue.get, queue.get_nowait, lambda: queue.get_many(2), queue.lease, queue.peek):
            with pytest.raises(ShutDown):
                take()

    def test_immediate_shutdown_drops_and_counts(self, queue: Queue[Any]) -> None:
        queue.put_many([1, 2])

        assert queue.shutdown(immediate=True) == 2

        with pytest.raises(ShutDown):
            queue.get()
        assert queue.qsize() == 0

    def test_shutdown_twice_does_nothing_more(self, queue: Queue[Any]) -> None:
        queue.shutdown()

        assert queue.shutdown() == 0
        assert queue.shutdown(immediate=True) == 0

    @pytest.mark.parametrize("immediate", [False, True])
    def test_shutdown_wakes_waiting_consumers(self, queue: Queue[Any], immediate: bool) -> None:
        waiting = [background(queue.get), background(queue.get), background(queue.get_many, 3)]

        queue.shutdown(immediate)

        for getter in waiting:
            with pytest.raises(ShutDown):
                getter.result()

    def test_shutdown_wakes_waiting_producers(self, small: Queue[Any]) -> None:
        small.put_many([1, 2])
        waiting = [background(small.put, 3), background(small.put_many, [3, 4])]

        small.shutdown()

        for putter in waiting:
            with pytest.raises(ShutDown):
                putter.result()
        assert [small.get(), small.get()] == [1, 2]

    def test_put_many_returns_its_prefix_when_shut_down_halfway(self, small: Queue[Any]) -> None:
        putter = background(small.put_many, [1, 2, 3])
        wait_for(small.full, "two of the three were put")

        small.shutdown()

        assert putter.result() == 2

    def test_a_message_given_back_after_shutdown_is_still_delivered(self, queue: Queue[Any]) -> None:
        self.need(queue, "lease")
        queue.put("work")
        lease = queue.lease()
        queue.shutdown()
        getter = background(queue.get)

        lease.nack()

        assert getter.result() == "work"
        with pytest.raises(ShutDown):
            queue.get()

    def test_the_last_ack_after_shutdown_ends_waiting_consumers(self, queue: Queue[Any]) -> None:
        self.need(queue, "lease")
        queue.put("work")
        lease = queue.lease()
        queue.shutdown()
        getter = background(queue.get)

        lease.ack()

        with pytest.raises(ShutDown):
            getter.result()

    def test_iteration_ends_with_the_shutdown(self, queue: Queue[Any]) -> None:
        queue.put_many([1, 2, 3])
        queue.shutdown()

        assert list(queue) == [1, 2, 3]

    # -- Handles ------------------------------------------------------------------------------------------------------

    def test_close_ends_this_handle_only(self, descriptor: Any, queue: Queue[Any]) -> None:
        other = descriptor.attach()
        queue.put("kept")

        queue.close()

        assert queue.closed
        assert not other.closed
        assert other.get(timeout=0) == "kept"
        other.close()

    def test_close_twice_does_nothing_more(self, queue: Queue[Any]) -> None:
        queue.close()
        queue.close()

        assert queue.closed

    def test_a_closed_handle_says_so(self, queue: Queue[Any]) -> None:
        queue.close()

        calls = (
            lambda: queue.put(1),
            lambda: queue.put_nowait(1),
            lambda: queue.put_many([1]),
            lambda: queue.put_many([]),
            queue.get,
            queue.get_nowait,
            lambda: queue.get_many(1),
            queue.lease,
            queue.peek,
            queue.clear,
            queue.qsize,
            queue.empty,
            queue.full,
            queue.stats,
            queue.shutdown,
        )
        for call in calls:
            with pytest.raises(QueueClosedError):
                call()

    def test_close_ends_waiting_calls_of_other_threads(self, descriptor: Any, small: Queue[Any]) -> None:
        empty = descriptor.open()
        small.put_many([1, 2])
        waiting = [background(empty.get), background(empty.get_many, 2), background(small.put, 3)]

        empty.close()
        small.close()

        for call in waiting:
            with pytest.raises(QueueClosedError):
                call.result()

    def test_close_gives_leases_back(self, descriptor: Any, queue: Queue[Any]) -> None:
        self.need(queue, "lease")
        other = descriptor.attach()
        queue.put("work")
        lease = queue.lease()

        queue.close()

        again = other.lease()
        assert (again.value, again.redelivered) == ("work", True)
        again.ack()
        with pytest.raises(QueueClosedError):
            lease.ack()
        other.close()

    def test_a_queue_closes_at_the_end_of_its_block(self, queue: Queue[Any]) -> None:
        with queue as entered:
            assert entered is queue

        assert queue.closed

    def test_an_open_queue_refuses_to_be_pickled(self, queue: Queue[Any]) -> None:
        with pytest.raises(NotShareableError, match="descriptor"):
            pickle.dumps(queue)

    def test_repr_names_the_kind(self, queue: Queue[Any]) -> None:
        assert type(queue).__name__ in repr(queue)
        queue.close()
        assert "closed" in repr(queue)

    # -- Threads ------------------------------------------------------------------------------------------------------

    def test_threads_lose_and_double_nothing_and_keep_each_producers_order(self, small: Queue[Any]) -> None:
        def produce(producer: int) -> None:
            for number in range(200):
                small.put([producer, number])

        def consume() -> list[Any]:
            return [message for message in small if message is not None]

        consumers = [background(consume) for _ in range(3)]
        producers = [background(produce, producer) for producer in range(3)]
        for producer in producers:
            producer.result()
        small.shutdown()
        taken = [consumer.result() for consumer in consumers]

        assert sorted(message for one in taken for message in one) == [
            [producer, number] for producer in range(3) for number in range(200)
        ]
        for one in taken:
            for who in range(3):
                numbers = [number for producer, number in one if producer == who]
                assert numbers == sorted(numbers)
