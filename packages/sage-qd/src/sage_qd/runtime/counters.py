"""What tasks count, in memory that the driver sees while they run in processes of their own."""

import mmap
import struct
from typing import Final

__all__ = ["Counters"]

_NAMES: Final = ("taken", "out", "errors", "skipped", "dropped", "restarts", "blocked_ns")
_WORD: Final = struct.Struct("<Q")
_SIZE: Final = 64


def _word(index: int) -> property:
    def read(self: "Counters") -> int:
        value: int = _WORD.unpack_from(self._memory, self._start + 8 * index)[0]
        return value

    def write(self: "Counters", value: int) -> None:
        _WORD.pack_into(self._memory, self._start + 8 * index, value)

    return property(read, write)


class Counters:
    """
    The counters of one task; each word has one writer, and any process that was forked later may read.

    Attributes:
        taken: Packets taken, or made by a source.
        out: Packets sent.
        errors: Times the operator raised.
        skipped: Packets given up after that.
        dropped: Packets, and dead letters, that were lost because there was no room for them.
        restarts: Times the task was started again.
        blocked_ns: Nanoseconds that the task waited for room in the queues of others; grows while it waits.
        told_to_stop: 1 when the driver wants a source to end; written by the driver, and no figure.
    """

    taken = _word(0)
    out = _word(1)
    errors = _word(2)
    skipped = _word(3)
    dropped = _word(4)
    restarts = _word(5)
    told_to_stop = _word(6)
    blocked_ns = _word(7)

    def __init__(self, memory: mmap.mmap, start: int) -> None:
        self._memory = memory
        self._start = start

    @classmethod
    def single(cls) -> "Counters":
        """Counters of one task by itself."""
        return cls.many(1)[0]

    @classmethod
    def many(cls, count: int) -> "list[Counters]":
        """Counters for several tasks, in one piece of shared memory."""
        memory = mmap.mmap(-1, max(count, 1) * _SIZE)
        return [cls(memory, index * _SIZE) for index in range(count)]

    def as_dict(self) -> dict[str, int]:
        """Return the values by name."""
        return {name: getattr(self, name) for name in _NAMES}
