"""One setting of a queue kind: its type, its limits, and how it is written."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from typing import Any, Final, cast

__all__ = ["Setting", "arranged"]

_WORDS: Final = {int: "an integer", bool: "true or false", str: "text", float: "a number"}
_NUMBER: Final = re.compile(r"[0-9]{1,20}(\.[0-9]{1,20})?(e[+-][0-9]{1,3})?")


@dataclass(frozen=True, kw_only=True)
class Setting:
    """
    A setting that a descriptor keeps; the same checks serve constructors, JSON and URIs.

    Attributes:
        name: Keyword, attribute and member of the metadata.
        type: ``int``, ``bool``, ``str`` or ``float``; exactly that, so ``True`` is no integer. Where a ``float`` is
            wanted, an integer is one, too.
        default: What it is when nothing is said.
        optional: Whether ``None`` is a value.
        low: Smallest number.
        high: Largest number.
        check: Called with the value; raises ``ValueError`` when it does not like it.
        uri_name: Its word in a URI, where that is another one.
    """

    name: str
    type: type[int] | type[bool] | type[str] | type[float]
    default: int | bool | str | float | None
    optional: bool = False
    low: int | None = None
    high: int | None = None
    check: Callable[[Any], object] | None = None
    uri_name: str | None = None

    @property
    def written_name(self) -> str:
        """Its word in a URI."""
        return self.uri_name or self.name

    def checked(self, value: Any) -> Any:
        """
        Return the value, if it is one.

        Raises:
            TypeError: It has another type.
            ValueError: It is beyond a limit, or text that cannot be written as UTF-8.
        """
        if value is None and self.optional:
            return None
        if self.type is float and type(value) is int and abs(value) < 1 << 53:
            value = float(value)
        if type(value) is not self.type or (type(value) is float and not isfinite(value)):
            raise TypeError(f"{self.name} must be {_WORDS[self.type]}, not {_shown(value)}")
        if isinstance(value, str) and not _is_unicode(value):
            raise ValueError(f"{self.name} must be Unicode text, without half surrogate pairs, not {_shown(value)}")
        if self.low is not None and cast(int, value) < self.low:
            raise ValueError(f"{self.name} must be at least {self.low:,}, not {_shown(value)}")
        if self.high is not None and cast(int, value) > self.high:
            raise ValueError(f"{self.name} must be at most {self.high:,}, not {_shown(value)}")
        if self.check is not None:
            self.check(value)
        return value

    def written(self, value: Any) -> str:
        """Return a value, other than None, as the text of a URI before its characters are quoted."""
        return str(value).lower() if self.type is bool else str(value)

    def read(self, text: str) -> Any:
        """
        Return the value of a text that :meth:`written` made.

        Raises:
            ValueError: It is no such text.
        """
        if self.type is str:
            return self.checked(text)
        if self.type is bool and text in ("true", "false"):
            return text == "true"
        if self.type is int and text.isascii() and text.isdigit() and len(text) <= 20:
            return self.checked(int(text))
        if self.type is float and _NUMBER.fullmatch(text):
            return self.checked(float(text))
        raise ValueError(f"{self.name} must be {_WORDS[self.type]}, not {_shown(text)}")


def arranged(positional: tuple[Any, ...], keywords: dict[str, Any], shipped_order: tuple[str, ...]) -> dict[str, Any]:
    """
    Return the arguments of a descriptor's constructor by name.

    A single text is the queue id. Otherwise positional arguments are in the order of the releases before this one.

    Raises:
        TypeError: Too many arguments, or one of them twice.
    """
    order = ("queue_id",) if len(positional) == 1 and isinstance(positional[0], str) else shipped_order
    if len(positional) > len(order):
        raise TypeError(f"at most {len(order)} positional arguments ({', '.join(order)}), not {len(positional)}")
    named = dict(zip(order, positional, strict=False))
    if twice := sorted(named.keys() & keywords.keys()):
        raise TypeError(f"given twice, by position and by keyword: {', '.join(twice)}")
    return named | keywords


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _shown(value: object) -> str:
    text = repr(value) if not isinstance(value, int) or abs(value) < 1 << 128 else "a number of more than 128 bits"
    return text if len(text) <= 80 else f"{text[:80]}…"
