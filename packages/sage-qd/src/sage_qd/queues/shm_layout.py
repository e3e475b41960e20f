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
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from operator import attrgetter
from struct import Struct
from struct import error as struct_error
from time import monotonic_ns
from typing import Final

from sage_qd.codecs import RAW_TAG
from sage_qd.errors import CorruptQueueError, IncompatibleQueueError

__all__ = [
    "AT_ONCE",
    "DATA_START",
    "FREE",
    "GONE",
    "RECORD_BYTES",
    "SEALED",
    "SHUT",
    "SUCCESSOR_BYTES",
    "Batch",
    "Memory",
    "Part",
    "Payload",
    "Record",
    "Settings",
    "State",
    "record_bytes",
]

Part = bytes | bytearray | memoryview
Payload = tuple[int, bytes | bytearray]
"""Tag and bytes of a message that was read."""

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

SHUT: Final = 1
AT_ONCE: Final = 2
SEALED: Final = 4
"""Bits of :attr:`State.flags`."""

_CURRENT: Final = 16  # words, from the start
_BUSY: Final = 17
_BLOCKS: Final = (256, 512)
_FIXED: Final = Struct("=8sQQQQ16s")
_RECORD: Final = Struct("=QIIQQ")
_STAMP: Final = 16
_HOLDER: Final = 24
_ATTEMPT: Final = 12
_WRITABLE: Final = 128
"""The first tag of payloads that a reader may write."""
_JOINED_BYTES: Final = 4096
"""Payloads up to this size are copied once more, with their neighbours, to be copied at once under the lock."""
_STATE: Final = Struct("=20Q")
_PADDING: Final = [bytes(size) for size in range(RECORD_BYTES)]
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


_NAMES: Final = [field.name for field in fields(State)]
_VALUES: Final = attrgetter(*_NAMES)


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


