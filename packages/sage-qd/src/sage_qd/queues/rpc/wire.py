"""
What client and server say to each other: MessagePack arrays of fixed shape, checked as they are decoded.

A client sends :class:`Requests`, a server :class:`Answers`; each is one frame with any number of entries, so that calls
under way at the same time share the cost of a frame. Requests are numbered by the client, upwards from 1. The server
remembers the answer to each until the client says that it has it (``done``), so a request that is repeated after a
broken connection is carried out once.

Payloads are never looked into: an item is ``bytes`` for a message of ``bytes``, else the tag of its codec and the
bytes.
"""

from typing import Any, Final, TypeAlias

import msgspec

from sage_qd.errors import FrameTooLargeError, ProtocolError

__all__ = [
    "BATCH_BYTES",
    "FRAME_ROOM",
    "LARGEST_FRAME",
    "TRY",
    "VERSION",
    "Answer",
    "Answers",
    "Ask",
    "Bye",
    "Cancel",
    "CloseHandle",
    "Done",
    "Failed",
    "Hello",
    "Item",
    "OpenHandle",
    "Ping",
    "Pong",
    "Put",
    "Request",
    "Requests",
    "Settle",
    "Take",
    "Taken",
    "Wait",
    "Welcome",
    "pack",
    "size_of",
    "unpack_answers",
    "unpack_requests",
]

VERSION: Final = 1
LARGEST_FRAME: Final = 64 << 20
"""Bytes of a frame, unless the server says otherwise."""
BATCH_BYTES: Final = 1 << 20
"""A frame with several entries is closed when it has so many bytes."""
TRY: Final = -1.0
"""Seconds of a call that does not wait."""
FRAME_ROOM: Final = 4096
"""Bytes of a frame that are not the message."""

Item: TypeAlias = bytes | tuple[int, bytes]
"""A message of ``bytes``, or tag and bytes of what a codec made of a message."""


class _Entry(msgspec.Struct, array_like=True, gc=False):
    """An entry of a frame."""


class Hello(_Entry, tag=1):
    """The first thing a client says; ``client`` is 16 random bytes that stay the same when it comes back."""

    version: int
    client: bytes
    resume: bool


class OpenHandle(_Entry, tag=2):
    """Open a queue by name; answered with a :class:`dict` that tells its properties."""

    number: int
    name: str
    create: bool
    maxsize: int
    codec: str
    instance: str | None


class CloseHandle(_Entry, tag=3):
    """Give up a handle: what waits on it ends, its leases are given back."""

    number: int
    handle: int


class Put(_Entry, tag=4):
    """Append items; answered with how many were."""

    number: int
    handle: int
    items: list[Item]
    seconds: float | None


class Take(_Entry, tag=5):
    """Take up to ``count`` items; answered with :class:`Taken`."""

    number: int
    handle: int
    count: int
    most_bytes: int
    seconds: float | None
    linger: float
    auto: bool


class Settle(_Entry, tag=6):
    """Ack the first items of a lease, give back the others; answered with the first fault. Number 0 wants no answer."""

    number: int
    handle: int
    lease: int
    acked: int


class Ask(_Entry, tag=7):
    """Call a method that does not wait, one of ``ASKED`` of :mod:`sage_qd.queues.rpc.hosting`."""

    number: int
    handle: int
    verb: str
    argument: bool | str | None


class Wait(_Entry, tag=8):
    """Wait for a message or for room; answered with whether there is one."""

    number: int
    handle: int
    for_room: bool
    seconds: float | None


class Cancel(_Entry, tag=9):
    """Nobody waits for the answer to this number any more."""

    number: int


class Ping(_Entry, tag=10):
    """The client lives."""


Request: TypeAlias = Hello | OpenHandle | CloseHandle | Put | Take | Settle | Ask | Wait | Cancel | Ping


class Requests(_Entry):
    """A frame of a client; the answers to all numbers below ``done``, and to those in ``ended``, have arrived."""

    done: int
    ended: list[int]
    entries: list[Request]


class Welcome(_Entry, tag=1):
    """The answer to :class:`Hello`."""

    version: int
    server: str
    resumed: bool
    largest_frame: int
    credits: int
    credit_bytes: int


class Done(_Entry, tag=2):
    """The request of this number was carried out."""

    number: int
    value: Any


class Failed(_Entry, tag=3):
    """The request of this number ended with an exception; see :mod:`sage_qd.queues.rpc.faults`."""

    number: int
    fault: str
    values: dict[str, Any]


class Bye(_Entry, tag=4):
    """The server ends the session, or knows of none."""

    fault: str
    values: dict[str, Any]


class Pong(_Entry, tag=5):
    """The server lives."""


class Taken(_Entry, tag=6):
    """Items that this request took: on trial, all with one ``lease``, or for good, with lease 0."""

    number: int
    lease: int
    attempts: list[int]
    """How often each came back before; empty where none did."""
    items: list[Item]


Answer: TypeAlias = Welcome | Done | Failed | Bye | Pong | Taken


class Answers(_Entry):
    """A frame of a server."""

    entries: list[Answer]


_encode: Final = msgspec.msgpack.Encoder().encode
_decode_requests: Final = msgspec.msgpack.Decoder(Requests).decode
_decode_answers: Final = msgspec.msgpack.Decoder(Answers).decode


def pack(frame: Requests | Answers) -> bytes:
    """Return a frame as bytes."""
    return _encode(frame)


def unpack_requests(frame: bytes, peer: str, limit: int = LARGEST_FRAME) -> Requests:
    """
    Return what a client sent.

    Raises:
        FrameTooLargeError: The frame is beyond the limit.
        ProtocolError: It is no such frame.
    """
    _check_size(frame, peer, limit)
    try:
        return _decode_requests(frame)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise ProtocolError(peer=peer, reason=f"{error}") from None


def unpack_answers(frame: bytes, peer: str, limit: int = LARGEST_FRAME) -> Answers:
    """Return what a server sent; raises as :func:`unpack_requests` does."""
    _check_size(frame, peer, limit)
    try:
        return _decode_answers(frame)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise ProtocolError(peer=peer, reason=f"{error}") from None


def size_of(item: Item) -> int:
    """Bytes of an item as it counts against limits."""
    return len(item) if isinstance(item, bytes) else len(item[1])


def _check_size(frame: bytes, peer: str, limit: int) -> None:
    if len(frame) > limit:
        raise FrameTooLargeError(peer=peer, size=len(frame), limit=limit)
