"""
The control page, and the watch on it.

A page that every program of this user on this host looks at holds a *generation*, which grows with each decision.
Looking costs a few microseconds, so each process does it all the time, in a thread of its own, and no call on a queue
pays for it. A queue that is moved is met by its users at once anyway, because it is sealed: the watch is for what a
seal cannot say (a damaged queue, a change between ``legacy`` and ``shadow``, queues inside one process).

The page is read and never mapped: where somebody cuts a file short, whoever has it mapped dies of the next look. Only
that the number changes matters, so a page that is damaged or gone is one more decision, and the next one mends it.
"""

import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from sage_compat.places import folder, locked_file
from sage_compat.repeated import Repeated, hold_over_fork

__all__ = ["WATCH_SECONDS", "bump", "generation", "watch"]

WATCH_SECONDS: Final = 0.03
"""Between two looks; a decision is to be noticed within a tenth of a second."""
_WORD_BYTES: Final = 8
_log: Final = logging.getLogger("sage_compat")
_mutex: Final = threading.Lock()
hold_over_fork(_mutex)


def _page() -> Path:
    return folder() / "control"


def generation() -> int:
    """How many decisions there were on this host, as far as the page says."""
    try:
        found = _page().read_bytes()[:_WORD_BYTES]
    except FileNotFoundError:
        return 0
    return int.from_bytes(found, "little")


def bump() -> int:
    """Tell every process of this user that something was decided; return the new generation."""
    with locked_file(folder() / "control.lock"):
        number = (generation() + 1) % (1 << 64)
        descriptor = os.open(_page(), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            os.pwrite(descriptor, number.to_bytes(_WORD_BYTES, "little"), 0)
        finally:
            os.close(descriptor)
    return number


def _seen() -> tuple[int, int]:
    """What changes with each decision: the generation, and the folder of records, where one may have died before it."""
    return generation(), os.stat(folder("records")).st_mtime_ns


class _Watch:
    """Calls back when something was decided."""

    def __init__(self) -> None:
        self.callbacks: list[Callable[[], object]] = []
        self._seen: tuple[int, int] | None = None
        self._look = Repeated(self._step, "sage-compat-watch")

    def add(self, callback: Callable[[], object]) -> None:
        with _mutex:
            if callback not in self.callbacks:
                self.callbacks.append(callback)
            if self._seen is None:
                self._seen = _seen()
                self._look.start()

    def _step(self) -> float:
        try:
            if (now := _seen()) != self._seen:
                self._seen = now
                for callback in list(self.callbacks):
                    callback()
        except Exception as error:  # noqa: BLE001  (a slip in a file that somebody edits must not end the watch)
            _log.error("a decision could not be followed: %s: %s", type(error).__name__, error)
        return WATCH_SECONDS


_watch: Final = _Watch()


def watch(callback: Callable[[], object]) -> None:
    """Call back, in a thread of its own, whenever something was decided from now on."""
    _watch.add(callback)
