"""
The bytes of a queue in shared memory: header, state and records, and what a killed process leaves of each.

::

    0          128        256       512       4,096       20,480                 20,480 + capacity_bytes
    +----------+----------+---------+---------+-----------+----------------------+
    | settings | words    | state 0 | state 1 | successor | ring of records      |
    +----------+----------+---------+---------+-----------+----------------------+

**State.** Everything that changes but the records is one block, and there are two. Whoever changes the queue writes the
block that is not current, and then stores *one* aligned 8-byte word that says which one is. That store is the change:
killed before it, nothing happened; killed after it, everything did. The word is written through a ``memoryview`` of
format ``Q``, which copies 8 aligned bytes, one instruction on every processor that Python has wheels for. No order
between processors is asked for beyond that: all reads and writes are under the queue's lock, and taking it is a system
call. So only a kill can come between two stores, and a kill never undoes nor reorders what one thread stored.

**Records.** A record starts at a multiple of 32 and takes a header of 32 bytes and its payload, which may go round the
end of the ring. It is written before the state that covers it, so a killed writer leaves bytes that nobody reads.
Taking the oldest record is one state with a new head. Other changes touch a record *and* the state: leases, and what
overtakes them. For these the word ``busy`` says what is being done. Whoever finds it set knows that somebody died
halfway, and counts the records anew (``Store._recover``); the word ``holder`` of each record is what holds then.

Every value is checked before it is used: the bytes may be damaged, or written by somebody else of this user.
"""

import mmap
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from operator import attrgetter
from struct import Struct
from struct import error as struct_error
from typing import Final

from sage_qd.errors import CorruptQueueError, IncompatibleQueueError

__all__ = [
    "DATA_START",
    "FREE",
    "GONE",
    "RECORD_BYTES",
    "SUCCESSOR_BYTES",
    "Memory",
    "Part",
    "Record",
    "Settings",
    "State",
    "record_bytes",
]

Part = bytes | bytearray | memoryview

MAGIC: Final = b"SAGE shm"
VERSION: Final = 1
DATA_START: Final = 20_480
SUCCESSOR_START: Final = 4_096
SUCCESSOR_BYTES: Final = DATA_START - SUCCESSOR_START
RECORD_BYTES: Final = 32
"""Size of a record's header, and what records are aligned to."""
FREE: Final = 0
"""Holder of a record that can be taken."""
GONE: Final = (1 << 64) - 1
"""Holder of a record that was taken before an older one."""

_CURRENT: Final = 16  # words, from the start
_BUSY: Final = 17
_BLOCKS: Final = (256, 512)
_FIXED: Final = Struct("=8sQQQQ16s")
_RECORD: Final = Struct("=QIIQQ")
_HOLDER: Final = 24
_ATTEMPT: Final = 12
_STATE: Final = Struct("=20Q")
_ORDER: Final = sys.byteorder


@dataclass(frozen=True, slots=True)
class Settings:
    """What a queue is made with."""

    maxsize: int
    capacity_bytes: int
    codec: int


@dataclass(slots=True)
class State:
    """
    Everything that changes but the records; a copy, until it is stored.

    Positions are counts of bytes ever written; ``head <= scan <= tail <= head + capacity_bytes``.
    """

    head: int = 0
    """Where the oldest record starts that is not gone."""
    tail: int = 0
    """Where the next record will start."""
    scan: int = 0
    """No record before this is free."""
    count: int = 0
    """Records that are free or leased."""
    leased: int = 0
    gone: int = 0
    """Records between head and tail that were taken already."""
    puts: int = 0
    redeliveries: int = 0
    dropped: int = 0
    high_water: int = 0
    bytes_put: int = 0
    bytes_taken: int = 0
    put_blocked_ns: int = 0
    get_blocked_ns: int = 0
    message_waiters: int = 0
    """Calls that wait for a message; too many after a kill, until as many messages came."""
    room_waiters: int = 0
    idle_waiters: int = 0
    """Calls of join."""
    unfinished: int = 0
    """Messages put and not worked off."""
    flags: int = 0
    successor_bytes: int = 0


