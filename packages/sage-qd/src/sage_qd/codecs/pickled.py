"""
The codec ``pickle``: any object, with large buffers beside the pickle instead of inside it.

Protocol 5 hands out the memory of arrays as separate buffers. They are parts of the record, so the ring copies them
straight from the array into the segment, and a reader builds the array straight on its own copy of the record, or on
the ring's memory while it holds a lease. A record with buffers (tag 129) is, in little-endian order::

    0        4        8               16                            16 + 16 * count
    +--------+--------+---------------+------------------------+----------+-----+--------+-----+--------+
    | count  | 0      | pickle length | count x (offset, size) | pickle   | pad | buffer | pad | buffer | ...
    +--------+--------+---------------+------------------------+----------+-----+--------+-----+--------+

The top bit of a size says that the buffer was read-only. Each buffer starts at a multiple of 64 bytes from the start of
the record. The ring starts records at multiples of 16 bytes and spill segments at a page, so an array is aligned for
every type of numpy (16) always, and to a cache line (64) where the record is.

Most messages have no buffers. A ring therefore asks ``PLAIN`` first, which is ``pickle.dumps`` with a callback that
fails on
the first buffer; only then buffers are collected, by `PickleCodec.encode`. After a message with buffers, the ring
collects the next one at once, until one comes without.
"""

import pickle
import struct
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Final, cast

from sage_qd.codecs.arrays import decode_array, encode_array
from sage_qd.codecs.base import (
    ARRAY_TAG,
    PICKLE_BUFFERS_TAG,
    PICKLE_TAG,
    RAW_TAG,
    Encoded,
    Payload,
    Plain,
    refuse_tag,
)

__all__ = ["BUFFER_ALIGNMENT", "PLAIN", "PickleCodec", "plain_pickles"]

BUFFER_ALIGNMENT: Final = 64
_PROTOCOL: Final = 5
_PREFIX: Final = struct.Struct("<IIQ")
_ENTRY: Final = struct.Struct("<QQ")
_READ_ONLY: Final = 1 << 63
_ZEROS: Final = bytes(BUFFER_ALIGNMENT)
# ``iter`` is called with the first out-of-band buffer; it cannot be iterated, so the attempt ends with a TypeError. A
# function written in Python that raises would do the same; this one adds nothing to a message without buffers.
PLAIN: Final[Callable[[Any], bytes]] = partial(pickle.dumps, protocol=_PROTOCOL, buffer_callback=cast(Any, iter))
"""Pickle a message without buffers; TypeError for one that has some, or cannot be pickled."""


class _Written:
    """Takes the place of a file."""

    __slots__ = ("write",)

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self.write = write


def plain_pickles(messages: Iterable[Any]) -> list[bytes]:
    """
    Return what ``PLAIN`` makes of each message; one pickler for all of them takes a third of the time.

    Raises:
        TypeError: One has buffers, cannot be pickled, or is so large that it comes in several pieces.
    """
    pickles: list[bytes] = []
    pickler = pickle.Pickler(cast(Any, _Written(pickles.append)), _PROTOCOL, buffer_callback=cast(Any, iter))
    dump, forget = pickler.dump, pickler.clear_memo
    count = 0
    for count, message in enumerate(messages, 1):  # noqa: B007  (compared below)
        dump(message)
        forget()
    if len(pickles) != count:
        raise TypeError("one of the messages is too large for this")
    return pickles


class PickleCodec:
    """
    Carries whatever pickle carries; writable buffers arrive writable when taken, read-only when leased.

    The writer must be trusted: unpickling runs what the pickle says. Where the message has buffers, objects before the
    first one may see ``__reduce_ex__`` called twice.
    """

    name: Final = "pickle"
    number: Final = 1
    runs_code: Final = True
    plain: Final = Plain(PLAIN, pickle.loads, PICKLE_TAG)

    def encode(self, message: Any) -> Encoded:
        """Pickle a message; errors of the message's own methods pass through."""
        array = encode_array(message)
        if array is not None:
            return ARRAY_TAG, array
        buffers: list[pickle.PickleBuffer] = []
        stream = pickle.dumps(message, _PROTOCOL, buffer_callback=buffers.append)
        return _with_buffers(stream, buffers) if buffers else (PICKLE_TAG, (stream,))

    def decode(self, tag: int, payload: Payload) -> Any:
        """Unpickle a record; buffers lie on the payload where that is allowed, see the class."""
        if tag == PICKLE_TAG:
            return pickle.loads(payload)
        if tag == PICKLE_BUFFERS_TAG:
            stream, buffers = _split(payload)
            return pickle.loads(stream, buffers=buffers)
        if tag == ARRAY_TAG:
            return decode_array(payload)
        if tag == RAW_TAG:
            return bytes(payload)
        raise refuse_tag(tag, self)


def _with_buffers(stream: bytes, buffers: list[pickle.PickleBuffer]) -> Encoded:
    """Lay out pickle and buffers as one record."""
    views = [buffer.raw() for buffer in buffers]
    index = bytearray(_PREFIX.size + _ENTRY.size * len(views))
    _PREFIX.pack_into(index, 0, len(views), 0, len(stream))
    parts: list[bytes | bytearray | memoryview] = [index, stream]
    end = len(index) + len(stream)
    for place, view in enumerate(views):
        padding = -end % BUFFER_ALIGNMENT
        if padding:
            parts.append(_ZEROS[:padding])
        end += padding
        size = view.nbytes | (_READ_ONLY if view.readonly else 0)
        _ENTRY.pack_into(index, _PREFIX.size + _ENTRY.size * place, end, size)
        parts.append(view)
        end += view.nbytes
    return PICKLE_BUFFERS_TAG, parts


def _split(payload: Payload) -> tuple[memoryview, list[memoryview | bytearray]]:
    """
    Find pickle and buffers in a record, trusting nothing it says.

    Buffers are views on a ``bytearray`` or ``memoryview``. ``bytes`` may not be written, so buffers that the writer
    could write are copied out of them.
    """
    view = memoryview(payload)
    if len(view) < _PREFIX.size:
        raise ValueError(f"a record with buffers takes {_PREFIX.size} bytes at least, not {len(view)}")
    count, zero, stream_size = _PREFIX.unpack_from(view)
    start = _PREFIX.size + _ENTRY.size * count
    end = start + stream_size
    if zero or end > len(view):
        raise ValueError(f"its index says {count} buffers and a pickle of {stream_size} bytes in {len(view)} bytes")
    stream = view[start:end]
    buffers: list[memoryview | bytearray] = []
    for offset, flagged in _ENTRY.iter_unpack(view[_PREFIX.size : start]):
        size = flagged & ~_READ_ONLY
        if offset < end or offset + size > len(view):
            raise ValueError(f"its index says a buffer of {size} bytes at {offset} in {len(view)} bytes")
        end = offset + size
        part = view[offset:end]
        if flagged & _READ_ONLY:
            buffers.append(part.toreadonly())
        else:
            buffers.append(bytearray(part) if type(payload) is bytes else part)
    return stream, buffers
