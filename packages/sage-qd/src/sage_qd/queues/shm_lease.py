"""A message of a queue in shared memory on trial."""

from types import TracebackType
from typing import TYPE_CHECKING, Generic, NoReturn, Self, TypeVar

from sage_qd.errors import NotShareableError

if TYPE_CHECKING:
    from collections.abc import Callable

    from sage_qd.queues.shared_memory import SharedMemoryQueue
    from sage_qd.queues.shm_layout import State
    from sage_qd.queues.shm_store import Held

__all__ = ["SharedMemoryLease"]

T = TypeVar("T")


class SharedMemoryLease(Generic[T]):
    """A message of a :class:`SharedMemoryQueue` on trial; see :class:`~sage_qd.Lease`. Its value is a copy."""

    _held: "Held"

    def __init__(self, queue: "SharedMemoryQueue[T]") -> None:
        self._queue = queue
        self._decoded: list[T] = []

    def _keep(self, held: "Held") -> None:
        """Say what this is a lease of; from then on it is given back when this is dropped."""
        self._held = held

    @property
    def value(self) -> T:
        """
        The message, decoded when it is first asked for.

        Raises:
            PayloadError: It cannot be decoded; ack drops it for good.
        """
        if not self._decoded:
            self._decoded = self._queue._decoded([(self._held.tag, self._held.payload)])
        return self._decoded[0]

    @property
    def attempt(self) -> int:
        """How many times somebody held this message before."""
        return self._held.attempt

    @property
    def redelivered(self) -> bool:
        """Whether somebody held this message before."""
        return self._held.attempt > 0

    @property
    def settled(self) -> bool:
        """Whether it was acked or given back."""
        return self._held.settled

    def ack(self) -> None:
        """Take the message out for good."""
        self._settle(self._queue._store.ack)

    def nack(self) -> None:
        """Give the message back."""
        self._settle(self._queue._store.nack)

    def _settle(self, step: "Callable[[State, Held], None]") -> None:
        def change(state: "State") -> None:
            if self._held.settled:
                raise ValueError("the lease is settled already")
            step(state, self._held)
            self._held.settled = True

        self._queue._changes.change(change)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._held.settled:
            (self.ack if kind is None else self.nack)()

    def __del__(self) -> None:
        if hasattr(self, "_held") and not self._held.settled:
            self._queue._store.dropped_leases.append(self._held)

    def __reduce__(self) -> NoReturn:
        raise NotShareableError(what="a lease", instead="send a copy of its value")
