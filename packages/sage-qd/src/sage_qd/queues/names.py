"""
Any text as the name of a segment, and back.

Segments have names of 1 to 128 characters of ``A-Z a-z 0-9 . _ -`` that start with a letter or digit. Text that is such
a name stays itself. Other text is written in one of three ways, told apart by their first three characters:

``e--``
    Everything but letters, digits, ``_`` and ``-`` as ``.`` and two hexadecimal digits per UTF-8 byte. This one is
    taken for ASCII text that fits, because people can read it; else the shortest is taken.
``u--``
    UTF-8 in the base64 alphabet of URLs: 94 bytes at most.
``w--``
    UTF-16 in the same alphabet: 47 Chinese characters at most.

Text that begins like one of these is written in one of these. Whatever is too long in all of them is refused: a file
name has no more room, and a shortened one could not be turned back.
"""

import codecs
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Final

from sage_qd.errors import InvalidQueueNameError

__all__ = ["LONGEST_NAME", "segment_name", "text_of"]

LONGEST_NAME: Final = 128
_PLAIN: Final = re.compile(r"(?![euw]--)[A-Za-z0-9][A-Za-z0-9._-]{0,127}", re.ASCII)
_KEPT: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-")
# Python loads an encoding when it is first used; reading a descriptor must load nothing.
_UTF_16: Final = codecs.lookup("utf-16-be").name
_ESCAPED: Final = re.compile(r"\.([0-9a-f]{2})|([A-Za-z0-9_-])", re.ASCII)


def segment_name(text: str) -> str:
    """
    Return the name of the segment that a text stands for.

    Raises:
        InvalidQueueNameError: The text is empty, no valid Unicode, or too long.
    """
    if not isinstance(text, str):
        raise TypeError(f"a queue id must be text, not {type(text).__name__}")
    if _PLAIN.fullmatch(text):
        return text
    if not text:
        raise InvalidQueueNameError(name=text, rule="it is empty")
    try:
        data = text.encode()
    except UnicodeEncodeError as error:
        rule = f"character {error.start} is half of a surrogate pair, which is no text"
        raise InvalidQueueNameError(name=text, rule=rule) from None
    forms = (
        "e--" + "".join(chr(byte) if byte in _KEPT else f".{byte:02x}" for byte in data),
        "u--" + _base64(data),
        "w--" + _base64(text.encode(_UTF_16)),
    )
    if text.isascii() and len(forms[0]) <= LONGEST_NAME:
        return forms[0]
    shortest = min(forms, key=len)
    if len(shortest) > LONGEST_NAME:
        rule = f"it takes {len(shortest):,} characters as a file name and the limit is {LONGEST_NAME}"
        raise InvalidQueueNameError(name=text, rule=rule)
    return shortest


def text_of(name: str) -> str:
    """
    Return the text that a segment's name stands for: the inverse of :func:`segment_name`.

    Raises:
        ValueError: No text has this name.
    """
    try:
        text = _decoded(name)
        if segment_name(text) == name:
            return text
    except ValueError:
        pass  # of the decoders, which say less than the sentence below
    raise ValueError(f"{name!r} is not the name of any queue id")


def _decoded(name: str) -> str:
    body = name[3:]
    if name.startswith("e--"):
        pieces = _ESCAPED.findall(body)
        return bytes(int(code, 16) if code else ord(kept) for code, kept in pieces).decode()
    if name.startswith(("u--", "w--")):
        data = urlsafe_b64decode(body + "=" * (-len(body) % 4))
        return data.decode() if name[0] == "u" else data.decode(_UTF_16)
    return name


def _base64(data: bytes) -> str:
    return urlsafe_b64encode(data).decode("ascii").rstrip("=")
