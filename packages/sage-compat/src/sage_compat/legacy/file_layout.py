"""
The bytes of a file queue: a header with two copies of the state, and the messages in a circle behind it.

A change writes the copy that does not count and then, as its last step, the one byte that says which copy counts. So
whoever is killed, at any instruction, leaves the state from before its change or the one after it.

Room is counted as the ring of sage-qd counts it, so that a queue is full at the same message on the old path and on the
new one: 16 bytes for each message and its bytes, rounded up to 16, and 16 more for every 64th message. Messages above a
quarter of the capacity lie in files of their own and count with 16 bytes.
"""

import mmap
import os
import struct
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from sage_qd.errors import CorruptQueueError

__all__ = ["DATA_START", "LEAST_CAPACITY", "Circle", "Record", "State", "header_of", "record_units"]

MAGIC: Final = b"SGECMPT1"
DATA_START: Final = 4096
LEAST_CAPACITY: Final = 4096
UNIT: Final = 16
_FIXED: Final = struct.Struct("<8s8xQQ32s")  # magic, the byte that chooses (and padding), capacity, max_items, instance
_CHOICE_AT: Final = 8
_STATE: Final = struct.Struct("<14Q")
_STATE_AT: Final = (256, 512)
_SUCCESSOR_AT: Final = 768
LONGEST_SUCCESSOR: Final = DATA_START - _SUCCESSOR_AT - 2
_RECORD: Final = struct.Struct("<IIQ")

SPILLED: Final = 1
LONGER: Final = 2
RAW: Final = 4
_RECORD_FLAGS: Final = SPILLED | LONGER | RAW


class State(NamedTuple):
    """
    What changes with each operation; positions are bytes ever written and read.

    Attributes:
        head: Where the next message is read.
        tail: Where the next message is written.
        puts: Messages ever put.
        gets: Messages ever taken, including dropped ones.
        bytes_put: Bytes of messages ever put.
        bytes_taken: Bytes of messages ever taken.
        dropped: Messages that clear and shutdown dropped.
        high_water: Most messages at once.
        endings: Bits of how the queue ended.
        message_waiters: How many wait for a message; an upper bound after a kill.
        room_waiters: How many wait for room; likewise.
        put_blocked_ns: Nanoseconds that producers waited.
        get_blocked_ns: Nanoseconds that consumers waited.
        spare: Zero.
    """

    head: int = 0
    tail: int = 0
    puts: int = 0
    gets: int = 0
    bytes_put: int = 0
    bytes_taken: int = 0
    dropped: int = 0
    high_water: int = 0
    endings: int = 0
    message_waiters: int = 0
    room_waiters: int = 0
    put_blocked_ns: int = 0
    get_blocked_ns: int = 0
    spare: int = 0

    def with_changes(self, **changes: Any) -> "State":
        """Return a state that differs in these."""
        return self._replace(**changes)

    @property
    def depth(self) -> int:
        """Messages in the queue."""
        return self.puts - self.gets

    def packed(self) -> bytes:
        """The state as bytes."""
        return _STATE.pack(*self)


@dataclass(frozen=True, slots=True)
class Record:
    """One message in the circle."""

    payload: bytes
    flags: int
    units: int


