"""The verbs of a queue, on its descriptor."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, Final

from sage_qd.queues.base import Lease, Queue, QueueStats

__all__ = ["QUEUE_VERBS", "QueueVerbs"]

QUEUE_VERBS: Final = (
    "put",
    "put_nowait",
    "put_many",
    "get",
    "get_nowait",
    "get_many",
    "lease",
    "receive",
    "view",
    "wait_message",
    "wait_room",
    "aput",
    "aput_many",
    "aget",
    "aget_many",
    "alease",
    "areceive",
    "peek",
    "clear",
    "qsize",
    "empty",
    "full",
    "stats",
    "shutdown",
    "task_done",
    "join",
)


class QueueVerbs(ABC):
    """Open the queue when one of its verbs is first used; from then on the queue's own methods stand here instead."""

    @abstractmethod
    def open(self, create: bool | None = None) -> Queue[Any]:
        """Return the live queue."""

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Append one message; see :meth:`Queue.put`."""
        self.open().put(item, block, timeout)

    def put_nowait(self, item: Any) -> None:
        """Append one message without waiting."""
        self.open().put_nowait(item)

    def put_many(self, items: Iterable[Any], timeout: float | None = None) -> int:
        """Append many messages; see :meth:`Queue.put_many`."""
        return self.open().put_many(items, timeout)

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Take the oldest message; see :meth:`Queue.get`."""
        return self.open().get(block, timeout)

    def get_nowait(self) -> Any:
        """Take the oldest message without waiting."""
        return self.open().get_nowait()

    def get_many(
        self, max_items: int, max_bytes: int | None = None, timeout: float | None = None, linger: float = 0
    ) -> list[Any]:
        """Take what is there; see :meth:`Queue.get_many`."""
        return self.open().get_many(max_items, max_bytes, timeout, linger)

    def lease(self, block: bool = True, timeout: float | None = None) -> Lease[Any]:
        """Take the oldest message on trial; see :meth:`Queue.lease`."""
        return self.open().lease(block, timeout)

    def receive(self, block: bool = True, timeout: float | None = None) -> Lease[Any]:
        """Take the oldest message on trial; see :meth:`Queue.lease`."""
        return self.open().lease(block, timeout)

    def view(self, block: bool = True, timeout: float | None = None) -> Lease[Any]:
        """Look at the oldest message in place; see :meth:`Queue.view`."""
        return self.open().view(block, timeout)

    def wait_message(self, timeout: float | None = None) -> bool:
        """Wait until a get has an answer; see :meth:`Queue.wait_message`."""
        return self.open().wait_message(timeout)

    def wait_room(self, timeout: float | None = None) -> bool:
        """Wait until a put has an answer; see :meth:`Queue.wait_room`."""
        return self.open().wait_room(timeout)

    async def aput(self, item: Any, timeout: float | None = None) -> None:
        """Put in asyncio; see :meth:`Queue.aput`."""
        await self.open().aput(item, timeout)

    async def aput_many(self, items: Iterable[Any], timeout: float | None = None) -> int:
        """Put many in asyncio; see :meth:`Queue.aput_many`."""
        return await self.open().aput_many(items, timeout)

    async def aget(self, timeout: float | None = None) -> Any:
        """Take in asyncio; see :meth:`Queue.aget`."""
        return await self.open().aget(timeout)

    async def aget_many(self, max_items: int, max_bytes: int | None = None, timeout: float | None = None) -> list[Any]:
        """Take what is there in asyncio; see :meth:`Queue.aget_many`."""
        return await self.open().aget_many(max_items, max_bytes, timeout)

    async def alease(self, timeout: float | None = None) -> Lease[Any]:
        """Lease in asyncio; see :meth:`Queue.alease`."""
        return await self.open().alease(timeout)

    async def areceive(self, timeout: float | None = None) -> Lease[Any]:
        """Lease in asyncio; see :meth:`Queue.areceive`."""
        return await self.open().areceive(timeout)

    def peek(self) -> Any:
        """Look at the oldest message; see :meth:`Queue.peek`."""
        return self.open().peek()

    def clear(self) -> int:
        """Drop every message that nobody holds, and return how many."""
        return self.open().clear()

    def qsize(self) -> int:
        """Messages that could be taken now."""
        return self.open().qsize()

    def empty(self) -> bool:
        """Whether nothing can be taken now."""
        return self.open().empty()

    def full(self) -> bool:
        """Whether a put would have to wait now."""
        return self.open().full()

    def stats(self) -> QueueStats:
        """Counters since the queue was made."""
        return self.open().stats()

    def shutdown(self, immediate: bool = False) -> int:
        """End the queue for everybody; see :meth:`Queue.shutdown`."""
        return self.open().shutdown(immediate)

    def task_done(self) -> None:
        """Say that a message taken by get is worked off; see :meth:`Queue.task_done`."""
        self.open().task_done()

    def join(self) -> None:
        """Wait until every message ever put was worked off; see :meth:`Queue.join`."""
        self.open().join()
