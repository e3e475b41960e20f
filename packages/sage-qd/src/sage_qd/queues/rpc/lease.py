"""A message at a server on trial."""

import os
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from sage_qd.errors import FencedError, NotShareableError
from sage_qd.queues.rpc import wire

if TYPE_CHECKING:
    from sage_qd.queues.rpc.queue import RPCQueue

__all__ = ["RPCLease"]

T = TypeVar("T")


class RPCLease(Generic[T]):
    """A message of an :class:`~sage_qd.RPCQueue` on trial; see :class:`~sage_qd.queues.base.Lease`."""

    def __init__(self, queue: "RPCQueue[T]", name: int, epoch: int, attempt: int, item: Any) -> None:
        self._queue = queue
        self._name = name
        self._epoch = epoch
        self._pid = os.getpid()
        self.attempt = attempt
        self.settled = False
        self._item = item

    @cached_property
    def value(self) -> T:
        """The message; one that cannot be decoded raises PayloadError, and can be settled all the same."""
        return self._queue._decoded([self._item])[0]

    @property
    def redelivered(self) -> bool:
        """Whether somebody held this message before."""
        return self.attempt > 0

    def ack(self) -> None:
        """Take the message out for good; when this returns, the server has done it."""
        self._settle(is_ack=True)

    def nack(self) -> None:
        """Give the message back; when this returns, the server has done it."""
        self._settle(is_ack=False)

    def _settle(self, *, is_ack: bool) -> None:
        queue = self._queue
        connection = queue._here()
        if self.settled:
            raise ValueError("the lease is settled already")
        self.settled = True
        if connection.epoch != self._epoch or self._pid != os.getpid():
            raise FencedError(pid=self._pid, epoch=self._name)

        def request(number: int, handle: int) -> wire.Settle:
            # Made when it is sent. Numbers of another session mean other messages there: 0 is nobody's, and fenced.
            name = self._name if connection.epoch == self._epoch else 0
            return wire.Settle(number, handle, name, int(is_ack))

        queue._call(request)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.settled:
            (self.ack if kind is None else self.nack)()

    def __del__(self) -> None:
        if not getattr(self, "settled", True) and self._pid == os.getpid() and not self._queue.closed:
            self._queue._connection.settle_from_finalizer(self._queue._handle, self._epoch, self._name)

    def __reduce__(self) -> Any:
        raise NotShareableError(what="a lease", instead="send a copy of its value")
