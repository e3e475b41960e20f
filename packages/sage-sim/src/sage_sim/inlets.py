"""The way in: one message at a time from all the queues that feed a process, none of them before the others."""

from __future__ import annotations

from collections.abc import Mapping
from time import monotonic, sleep
from typing import cast

from sage_qd import Empty, Queue, ShutDown, wait
from sage_sim.channels import Channel, Taken, is_own

_POLL_SECONDS = 0.002
"""How long to rest when nothing came and one of the queues is of a kind that cannot be waited for with others."""
_WAIT_TOGETHER = 128


class Inlets:
    """
    Queues from which one process takes in turn.

    Args:
        queues: By their index in the topology; at least one.
    """

    def __init__(self, queues: Mapping[int, Channel]) -> None:
        self._open = list(queues.items())
        self._at = 0
        self._waits = all(is_own(queue) for queue in queues.values()) and len(queues) <= _WAIT_TOGETHER

    def take(self, timeout: float | None = None) -> tuple[int, Taken]:
        """
        Take the next message, waiting for it.

        Args:
            timeout: Seconds to wait; None waits without end.

        Raises:
            ShutDown: All queues are, and nothing is left.
            Empty: Nothing came in time.
        """
        deadline = None if timeout is None else monotonic() + timeout
        while True:
            if len(self._open) == 1:
                line, queue = self._open[0]
                return line, queue.lease(True, timeout)
            found = self._from_any()
            if found is not None:
                return found
            if not self._open:
                raise ShutDown
            left = None if deadline is None else deadline - monotonic()
            if left is not None and left <= 0:
                raise Empty
            if self._waits:
                wait([cast("Queue[object]", queue) for _, queue in self._open], left)
            else:
                sleep(_POLL_SECONDS)

    def _from_any(self) -> tuple[int, Taken] | None:
        """Look once at each, beginning after the one that had a message last."""
        for _ in range(len(self._open)):
            self._at = (self._at + 1) % len(self._open)
            line, queue = self._open[self._at]
            try:
                return line, queue.lease(False)
            except Empty:
                continue
            except ShutDown:
                del self._open[self._at]
                self._at -= 1
                if not self._open:
                    return None
        return None
