"""Queues in asyncio, told as tests."""

# ruff: noqa: D102  (the name of a test is its documentation)

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pytest

from sage_qd.errors import Empty, Full, ShutDown
from sage_qd.queues.base import Queue
from sage_qd.testing.opening import OpensQueues
from sage_qd.testing.watching import PATIENCE_SECONDS

__all__ = ["AsyncRules"]

R = TypeVar("R")


def in_loop(work: Callable[[], Awaitable[R]]) -> R:
    """Run a coroutine to its end, with a watchdog."""

    async def bounded() -> R:
        return await asyncio.wait_for(work(), PATIENCE_SECONDS)

    return asyncio.run(bounded())


async def started(*calls: Any) -> list[asyncio.Task[Any]]:
    """Start coroutines and let each run until it waits."""
    tasks = [asyncio.ensure_future(call) for call in calls]
    for _ in range(10):
        await asyncio.sleep(0)
    return tasks


class AsyncRules(OpensQueues):
    """Rules of the asyncio face."""

    def test_aget_waits_for_a_message_and_lets_the_loop_run(self, queue: Queue[Any]) -> None:
        async def work() -> Any:
            (getter,) = await started(queue.aget())
            assert not getter.done()
            await queue.aput("late")
            return await getter

        assert in_loop(work) == "late"

    def test_aput_waits_for_room_and_lets_the_loop_run(self, small: Queue[Any]) -> None:
        async def work() -> list[Any]:
            assert await small.aput_many([1, 2]) == 2
            (putter,) = await started(small.aput(3))
            assert not putter.done()
            first = await small.aget()
            await putter
            return [first, *await small.aget_many(5)]

        assert in_loop(work) == [1, 2, 3]

    def test_aput_many_goes_on_when_there_is_room_again(self, small: Queue[Any]) -> None:
        async def work() -> tuple[int, list[Any]]:
            (putter,) = await started(small.aput_many([1, 2, 3, 4, 5]))
            taken = [await small.aget() for _ in range(5)]
            return await putter, taken

        assert in_loop(work) == (5, [1, 2, 3, 4, 5])

    def test_aput_many_tells_what_was_put_before_a_seal(self, small: Queue[Any]) -> None:
        self.need(small, "movable")
        small.follow(None)

        async def work() -> int:
            (putter,) = await started(small.aput_many([1, 2, 3]))
            while not small.full():
                await asyncio.sleep(0)
            small.seal('{"stands for": "a descriptor"}')
            return int(await putter)

        assert in_loop(work) == 2
        assert small.get_many(5) == [1, 2]

    def test_a_timeout_in_asyncio_raises_as_it_does_elsewhere(self, small: Queue[Any]) -> None:
        async def work() -> None:
            with pytest.raises(Empty):
                await small.aget(timeout=0.01)
            with pytest.raises(Empty):
                await small.aget(timeout=0)
            await small.aput_many([1, 2])
            with pytest.raises(Full):
                await small.aput(3, timeout=0.01)
            with pytest.raises(Full):
                await small.aput_many([3, 4], timeout=0.01)

        in_loop(work)
        assert small.qsize() == 2

    def test_a_cancelled_aget_takes_nothing(self, queue: Queue[Any]) -> None:
        async def work() -> Any:
            cancelled, waiting = await started(queue.aget(), queue.aget())
            cancelled.cancel()
            await asyncio.gather(cancelled, return_exceptions=True)
            queue.put("for the other")
            return await waiting

        assert in_loop(work) == "for the other"
        assert queue.qsize() == 0

    def test_aget_cancelled_while_messages_come_loses_none(self, queue: Queue[Any]) -> None:
        total = 200
        taken: list[Any] = []

        async def taker() -> None:
            while True:
                taken.append(await queue.aget())

        async def work() -> None:
            producer = threading.Thread(target=lambda: [queue.put(number) for number in range(total)], daemon=True)
            producer.start()
            while len(taken) < total:
                task = asyncio.ensure_future(taker())
                await asyncio.sleep(0.001)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
            producer.join()

        in_loop(work)
        assert taken == list(range(total))

    def test_each_message_goes_to_one_of_many_that_await(self, queue: Queue[Any]) -> None:
        async def work() -> list[Any]:
            getters = await started(*(queue.aget() for _ in range(20)))
            await queue.aput_many(list(range(20)))
            return await asyncio.gather(*getters)

        assert sorted(in_loop(work)) == list(range(20))

    def test_one_thread_waits_for_all_that_await(self, queue: Queue[Any]) -> None:
        async def work() -> int:
            before = threading.active_count()
            getters = await started(*(queue.aget() for _ in range(50)))
            added = threading.active_count() - before
            for getter in getters:
                getter.cancel()
            await asyncio.gather(*getters, return_exceptions=True)
            return added

        assert in_loop(work) <= 2

    def test_shutdown_ends_what_awaits(self, queue: Queue[Any]) -> None:
        async def work() -> None:
            leases = [queue.alease()] if queue.capabilities.lease else []
            getters = await started(queue.aget(), *leases)
            queue.shutdown()
            for getter in getters:
                with pytest.raises(ShutDown):
                    await getter

        in_loop(work)

    def test_async_iteration_ends_with_the_shutdown(self, queue: Queue[Any]) -> None:
        queue.put_many([1, 2, 3])
        queue.shutdown()

        async def work() -> list[Any]:
            return [message async for message in queue]

        assert in_loop(work) == [1, 2, 3]

    def test_areceive_is_acked_or_given_back(self, queue: Queue[Any]) -> None:
        self.need(queue, "lease")
        queue.put_many(["a", "b"])

        async def work() -> None:
            with await queue.areceive() as lease:
                assert lease.value == "a"
            with pytest.raises(ZeroDivisionError), await queue.areceive():
                raise ZeroDivisionError

        in_loop(work)
        assert queue.get(timeout=PATIENCE_SECONDS) == "b"
