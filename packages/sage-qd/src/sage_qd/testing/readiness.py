"""Waiting without taking, lingering, and looking at messages in place, told as tests."""

# ruff: noqa: D102  (the name of a test is its documentation)

import uuid
from typing import Any

import pytest

from sage_qd.descriptors.migration import migrate
from sage_qd.errors import Empty, NotShareableError, QueueClosedError, QueueMovedError, ShutDown
from sage_qd.queues.base import Queue
from sage_qd.testing.opening import OpensQueues
from sage_qd.testing.watching import PATIENCE_SECONDS, background, wait_for

__all__ = ["ReadinessRules"]

SUCCESSOR = '{"stands for": "a descriptor"}'


class ReadinessRules(OpensQueues):
    """Rules of ``wait_message``, ``wait_room``, ``linger``, ``view`` and ``seal``."""

    def test_wait_message_says_whether_there_is_one(self, queue: Queue[Any]) -> None:
        assert not queue.wait_message(timeout=0)
        assert not queue.wait_message(timeout=0.01)
        queue.put("here")

        assert queue.wait_message(timeout=0)
        assert queue.wait_message()
        assert queue.get() == "here"

    def test_wait_message_wakes_for_a_message(self, queue: Queue[Any]) -> None:
        waiting = background(queue.wait_message)

        queue.put("late")

        assert waiting.result() is True
        assert queue.get() == "late"

    def test_wait_room_says_whether_there_is_some(self, small: Queue[Any]) -> None:
        assert small.wait_room(timeout=0)
        small.put_many([1, 2])

        assert not small.wait_room(timeout=0.01)
        waiting = background(small.wait_room)
        small.get()
        assert waiting.result() is True

    def test_shutdown_answers_both_waits(self, small: Queue[Any]) -> None:
        small.put_many([1, 2])
        waiting = background(small.wait_room)

        small.shutdown()

        assert waiting.result() is True
        small.clear()
        assert small.wait_message() is True

    def test_close_ends_a_wait(self, queue: Queue[Any]) -> None:
        waiting = background(queue.wait_message)
        wait_for(waiting.is_waiting, "it waits")

        queue.close()

        with pytest.raises(QueueClosedError):
            waiting.result()

    def test_linger_collects_until_the_batch_is_full(self, queue: Queue[Any]) -> None:
        queue.put(1)
        getter = background(lambda: queue.get_many(3, linger=PATIENCE_SECONDS))
        queue.put(2)
        queue.put(3)
        queue.put(4)

        assert getter.result() == [1, 2, 3]
        assert queue.get() == 4

    def test_linger_ends_with_its_time(self, queue: Queue[Any]) -> None:
        queue.put_many(["a", "b"])

        assert queue.get_many(5, linger=0.01) == ["a", "b"]

    def test_linger_does_not_prolong_the_wait_for_the_first(self, queue: Queue[Any]) -> None:
        with pytest.raises(Empty):
            queue.get_many(5, timeout=0, linger=PATIENCE_SECONDS)

    def test_linger_collects_after_a_first_that_was_not_waited_for(self, queue: Queue[Any]) -> None:
        queue.put(1)
        getter = background(lambda: queue.get_many(3, timeout=0, linger=PATIENCE_SECONDS))
        wait_for(queue.empty, "the first was taken")
        queue.put_many([2, 3])

        assert getter.result() == [1, 2, 3]

    def test_linger_ends_with_the_shutdown(self, queue: Queue[Any]) -> None:
        queue.put("a")
        getter = background(lambda: queue.get_many(5, linger=PATIENCE_SECONDS))
        wait_for(queue.empty, "the first was taken")

        queue.shutdown()

        assert getter.result() == ["a"]

    @pytest.mark.parametrize("bad", [{"timeout": float("nan")}, {"linger": float("nan")}, {"max_bytes": -1}])
    def test_malformed_batches_change_nothing(self, queue: Queue[Any], bad: dict[str, Any]) -> None:
        queue.put("stays")

        with pytest.raises(ValueError, match=r"nan|max_bytes"):
            queue.get_many(2, **bad)

        assert queue.qsize() == 1

    def test_a_view_shows_bytes_in_place(self, queue: Queue[Any]) -> None:
        if not queue.capabilities.views:
            with pytest.raises(NotShareableError):
                queue.view(False)
            return
        queue.put(b"in place")

        with queue.view() as lease:
            assert isinstance(lease.value, memoryview)
            assert lease.value.readonly
            assert bytes(lease.value) == b"in place"

        assert queue.qsize() == 0

    # -- Moving --------------------------------------------------------------------------------------------------------

    def test_a_sealed_queue_refuses_puts_at_once_and_gets_when_drained(self, queue: Queue[Any]) -> None:
        self.need(queue, "movable")
        queue.follow(None)
        queue.put_many([1, 2])

        assert queue.successor() is None
        assert queue.seal(SUCCESSOR) == 2
        assert queue.successor() == SUCCESSOR

        for put in (lambda: queue.put(3), lambda: queue.put_nowait(3), lambda: queue.put_many([3])):
            with pytest.raises(QueueMovedError) as caught:
                put()
            assert caught.value.successor == SUCCESSOR
        assert [queue.get(), queue.get_many(5)] == [1, [2]]
        for take in (queue.get, queue.get_nowait, lambda: queue.get_many(2), queue.lease, queue.peek):
            with pytest.raises(QueueMovedError) as caught:
                take()
            assert caught.value.successor == SUCCESSOR

    def test_a_seal_in_the_middle_of_a_batch_tells_what_was_put(self, small: Queue[Any]) -> None:
        self.need(small, "movable")
        small.follow(None)
        putter = background(small.put_many, [1, 2, 3])
        wait_for(small.full, "two were put")

        small.seal(SUCCESSOR)

        assert putter.result() == 2
        with pytest.raises(QueueMovedError):
            small.put_many([3])
        assert small.get_many(5) == [1, 2]

    def test_a_batch_that_waits_goes_on_where_the_queue_is_moved(self) -> None:
        source, target = (self.make_descriptor(queue_id=f"contract-{uuid.uuid4().hex}", maxsize=2) for _ in range(2))
        queue = source.open()
        try:
            self.need(queue, "movable")
            taker, late = source.attach(), source.attach()
            putter = background(queue.put_many, iter(range(8)))
            wait_for(taker.full, "two were put")

            migrate(source, target, timeout=0)

            assert [taker.get(timeout=PATIENCE_SECONDS) for _ in range(8)] == list(range(8))
            assert putter.result() == 8
            assert late.put_many(iter([8, 9])) == 2
            assert taker.get_many(2) == [8, 9]
            for each in (taker, late):
                each.close()
        finally:
            source.close()
            target.close()

    def test_a_seal_wakes_those_who_wait(self, queue: Queue[Any], small: Queue[Any]) -> None:
        self.need(queue, "movable")
        queue.follow(None)
        small.follow(None)
        small.put_many([1, 2])
        waiting = [background(queue.get), background(small.put, 3)]

        queue.seal(SUCCESSOR)
        small.seal(SUCCESSOR)

        for call in waiting:
            with pytest.raises(QueueMovedError):
                call.result()

    def test_a_sealed_queue_waits_for_its_leases(self, queue: Queue[Any]) -> None:
        self.need(queue, "movable")
        self.need(queue, "lease")
        queue.follow(None)
        queue.put("held")
        lease = queue.lease()
        assert queue.seal(SUCCESSOR) == 1
        getter = background(queue.get)
        wait_for(getter.is_waiting, "it waits for what is out on lease")

        lease.nack()

        assert getter.result() == "held"
        with pytest.raises(QueueMovedError):
            queue.get()

    def test_a_queue_is_sealed_once_and_not_after_its_shutdown(self, queue: Queue[Any], small: Queue[Any]) -> None:
        self.need(queue, "movable")
        queue.follow(None)
        small.follow(None)
        queue.seal(SUCCESSOR)
        small.shutdown()

        with pytest.raises(QueueMovedError):
            queue.seal("another")
        with pytest.raises(ShutDown):
            small.seal(SUCCESSOR)

    def test_another_handle_sees_the_seal(self, descriptor: Any) -> None:
        queue = descriptor.open()
        self.need(queue, "movable")
        queue.follow(None)
        other = descriptor.attach()
        other.follow(None)

        queue.seal(SUCCESSOR)

        with pytest.raises(QueueMovedError) as caught:
            other.put("too late")
        assert caught.value.successor == SUCCESSOR
        other.close()
