"""
The handles of this process, across fork and exit.

A forked child gets a description of its own of each segment, because one that it shared with its parent would share the
lock that says who is attached. At the end of a process its handles are closed, so that the last one removes what it
leaves.
"""

from __future__ import annotations

import atexit
import errno
import fcntl
import importlib
import os
import sys
import threading
import weakref
from types import ModuleType

from sage_qd.ring._ring import Ring

_FORKERS = ("multiprocessing", "multiprocess")
"""Packages whose children end without atexit; the second one is a copy of the first with another pickle."""
_handles: weakref.WeakSet[Ring] = weakref.WeakSet()
_for_child: list[tuple[Ring, int]] = []
_closing_at_end: set[int] = set()  # this process, once that is arranged
_forking = threading.Lock()  # one fork at a time fills and empties the list


def remember(ring: Ring) -> None:
    """Have the handle looked after from now on."""
    _handles.add(ring)
    if os.getpid() in _closing_at_end:
        return
    for package in _FORKERS:
        process = sys.modules.get(f"{package}.process")
        if process is not None and process.parent_process() is not None:
            close_at_end_of_child(multiprocessing_util(package))


def _before_fork() -> None:
    """Open a second description of each segment for the child: one that it shared with us would share the lock too."""
    _forking.acquire()
    for ring in list(_handles):
        if ring.closed:
            continue
        try:
            descriptor = os.open(f"/proc/self/fd/{ring.fileno()}", os.O_RDWR | os.O_CLOEXEC)
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
                raise
            descriptor = -1  # none left: the child must leave the lock alone
        _for_child.append((ring, descriptor))


def _after_fork_in_parent() -> None:
    """Drop our side of the child's descriptions; its own keeps the lock."""
    try:
        while _for_child:
            _, descriptor = _for_child.pop()
            if descriptor >= 0:
                os.close(descriptor)
    finally:
        _forking.release()


def _after_fork_in_child() -> None:
    try:
        while _for_child:
            ring, descriptor = _for_child.pop()
            ring._after_fork(descriptor)
    finally:
        _forking.release()
    for package in _FORKERS:
        if f"{package}.util" in sys.modules:
            # Its children skip atexit, and forget their finalizers at their start: register after that.
            util = multiprocessing_util(package)
            util.register_after_fork(_handles, lambda _, util=util: close_at_end_of_child(util))


def multiprocessing_util(package: str) -> ModuleType:
    """The module that knows how the children of one of these packages end; only asked for when it is loaded anyway."""
    return importlib.import_module(f"{package}.util")


def close_at_end_of_child(util: ModuleType) -> None:
    """Close everything when a child of multiprocessing ends: it ends with os._exit(), which skips atexit."""
    _closing_at_end.add(os.getpid())
    util.Finalize(None, _close_all, exitpriority=-100)


def _close_all() -> None:
    """At exit, so that the last process removes what it leaves."""
    for ring in list(_handles):
        ring.close()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
atexit.register(_close_all)
