"""
The way into a task: what it takes from its queue, and when that is settled.

Every message is leased. What differs is when the lease is acknowledged:

=================  ======================================================================================
level              acknowledged
=================  ======================================================================================
``at_most_once``   before the operator sees the batch: a kill loses what the task had in hand
``at_least_once``  after the outputs were put into the next queues: a kill repeats what had no answer yet
``exactly_once``   as above, after a snapshot of state, paths and output numbers was written, see below
=================  ======================================================================================

A kill at any point of ``exactly_once``, whose steps are *put outputs*, *write snapshot*, *acknowledge*:

* before the snapshot is in place: the task starts again with the one before it, and is given the same batches in the
  same order; a deterministic operator makes the same packets with the same numbers, and receivers drop what they have;
* after it, before all leases are acknowledged: the batches that come again are in the snapshot, and are dropped.

A stop signal is acknowledged when a snapshot says that it came, so that a restarted task does not wait for it; until
then it takes a place in the queue, like a batch. Where there are no snapshots, nothing is restarted.
"""

import os
import pickle
from collections import deque
from time import monotonic, sleep
from typing import Any, Final

from sage_qd.errors import Empty, FencedError, LostPacketsError
from sage_qd.queues.selecting import wait
from sage_qd.runtime.context import DeliveryLevel
from sage_qd.runtime.packets import Batch, Packet, StopSignal, is_stop, unpacked

__all__ = ["COMMIT_SECONDS", "FileSnapshots", "Inbox"]

HELD: Final = 32
"""Most batches that a task has in hand before it settles them."""
COMMIT_SECONDS: Final = 0.05
"""How long a batch may wait to be settled while others follow it, or to be in the snapshot of a task with state."""
PREDECESSOR_SECONDS: Final = 0.02


class Inbox:
    """
    What one task takes. Not shared between threads.

    Args:
        queues: Its input queue, or one for each path.
        level: When batches are settled.
        stop_signals: How many it waits for.
        keeps_stops: Whether stop signals are leased until :meth:`settle`; otherwise they are acknowledged at once.
    """

    def __init__(self, queues: list[Any], level: DeliveryLevel, stop_signals: int, *, keeps_stops: bool = True) -> None:
        self._queues = queues
        self._level = level
        self._missing = stop_signals
        self._keeps_stops = keeps_stops
        self._held: deque[Any] = deque()
        self._stops: list[Any] = []
        self._stopped: set[int] = set()
        self._seen: dict[int, int] = {}
        self._since = monotonic()
        self._most = 1  # doubles with each time that it settles: a task that is killed again and again still gets on
        # Held batches keep their places in the queue, and the senders need some, too.
        self._hold = min([HELD, *(max(queue.maxsize // 2, 1) for queue in queues if queue.maxsize > 0)])
        self._next = 0

    def await_predecessor(self) -> None:
        """
        Wait until what this task had leased when it was killed is back in the queue: it is to come first, in order.

        A ring gives it back at once; a queue on another node when its cluster knows of the death.

        Raises:
            ShutDown: The job was stopped.
        """
        queue = self._queues[0]
        while True:
            try:
                lease = queue.lease(timeout=0)  # who takes looks for the leases of the dead, too
            except Empty:
                others = queue.stats().leased
            else:
                others = queue.stats().leased - 1
                lease.nack()
            if others <= 0:
                return
            sleep(PREDECESSOR_SECONDS)

    @property
    def is_over(self) -> bool:
        """Whether every path has sent its stop signal."""
        return len(self._stopped) >= self._missing

    @property
    def is_holding(self) -> bool:
        """Whether something is to be settled."""
        return bool(self._held or self._stops)

    @property
    def is_due(self) -> bool:
        """Whether what is held should be settled now."""
        return bool(self._held) and (len(self._held) >= self._most or monotonic() - self._since >= COMMIT_SECONDS)

    def take(self, timeout: float) -> Batch | None:
        """
        Take the next batch; None when there was none in time, or it was a stop signal, or known already.

        Raises:
            ShutDown: The job was stopped.
            LostPacketsError: Under ``exactly_once``, a packet of the path did not come before this one.
        """
        lease = self._lease(timeout)
        if lease is None:
            return None
        message = lease.value
        if is_stop(message):
            signal: StopSignal = message.payload if type(message) is Packet else message
            self._stopped.add(signal.path)
            if self._keeps_stops:
                self._stops.append(lease)
            else:
                lease.ack()
            return None
        batch: Batch = (-1, 0, [message.payload], [message.key]) if type(message) is Packet else unpacked(message)
        if self._level == "at_most_once":
            lease.ack()
            return batch
        if not self._held:
            self._since = monotonic()
        self._held.append(lease)
        return self._unseen(batch) if self._level == "exactly_once" else batch

    def _unseen(self, batch: Batch) -> Batch | None:
        """Drop the packets of a batch that were seen before."""
        path, sequence, payloads, keys = batch
        if path < 0:
            return batch
        known = self._seen.get(path, 0)
        if sequence > known:
            raise LostPacketsError(path=path, wanted=known, found=sequence)
        self._seen[path] = max(known, sequence + len(payloads))
        if sequence == known:
            return batch
        left = known - sequence
        if left >= len(payloads):
            return None
        return path, known, payloads[left:], None if keys is None else keys[left:]

    def _lease(self, timeout: float) -> Any:
        if len(self._queues) == 1:
            try:
                return self._queues[0].lease(timeout=timeout)
            except Empty:
                return None
        ready = wait(self._queues, timeout)
        if not ready:
            return None
        queue = ready[self._next % len(ready)]
        self._next += 1
        try:
            return queue.lease(timeout=0)
        except Empty:
            return None

    def settle(self) -> None:
        """Acknowledge what is held: its outputs are where they belong, and the snapshot knows of the stop signals."""
        while self._held:
            _acknowledge(self._held.popleft())
            self._most = min(2 * self._most, self._hold)
        for lease in self._stops:
            _acknowledge(lease)
        self._stops.clear()
        self._since = monotonic()

    def end(self) -> None:
        """
        Shut the queues down: the task has seen everything and sent its stop signals.

        What comes now comes again, from a task that was restarted; it must not wait for room that nobody makes.
        """
        for queue in self._queues:
            queue.shutdown(immediate=True)

    def state(self) -> tuple[dict[int, int], list[int]]:
        """Return how many packets of each path were seen, and which paths have stopped."""
        return dict(self._seen), sorted(self._stopped)

    def restore(self, state: tuple[dict[int, int], list[int]]) -> None:
        """Take what :meth:`state` returned."""
        seen, stopped = state
        self._seen, self._stopped = dict(seen), set(stopped)

    def close(self) -> None:
        """Give back what is held."""
        self._held.clear()
        self._stops.clear()
        for queue in self._queues:
            queue.close()


def _acknowledge(lease: Any) -> None:
    try:
        lease.ack()
    except FencedError:  # it was given to a task that replaced us; that one settles it
        return


class FileSnapshots:
    """The snapshots of one task in a file; they survive the process, not the machine."""

    def __init__(self, path: str) -> None:
        self._path = path

    def write(self, state: Any) -> None:
        """Put a snapshot in place of the one before it, in one step."""
        new = f"{self._path}.{os.getpid()}"
        with open(new, "wb") as file:
            pickle.dump(state, file, protocol=5)
        os.replace(new, self._path)

    def read(self) -> Any:
        """Return the snapshot, or None when there is none yet."""
        try:
            with open(self._path, "rb") as file:
                return pickle.load(file)
        except FileNotFoundError:
            return None
