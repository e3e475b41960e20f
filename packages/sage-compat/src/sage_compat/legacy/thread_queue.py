"""The old path between threads: the standard library's queue, which can be sealed so that its users go elsewhere."""

import queue
from typing import Any, Final

from sage_qd.errors import QueueMovedError

__all__ = ["ThreadQueue"]

_NO_BOUND: Final = 1 << 62


class ThreadQueue(queue.Queue[Any]):
    """
    ``queue.Queue`` with one addition: :meth:`seal`.

    From the seal on, put raises ``QueueMovedError``, and get does once everything was taken; calls that wait notice.
    """

    _successor: str | None = None

    def seal(self, successor: str) -> int:
        """Send everybody elsewhere; return how many messages were left. They are taken from here."""
        with self.mutex:
            if self._successor is not None:
                raise QueueMovedError(name=None, successor=self._successor)
            self._successor = successor
            self.maxsize = _NO_BOUND  # whoever waits for room comes to _put
            self.not_full.notify_all()
            self.not_empty.notify_all()
            return len(self.queue)

    def successor(self) -> str | None:
        """What it was sealed with."""
        return self._successor

    def close(self) -> None:
        """Do nothing, as ever: the queue lives with its references."""

    def qsize(self) -> int:
        """Messages in the queue."""
        with self.mutex:
            return len(self.queue)

    def empty(self) -> bool:
        """Whether there are none."""
        return not self.qsize()

    # The standard library calls these with its mutex. `_qsize` decides whether get waits, so a sealed queue that is
    # empty says that there is something, and `_get` then says what.

    def _qsize(self) -> int:
        return len(self.queue) or (self._successor is not None)

    def _put(self, item: Any) -> None:
        self._check_not_sealed()
        super()._put(item)

    def _get(self) -> Any:
        if not self.queue:
            self._check_not_sealed()
        return super()._get()

    def _check_not_sealed(self) -> None:
        if self._successor is not None:
            raise QueueMovedError(name=None, successor=self._successor)
