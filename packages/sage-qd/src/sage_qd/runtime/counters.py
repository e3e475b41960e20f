"""What tasks count, in memory that others see while they run in processes of their own."""

import mmap
import struct
from typing import Final

from sage_qd.runtime.board import BLOCK_BYTES, WORDS

__all__ = ["Counters"]

_NAMES: Final = ("taken", "out", "errors", "skipped", "dropped", "restarts", "blocked_ns")
_WORD: Final = struct.Struct("<Q")


def _word(name: str) -> property:
    index = WORDS.index(name)

    def read(self: "Counters") -> int:
        value: int = _WORD.unpack_from(self._memory, self._start + 8 * index)[0]
        return value

    def write(self: "Counters", value: int) -> None:
        _WORD.pack_into(self._memory, self._start + 8 * index, value)

    return property(read, write)


class Counters:
    """
    The counters of one task, in a block of the :class:`~sage_qd.runtime.board.Board` of its job; each word has one
    writer, and any process may read.

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

    taken = _word("taken")
    out = _word("out")
    errors = _word("errors")
    skipped = _word("skipped")
    dropped = _word("dropped")
    restarts = _word("restarts")
    told_to_stop = _word("told_to_stop")
    blocked_ns = _word("blocked_ns")

    def __init__(self, memory: mmap.mmap, start: int) -> None:
        self._memory = memory
        self._start = start

    @classmethod
    def single(cls) -> "Counters":
        """Counters of one task by itself."""
        return cls(mmap.mmap(-1, BLOCK_BYTES), 0)

    def as_dict(self) -> dict[str, int]:
        """Return the values by name."""
        return {name: getattr(self, name) for name in _NAMES}

    def take(self, figures: dict[str, int]) -> None:
        """Take what a task has counted elsewhere, but not how often it was started again: that is counted here."""
        for name in _NAMES:
            if name != "restarts":
                setattr(self, name, figures[name])
