"""
A step that is repeated in a thread of its own, which is not there while the process forks.

A child of a process with threads can meet locks that nobody will ever release, and newer versions of Python warn of it.
So the thread ends before a fork and begins again after it, in parent and child.
"""

import os
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from typing import Any, Final

__all__ = ["Repeated", "hold_over_fork"]

LONGEST_STEP_SECONDS: Final = 5.0
_all: "Final[weakref.WeakSet[Repeated]]" = weakref.WeakSet()
_stopped: "Final[list[Repeated]]" = []
_locks: Final[list[Any]] = []


class Repeated:
    """
    Runs a step again and again, until it is stopped.

    Args:
        step: What to do; returns how many seconds to wait until the next one.
        name: Of the thread.
        in_child: What a forked child does instead of going on; None for going on.
    """

    def __init__(self, step: Callable[[], float], name: str, *, in_child: Callable[[], object] | None = None) -> None:
        self._step = step
        self._name = name
        self.in_child = in_child
        self._end = threading.Event()
        self._thread: threading.Thread | None = None
        _all.add(self)

    def start(self) -> None:
        """Begin, or go on."""
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(self._end,), name=self._name, daemon=True)
        self._thread.start()

    def _run(self, end: threading.Event) -> None:
        while not end.is_set():
            end.wait(self._step())

    def stop(self) -> bool:
        """End; whether it was running. Waits for the step that is under way."""
        thread, self._thread = self._thread, None
        if thread is None or thread is threading.current_thread() or not thread.is_alive():
            return False
        self._end.set()
        thread.join(LONGEST_STEP_SECONDS)
        return True


def hold_over_fork(lock: Any) -> None:
    """
    Let no thread be inside a lock while a child is forked, which would find it taken for ever.

    Locks of modules that import others are taken before those of the others, as in any other call.
    """
    _locks.insert(0, lock)


# What was registered last is called first before a fork. The steps must have ended when handles of queues open files
# for the child, or a step could close one of them in between; so theirs are registered now.
for _handles in ("sage_qd.queues.shm_handles", "sage_qd.ring.handles"):
    with suppress(ImportError):  # no ring can be made here
        import_module(_handles)


def _before_fork() -> None:
    _stopped.extend(each for each in list(_all) if each.stop())
    for lock in _locks:
        lock.acquire()


def _release() -> None:
    for lock in reversed(_locks):
        lock.release()


def _after_in_parent() -> None:
    _release()
    while _stopped:
        _stopped.pop().start()


def _after_in_child() -> None:
    _release()
    while _stopped:
        each = _stopped.pop()
        (each.start if each.in_child is None else each.in_child)()


os.register_at_fork(before=_before_fork, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
