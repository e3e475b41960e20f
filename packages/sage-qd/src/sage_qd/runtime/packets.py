"""
What travels between tasks: batches of packets, and the marker that one producer is done.

A batch is one message of the queue: ``(path, sequence, payloads, keys)``. *path* says which edge and which instance of
the task before it sent the batch, *sequence* counts that path's packets from 0, so a batch that comes twice is known.
``keys`` is None where packets have no key. A list of short texts travels as one text: it is written and read several
times as fast as text by text. :func:`packed` and :func:`unpacked` are the two ends of that.
"""

import zlib
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeAlias

__all__ = ["Batch", "PackedBatch", "Packet", "StopSignal", "is_stop", "packed", "stable_hash", "unpacked"]


@dataclass(frozen=True, slots=True)
class Packet:
    """
    One packet by itself, for those who put into a task from outside.

    Attributes:
        payload: What the operator gets.
        key: What it is partitioned by; None for none. ``0`` and ``""`` are keys.
        input_index: Which input of the operator it is for.
    """

    payload: Any
    key: Any = None
    input_index: int = 0


class StopSignal(NamedTuple):
    """The last message of one path: whoever sends on it is done, and everything it sent came before."""

    path: int
    source: str


Batch: TypeAlias = tuple[int, int, list[Any], list[Any] | None]
"""Path, number of the first packet, payloads, keys."""

PackedBatch: TypeAlias = tuple[int, int, list[Any] | str, list[Any] | str | None]
"""The same, as it travels."""

_SEPARATOR: Final = "\x1f"
_SHORT: Final = 64
"""Most characters of a text, on average, that are joined: long ones gain nothing, and would be copied once more."""
_LONG: Final = 1024
"""Most characters of the first one: where it is longer, the others are not even tried."""
_SPREAD: Final = 0x9E3779B97F4A7C15  # 2**64 divided by the golden ratio: neighbouring numbers end far apart


def is_stop(message: Any) -> bool:
    """Whether a message is the marker, by itself or as the payload of a packet."""
    return type(message) is StopSignal or (type(message) is Packet and type(message.payload) is StopSignal)


def packed(path: int, sequence: int, payloads: list[Any], keys: list[Any] | None) -> PackedBatch:
    """Make the message of a batch."""
    wrapped = _joined(payloads)
    if keys is None or keys is payloads:
        return path, sequence, wrapped, None if keys is None else wrapped
    return path, sequence, wrapped, _joined(keys)


def unpacked(message: PackedBatch) -> Batch:
    """Return the batch that a message holds."""
    path, sequence, wrapped, keys = message
    payloads = _split(wrapped)
    if keys is None or keys is wrapped:
        return path, sequence, payloads, None if keys is None else payloads
    return path, sequence, payloads, _split(keys)


def _split(items: list[Any] | str) -> list[Any]:
    return items.split(_SEPARATOR) if isinstance(items, str) else items


def _joined(items: list[Any]) -> list[Any] | str:
    """Join short texts; the list itself where it is not that."""
    first = items[0]
    if type(first) is not str or len(first) > _LONG or set(map(type, items)) != {str}:
        return items
    text = _SEPARATOR.join(items)
    return text if len(text) <= _SHORT * len(items) and text.count(_SEPARATOR) == len(items) - 1 else items


def stable_hash(key: Any) -> int:
    """
    Return a hash of 32 bits that is the same in every process and run, and the same for keys that are equal.

    Raises:
        TypeError: The key is none of: number, text, bytes, None, a tuple of these.
    """
    kind = type(key)
    if kind is int or kind is float or kind is bool:
        return ((hash(key) * _SPREAD) >> 32) & 0xFFFFFFFF  # Python's hash of numbers is not randomised
    if kind is str:
        return zlib.crc32(key.encode("utf-8", "surrogatepass"))
    if kind is bytes:
        return zlib.crc32(key)
    if kind is tuple:
        found = len(key)
        for part in key:
            found = (found * 31 + stable_hash(part)) & 0xFFFFFFFF
        return found
    if key is None:
        return 0
    raise TypeError(f"a key must be a number, text, bytes, None or a tuple of these, not {kind.__name__}")
