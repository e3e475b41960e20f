"""
Find the line of the program that an old call stands on.

Frames of ``sage_compat`` are left out, and so are wrappers around an old function, as decorators make them: functions
that take ``*args`` or ``**kwargs`` and hold the old function in a variable. The line is in the program, not in a
decorator that ten programs share. Frames of the standard library that only pass calls on are left out, too.
"""

import functools
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import CodeType, FrameType
from typing import Any, Final

__all__ = ["CallSite", "calling_site"]

_PACKAGE: Final = "sage_compat"
_PASSERS_ON: Final = frozenset({"functools", "contextlib", "concurrent.futures.thread", "threading"})
_HANDS_EVERYTHING_ON: Final = inspect.CO_VARARGS | inspect.CO_VARKEYWORDS
_DEEPEST: Final = 16


@dataclass(frozen=True)
class CallSite:
    """
    A line of a program.

    Attributes:
        path: The file as Python names it, such as ``/srv/app.py`` or ``<stdin>``.
        line: Counted from 1.
        function: Qualified name of the function that holds the line; ``<module>`` outside of functions.
        module: Its ``__name__``.
    """

    path: str
    line: int
    function: str
    module: str


def calling_site(is_internal: Callable[[str], bool] | None = None) -> tuple[CallSite, FrameType]:
    """
    Return the line that made the old call now under way, and its frame; do not keep the frame.

    Args:
        is_internal: Whether a module is part of the old interface; None for everything in ``sage_compat``.
    """
    internal = is_internal or _is_ours
    frame: FrameType | None = sys._getframe(1)
    called: set[CodeType] = set()
    while frame is not None and internal(_module(frame)):
        called.add(frame.f_code)
        frame = frame.f_back
    if frame is None:
        raise AssertionError("an old call comes from outside of sage_compat")
    outermost = frame
    while frame is not None and (internal(_module(frame)) or _passes_on(frame, called)):
        outermost = frame
        called.add(frame.f_code)
        frame = frame.f_back
    found = frame or outermost
    code = found.f_code
    return CallSite(code.co_filename, found.f_lineno, code.co_qualname, _module(found)), found


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "?"))


def _is_ours(module: str) -> bool:
    return module == _PACKAGE or module.startswith(f"{_PACKAGE}.")


def _passes_on(frame: FrameType, called: set[CodeType]) -> bool:
    """Whether a frame only hands its arguments on to what was called."""
    if _module(frame) in _PASSERS_ON:
        return True
    code = frame.f_code
    if not code.co_flags & _HANDS_EVERYTHING_ON:
        return False
    names = (*code.co_freevars, *code.co_varnames[: code.co_argcount + code.co_kwonlyargcount])
    held = (frame.f_locals.get(name) for name in names)
    return any(called & _codes_of(value) for value in held if callable(value) or hasattr(value, "__dict__"))


def _codes_of(value: Any) -> set[CodeType]:
    """The code that runs when a function, a method, a class, or a decorated or partial form of these is called."""
    codes: set[CodeType] = set()
    for _ in range(_DEEPEST):
        if isinstance(value, type):
            codes |= _codes_of_class(value)
        code = getattr(value, "__code__", None)
        if isinstance(code, CodeType):
            codes.add(code)
        if isinstance(value, functools.partial):
            value = value.func
        elif (inner := getattr(value, "__wrapped__", None) or getattr(value, "__func__", None)) is not None:
            value = inner
        else:
            break
    return codes


def _codes_of_class(kind: type) -> set[CodeType]:
    found = (getattr(getattr(kind, name, None), "__code__", None) for name in ("__init__", "__new__"))
    return {code for code in found if isinstance(code, CodeType)}
