"""The codecs ``msgpack`` and ``json``: plain data only, so decoding runs no code of the writer."""

from collections.abc import Callable
from typing import Any, ClassVar, Final

import msgspec

from sage_qd.codecs.base import JSON_TAG, MSGPACK_TAG, RAW_TAG, Encoded, Payload, Plain, refuse_tag

__all__ = ["JsonCodec", "MsgpackCodec"]


class _PackedCodec:
    """
    Carries what msgspec turns into plain data: numbers, text, bytes, lists, maps, dates, dataclasses, structs.

    A message arrives as plain data: a tuple as a list, a dataclass as a ``dict``. Nesting is bounded by msgspec, with a
    ``RecursionError`` for a message that is too deep.
    """

    name: ClassVar[str]
    number: ClassVar[int]
    tag: ClassVar[int]
    runs_code: ClassVar[bool] = False

    def __init__(self, encode: Callable[[Any], bytes], decode: Callable[[Payload], Any]) -> None:
        self._encode: Final = encode
        self._decode: Final = decode
        self.plain: Final = Plain(encode, decode, self.tag)

    def encode(self, message: object) -> Encoded:
        """Return the message in one part; ``TypeError`` for a type that is no plain data."""
        return self.tag, (self._encode(message),)

    def decode(self, tag: int, payload: Payload) -> Any:
        """Return plain data that owns its memory."""
        if tag == self.tag:
            return self._decode(payload)
        if tag == RAW_TAG:
            return bytes(payload)
        raise refuse_tag(tag, self)


class MsgpackCodec(_PackedCodec):
    """MessagePack: compact, and ``bytes`` inside a message stay ``bytes``."""

    name = "msgpack"
    number = 2
    tag = MSGPACK_TAG

    def __init__(self) -> None:
        super().__init__(msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder().decode)


class JsonCodec(_PackedCodec):
    """JSON: readable by anything; ``bytes`` inside a message become base64 text (a message of ``bytes`` stays such)."""

    name = "json"
    number = 3
    tag = JSON_TAG

    def __init__(self) -> None:
        super().__init__(msgspec.json.Encoder().encode, msgspec.json.Decoder().decode)
