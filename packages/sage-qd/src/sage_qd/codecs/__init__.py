"""
Objects to bytes and back: one codec per queue, named in its descriptor and recorded in its segment.

Rules that all codecs share are in :mod:`sage_qd.codecs.base`. A codec is imported when it is first asked for, so a
queue of plain ``bytes`` does not load msgspec.
"""

from importlib import import_module
from typing import Final

from sage_qd.codecs.base import RAW_TAG, Codec, Encoded, Payload

__all__ = ["CODEC_NAMES", "RAW_TAG", "Codec", "Encoded", "Payload", "check_codec_name", "codec_name", "get_codec"]

_MODULES: Final = {
    "json": ("sage_qd.codecs.packed", "JsonCodec"),
    "msgpack": ("sage_qd.codecs.packed", "MsgpackCodec"),
    "pickle": ("sage_qd.codecs.pickled", "PickleCodec"),
    "raw": ("sage_qd.codecs.raw", "RawCodec"),
}
_NUMBERS: Final = {"raw": 0, "pickle": 1, "msgpack": 2, "json": 3}
CODEC_NAMES: Final = tuple(_MODULES)
"""Every codec there is, sorted."""


def check_codec_name(name: str) -> None:
    """
    Check a name without importing the codec.

    Raises:
        ValueError: There is no such codec; the message lists those there are.
    """
    if name not in _MODULES:
        raise ValueError(f"codec must be one of {', '.join(CODEC_NAMES)}, not {name!r:.80}")


def get_codec(name: str) -> Codec:
    """
    Return a codec of this name, for one handle.

    Raises:
        ValueError: There is no such codec; the message lists those there are.
    """
    check_codec_name(name)
    module, kind = _MODULES[name]
    codec: Codec = getattr(import_module(module), kind)()
    return codec


def codec_name(number: int) -> str:
    """Name the codec whose number a segment records; a number of a later release gets a name that no handle allows."""
    return next((name for name, known in _NUMBERS.items() if known == number), f"number {number}")
