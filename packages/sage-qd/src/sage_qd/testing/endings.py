"""Shutting down, closing, and many threads at once, told as tests."""

# ruff: noqa: D102  (the name of a test is its documentation)

import pickle
from typing import Any

import pytest

from sage_qd.errors import NotShareableError, QueueClosedError, ShutDown
from sage_qd.queues.base import Queue
from sage_qd.testing.opening import OpensQueues
from sage_qd.testing.watching import background, wait_for

__all__ = ["EndingRules"]


class EndingRules(OpensQueues):
    """Rules of shutdown, close and handles."""

    # -- Shutting down -------------------------------------------------------------------------------------------------

    def test_shutdown_refuses_puts_and_lets_gets_drain(self, queue: Queue[Any]) -> None:
        queue.put_many([1, 2])
        assert not queue.is_shutdown

        assert queue.shutdown() == 0

        assert queue.is_shutdown
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

    # -- Handles -------------------------------------------------------------------------------------------------------

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

    # -- Threads -------------------------------------------------------------------------------------------------------

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
