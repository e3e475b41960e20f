"""Messages on trial, and work that is counted, told as tests."""

# ruff: noqa: D102  (the name of a test is its documentation)

import gc
from typing import Any

import pytest

from sage_qd.errors import Empty, Full, NotShareableError, PayloadError
from sage_qd.queues.base import Queue
from sage_qd.testing.opening import OpensQueues, put_undecodable
from sage_qd.testing.watching import background

__all__ = ["LeaseRules"]


class LeaseRules(OpensQueues):
    """Rules of leases, task_done and join."""

    # -- Leases --------------------------------------------------------------------------------------------------------

    def test_ack_takes_a_leased_message_out(self, queue: Queue[Any]) -> None:
        self.need(queue, "lease")
        queue.put([1])

        lease = queue.lease()
        held = (lease.value, lease.attempt, lease.redelivered, queue.qsize(), queue.stats().leased)
        lease.ack()

        assert held == ([1], 0, False, 0, 1)
        assert (queue.qsize(), queue.stats().leased, queue.stats().gets) == (0, 0, 1)

    def test_a_leased_message_that_cannot_be_decoded_can_be_acked(self, queue: Queue[Any]) -> None:
        self.need(queue, "lease")
        put_undecodable(queue)

        lease = queue.lease()
        with pytest.raises(PayloadError):
            _ = lease.value
        lease.ack()

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

    # -- Work done -----------------------------------------------------------------------------------------------------

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
