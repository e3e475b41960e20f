"""
The way out of a task: which path a packet takes, batches, back-pressure.

Packets wait in the buffer of their path until there are ``batch_size``, or until ``linger`` has passed since the first
of them; a stop signal sends what waits before it. A full queue makes :meth:`BaseRouter.send` wait; packets are lost
only where the job says ``overflow="drop"``, and are counted.
"""

from collections.abc import Sequence
from itertools import compress, repeat
from time import monotonic, perf_counter_ns
from typing import Any, Final, Literal

from sage_qd.errors import Full, ShutDown
from sage_qd.runtime.connection import Connection
from sage_qd.runtime.counters import Counters
from sage_qd.runtime.graph import Partition
from sage_qd.runtime.packets import StopSignal, packed, stable_hash

__all__ = ["BATCH_SIZE", "LINGER_SECONDS", "BaseRouter"]

BATCH_SIZE: Final = 512
LINGER_SECONDS: Final = 0.005
BLOCKED_SECONDS: Final = 1.0
"""How long a task waits for room before it says that it is still waiting."""
BLOCKED_NS: Final = 1_000_000
"""A put that took no longer did not wait for room."""
FEW: Final = 4
"""So many lists are filled in a pass for each; more, in one for all."""
_ONLY: Final = [bytes(mark == place for mark in range(256)) for place in range(FEW)]
"""Tables that turn the index of one list into 1, and all others into 0."""
KEYS_KEPT: Final = 16_384
"""For so many keys a router remembers which receiver gets them."""


class _Path:
    """One connection with what waits to be sent on it."""

    __slots__ = ("connection", "has_ended", "keys", "payloads", "queue", "sequence", "since")

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.queue = connection.get_target_buffer()
        self.payloads: list[Any] = []
        self.keys: list[Any] | None = None
        self.sequence = 0
        self.since = 0.0
        self.has_ended = False


