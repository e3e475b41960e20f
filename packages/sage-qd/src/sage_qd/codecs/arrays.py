"""
A numpy array as one record: its type and shape in front of its memory, and no pickle.

Pickling an array of a megabyte takes a quarter of the time of the whole put, and most messages that are large are one
array. One that is exactly a ``numpy.ndarray``, in C order, of plain numbers in the machine's byte order, is therefore a
record of its own (tag 130), in little-endian order::

    0          4        5          6        8                    multiple of 64
    +----------+--------+----------+--------+--------------------+-----+--------+
    | type     | ndim   | flags    | 0      | ndim x length      | 0   | memory |
    +----------+--------+----------+--------+--------------------+-----+--------+

The type is numpy's own name for it (``<f8``), filled up with zeros; bit 0 of the flags says that the array was
read-only. All other arrays are pickled, and arrive the same way.
"""

import math
import pickle
import struct
import sys
from functools import lru_cache
from typing import Any, Final

__all__ = ["decode_array", "encode_array"]

_ALIGNMENT: Final = 64
_PREFIX: Final = struct.Struct("<4sBBH")
_READ_ONLY: Final = 1
_NUMBERS: Final = frozenset("?bBhHiIlLqQefdgFDG")
_KNOWN_TYPES: Final = frozenset(
    f"{order}{letter}{size}"
    for order, letter, sizes in (("|", "biu", (1,)), ("<", "iufc", (2, 4, 8, 16, 32)))
    for letter in letter
    for size in sizes
)


def encode_array(message: Any) -> tuple[bytes, memoryview] | None:
    """Return header and memory of an array, which is not copied; None for everything that is no such array."""
    numpy = sys.modules.get("numpy")  # who has an array has imported it
    if numpy is None or type(message) is not numpy.ndarray or not message.flags.c_contiguous:
        return None
    kind = message.dtype
    if kind.isbuiltin != 1 or kind.char not in _NUMBERS or kind.metadata is not None:
        return None
    return _header(kind.str, message.shape, message.flags.writeable), pickle.PickleBuffer(message).raw()


def decode_array(payload: bytes | bytearray | memoryview) -> Any:
    """
    Return the array on the memory of the payload, trusting nothing that the record says.

    ``bytes`` may not be written, so the memory of an array that the writer could write is copied out of them.

    Raises:
        ValueError: This is no such record.
        ImportError: numpy is not installed here.
    """
    import numpy

    if len(payload) < _PREFIX.size:
        raise ValueError(f"a record with an array takes {_PREFIX.size} bytes at least, not {len(payload)}")
    name, dimensions, flags, zero = _PREFIX.unpack_from(payload)
    start = _start(dimensions)
    word = name.rstrip(b"\0").decode("ascii", "replace")
    if zero or flags & ~_READ_ONLY or word not in _KNOWN_TYPES or start > len(payload):
        raise ValueError(f"its header says an array of {dimensions} dimensions of {word!r} in {len(payload)} bytes")
    shape = struct.unpack_from(f"<{dimensions}Q", payload, _PREFIX.size)
    kind = numpy.dtype(word)
    if math.prod(shape) * kind.itemsize != len(payload) - start:
        raise ValueError(f"its header says an array {shape} of {word!r} in {len(payload)} bytes")
    is_read_only = bool(flags & _READ_ONLY)
    if type(payload) is bytes and not is_read_only:
        payload = bytearray(payload)
    array: numpy.ndarray[Any, Any] = numpy.ndarray(shape, kind, payload, start)
    if is_read_only:
        array.flags.writeable = False
    return array


def _start(dimensions: int) -> int:
    """Where the memory starts."""
    return -(-(_PREFIX.size + 8 * dimensions) // _ALIGNMENT) * _ALIGNMENT


@lru_cache(maxsize=256)
def _header(name: str, shape: tuple[int, ...], is_writable: bool) -> bytes:
    prefix = _PREFIX.pack(name.encode(), len(shape), 0 if is_writable else _READ_ONLY, 0)
    return (prefix + struct.pack(f"<{len(shape)}Q", *shape)).ljust(_start(len(shape)), b"\0")
