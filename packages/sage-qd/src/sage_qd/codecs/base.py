"""
What a codec is, and the tags that tell its records apart.

A record carries its bytes and one tag. Tag 0 is exact ``bytes``: every codec of every queue hands them over as they
are, and the ring does so without a call into Python, so ``bytes`` cost no codec at all. All other tags belong to one
codec each, and one from 128 on asks the ring for a payload that the reader may write. A codec that meets a foreign tag
refuses it with :class:`~sage_qd.errors.UntrustedPayloadError` and looks no further, so no writer can make a reader
unpickle what it did not agree to unpickle.

=====  =======  ==========================================================
tag    codec    bytes of the record
=====  =======  ==========================================================
0      any      the message itself, of type ``bytes``
1      pickle   one pickle, protocol 5
2      msgpack  one MessagePack value
3      json     one JSON text
4      raw      a bytes-like message; arrives as ``bytes``
129    pickle   a pickle and its buffers, see :mod:`sage_qd.codecs.pickled`
130    pickle   a numpy array of numbers, see :mod:`sage_qd.codecs.arrays`
=====  =======  ==========================================================
"""

import pickle
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, Protocol, TypeAlias

from sage_qd.errors import UntrustedPayloadError

__all__ = [
    "ARRAY_TAG",
    "JSON_TAG",
    "MSGPACK_TAG",
    "PICKLE_BUFFERS_TAG",
    "PICKLE_TAG",
    "RAW_TAG",
    "RAW_VIEW_TAG",
    "Codec",
    "Encoded",
    "Payload",
    "Plain",
    "refuse_tag",
]

RAW_TAG: Final = 0
PICKLE_TAG: Final = 1
MSGPACK_TAG: Final = 2
JSON_TAG: Final = 3
RAW_VIEW_TAG: Final = 4
PICKLE_BUFFERS_TAG: Final = 129
ARRAY_TAG: Final = 130

Payload: TypeAlias = bytes | bytearray | memoryview
"""Bytes of a record: ``bytes`` or ``bytearray`` are the reader's own, a ``memoryview`` is a lease on ring memory."""

Encoded: TypeAlias = tuple[int, Sequence["bytes | bytearray | memoryview | pickle.PickleBuffer"]]
"""Tag and parts; the parts are written one after the other into one record, without joining them first."""

_TAG_OWNERS: Final = {
    PICKLE_TAG: "pickle",
    PICKLE_BUFFERS_TAG: "pickle",
    ARRAY_TAG: "pickle",
    MSGPACK_TAG: "msgpack",
    JSON_TAG: "json",
    RAW_VIEW_TAG: "raw",
}


class Plain(NamedTuple):
    """
    What a ring calls in place of a codec for most messages: functions of a library, without a call into Python.

    Attributes:
        encode: Returns the one part of a message; a TypeError sends the message to the codec.
        decode: Its opposite.
        tag: Of such records, below 128.
    """

    encode: Callable[[Any], bytes]
    decode: Callable[[Any], Any]
    tag: int


class Codec(Protocol):
    """
    Turns messages into records and back.

    A codec holds no state between calls that one thread could see of another, and it never waits. Exact ``bytes`` never
    reach it: they are tag 0.
    """

    @property
    def name(self) -> str:
        """The word in descriptors."""

    @property
    def number(self) -> int:
        """The number in the header of a segment; never reused for another codec."""

    @property
    def runs_code(self) -> bool:
        """Whether decoding hostile bytes can run code of the writer's choice; such a codec needs a trusted writer."""

    @property
    def plain(self) -> Plain | None:
        """The way around it that a ring may take."""

    def encode(self, message: Any) -> Encoded:
        """
        Return tag and parts of a message. Called before anything is claimed in the queue.

        Raises:
            Exception: Whatever the message causes (``TypeError`` for a type that the codec does not carry, errors of
                a ``__reduce__``); the queue is untouched then.
        """

    def decode(self, tag: int, payload: Payload) -> Any:
        """
        Return the message. Called after the record was taken, outside any claim.

        Args:
            tag: As :meth:`encode` returned it.
            payload: The record. From a ``memoryview`` the result may refer to its memory instead of copying it, and is
                then read-only and valid as long as the lease.

        Raises:
            UntrustedPayloadError: The tag is not one of this codec.
            Exception: Whatever the bytes cause. The queue hands it on as the cause of a
                :class:`~sage_qd.errors.PayloadError`, which carries the bytes.
        """


def refuse_tag(tag: int, codec: Codec) -> UntrustedPayloadError:
    """Make the error for a record that another codec wrote."""
    return UntrustedPayloadError(codec=_TAG_OWNERS.get(tag, f"with tag {tag}"), allowed=[codec.name])
