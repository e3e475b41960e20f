"""Codecs as contenders: one process that encodes a message and decodes it again, ours and the libraries beneath.

Ours is what a queue calls for each message. Where a codec returns several parts, they are joined as a queue would write
them into its record, since without that copy the comparison with a library that returns one piece would flatter us.
"""

from __future__ import annotations

import importlib
import importlib.util
import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any, ClassVar

from channels import Channel, End, OneEnded
from topologies import Job, Outcome, Role, Topology, expect, nanoseconds_each, now

MEBIBYTE = 1 << 20


# -- messages ----------------------------------------------------------------------------------------------------------


def small_bytes() -> bytes:
    """64 bytes, as in the rows of the queues."""
    return bytes(range(64))


def small_tuple() -> tuple[str, int, dict[str, object]]:
    """The small tuple with a dict, as in the rows of the queues."""
    return ("job", 17, {"name": "frame", "ratio": 17 / 7, "last": False})


def large_bytes() -> bytes:
    """A mebibyte of bytes."""
    return bytes(range(256)) * (MEBIBYTE // 256)


def large_array() -> Any:
    """A mebibyte of float64."""
    numpy = importlib.import_module("numpy")
    return numpy.arange(MEBIBYTE // 8, dtype=numpy.float64)


def has_numpy() -> bool:
    """Whether the row of the array can run."""
    return importlib.util.find_spec("numpy") is not None


def check_same(sent: Any, back: Any) -> None:
    """The message that came back must equal the one sent; plain data has no tuples, so a list is as good."""
    if isinstance(sent, tuple):
        expect(list(back) == list(sent), f"{sent!r} came back as {back!r}")
    elif isinstance(sent, bytes):
        expect(back == sent, "the bytes came back changed")
    else:
        expect(back.dtype == sent.dtype and (back == sent).all(), "the array came back changed")


# -- what is timed -----------------------------------------------------------------------------------------------------


@dataclass
class CodingEnd(End):
    """Two calls of a library: ``put`` encodes, ``get`` decodes."""

    def turns(self, message: Any, count: int) -> Any:
        """Encode and decode so many times; the last message that came back."""
        encode, decode = self.put, self.get
        for _ in repeat(None, count):
            back = decode(encode(message))
        return back


@dataclass
class PickleEnd(CodingEnd):
    """Plain pickle, which is told its protocol at every call."""

    def turns(self, message: Any, count: int) -> Any:
        encode, decode = self.put, self.get
        for _ in repeat(None, count):
            back = decode(encode(message, 5))
        return back


@dataclass
class RingPickleEnd(CodingEnd):
    """As a ring calls them: a function of C with its keywords."""

    def turns(self, message: Any, count: int) -> Any:
        encode, decode = self.put.func, self.get
        protocol, callback = self.put.keywords["protocol"], self.put.keywords["buffer_callback"]
        for _ in repeat(None, count):
            back = decode(encode(message, protocol=protocol, buffer_callback=callback))
        return back


@dataclass
class CodecEnd(CodingEnd):
    """A codec of ours: tag and parts out, tag and record in."""

    def turns(self, message: Any, count: int) -> Any:
        encode, decode = self.put, self.get
        for _ in repeat(None, count):
            tag, parts = encode(message)
            back = decode(tag, parts[0] if len(parts) == 1 else bytearray().join(parts))
        return back


def coding(make: Callable[[], Any]) -> Topology:
    """Nanoseconds to encode and decode one message."""

    def work(ends: Sequence[End], job: Job) -> Outcome:
        end, message = ends[0], make()
        assert isinstance(end, CodingEnd)
        began = now()
        back = end.turns(message, job.count)
        ended = now()
        check_same(message, back)
        return {"began": began, "ended": ended}

    return Topology("seq", (Role(((0, "both", 0),), work),), nanoseconds_each, unit=10, least=10, most=2_000_000)


# -- contenders --------------------------------------------------------------------------------------------------------


class Coder(OneEnded):
    """A codec of ours, by its name."""

    distribution, module = "sage-qd", "sage_qd"
    codec = ""

    def both(self) -> End:
        codec = importlib.import_module("sage_qd.codecs").get_codec(self.codec)
        return CodecEnd(put=codec.encode, get=codec.decode)


class SagePickle(Coder):
    """The codec ``pickle``."""

    name, codec = "sage-qd pickle", "pickle"


class SageMsgpack(Coder):
    """The codec ``msgpack``."""

    name, codec = "sage-qd msgpack", "msgpack"


class SageJson(Coder):
    """The codec ``json``."""

    name, codec = "sage-qd json", "json"


class SageRaw(Coder):
    """The codec ``raw``."""

    name, codec = "sage-qd raw", "raw"


class InRing(Coder):
    """The two functions that a ring calls for most messages, before it asks the codec."""

    kind: ClassVar[type[CodingEnd]] = CodingEnd

    def both(self) -> End:
        plain = importlib.import_module("sage_qd.codecs").get_codec(self.codec).plain
        return self.kind(put=plain.encode, get=plain.decode)


class RingPickle(InRing):
    """Those of the codec ``pickle``."""

    name, codec, kind = "sage-qd pickle in a ring", "pickle", RingPickleEnd


class RingMsgpack(InRing):
    """Those of the codec ``msgpack``."""

    name, codec = "sage-qd msgpack in a ring", "msgpack"


class RingJson(InRing):
    """Those of the codec ``json``."""

    name, codec = "sage-qd json in a ring", "json"


class PlainPickle(OneEnded):
    """``pickle.dumps`` with protocol 5 and ``pickle.loads``."""

    name = "pickle"

    def both(self) -> End:
        return PickleEnd(put=pickle.dumps, get=pickle.loads)


class PlainMsgspec(OneEnded):
    """An encoder and a decoder of msgspec, made once."""

    distribution, module = "msgspec", "msgspec"
    format: ClassVar[str]

    def both(self) -> End:
        chosen = importlib.import_module(f"msgspec.{self.format}")
        return CodingEnd(put=chosen.Encoder().encode, get=chosen.Decoder().decode)


class PlainMsgpack(PlainMsgspec):
    """MessagePack of msgspec."""

    name, format = "msgspec.msgpack", "msgpack"


class PlainJson(PlainMsgspec):
    """JSON of msgspec."""

    name, format = "msgspec.json", "json"


class PlainCopies(OneEnded):
    """No codec: a view of the message and one copy of it, which is the least that bytes of one's own cost."""

    name = "one copy"

    def both(self) -> End:
        return CodingEnd(put=memoryview, get=bytes)


CODERS: dict[str, type[Channel]] = {
    kind.name: kind
    for kind in (
        SagePickle,
        RingPickle,
        SageMsgpack,
        RingMsgpack,
        SageJson,
        RingJson,
        SageRaw,
        PlainPickle,
        PlainMsgpack,
        PlainJson,
        PlainCopies,
    )
}
