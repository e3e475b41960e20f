"""
Old behaviour that was fixed on purpose, and a switch for each that brings it back for a test.

Named in the configuration (``quirks = ["pid_in_name"]``), in ``SAGE_COMPAT_QUIRKS`` (with commas), or for a while with
:func:`quirks`.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

from sage_compat import configuration
from sage_compat.errors import ConfigurationError, did_you_mean

__all__ = ["QUIRKS", "has_quirk", "quirks"]

VARIABLE: Final = "SAGE_COMPAT_QUIRKS"
QUIRKS: Final = {
    "pid_in_name": "the shared name holds the process id, so no other process finds the queue",
    "not_shared": "a 'sage' queue is one of this process alone",
    "lose_large_items": "an item of more than 64 KiB is put and never arrives",
    "implicit_ray_init": "asking for a Ray queue starts Ray",
    "signal_handlers": "the constructor installs handlers for SIGINT and SIGTERM, and fails off the main thread",
    "probing_creates": "asking which backends there are creates a queue of each, and starts Ray",
    "ray_never_full": "full() of a Ray queue is always False and time-outs are ignored",
    "silent_fallback": "a shared queue that cannot be had becomes a thread queue without a word",
    "qsize_per_handle": "qsize counts what this handle put and took",
    "pickle_doubles_name": "an unpickled handle has the prefix of its name twice",
    "polling": "waiting looks again every millisecond",
}
"""Each with what it does."""
_for_now: ContextVar[frozenset[str]] = ContextVar("sage_compat_quirks", default=frozenset())


def has_quirk(name: str) -> bool:
    """
    Whether the old behaviour of this name is wanted now.

    Raises:
        ConfigurationError: The configuration or the environment names one that there is not.
    """
    if name not in QUIRKS:
        raise KeyError(name)
    config = configuration.current()
    chosen = {*_checked(config.quirks, f"{config.place}, quirks")} if config.quirks else set()
    if given := os.environ.get(VARIABLE):
        chosen |= {*_checked(tuple(filter(None, map(str.strip, given.split(",")))), VARIABLE)}
    return name in chosen or name in _for_now.get()


@contextmanager
def quirks(*names: str) -> Iterator[None]:
    """
    Bring old behaviour back while the block runs.

    Raises:
        ConfigurationError: There is no such quirk.
    """
    token = _for_now.set(_for_now.get() | {*_checked(names, "quirks()")})
    try:
        yield
    finally:
        _for_now.reset(token)


def _checked(names: tuple[str, ...], place: str) -> tuple[str, ...]:
    for name in names:
        if name not in QUIRKS:
            raise ConfigurationError(place, f"unknown quirk {name!r}; {did_you_mean(str(name), sorted(QUIRKS))}")
    return names
