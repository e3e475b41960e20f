"""The queue of the backend ``python``: between the threads of one process, old or new, and moved while it is used."""

import threading
import uuid
from collections.abc import Callable
from time import monotonic
from typing import Any

from sage_compat import lines
from sage_compat.legacy.thread_queue import ThreadQueue
from sage_compat.rules import decide
from sage_qd import BaseQueueDescriptor, Empty, Full, LocalQueueDescriptor, QueueClosedError, QueueMovedError

__all__ = ["ThreadLine"]


class ThreadLine:
    """
    A queue with the words of ``queue.Queue``. Safe in threads.

    Args:
        name: What rules match; the queue is shared with nobody through it.
        maxsize: Most messages; 0 or less for no bound.
    """

    def __init__(self, name: str, maxsize: int = 0) -> None:
        if isinstance(maxsize, bool) or not isinstance(maxsize, int):
            raise TypeError(f"maxsize must be a whole number, not {maxsize!r}")
        self.name = name
        self.maxsize = maxsize
        self._mutex = threading.Lock()
        self._is_new = decide(name).is_new
        self._queues: list[Any] = [self._made()]
        self._bind()
        lines.register(self)

    def _made(self) -> Any:
        if not self._is_new:
            return ThreadQueue(self.maxsize)
        queue = LocalQueueDescriptor(queue_id=f"{self.name}-{uuid.uuid4().hex[:8]}", maxsize=self.maxsize).open()
        queue.follow(None)
        return queue

    def _bind(self) -> None:
        """Let ``put`` and ``get`` be functions of this object: with nothing to look up, they cost the least."""
        queue_put, queue_get = self._queues[-1].put, self._queues[0].get
        put_slowly, get_slowly = self._put, self._get

        def put(item: Any, block: bool = True, timeout: float | None = None) -> None:
            if timeout is not None:
                return put_slowly(item, block, timeout)
            try:
                queue_put(item, block)
            except (QueueMovedError, QueueClosedError, Full):
                put_slowly(item, block)
            return None

        def get(block: bool = True, timeout: float | None = None) -> Any:
            if timeout is not None:
                return get_slowly(block, timeout)
            try:
                return queue_get(block)
            except (QueueMovedError, QueueClosedError, Empty):
                return get_slowly(block)

        vars(self).update(put=put, get=get)

    def apply_mode(self) -> None:
        """Move to the way that the rules give now."""
        is_new = decide(self.name).is_new
        with self._mutex:
            if is_new == self._is_new:
                return
            self._is_new = is_new
            before = self._queues[-1]
            self._queues.append(self._made())
            self._bind()
            before.seal("the next one")  # whoever meets it finds the next one in place

    @property
    def is_new(self) -> bool:
        """Whether messages are put into a queue of the new way."""
        return self._is_new

    @property
    def descriptor(self) -> BaseQueueDescriptor | None:
        """The descriptor of the queue where messages are put; None on the old path, which has none."""
        return getattr(self._queues[-1], "descriptor", None)

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Append a message, as ``queue.Queue`` does."""
        self._put(item, block, timeout)  # each object has its own, see _bind(); here for readers

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Take the oldest message, as ``queue.Queue`` does."""
        return self._get(block, timeout)  # likewise

    def _put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        started = None if timeout is None else _start(block and self.maxsize > 0, timeout)
        while True:
            try:
                self._queues[-1].put(item, block, None if started is None else _left(timeout, started))
            except (QueueMovedError, QueueClosedError):
                continue  # the next one was there before the seal
            except Full:
                raise Full from None  # without a text, as ever
            return

    def _get(self, block: bool = True, timeout: float | None = None) -> Any:
        started = None if timeout is None else _start(block, timeout)
        while True:
            queue = self._queues[0]
            try:
                return queue.get(block, None if started is None else _left(timeout, started))
            except Empty:
                raise Empty from None  # without a text, as ever
            except (QueueMovedError, QueueClosedError):
                with self._mutex:
                    if self._queues[0] is queue:
                        self._queues.pop(0).close()
                        self._bind()

    def put_nowait(self, item: Any) -> None:
        """Append without waiting."""
        self.put(item, block=False)

    def get_nowait(self) -> Any:
        """Take without waiting."""
        return self.get(block=False)

    def qsize(self) -> int:
        """Messages in the queue."""
        return int(sum(self._of_each(lambda queue: queue.qsize())))

    def _of_each(self, look: Callable[[Any], Any]) -> list[Any]:
        with self._mutex:
            return [look(queue) for queue in self._queues]

    def empty(self) -> bool:
        """Whether there is nothing to take."""
        return not self.qsize()

    def full(self) -> bool:
        """Whether a put would have to wait."""
        return bool(self._queues[-1].full())


def _start(counts: bool, timeout: float) -> float:
    if counts and timeout < 0:
        raise ValueError("'timeout' must be a non-negative number")
    return monotonic()


def _left(timeout: float | None, started: float) -> float | None:
    return None if timeout is None else max(timeout - (monotonic() - started), 0)
