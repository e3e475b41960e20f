"""
What one process did, in a mapped file that survives its death at any instruction.

A record is written whole before its last byte makes it count, so that the file always ends after a whole record: the
first whose last byte is zero was never finished. Storing costs no system call, and what was stored belongs to the
kernel's page cache from then on, also when the process is killed in the next instruction.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator
from enum import IntEnum
from pathlib import Path
from time import monotonic_ns
from typing import NamedTuple

from sage_sim.message import Message

_RECORD = struct.Struct("=QQQQQIIHBBHxB")
_MOMENT = struct.Struct("@Q")
_ENDED_AT, _KIND_AT = 8, 55
assert _RECORD.size == _KIND_AT + 1

_GROWTH_BYTES = 16384 * _RECORD.size
_FIRST_BYTES = 2048 * _RECORD.size


class Kind(IntEnum):
    """What an operation was; 0 would be a record that does not count."""

    PUT = 1
    TAKE = 2


class Operation(NamedTuple):
    """
    One put or one take, from its beginning to its end.

    A put begins before the call and ends after it returned. A take begins when the lease was given and ends after it
    was acked.
    """

    begin_ns: int
    """Moment on the monotonic clock, the same for all processes of the host."""
    end_ns: int
    """The same; 0: it never ended, because the process was killed or stopped before; `SETTLING`: perhaps it did."""
    due_ns: int
    """When the source was to send the item; 0 when the message does not say."""
    sequence: int
    hop: int
    origin: int
    sender: int
    edge: int
    """Index of the queue in the topology."""
    attempt: int
    """Of a take: how often the item was leased before; above 0 it is a redelivery."""
    flags: int
    """Bits: `REPEATED` and `DAMAGED`."""
    lane: int
    """Which of the copies of the item it was."""
    kind: int
    process: int
    """Number of the process that did it."""

    @property
    def ended(self) -> bool:
        """Whether it returned."""
        return self.end_ns > SETTLING


SETTLING = 1
"""In place of the end of a take: the process was about to ack, and nobody knows whether it still did."""
REPEATED = 1
"""The message says that an earlier copy of its item may exist."""
DAMAGED = 2
"""The payload was not what it had to be."""


EXIT_NO_ROOM = 74
"""Exit code of a process for which the disk had no room."""


EXIT_DAMAGED = 75
"""Exit code of a process that found a queue damaged, or gone."""
EXIT_STARVED = 76
"""Exit code of a process to which the system refused memory, descriptors or room."""


class LogFullError(OSError):
    """The disk has no room for the history; the run cannot be judged."""


class EventLog:
    """The writing end: one per process."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        self._size = 0
        self._at = 0
        self._reserve(_FIRST_BYTES)
        self._map = mmap.mmap(self._file, self._size)

    def begin(self, kind: Kind, edge: int, message: Message, *, attempt: int = 0, damaged: bool = False) -> int:
        """Record that an operation began now, and return its place, for `end`."""
        at = self._at
        if at + _RECORD.size > self._size:
            self._reserve(self._size + _GROWTH_BYTES)
            self._map.resize(self._size)
        flags = (REPEATED if message.repeats else 0) | (DAMAGED if damaged else 0)
        _RECORD.pack_into(
            self._map,
            at,
            monotonic_ns(),
            0,
            message.due_ns,
            message.sequence,
            message.hop,
            message.origin,
            message.sender,
            edge,
            attempt,
            flags,
            message.lane,
            0,
        )
        self._map[at + _KIND_AT] = kind  # from here on it counts
        self._at = at + _RECORD.size
        return at

    def settle(self, at: int) -> None:
        """Record that the take at that place is about to be acked."""
        _MOMENT.pack_into(self._map, at + _ENDED_AT, SETTLING)

    def end(self, at: int) -> None:
        """Record that the operation at that place ended now."""
        _MOMENT.pack_into(self._map, at + _ENDED_AT, monotonic_ns())

    def close(self) -> None:
        """Give the unused rest of the file back."""
        self._map.close()
        os.truncate(self._file, self._at)
        os.close(self._file)

    def _reserve(self, size: int) -> None:
        """Make the disk promise the room: a store into a hole on a full disk would kill the process."""
        try:
            os.posix_fallocate(self._file, 0, size)
        except OSError as error:
            raise LogFullError(error.errno, f"no room for the history: {os.strerror(error.errno or 0)}") from error
        self._size = size


def read_log(path: Path, process: int) -> Iterator[Operation]:
    """The operations in a log, in the order in which they began; none when the process died before it had one."""
    if not path.exists():
        return
    content = path.read_bytes()
    whole = len(content) - len(content) % _RECORD.size
    for fields in _RECORD.iter_unpack(memoryview(content)[:whole]):
        if not fields[-1]:
            return
        yield Operation._make((*fields, process))


def last_operation(path: Path, process: int, kind: Kind | None = None) -> Operation | None:
    """The last one in a log, of that kind if one is given, found without reading all of it; None when there is none."""
    if not path.exists():
        return None
    with path.open("rb") as file:

        def record(at: int) -> bytes:
            return os.pread(file.fileno(), _RECORD.size, at * _RECORD.size)

        low, high = 0, os.fstat(file.fileno()).st_size // _RECORD.size
        while low < high:  # all records before `low` count, none from `high` on does
            middle = (low + high) // 2
            if record(middle)[_KIND_AT]:
                low = middle + 1
            else:
                high = middle
        while low:
            found = Operation._make((*_RECORD.unpack(record(low - 1)), process))
            if kind is None or found.kind == kind:
                return found
            low -= 1
        return None
