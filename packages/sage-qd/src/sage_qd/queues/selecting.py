"""
Waiting on several queues at once.

Up to 128 rings are watched together, by one system call. Otherwise each queue has a thread that waits in the queue's
own wait (:mod:`sage_qd.queues.turns`), shared by all calls that wait on it, and they learn by an event.
"""

import threading
from collections.abc import Iterable
from importlib import import_module
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from sage_qd.queues.base import Queue
from sage_qd.queues.turns import watch_of
from sage_qd.queues.waiting import deadline_of, remaining

if TYPE_CHECKING:
    from sage_qd.ring import Ring

__all__ = ["wait"]

MOST_RINGS: Final = 128


def wait(queues: Iterable[Queue[Any]], timeout: float | None = None) -> list[Queue[Any]]:
    """
    Wait until a get on at least one of the queues has an answer: a message, or ``ShutDown``.

    Somebody else may be faster, so follow it with ``get_nowait``. The queues may be of different kinds.

    Args:
        queues: At least one open queue.
        timeout: Seconds to wait; ``None`` waits without end.

    Returns:
        Those that are ready, in the order given; empty when the time ran out.

    Raises:
        ValueError: There is no queue to wait for.
        TypeError: One of them is no queue.
        QueueClosedError: One of them was closed.
    """
    watched = list(queues)
    if not watched:
        raise ValueError("wait takes at least one queue")
    for queue in watched:
        if not isinstance(queue, Queue):
            raise TypeError(f"wait takes queues, not {queue!r}")
    deadline = deadline_of(True, timeout)
    if len(watched) == 1:
        return watched if watched[0].wait_message(timeout) else []
    if ready := _ready(watched):
        return ready
    if rings := _rings_of(watched):
        while not (ready := _ready(watched)) and monotonic() < deadline:
            import_module("sage_qd.ring").wait(rings, remaining(deadline))  # whoever has one has loaded it
        return ready
    event = threading.Event()
    while True:
        watches = [watch_of(queue, "wait_message") for queue in watched]
        try:
            for watch in watches:
                watch.listen(event)
            if (ready := _ready(watched)) or monotonic() >= deadline:
                return ready
            event.wait(remaining(deadline))
            event.clear()
        finally:
            for watch in watches:
                watch.forget(event)


def _rings_of(queues: list[Queue[Any]]) -> list["Ring"] | None:
    """The rings under all of the queues; None when one has no ring, or was moved, or there are too many."""
    found: list[Ring] = [ring for queue in queues if (ring := getattr(queue, "ring", None)) is not None]
    if len(found) < len(queues) or len(found) > MOST_RINGS or any(ring.is_sealed() for ring in found):
        return None
    return found


def _ready(queues: list[Queue[Any]]) -> list[Queue[Any]]:
    """Those where a get would have an answer now."""
    return [queue for queue in queues if queue.wait_message(0)]