_VALUES: Final = attrgetter(*(field.name for field in fields(State)))


@dataclass(slots=True)
class Record:
    """The header of a record, and where it is."""

    position: int
    size: int
    tag: int
    attempt: int
    stamp_ns: int
    holder: int
    end: int


def record_bytes(size: int) -> int:
    """What a payload of this size takes in the ring."""
    return RECORD_BYTES + -(-size // RECORD_BYTES) * RECORD_BYTES


class Memory:
    """
    The mapped bytes of one queue, with names.

    Raises:
        CorruptQueueError: It is no queue, or a damaged one.
        IncompatibleQueueError: It was made by another version.
    """

    def __init__(self, descriptor: int, size: int, *, read_only: bool = False) -> None:
        if size < DATA_START + RECORD_BYTES:
            raise CorruptQueueError(field="file size", value=size, wanted=f"at least {DATA_START + RECORD_BYTES:,}")
        self._map = mmap.mmap(descriptor, size, access=mmap.ACCESS_READ if read_only else mmap.ACCESS_WRITE)
        self._bytes = memoryview(self._map)
        self._words = self._bytes[:DATA_START].cast("Q")
        self._data = self._bytes[DATA_START:]
        try:
            self.settings, self.instance = self._checked_settings(size)
        except BaseException:
            self.close()
            raise
        self._capacity = self.settings.capacity_bytes

    def _checked_settings(self, size: int) -> tuple[Settings, str]:
        magic, version, maxsize, capacity, codec, instance = _FIXED.unpack_from(self._bytes)
        if magic != MAGIC:
            raise CorruptQueueError(field="magic", offset=0, value=magic, wanted=MAGIC)
        if version != VERSION:
            raise IncompatibleQueueError(field="layout version", wanted=VERSION, found=version)
        if capacity != size - DATA_START or capacity % RECORD_BYTES:
            raise CorruptQueueError(field="capacity_bytes", offset=24, value=capacity, wanted=size - DATA_START)
        return Settings(maxsize, capacity, codec), instance.hex()

    @staticmethod
    def header(settings: Settings, instance: str) -> bytes:
        """The first bytes of a new queue; zeros follow, which are an empty state."""
        return _FIXED.pack(
            MAGIC, VERSION, settings.maxsize, settings.capacity_bytes, settings.codec, bytes.fromhex(instance)
        )

    @property
    def largest_message(self) -> int:
        """Most encoded bytes of a message."""
        return self._capacity - RECORD_BYTES

    def close(self) -> None:
        """Unmap it."""
        for view in (self._words, self._data, self._bytes):
            view.release()
        self._map.close()

    # -- State --------------------------------------------------------------------------------------------------------

    def load(self) -> State:
        """
        Return a copy of the state.

        Raises:
            CorruptQueueError: It breaks a rule.
        """
        current = self._words[_CURRENT]
        if current > 1:
            raise CorruptQueueError(field="current state", offset=_CURRENT * 8, value=current, wanted="0 or 1")
        values = _STATE.unpack_from(self._bytes, _BLOCKS[current])
        if max(values) >> 63:
            field = fields(State)[values.index(max(values))].name
            raise CorruptQueueError(field=field, offset=_BLOCKS[current], value=max(values), wanted="below 2**63")
        state = State(*values)
        head, scan, tail = state.head, state.scan, state.tail
        if not (head <= scan <= tail <= head + self._capacity) or (head | scan | tail) % RECORD_BYTES:
            field, wanted = "positions", "head <= scan <= tail <= head + capacity_bytes"
            raise CorruptQueueError(field=field, offset=_BLOCKS[current], value=(head, scan, tail), wanted=wanted)
        if state.leased > state.count or (state.count + state.gone) * RECORD_BYTES > tail - head:
            found = (state.count, state.leased, state.gone)
            raise CorruptQueueError(
                field="counts", offset=_BLOCKS[current] + 24, value=found, wanted="no more than fit"
            )
        if state.successor_bytes > SUCCESSOR_BYTES:
            raise CorruptQueueError(field="successor_bytes", value=state.successor_bytes, wanted=SUCCESSOR_BYTES)
        return state

    def store(self, state: State) -> None:
        """
        Make a state the current one; the last store is the change.

        Raises:
            CorruptQueueError: The state cannot be: more was found than it counts, say. The current one stays.
        """
        other = 1 - self._words[_CURRENT]
        values = _VALUES(state)
        try:
            _STATE.pack_into(self._bytes, _BLOCKS[other], *values)
        except struct_error:
            field = fields(State)[values.index(min(values))].name
            raise CorruptQueueError(field=field, value=min(values), wanted="at least 0") from None
        self._words[_CURRENT] = other

    @property
    def busy(self) -> int:
        """What is being done to records and state; 0 for nothing."""
        return self._words[_BUSY]

    @busy.setter
    def busy(self, change: int) -> None:
        self._words[_BUSY] = change

    @property
    def successor(self) -> bytes:
        """The bytes that :attr:`State.successor_bytes` counts."""
        return bytes(self._bytes[SUCCESSOR_START:DATA_START])

    @successor.setter
    def successor(self, text: bytes) -> None:
        self._bytes[SUCCESSOR_START : SUCCESSOR_START + len(text)] = text

    # -- Records ------------------------------------------------------------------------------------------------------

    def record(self, position: int, tail: int) -> Record:
        """
        Return the header of the record at a position.

        Raises:
            CorruptQueueError: It cannot end before the tail.
        """
        size, tag, attempt, stamp_ns, holder = _RECORD.unpack_from(self._data, position % self._capacity)
        end = position + RECORD_BYTES + -(-size // RECORD_BYTES) * RECORD_BYTES
        if end > tail:
            offset = DATA_START + position % self._capacity
            raise CorruptQueueError(field="record size", offset=offset, value=size, wanted=f"at most {tail - position}")
        return Record(position, size, tag, attempt, stamp_ns, holder, end)

    def write(self, position: int, tag: int, parts: Sequence[Part], size: int, stamp_ns: int) -> int:
        """Write a record where nobody reads yet, and return where it ends."""
        at = position % self._capacity
        _RECORD.pack_into(self._data, at, size, tag, 0, stamp_ns, FREE)
        at += RECORD_BYTES
        for part in parts:
            at = self._write_part(at, part)
        return position + record_bytes(size)

    def _write_part(self, at: int, part: Part) -> int:
        """Copy bytes into the ring, round its end if need be, and return the index after them."""
        at %= self._capacity
        end = at + len(part)
        if end <= self._capacity:
            self._data[at:end] = part
            return end
        first = self._capacity - at
        self._data[at:] = part[:first]
        self._data[: end - self._capacity] = part[first:]
        return end - self._capacity

    def payload(self, record: Record, *, writable: bool) -> bytes | bytearray:
        """Return a copy of a record's payload."""
        kind = bytearray if writable else bytes
        at = (record.position + RECORD_BYTES) % self._capacity
        end = at + record.size
        if end <= self._capacity:
            return kind(self._data[at:end])
        return kind().join((self._data[at:], self._data[: end - self._capacity]))

    def set_holder(self, record: Record, holder: int) -> None:
        """Say whose a record is: one aligned store."""
        self._words_of(record)[_HOLDER // 8] = holder

    def set_attempt(self, record: Record, attempt: int) -> None:
        """Say how many held a record before."""
        at = record.position % self._capacity + _ATTEMPT
        self._data[at : at + 4] = min(attempt, 0xFFFF_FFFF).to_bytes(4, _ORDER)

    def _words_of(self, record: Record) -> memoryview:
        at = record.position % self._capacity
        return self._data[at : at + RECORD_BYTES].cast("Q")
