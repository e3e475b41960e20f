"""
JSON of descriptors: a wary reader and a canonical writer.

What comes from outside is looked over before anything is built from it: size, nesting, number of members, duplicate
keys and numbers are checked in one pass over the text, without recursion, and the error names the place by its JSON
pointer. Only then msgspec parses it, which is strict about the grammar.
"""

import re
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, Final

import msgspec

from sage_qd.errors import DescriptorError

__all__ = ["LARGEST_INTEGER", "MAX_BYTES", "MAX_MEMBERS", "MAX_NESTING", "canonical_json", "parse_json", "pointer_to"]

MAX_BYTES: Final = 16 * 1024
MAX_NESTING: Final = 4
MAX_MEMBERS: Final = 64
MAX_DIGITS: Final = 20
LARGEST_INTEGER: Final = 2**53

_TOKEN: Final = re.compile(
    r"""[ \t\n\r]*(?:
        (?P<mark>[{}\[\],:]) |
        (?P<text>"(?:[^"\\\x00-\x1f]|\\.)*") |
        (?P<number>-?[0-9]+(?P<fraction>(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)) |
        (?P<word>true|false|null)
    )""",
    re.VERBOSE,
)
_BLANK: Final = re.compile(r"[ \t\n\r]*")


@dataclass(slots=True)
class _Open:
    """An object or array that the scan is inside of."""

    is_object: bool
    key: str | None = None
    keys: set[str] = field(default_factory=set)
    index: int = 0
    expects_key: bool = False


def parse_json(text: str | bytes | bytearray | memoryview) -> Any:
    """
    Return the value of a JSON text.

    Raises:
        TypeError: ``text`` is no text.
        DescriptorError: It is too large, too deep, no JSON, has a key twice, or a number that not every reader would
            read as the same number.
    """
    data, scanned = _as_bytes_and_text(text)
    _scan(scanned)
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError) as error:
        raise DescriptorError(pointer="", reason=f"it is no JSON: {error}") from error


def canonical_json(value: Any) -> bytes:
    """Return the one JSON text of a value: keys sorted, no blanks, UTF-8."""
    return msgspec.json.encode(value, order="sorted")


def pointer_to(*steps: str | int) -> str:
    """Return the JSON pointer that leads from the root along these steps."""
    return "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in steps)


def _as_bytes_and_text(text: str | bytes | bytearray | memoryview) -> tuple[bytes, str]:
    try:
        if isinstance(text, str):
            _check_size(len(text))
            data = text.encode()
            _check_size(len(data))
            return data, text
        if isinstance(text, (bytes, bytearray, memoryview)):
            data = bytes(text)
            _check_size(len(data))
            return data, data.decode()
    except (UnicodeEncodeError, UnicodeDecodeError) as error:
        raise DescriptorError(pointer="", reason=f"it is no Unicode text: {error.reason}") from None
    raise TypeError(f"JSON must be str or bytes, not {type(text).__name__}")


def _check_size(size: int) -> None:
    if size > MAX_BYTES:
        raise DescriptorError(pointer="", reason=f"it takes {size:,} bytes and the limit is {MAX_BYTES:,}")


def _scan(text: str) -> None:
    """Check what the grammar does not forbid. What does forbid itself is left to the parser, or refused here."""
    stack: list[_Open] = []
    at = 0
    end = len(text)
    while (at := _BLANK.match(text, at).end()) < end:  # type: ignore[union-attr]  # it matches nothing, too
        token = _TOKEN.match(text, at)
        if token is None:
            raise _error(stack, f"no JSON at character {at}: {text[at : at + 20]!r}")
        at = token.end()
        if token["mark"]:
            _scan_mark(token["mark"], stack)
        elif token["text"] and stack and stack[-1].expects_key:
            _scan_key(token["text"], stack)
        elif token["number"]:
            _scan_number(token["number"], bool(token["fraction"]), stack)


def _scan_mark(mark: str, stack: list[_Open]) -> None:
    if mark in "{[":
        if len(stack) == MAX_NESTING:
            raise _error(stack, f"it is nested deeper than {MAX_NESTING}")
        stack.append(_Open(is_object=mark == "{", expects_key=mark == "{"))
    elif not stack:
        raise _error(stack, f"it is no JSON: {mark!r} outside of everything")
    elif mark in "}]":
        stack.pop()
    elif mark == ",":
        inside = stack[-1]
        inside.index += 1
        inside.expects_key = inside.is_object
        if inside.index == MAX_MEMBERS:
            raise DescriptorError(pointer=_pointer(stack[:-1]), reason=f"it has more than {MAX_MEMBERS} members")


def _scan_key(quoted: str, stack: list[_Open]) -> None:
    inside = stack[-1]
    try:
        key = msgspec.json.decode(quoted, type=str)
    except msgspec.DecodeError as error:
        raise _error(stack, f"a key is no JSON text: {error}") from error
    inside.key = key
    inside.expects_key = False
    if key in inside.keys:
        raise _error(stack, "this key comes twice")
    inside.keys.add(key)


def _scan_number(number: str, has_fraction: bool, stack: list[_Open]) -> None:
    if has_fraction:
        if len(number) > 2 * MAX_DIGITS or not isfinite(float(number)):
            raise _error(stack, "the number is too long or too large")
    elif len(number.lstrip("-")) > MAX_DIGITS:
        raise _error(stack, f"the integer has more than {MAX_DIGITS} digits")
    elif abs(int(number)) > LARGEST_INTEGER:
        raise _error(stack, f"the integer {number} is beyond 2^53")


def _error(stack: list[_Open], reason: str) -> DescriptorError:
    return DescriptorError(pointer=_pointer(stack), reason=reason)


def _pointer(stack: list[_Open]) -> str:
    """Where the scan is: in an object at the last key, in an array at the running index."""
    steps = [inside.key if inside.is_object else inside.index for inside in stack]
    return pointer_to(*(step for step in steps if step is not None))
