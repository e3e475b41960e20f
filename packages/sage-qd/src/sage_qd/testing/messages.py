"""What goes in comes out: messages, waiting, bounds and batches, told as tests."""

# ruff: noqa: D102  (the name of a test is its documentation)

import math
import pickle
import threading
import time
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest

from sage_qd.errors import Empty, Full, PayloadError
from sage_qd.queues.base import Queue
from sage_qd.testing.opening import OpensQueues, put_undecodable
from sage_qd.testing.watching import background

__all__ = ["MessageRules"]


class MessageRules(OpensQueues):
    """Rules of put and get."""

    # -- Messages ------------------------------------------------------------------------------------------------------

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

    # -- Waiting -------------------------------------------------------------------------------------------------------

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

    # -- Bound and inspection ------------------------------------------------------------------------------------------

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

    # -- Batches -------------------------------------------------------------------------------------------------------

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

    def test_put_of_what_the_codec_does_not_take_leaves_the_queue_as_it_was(self, queue: Queue[Any]) -> None:
        if queue.capabilities.same_object:
            pytest.skip("this kind takes any object")
        queue.put("before")

        with pytest.raises((TypeError, ValueError, pickle.PicklingError)):
            queue.put(threading.Lock())
        with pytest.raises((TypeError, ValueError, pickle.PicklingError)):
            queue.put_many(["fine", threading.Lock()])

        assert queue.qsize() == 1
        assert queue.get() == "before"

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

    def test_get_many_loses_no_message_around_those_that_cannot_be_decoded(self, queue: Queue[Any]) -> None:
        put_undecodable(queue)
        queue.put("between")
        put_undecodable(queue)
        put_undecodable(queue)

        messages, failures = [], []
        while not queue.empty():
            try:
                messages += queue.get_many(10)
            except PayloadError as error:
                failures += [error, *(each for each in error.items if isinstance(each, PayloadError))]
                messages += [each for each in error.items if not isinstance(each, PayloadError)]

        assert messages == ["between"]
        assert len(failures) == 3
        assert all(failure.payload for failure in failures)

    @pytest.mark.parametrize("arguments", [(0,), (-1,), (1, -1)])
    def test_get_many_refuses_impossible_numbers(self, queue: Queue[Any], arguments: tuple[int, ...]) -> None:
        queue.put(1)

        with pytest.raises(ValueError, match="max_"):
            queue.get_many(*arguments)

        assert queue.qsize() == 1