class Batch:
    """
    Messages as the bytes of their records, made before the lock is taken, to be copied under it.

    Args:
        messages: Tag and parts of each.
    """

    __slots__ = ("ends", "parts", "sizes", "stamp_ns")

    def __init__(self, messages: Iterable[tuple[int, Sequence[Part]]]) -> None:
        self.stamp_ns = stamp_ns = monotonic_ns()
        """The time that the headers carry."""
        self.parts: list[Part] = []
        """The bytes, cut anywhere."""
        self.ends: list[int] = []
        """Where each record ends, counted from the first one's start."""
        self.sizes: list[int] = []
        """Of the payloads."""
        end = 0
        joined: list[Part] = []
        for tag, parts in messages:
            size = len(parts[0]) if len(parts) == 1 else sum(map(len, parts))
            joined.append(_RECORD.pack(size, tag, 0, stamp_ns, FREE))
            if size <= _JOINED_BYTES:
                joined += parts
            else:
                self.parts += (b"".join(joined), *parts)
                joined = []
            padding = -size % RECORD_BYTES
            if padding:
                joined.append(_PADDING[padding])
            end += RECORD_BYTES + size + padding
            self.ends.append(end)
            self.sizes.append(size)
        self.parts.append(b"".join(joined))


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
        self._records = self._data[: len(self._data) // RECORD_BYTES * RECORD_BYTES].cast("Q")
        self._tags = self._records.cast("B").cast("I")
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
        for view in (self._tags, self._records, self._words, self._data, self._bytes):
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
        if not self._holds(values):
            raise self._damage(values, _BLOCKS[current])
        return State(*values)

    def _holds(self, values: tuple[int, ...]) -> bool:
        """Whether the values of a state keep the rules; all of them together are below 2**63, and so is each."""
        head, tail, scan, count, leased, gone = values[:6]
        return (
            head <= scan <= tail <= head + self._capacity
            and not (head | scan | tail) % RECORD_BYTES
            and leased <= count
            and (count + gone) * RECORD_BYTES <= tail - head
            and values[-1] <= SUCCESSOR_BYTES
            and not sum(values) >> 63
        )

    def _damage(self, values: tuple[int, ...], offset: int) -> CorruptQueueError:
        """Which rule is broken."""
        state = State(*values)
        if sum(values) >> 63:
            field = _NAMES[values.index(max(values))]
            return CorruptQueueError(field=field, offset=offset, value=max(values), wanted="below 2**63")
        if state.successor_bytes > SUCCESSOR_BYTES:
            return CorruptQueueError(field="successor_bytes", value=state.successor_bytes, wanted=SUCCESSOR_BYTES)
        head, scan, tail = state.head, state.scan, state.tail
        if not (head <= scan <= tail <= head + self._capacity) or (head | scan | tail) % RECORD_BYTES:
            field, wanted = "positions", "head <= scan <= tail <= head + capacity_bytes"
            return CorruptQueueError(field=field, offset=offset, value=(head, scan, tail), wanted=wanted)
        counts = (state.count, state.leased, state.gone)
        return CorruptQueueError(field="counts", offset=offset + 24, value=counts, wanted="no more than fit")

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
            field = _NAMES[values.index(min(values))]
            raise CorruptQueueError(field=field, value=min(values), wanted="at least 0") from None
        self._words[_CURRENT] = other

    @property
    def busy(self) -> int:
        """What is being done to records and state; 0 for nothing."""
        return self._words[_BUSY]

    @busy.setter
    def busy(self, change: int) -> None:
        self._words[_BUSY] = change

    def successor_of(self, state: State) -> str | None:
        """What the queue was sealed with; None while it is not."""
        if not state.flags & SEALED:
            return None
        return bytes(self._bytes[SUCCESSOR_START : SUCCESSOR_START + state.successor_bytes]).decode(errors="replace")

    def name_successor(self, text: bytes) -> None:
        """Write what :attr:`State.successor_bytes` will count."""
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
            raise self._too_long(position, tail, size)
        return Record(position, size, tag, attempt, stamp_ns, holder, end)

    def _too_long(self, position: int, tail: int, size: int) -> CorruptQueueError:
        offset = DATA_START + position % self._capacity
        return CorruptQueueError(field="record size", offset=offset, value=size, wanted=f"at most {tail - position}")

    def write(self, position: int, batch: Batch, start: int, stop: int) -> None:
        """Write some records of a batch where nobody reads yet."""
        skipped = batch.ends[start - 1] if start else 0
        left = batch.ends[stop - 1] - skipped
        at = position
        for part in batch.parts:
            if skipped >= len(part):
                skipped -= len(part)
                continue
            if skipped or left < len(part):
                part = memoryview(part)[skipped : skipped + left]
                skipped = 0
            at = self._write_part(at, part)
            left -= len(part)
            if not left:
                return

    def stamp(self, position: int, stamp_ns: int) -> None:
        """Write a later time into a record that nobody reads yet."""
        self._records[(position % self._capacity + _STAMP) // 8] = stamp_ns

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

    def read(self, head: int, tail: int, max_items: int, max_bytes: int) -> tuple[list[Payload], int, int]:
        """
        Return copies of the oldest records, where all are free; where they end, and how many bytes of payload they are.

        Raises:
            CorruptQueueError: One cannot end before the tail, or is not free.
        """
        words, tags, capacity = self._records, self._tags, self._capacity
        found: list[tuple[int, int, int]] = []
        position, total = head, 0
        while position < tail and len(found) < max_items:
            at = position % capacity >> 3
            size = words[at]
            end = position + (size + 2 * RECORD_BYTES - 1 & -RECORD_BYTES)
            if end > tail:
                raise self._too_long(position, tail, size)
            if words[at + 3] != FREE:
                raise CorruptQueueError(field="holder", offset=DATA_START + 8 * at, value=words[at + 3], wanted=FREE)
            if max_bytes and found and total + size > max_bytes:
                break
            total += size
            found.append((tags[2 * at + 2], position + RECORD_BYTES, size))
            position = end
        if len(found) > 1 and position - head <= len(found) * _JOINED_BYTES:
            copy = self._copy(head, position - head, RAW_TAG)
            parts = [(tag, copy[start - head : start - head + size]) for tag, start, size in found]
            payloads = [(tag, part if tag < _WRITABLE else bytearray(part)) for tag, part in parts]
        else:
            payloads = [(tag, self._copy(start, size, tag)) for tag, start, size in found]
        return payloads, position, total

    # -- One message, where nothing is out of the ordinary ------------------------------------------------------------

    def put_at_once(self, tag: int, payload: Part) -> bool:
        """
        Append one message, if that is all there is to it; False when nothing was done, for whatever reason.

        The same stores in the same order as a change that is made of a :class:`State`, without making one: a call for
        each message costs half as much. Whatever is unusual, damage included, is left to that way.
        """
        words, size = self._words, len(payload)
        current = words[_CURRENT]
        if current > 1:
            return False
        values = _STATE.unpack_from(self._bytes, _BLOCKS[current])
        (
            head, tail, scan, count, leased, gone, puts, again, dropped, high, put, taken,
            put_ns, get_ns, getters, putters, joiners, unfinished, flags, moved,
        ) = values  # fmt: skip
        at, end = tail % self._capacity + RECORD_BYTES, tail + (size + 2 * RECORD_BYTES - 1 & -RECORD_BYTES)
        if (
            flags | getters | putters | words[_BUSY]
            or not self._holds(values)
            or end - head > self._capacity
            or at + size > self._capacity
            or 0 < self.settings.maxsize <= count
        ):
            return False
        _RECORD.pack_into(self._data, at - RECORD_BYTES, size, tag, 0, monotonic_ns(), FREE)
        self._data[at : at + size] = payload
        count += 1
        high = max(high, count)
        _STATE.pack_into(
            self._bytes, _BLOCKS[1 - current],
            head, end, scan, count, leased, gone, puts + 1, again, dropped, high, put + size, taken,
            put_ns, get_ns, 0, 0, joiners, unfinished + 1, 0, moved,
        )  # fmt: skip
        words[_CURRENT] = 1 - current
        return True

    def take_at_once(self) -> list[Payload] | None:
        """Take the oldest message, likewise; None when nothing was done."""
        words, records = self._words, self._records
        current = words[_CURRENT]
        if current > 1:
            return None
        values = _STATE.unpack_from(self._bytes, _BLOCKS[current])
        (
            head, tail, _, count, leased, gone, puts, again, dropped, high, put, taken,
            put_ns, get_ns, getters, putters, joiners, unfinished, flags, moved,
        ) = values  # fmt: skip
        if flags | getters | putters | leased | gone | words[_BUSY] or not count or not self._holds(values):
            return None
        at = head % self._capacity
        size, tag, holder = records[at >> 3], self._tags[(at >> 2) + 2], records[(at >> 3) + 3]
        at, end = at + RECORD_BYTES, head + (size + 2 * RECORD_BYTES - 1 & -RECORD_BYTES)
        if end > tail or at + size > self._capacity or holder != FREE or tag >= _WRITABLE:
            return None
        payload = bytes(self._data[at : at + size])
        _STATE.pack_into(
            self._bytes, _BLOCKS[1 - current],
            end, tail, end, count - 1, 0, 0, puts, again, dropped, high, put, taken + size,
            put_ns, get_ns, 0, 0, joiners, unfinished, 0, moved,
        )  # fmt: skip
        words[_CURRENT] = 1 - current
        return [(tag, payload)]

    def payload(self, record: Record) -> bytes | bytearray:
        """Return a copy of a record's payload, which may be written where its tag says so."""
        return self._copy(record.position + RECORD_BYTES, record.size, record.tag)

    def _copy(self, position: int, size: int, tag: int) -> bytes | bytearray:
        kind = bytearray if tag >= _WRITABLE else bytes
        at = position % self._capacity
        end = at + size
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
