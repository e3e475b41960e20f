"""
The handles of this process, across fork and exit; as :mod:`sage_qd.ring.handles` does for rings.

A forked child gets descriptions of its own of each queue's files, because those that it shared with its parent would
share the locks too. At the end of a process its handles are closed, so that the last one removes what it leaves.
"""

import atexit
import importlib
import os
import sys
import threading
import weakref
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from sage_qd.queues.shm_segment import Files, Segment

__all__ = ["remember"]

_FORKERS: Final = ("multiprocessing", "multiprocess")
"""Packages whose children end without atexit; the second one is a copy of the first with another pickle."""
_handles: "Final[weakref.WeakSet[Segment]]" = weakref.WeakSet()
_for_child: "Final[list[tuple[Segment, Files | None]]]" = []
_closing_at_end: Final[set[int]] = set()  # this process, once that is arranged
_forking: Final = threading.Lock()  # one fork at a time fills and empties the list


def remember(segment: "Segment") -> None:
    """Have the handle looked after from now on."""
    _handles.add(segment)
    if os.getpid() in _closing_at_end:
        return
    for package in _FORKERS:
        process = sys.modules.get(f"{package}.process")
        if process is not None and process.parent_process() is not None:
            _close_at_end_of_child(f"{package}.util")


def _before_fork() -> None:
    """Open the files again for the child, while we still keep them in place."""
    _forking.acquire()
    _for_child.extend((segment, segment.files_for_child()) for segment in list(_handles) if not segment.closed)


def _after_fork_in_parent() -> None:
    try:
        while _for_child:
            _, files = _for_child.pop()
            if files is not None:
                files.close()
    finally:
        _forking.release()


def _after_fork_in_child() -> None:
    try:
        while _for_child:
            segment, files = _for_child.pop()
            segment.after_fork(files)
    finally:
        _forking.release()
    for util in (f"{package}.util" for package in _FORKERS):
        if util in sys.modules:
            # Its children skip atexit, and forget their finalizers at their start: register after that.
            register = importlib.import_module(util).register_after_fork
            register(_handles, lambda _, util=util: _close_at_end_of_child(util))


def _close_at_end_of_child(util: str) -> None:
    """Close everything when a child of multiprocessing ends: it ends with os._exit(), which skips atexit."""
    _closing_at_end.add(os.getpid())
    importlib.import_module(util).Finalize(None, _close_all, exitpriority=-100)


def _close_all() -> None:
    for segment in list(_handles):
        segment.close()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
atexit.register(_close_all)