class _Places(dict[Any, int]):
    """Which of so many receivers gets a key: finding it costs a fraction of working it out."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __missing__(self, key: Any) -> int:
        if len(self) >= KEYS_KEPT:
            self.clear()
        place = self[key] = stable_hash(key) % self._count
        return place


class BaseRouter:
    """
    Sends the packets of one task. Not shared between threads.

    Args:
        name: The task, for stop signals.
        batch_size: Most packets in one message.
        linger: Seconds that a packet may wait for others.
        overflow: ``block`` waits for room in the queue at the end; ``drop`` loses the batch and counts it.
        counters: Where dropped packets and the time spent waiting for room are counted; of its own if not given.
    """

    def __init__(
        self,
        name: str,
        *,
        batch_size: int = BATCH_SIZE,
        linger: float = LINGER_SECONDS,
        overflow: Literal["block", "drop"] = "block",
        counters: Counters | None = None,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}")
        self._name = name
        self._batch_size = batch_size
        self._linger = linger
        self._overflow = overflow
        self._counters = Counters.single() if counters is None else counters
        self._groups: list[tuple[list[_Path], Partition]] = []
        self._turns: list[int] = []
        self._places: dict[int, _Places] = {}
        self._has_stopped = False
        self.sent = 0
        self.dropped = 0

    def add_connection(self, connection: Connection, partition: Partition = "round_robin") -> None:
        """Add a path; those of one ``broadcast_index`` form a group, which has the partition of its first."""
        while len(self._groups) <= connection.broadcast_index:
            self._groups.append(([], partition))
            self._turns.append(0)
        self._groups[connection.broadcast_index][0].append(_Path(connection))

    def get_connections_info(self) -> list[dict[str, Any]]:
        """Return every path as plain data, with the load of the queue at its end."""
        return [
            {
                "broadcast_index": path.connection.broadcast_index,
                "parallel_index": path.connection.parallel_index,
                "target": path.connection.target_name,
                "input_index": path.connection.target_input_index,
                "partition": partition if isinstance(partition, str) else "custom",
                "load": path.connection.get_buffer_load(),
                "sent": path.sequence,
            }
            for paths, partition in self._groups
            for path in paths
        ]

    def send(self, payloads: list[Any], keys: list[Any] | None) -> None:
        """
        Send packets, waiting for room; what does not fill a batch waits for the next call, or for :meth:`flush`.

        Raises:
            ShutDown: All queues were shut down: the job was stopped.
            TypeError: A key that cannot be hashed the same way everywhere.
        """
        if not payloads:
            return
        self.sent += len(payloads)
        for number, (paths, partition) in enumerate(self._groups):
            if len(paths) == 1:
                self._add(paths[0], payloads, keys)
            elif partition == "broadcast":
                for path in paths:
                    self._add(path, payloads, keys)
            elif partition == "round_robin":
                self._in_turn(number, paths, payloads, keys)
            else:
                self._chosen(paths, partition, payloads, keys)
            for path in paths:
                if len(path.payloads) >= self._batch_size:
                    self._put(path)

    def _in_turn(self, number: int, paths: list[_Path], payloads: list[Any], keys: list[Any] | None) -> None:
        count, first = len(paths), self._turns[number]
        for at, path in enumerate(paths):
            start = (at - first) % count
            mine = payloads[start::count]
            if mine:
                self._add(path, mine, None if keys is None else keys[start::count])
        self._turns[number] = (first + len(payloads)) % count

    def _chosen(
        self, paths: Sequence[_Path], partition: Partition, payloads: list[Any], keys: list[Any] | None
    ) -> None:
        """Spread by key, or as a function says."""
        count = len(paths)
        if callable(partition):
            found = keys if keys is not None else repeat(None, len(payloads))
            indices: Sequence[int] = [
                partition(payload, key, count) for payload, key in zip(payloads, found, strict=False)
            ]
            wrong = [index for index in indices if type(index) is not int or not 0 <= index < count]
            if wrong:
                raise ValueError(f"a partitioner must return 0 to {count - 1}, not {wrong[0]!r}")
        elif keys is None:
            raise ValueError("packets are to be spread by key and have none: call keyby() before")
        else:
            indices = self._indices(keys, count)
        shares = _split(payloads, indices, count)
        key_shares = shares if keys is payloads else _split(keys, indices, count) if keys is not None else None
        for place, (path, mine) in enumerate(zip(paths, shares, strict=True)):
            if mine:
                self._add(path, mine, None if key_shares is None else key_shares[place])

    def _indices(self, keys: list[Any], count: int) -> Sequence[int]:
        """Which of so many receivers gets each key."""
        places = self._places.setdefault(count, _Places(count))
        try:
            found = map(places.__getitem__, keys)
            return bytes(found) if count <= FEW else list(found)
        except TypeError:
            for key in keys:
                stable_hash(key)  # tells which one is no key
            raise

    def _add(self, path: _Path, payloads: list[Any], keys: list[Any] | None) -> None:
        """Let packets wait on a path; with and without key do not wait together. One list may be both."""
        if path.payloads and (path.keys is None) != (keys is None):
            self._put(path)
        if not path.payloads:
            path.since = monotonic()
            path.keys = None if keys is None else path.payloads if keys is payloads else []
        elif path.keys is path.payloads and keys is not payloads:
            path.keys = list(path.payloads)
        is_shared = path.keys is path.payloads
        path.payloads += payloads
        if path.keys is not None and keys is not None and not is_shared:
            path.keys += keys

    @property
    def is_holding(self) -> bool:
        """Whether packets wait to be sent."""
        return any(path.payloads for paths, _ in self._groups for path in paths)

    def flush(self, due_only: bool = False) -> None:
        """Send what waits; with ``due_only``, what has waited for ``linger``."""
        for paths, _ in self._groups:
            for path in paths:
                if path.payloads and (not due_only or monotonic() - path.since >= self._linger):
                    self._put(path)

    def stop(self) -> None:
        """Send what waits and then, on every path, the signal that nothing follows. Twice is once."""
        if self._has_stopped:
            return
        self.flush()
        for paths, _ in self._groups:
            for path in paths:
                try:
                    self._put_waiting(path.queue, StopSignal(path.connection.path, self._name))
                except ShutDown:
                    continue  # whoever was to take it has ended, and knew
        self._has_stopped = True

    def _put(self, path: _Path) -> None:
        message = packed(path.connection.path, path.sequence, path.payloads, path.keys)
        try:
            if self._overflow == "block":
                self._put_waiting(path.queue, message)
            else:
                path.queue.put_nowait(message)
        except Full:
            self.dropped += len(path.payloads)
            self._counters.dropped += len(path.payloads)
        except ShutDown:
            # The receiver ended: it had all this before its sender was restarted. When all have, the job is over.
            path.has_ended = True
            if all(each.has_ended for paths, _ in self._groups for each in paths):
                raise
        path.sequence += len(path.payloads)
        path.payloads = []
        path.keys = None

    def _put_waiting(self, queue: Any, message: Any) -> None:
        """Put, waiting for room, and count the time of that while it passes."""
        began = perf_counter_ns()
        while True:
            try:
                queue.put(message, timeout=BLOCKED_SECONDS)
            except Full:
                now = perf_counter_ns()
                self._counters.blocked_ns += now - began
                began = now
                continue
            took = perf_counter_ns() - began
            if took > BLOCKED_NS:
                self._counters.blocked_ns += took
            return

    def state(self) -> dict[str, Any]:
        """Return what a restarted task must continue with: the next number of each path, and whose turn it is."""
        return {"sequences": [[path.sequence for path in paths] for paths, _ in self._groups], "turns": self._turns}

    def restore(self, state: dict[str, Any]) -> None:
        """Take what :meth:`state` returned."""
        self._turns = list(state["turns"])
        for (paths, _), sequences in zip(self._groups, state["sequences"], strict=True):
            for path, sequence in zip(paths, sequences, strict=True):
                path.sequence = sequence


def _split(items: list[Any], indices: Sequence[int], count: int) -> list[list[Any]]:
    """Give each item to the list with its index: a pass for each of few lists takes half the time of one for many."""
    if count <= FEW:
        marks = bytes(indices)
        return [list(compress(items, marks.translate(_ONLY[place]))) for place in range(count)]
    shares: list[list[Any]] = [[] for _ in range(count)]
    appends = [share.append for share in shares]
    for index, item in zip(indices, items, strict=True):
        appends[index](item)
    return shares
