"""Timeouts as the standard library spells them, turned into one absolute time."""

import threading
from math import inf, isnan
from time import monotonic
from typing import Final

__all__ = ["LONGEST_SECONDS", "TRY_ONCE", "check_batch", "deadline_of", "remaining", "wait_until"]

TRY_ONCE: Final = -inf
LONGEST_SECONDS: Final = 1e9
"""Thirty years; what is longer is for ever."""


def deadline_of(block: bool, timeout: float | None) -> float:
    """
    Return when to give up, on the clock of ``time.monotonic``: infinity is never, ``TRY_ONCE`` is without waiting.

    Raises:
        TypeError: ``timeout`` is no number.
        ValueError: ``timeout`` is not a number, in the other sense.
    """
    if timeout is None:
        return inf if block else TRY_ONCE
    if isinstance(timeout, (bool, str, bytes)):
        raise TypeError(f"timeout must be None or a number of seconds, not {timeout!r}")
    seconds = float(timeout)
    if isnan(seconds):
        raise ValueError("timeout must be None or a number of seconds, not nan")
    if not block or seconds <= 0:
        return TRY_ONCE
    return inf if seconds > LONGEST_SECONDS else monotonic() + seconds


def remaining(deadline: float) -> float | None:
    """Return the timeout that is left until a deadline: None for ever, 0 when it has passed."""
    return None if deadline == inf else max(deadline - monotonic(), 0)


def wait_until(condition: threading.Condition, deadline: float, slice_seconds: float = inf) -> bool:
    """
    Wait for a notification, at most until the deadline, at most for one slice; False when the deadline had passed.

    An exception in the wait (Ctrl-C) hands a notification on that may have come meanwhile, so that it wakes another.
    """
    remaining = deadline - monotonic()
    if remaining <= 0:
        return False
    seconds = min(remaining, slice_seconds)
    try:
        condition.wait(None if seconds == inf else seconds)
    except BaseException:
        condition.notify()
        raise
    return True


def check_batch(max_items: int, max_bytes: int | None) -> None:
    """
    Check the bounds of a batch.

    Raises:
        TypeError: One is no integer.
        ValueError: One is too small.
    """
    for name, value, low in (("max_items", max_items, 1), ("max_bytes", 0 if max_bytes is None else max_bytes, 0)):
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"{name} must be an integer, not {value!r}")
        if value < low:
            raise ValueError(f"{name} must be at least {low}, not {value}")