def record_units(size: int, number: int) -> int:
    """Units of room that the message with this number takes, if its payload has that many bytes."""
    return 1 + -(-size // UNIT) + (number % 64 == 0)


def header_of(capacity_bytes: int, max_items: int, instance: str) -> bytes:
    """The header of a new queue."""
    header = bytearray(DATA_START)
    _FIXED.pack_into(header, 0, MAGIC, capacity_bytes, max_items, instance.encode())
    header[_STATE_AT[0] : _STATE_AT[0] + _STATE.size] = State().packed()
    return bytes(header)


class Circle:
    """
    The mapped file of a queue. Every method but the constructor is called with the queue's lock.

    Args:
        descriptor: Of the file; stays with the caller.

    Raises:
        CorruptQueueError: It is no queue, or a damaged one.
    """

    def __init__(self, descriptor: int) -> None:
        size = os.fstat(descriptor).st_size
        if size < DATA_START + LEAST_CAPACITY:
            raise CorruptQueueError(field="file size", value=size, wanted=f"at least {DATA_START + LEAST_CAPACITY}")
        self._map = mmap.mmap(descriptor, size)
        magic, capacity_bytes, max_items, instance = _FIXED.unpack_from(self._map)
        self.capacity_bytes: int = capacity_bytes
        self.max_items: int = max_items
        if magic != MAGIC or self.capacity_bytes + DATA_START != size or self.capacity_bytes % UNIT:
            self._map.close()
            raise CorruptQueueError(field="header", offset=0, value=magic, wanted=MAGIC)
        self.instance = str(instance, "ascii", "replace")

    @property
    def longest_inside(self) -> int:
        """Bytes of the largest message in the circle; larger ones lie in files of their own."""
        return (self.capacity_bytes - 2 * UNIT) // 4

    def close(self) -> None:
        """Give the mapping up."""
        self._map.close()

    def load(self) -> State:
        """Return the state that counts."""
        chosen = self._map[_CHOICE_AT]
        if chosen > 1:
            raise CorruptQueueError(field="choice of the state", offset=_CHOICE_AT, value=chosen, wanted="0 or 1")
        state = State(*_STATE.unpack_from(self._map, _STATE_AT[chosen]))
        used = state.tail - state.head
        if not 0 <= used <= self.capacity_bytes or used % UNIT or state.gets > state.puts:
            raise CorruptQueueError(
                field="state", offset=_STATE_AT[chosen], value=state, wanted="0 <= used <= capacity"
            )
        return state

    def store(self, state: State) -> None:
        """Let another state count; the last step of a change."""
        other = 1 - self._map[_CHOICE_AT]
        place = _STATE_AT[other]
        self._map[place : place + _STATE.size] = state.packed()
        self._map[_CHOICE_AT] = other

    def write_successor(self, text: str) -> None:
        """
        Say where the queue goes; it counts when the state says so.

        Raises:
            ValueError: The text is too long.
        """
        data = text.encode()
        if len(data) > LONGEST_SUCCESSOR:
            raise ValueError(f"the successor takes {len(data):,} bytes and the limit is {LONGEST_SUCCESSOR:,}")
        place = _SUCCESSOR_AT + 2
        self._map[place : place + len(data)] = data
        self._map[_SUCCESSOR_AT:place] = len(data).to_bytes(2, "little")

    def read_successor(self) -> str:
        """Return what :meth:`write_successor` wrote."""
        place = _SUCCESSOR_AT + 2
        size = int.from_bytes(self._map[_SUCCESSOR_AT:place], "little")
        return str(self._map[place : place + size], "utf-8", "replace")

    def fits(self, state: State, units: int) -> bool:
        """Whether there is room for one more message of so many units."""
        if self.max_items and state.depth >= self.max_items:
            return False
        return state.tail - state.head + units * UNIT <= self.capacity_bytes

    def is_full(self, state: State) -> bool:
        """Whether not even an empty message would fit."""
        at_bound = bool(self.max_items) and state.depth >= self.max_items
        return at_bound or state.tail - state.head + 2 * UNIT > self.capacity_bytes

    def write(self, state: State, payload: bytes, flags: int) -> int:
        """Write a message where the next one goes, and return its units; it counts when the state says so."""
        units = record_units(len(payload), state.puts)
        marked = flags | (LONGER if state.puts % 64 == 0 else 0)
        self._copy_in(state.tail, _RECORD.pack(len(payload), marked, state.puts) + payload)
        return units

    def read(self, state: State) -> Record:
        """Return the oldest message; there must be one."""
        length, flags, number = _RECORD.unpack(self._copy_out(state.head, _RECORD.size))
        units = record_units(length, state.gets)
        if number != state.gets or flags & ~_RECORD_FLAGS or state.head + units * UNIT > state.tail:
            raise CorruptQueueError(field="message", offset=state.head, value=number, wanted=state.gets)
        return Record(self._copy_out(state.head + _RECORD.size, length), flags, units)

    def _copy_in(self, position: int, data: bytes) -> None:
        start = DATA_START + position % self.capacity_bytes
        first = min(len(data), self.capacity_bytes + DATA_START - start)
        self._map[start : start + first] = data[:first]
        self._map[DATA_START : DATA_START + len(data) - first] = data[first:]

    def _copy_out(self, position: int, size: int) -> bytes:
        start = DATA_START + position % self.capacity_bytes
        first = min(size, self.capacity_bytes + DATA_START - start)
        return self._map[start : start + first] + self._map[DATA_START : DATA_START + size - first]
