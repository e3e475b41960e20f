"""
What travels between tasks: batches of packets, and the marker that one producer is done.

A batch is one message of the queue: ``(path, sequence, payloads, keys)``. *path* says which edge and which instance of
the task before it sent the batch, *sequence* counts that path's packets from 0, so a batch that comes twice is known.
``keys`` is None where packets have no key.
"""

import zlib
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeAlias

__all__ = ["Batch", "Packet", "StopSignal", "is_stop", "stable_hash"]


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

_SPREAD: Final = 0x9E3779B97F4A7C15  # 2**64 divided by the golden ratio: neighbouring numbers end far apart


def is_stop(message: Any) -> bool:
    """Whether a message is the marker, by itself or as the payload of a packet."""
    return type(message) is StopSignal or (type(message) is Packet and type(message.payload) is StopSignal)


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
