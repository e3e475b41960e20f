"""
Waiting in asyncio: one thread for each side of a queue that anybody awaits, however many await it.

The thread sleeps in the queue's own wait. When there is something, it gives the *turn* to the call that has waited
longest; that call tries in its event loop, with a step that does not wait, and passes the turn back. So nothing is ever
taken for a call that was cancelled, and one message wakes one call.
"""

import asyncio
import os
import threading
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Any, Final, TypeVar

from sage_qd.errors import Empty, Full

__all__ = ["Watch", "attempts", "watch_of"]

R = TypeVar("R")

SLICE_SECONDS: Final = 0.5
"""How long the thread waits before it looks whether anybody still awaits."""
IDLE_SECONDS: Final = 5.0
"""How long the thread stays when nobody does."""


async def attempts(owner: Any, wait: str, step: Callable[[], R], deadline: float) -> R:
    """
    Do a step until it raises neither ``Empty`` nor ``Full``, letting the event loop run in between.

    Args:
        owner: The queue; its watches are kept on it.
        wait: Name of the queue's method that waits until the step is worth trying; asked for again each time, since
            another one stands there once the queue was moved.
        step: What to do; it must not wait.
        deadline: When to give up, on the clock of ``time.monotonic``; the step is done once at least.
    """
    try:
        return step()
    except (Empty, Full):
        if deadline <= monotonic():
            raise
    while True:
        watch = watch_of(owner, wait)
        turn = Turn()
        try:
            await _within(turn, watch, deadline)
            return step()
        except (Empty, Full):
            if deadline <= monotonic():
                raise
        finally:
            watch.give_back(turn)


async def _within(turn: "Turn", watch: "Watch", deadline: float) -> None:
    """Wait for the turn, at most until the deadline; the step that follows finds out what is the case."""
    watch.queue_up(turn)
    delay = deadline - monotonic()
    try:
        async with asyncio.timeout(delay if delay < 1e9 else None):
            await turn.future
    except TimeoutError:
        return


def watch_of(owner: Any, wait: str) -> "Watch":
    """The watch of this side; a forked child has none of its parent's threads, and so its own."""
    watches: dict[tuple[int, str], Watch] = vars(owner).setdefault("_watches", {})
    return watches.setdefault((os.getpid(), wait), Watch(getattr(owner, wait)))


class Turn:
    """One call that waits in an event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.future: asyncio.Future[None] = self._loop.create_future()

    def give(self) -> bool:
        """Let the call go on; False when its loop is closed. Called from the thread of the watch."""
        try:
            self._loop.call_soon_threadsafe(self._resolve)
        except RuntimeError:
            return False
        return True

    def _resolve(self) -> None:
        if not self.future.done():
            self.future.set_result(None)


class Watch:
    """The thread that waits on one side of a queue, and the calls that it waits for."""

    def __init__(self, wait: Callable[[float | None], bool]) -> None:
        self._wait = wait
        self._changed = threading.Condition()
        self._waiting: deque[Turn] = deque()
        self._given: Turn | None = None
        self._listeners: set[threading.Event] = set()
        self._runs = False

    def queue_up(self, turn: Turn) -> None:
        """Wait in line."""
        with self._changed:
            self._waiting.append(turn)
            self._wake()

    def listen(self, event: threading.Event) -> None:
        """Set the event once, when there is something."""
        with self._changed:
            self._listeners.add(event)
            self._wake()

    def forget(self, event: threading.Event) -> None:
        """Do not set the event any more."""
        with self._changed:
            self._listeners.discard(event)

    def _wake(self) -> None:
        if not self._runs:
            self._runs = True
            threading.Thread(target=self._run, name="sage-qd-watch", daemon=True).start()
        self._changed.notify()

    def give_back(self, turn: Turn) -> None:
        """Leave the line, or end the turn."""
        with self._changed:
            if self._given is turn:
                self._given = None
                self._changed.notify()
            elif turn in self._waiting:
                self._waiting.remove(turn)

    def _run(self) -> None:
        while self._is_wanted():
            try:
                ready = self._wait(SLICE_SECONDS)
            except Exception:  # noqa: BLE001  (the step of whoever has the turn meets the same, and raises it)
                ready = True
            with self._changed:
                while ready and self._waiting and self._given is None:
                    turn = self._waiting.popleft()
                    if turn.give():
                        self._given = turn
                while ready and self._listeners:
                    self._listeners.pop().set()

    def _is_wanted(self) -> bool:
        """Wait until there is somebody to wait for; False when nobody came for a while: the thread ends."""
        with self._changed:
            while not self._listeners and (not self._waiting or self._given is not None):
                if not self._changed.wait(IDLE_SECONDS) and not self._waiting and self._given is None:
                    self._runs = False
                    return False
            return True
