"""
The warning at each line that still makes an old call: once a line, with what to write instead.

It is off, except in tests and where ``SAGE_COMPAT_WARN`` asks for it.
"""

import os
import sys
import warnings
from collections.abc import Mapping
from typing import Any, Final

from sage_compat.moving_off.call_sites import CallSite, calling_site
from sage_compat.moving_off.new_calls import PARAMETERS, CannotProveError, new_call, of_values
from sage_compat.moving_off.replacements import Replacement, code_of_call, replacement_of

__all__ = ["SWITCH", "SageLegacyQueueWarning", "advice", "instead_of", "warn_of_call", "warnings_wanted"]

SWITCH: Final = "SAGE_COMPAT_WARN"
"""Environment variable: ``1``, ``true``, ``yes`` warns; ``error`` raises; ``0``, ``false``, ``no`` never warns."""

_ON: Final = frozenset({"1", "true", "yes"})
_OFF: Final = frozenset({"0", "false", "no"})
_ERROR: Final = "error"
_ALWAYS: Final = "always"

_told: Final[dict[tuple[str, int, str], object]] = {}
"""Lines that were told of, each with who did; setting a default is one step, so no lock is left behind by a fork."""


class SageLegacyQueueWarning(DeprecationWarning):
    """
    A line of the program makes an old call.

    Attributes:
        code: Row of the table, such as ``SQC002``; see the page on moving off the old API.
        site: The line; None for a warning that was made by hand.
    """

    def __init__(self, message: str, code: str = "", site: CallSite | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.site = site


def warn_of_call(function: str, backend: str | None, keywords: Mapping[str, Any]) -> None:
    """
    Warn of the old call now under way, where warnings are wanted and this line was not told of yet.

    Every thread may call this. It takes about a microsecond where no warnings are wanted.

    Args:
        function: Name of what was called: ``create_queue``, ``SageQueue``, ``SageQueue.get_stats``.
        backend: The backend as it was spelled; None where there was none.
        keywords: The other arguments by name.

    Raises:
        SageLegacyQueueWarning: The filters of the program, or ``SAGE_COMPAT_WARN=error``, make warnings errors.
        ValueError: ``SAGE_COMPAT_WARN`` is none of its words.
    """
    wanted = warnings_wanted()
    if wanted is None:
        return
    site, frame = calling_site()
    row = code_of_call(function, backend, keywords)
    key = (site.path, site.line, row.code)
    me = object()
    if _told.setdefault(key, me) is not me:
        return
    warning = SageLegacyQueueWarning(advice(row, function, backend, keywords), row.code, site)
    try:
        if wanted == _ERROR:
            raise warning
        if wanted == _ALWAYS and not any(category is SageLegacyQueueWarning for _, _, category, *_ in warnings.filters):
            warnings.simplefilter("default", SageLegacyQueueWarning)  # the usual filters show it in __main__ only
        registry = frame.f_globals.setdefault("__warningregistry__", {})
        warnings.warn_explicit(warning, SageLegacyQueueWarning, site.path, site.line, site.module, registry)
    except SageLegacyQueueWarning:  # an error is one every time
        _told.pop(key, None)
        raise


def warnings_wanted() -> str | None:
    """
    Return ``always``, ``error``, ``filters`` (in tests: as the filters of the program say), or None.

    Raises:
        ValueError: ``SAGE_COMPAT_WARN`` is none of its words.
    """
    word = os.environ.get(SWITCH, "").strip().lower()
    if word in _ON:
        return _ALWAYS
    if word == _ERROR:
        return _ERROR
    if word in _OFF:
        return None
    if word:
        raise ValueError(f"{SWITCH} must be one of 1, true, yes, error, 0, false, no, not {word!r:.40}")
    return "filters" if _is_test() else None


def advice(row: Replacement, function: str, backend: str | None, keywords: Mapping[str, Any]) -> str:
    """What the warning says: what was called, what to write instead, and where to read on."""
    instead = instead_of(row, function, backend, keywords)
    return f"{row.code}: {function}() is the old queue API; write {instead}; {_read(row)}"


def _read(row: Replacement) -> str:
    return f"or run: sage-compat fix; see {row.page}" if row.is_automatic else f"see {row.page}"


def instead_of(row: Replacement, function: str, backend: str | None, keywords: Mapping[str, Any]) -> str:
    """The new call for these very arguments; that of the row where they are unusual."""
    for short in PARAMETERS:
        if short.partition(".")[2] == function and replacement_of(short, backend) is row:
            arguments = of_values(keywords)
            if short == "adapter.create_queue" and "queue_type" not in keywords:
                arguments |= of_values({"backend": backend})
            try:
                return new_call(short, arguments).text()
            except CannotProveError:  # an unusual call; the row has the usual one
                return row.new
    return row.new


def _is_test() -> bool:
    if "PYTEST_CURRENT_TEST" in os.environ or sys.flags.dev_mode:
        return True
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    return spec is not None and spec.name.partition(".")[0] in ("unittest", "pytest")
