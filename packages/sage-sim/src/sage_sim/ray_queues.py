"""Queues of Ray whose actor may die in a run: a durable one is opened again, with all that it had accepted."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from sage_qd import (
    BaseQueueDescriptor,
    OutcomeUnknownError,
    QueueLostError,
    QueueNotFoundError,
    QueueUnavailableError,
)

R = TypeVar("R")


class PerhapsPutError(Exception):
    """The actor died during a put, and was started again: nobody knows whether the message is there."""


class PerhapsAckedError(Exception):
    """The actor died before it said that it heard of an ack: the message may come again, marked."""


class Regained:
    """
    A message on trial, whose queue may have been lost and regained meanwhile.

    Args:
        lease: Of the queue.
    """

    def __init__(self, lease: Any) -> None:
        self._lease = lease
        self.value = lease.value
        self.attempt = lease.attempt

    def ack(self) -> None:
        """
        Settle it.

        Raises:
            PerhapsAckedError: The actor died meanwhile.
            QueueLostError: The queue is gone with all that was in it.
        """
        try:
            self._lease.ack()
        except OutcomeUnknownError as error:
            raise PerhapsAckedError from error
        except QueueLostError as error:
            if error.items_lost is not False:
                raise
            raise PerhapsAckedError from error


class DurableChannel:
    """
    A durable queue of Ray.

    Args:
        named: What names it; opened now, and again after each death of its actor.
        owns: Whether it is made here and ends with this handle: it would outlive all of them otherwise.
    """

    def __init__(self, named: BaseQueueDescriptor, *, owns: bool) -> None:
        self._named = named
        self._owns = owns
        self._queue: Any = named.open(create=owns)

    @property
    def instance(self) -> str:
        """What tells its ring from all others."""
        found: str = self._queue.instance
        return found

    def put(self, item: Any) -> None:
        """
        Append a message, waiting for room.

        Raises:
            PerhapsPutError: The actor died meanwhile.
        """
        try:
            self._queue.put(item)
        except QueueLostError as error:
            self._regain(error)
            raise PerhapsPutError from error
        except OutcomeUnknownError as error:
            raise PerhapsPutError from error

    def lease(self, block: bool = True, timeout: float | None = None) -> Regained:
        """Take a message."""
        return self._again(lambda: Regained(self._queue.lease(block, timeout)))

    def shutdown(self) -> Any:
        """Say that nothing more comes."""
        return self._again(lambda: self._queue.shutdown())

    def close(self) -> None:
        """Give it up; its maker ends it."""
        if self._owns:
            with suppress(QueueLostError):  # it is gone already
                self._again(lambda: self._queue.destroy())
        self._queue.close()

    def _again(self, step: Callable[[], R]) -> R:
        while True:
            try:
                return step()
            except QueueLostError as error:
                self._regain(error)

    def _regain(self, error: QueueLostError) -> None:
        if error.items_lost is not False:
            raise error
        self._queue.close()
        try:
            self._queue = self._named.open(create=False)
        except (QueueNotFoundError, QueueUnavailableError) as gone:  # its home node is, too
            raise QueueLostError(endpoint=error.endpoint, items_lost=True) from gone
