"""Puts that do not wait for their acknowledgement, one after the other."""

from collections import deque
from math import inf
from typing import TYPE_CHECKING, Final, Generic, TypeVar, cast

from sage_qd.errors import SageQueueError, ShutDown
from sage_qd.queues.rpc import wire
from sage_qd.queues.rpc.calls import Call, put_request

if TYPE_CHECKING:
    from sage_qd.queues.rpc.queue import RPCQueue

__all__ = ["BATCH_ITEMS", "Pipeline"]

T = TypeVar("T")

BATCH_ITEMS: Final = 1024
"""Most messages of one request."""


class Pipeline(Generic[T]):
    """
    Puts under way; see :meth:`sage_qd.RPCQueue.pipeline`. For one thread.

    Attributes:
        acknowledged: Messages that the server has said to be in the queue: always the first ones.
    """

    def __init__(self, queue: "RPCQueue[T]", window: int) -> None:
        if isinstance(window, bool) or not isinstance(window, int):
            raise TypeError(f"window must be an integer, not {window!r}")
        if window < 1:
            raise ValueError(f"window must be at least 1, not {window}")
        self.acknowledged = 0
        self._queue = queue
        self._connection = queue._here()
        self._window = window
        self._batch_items = min(max(window // 4, 1), BATCH_ITEMS)
        self._batch: list[wire.Item] = []
        self._size = 0
        self._under_way = 0
        self._calls: deque[tuple[Call, int]] = deque()

    def put(self, item: T) -> None:
        """
        Append a message to those under way, waiting when there are as many as may be.

        Raises:
            ShutDown: An earlier message met the shutdown; ``acknowledged`` says how many are in.
            SageQueueError: Whatever else an earlier message met.
        """
        encoded: wire.Item = cast(bytes, item) if type(item) is bytes else self._queue._encoded(item, self._connection)
        size = wire.size_of(encoded)
        if size > wire.BATCH_BYTES:
            self._queue._encoded(item, self._connection)
        self._batch.append(encoded)
        self._size += size
        if len(self._batch) >= self._batch_items or self._size >= wire.BATCH_BYTES:
            self._send()

    def flush(self) -> None:
        """Wait until every message is in the queue; raises as :meth:`put` does."""
        self._send()
        while self._calls:
            self._await_first()

    def _send(self) -> None:
        if not self._batch:
            return
        while self._calls and self._under_way + len(self._batch) > self._window:
            self._await_first()
        self._queue._here()
        call = Call(self._queue._handle, put_request(self._batch, inf), size=max(self._size, 1))
        self._calls.append((call, len(self._batch)))
        self._under_way += len(self._batch)
        self._batch, self._size = [], 0
        self._connection.submit(call)

    def _await_first(self) -> None:
        call, count = self._calls.popleft()
        try:
            put = call.wait()
        except SageQueueError:
            self._calls.clear()
            raise
        except BaseException:
            self._calls.appendleft((call, count))
            raise
        self._under_way -= count
        self.acknowledged += put
        if put < count:
            self._calls.clear()
            raise ShutDown(f"the queue was shut down after {self.acknowledged:,} messages")
