"""Doing one change after the other under the lock of a queue in shared memory, and waiting in between."""

from collections.abc import Callable
from math import inf
from time import monotonic, monotonic_ns
from typing import Final, Generic, TypeVar, cast

from sage_qd.queues.shm_layout import State
from sage_qd.queues.shm_segment import Segment
from sage_qd.queues.shm_store import Store

__all__ = ["SLICE_SECONDS", "Changes"]

R = TypeVar("R")

SLICE_SECONDS: Final = 0.05
"""Longest sleep of a call that waits: a hint that was lost with a killed process costs no more than this."""


class Changes:
    """
    Does the steps of one handle.

    Args:
        segment: Where the lock and the semaphores are.
        store: What loads the state, and knows whom the steps woke.
    """

    def __init__(self, segment: Segment, store: Store) -> None:
        self._segment = segment
        self._store = store

    def change(self, step: Callable[[State], R]) -> R:
        """Do one step with the queue's lock."""
        return cast(R, self._change_before(step, inf))

    def _change_before(self, step: Callable[[State], R], deadline: float) -> R | None:
        """Do one step with the queue's lock, and wake whoever it is for; None when the lock was not free in time."""
        store, segment = self._store, self._segment
        try:
            return segment.gate.run(lambda: step(store.load()), deadline, None)
        finally:
            if any(store.wakes):
                self._post()

    def _post(self) -> None:
        """Wake as many as the last steps of this handle said; another thread may have done so already."""
        wakes, self._store.wakes = self._store.wakes, [0, 0, 0]
        for semaphore, count in zip(self._segment.semaphores, wakes, strict=False):
            for _ in range(count):
                try:
                    semaphore.release()
                except (ValueError, OverflowError, OSError):
                    break  # it holds as many hints as it can, more than there are waiters

    def until(
        self,
        step: Callable[[State], R],
        side: int,
        deadline: float,
        at_once: Callable[[], R | None] | None = None,
    ) -> R | None:
        """
        Do a step until what it returns is true or the deadline has passed; return what it returned last.

        Args:
            step: What to do.
            side: What it waits for.
            deadline: When to give up.
            at_once: Tried before: a quicker way, which wakes nobody, and does nothing when it returns nothing true.
        """
        if at_once is not None and (answer := self._segment.gate.run(at_once, deadline, None)):
            return answer
        answer = self._change_before(step, deadline)
        if answer or deadline <= monotonic():
            return answer
        segment, waiting = self._segment, _Waiting(self._store, step, side)
        try:
            while True:
                answer = self._change_before(waiting.look, deadline)
                remaining = deadline - monotonic()
                if answer or remaining <= 0:
                    return answer
                semaphores = segment.semaphores
                if semaphores and semaphores[side].acquire(True, min(remaining, SLICE_SECONDS)):
                    waiting.is_counted = False
        finally:
            if waiting.is_counted and not segment.closed:
                self.change(waiting.leave)


class _Waiting(Generic[R]):
    """A call that waits: does its step under the lock, and is counted by those who may wake it."""

    def __init__(self, store: Store, step: Callable[[State], R], side: int) -> None:
        self._store = store
        self._step = step
        self._side = side
        self._since_ns = monotonic_ns()
        self.is_counted = False

    def look(self, state: State) -> R:
        """Do the step; without an answer, be counted from now on."""
        answer = self._step(state)
        if answer:
            self.leave(state)
        elif not self.is_counted:
            self._store.register(state, self._side)
            self.is_counted = True
        return answer

    def leave(self, state: State) -> None:
        """Be counted no more, and add the time."""
        waited_ns = monotonic_ns() - self._since_ns
        self._store.deregister(state, self._side, was_counted=self.is_counted, waited_ns=waited_ns)
        self.is_counted = False
