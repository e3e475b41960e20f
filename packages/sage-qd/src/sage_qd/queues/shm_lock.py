"""
Advisory locks of the kernel, which it drops with whoever holds them: no death leaves one behind.

A lock belongs to an *open file description*. A forked child shares its parent's, so it must open files of its own.
"""

import fcntl
import os
import threading
from collections.abc import Callable
from math import inf
from time import monotonic, sleep
from typing import Final, TypeVar

from sage_qd.errors import QueueClosedError

__all__ = ["Gate", "holders", "is_last", "lock_shared", "locked"]

T = TypeVar("T")

_LAST_ATTEMPTS: Final = 20
_SOON_ATTEMPTS: Final = 10
_FIRST_PAUSE: Final = 50e-6
_LONGEST_PAUSE: Final = 0.005


def locked(descriptor: int, kind: int = fcntl.LOCK_EX) -> bool:
    """Try to lock without waiting."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def lock_shared(descriptor: int) -> None:
    """Count as one of those who have the queue open; waits only for somebody who is removing it."""
    fcntl.flock(descriptor, fcntl.LOCK_SH)


def is_last(descriptor: int) -> bool:
    """
    Turn our shared lock into an exclusive one, if nobody else has the queue open; we end without a lock otherwise.

    The turn is not one step: it gives the shared lock up first. Whoever gives up here holds nothing any more, so of
    several who leave at once the last one to ask succeeds.
    """
    for _ in range(_LAST_ATTEMPTS):
        if locked(descriptor):
            return True
        if locked(descriptor, fcntl.LOCK_SH):  # nobody has it alone: others share it, or they left this moment
            return locked(descriptor)
        sleep(0)
    return False


def holders(descriptor: int) -> int:
    """How many hold a lock on the file, ours included, by the kernel's list of locks; 0 where there is no such list."""
    found = os.fstat(descriptor)
    ours = f" {os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino} "
    try:
        with open("/proc/locks") as locks:
            return sum(ours in line for line in locks)
    except FileNotFoundError:
        return 0


class Gate:
    """
    Lets one thread of one process at a time into the queue.

    Threads of one handle exclude each other with a lock of their own, handles and processes with the file's. A process
    that is stopped (not killed) inside holds everybody up until it continues; a wait with a deadline gives up then.

    Args:
        descriptor: Of the lock file, a description of this handle alone.
        name: Of the queue, for the error.
    """

    def __init__(self, descriptor: int, name: str) -> None:
        self._descriptor = descriptor
        self._name = name
        self._threads = threading.Lock()
        self.closed = False

    def run(self, step: Callable[[], T], deadline: float, otherwise: T) -> T:
        """
        Do a step inside, and return what it returns; ``otherwise`` when nobody got in before the deadline.

        Taking the file lock is inside the ``try``: an exception of a signal handler can come after any call, and must
        not leave it taken. Dropping one that was not taken does nothing.

        Raises:
            QueueClosedError: The gate was closed.
        """
        with self._threads:
            if self.closed:
                raise QueueClosedError(name=self._name)
            try:
                if not locked(self._descriptor) and not self._entered(deadline):
                    return otherwise
                return step()
            finally:
                fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def _entered(self, deadline: float) -> bool:
        for _ in range(_SOON_ATTEMPTS):  # steps are shorter than what it takes to sleep and be woken
            os.sched_yield()
            if locked(self._descriptor):
                return True
        if deadline in (inf, -inf):  # trying once may wait for one step
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)
            return True
        return self._entered_before(deadline)

    def _entered_before(self, deadline: float) -> bool:
        """No system has a file lock that waits for a time, so this one looks again and again."""
        pause = _FIRST_PAUSE
        while not locked(self._descriptor):
            if monotonic() >= deadline:
                return False
            sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
        return True

    def exchange(self, descriptor: int) -> int:
        """In a forked child: use a description of its own from now on, and return the inherited one."""
        inherited, self._descriptor = self._descriptor, descriptor
        self._threads = threading.Lock()
        return inherited

    def close(self, last: Callable[[], None]) -> None:
        """Do ``last`` when no thread is inside, and close the lock file; once, however often it is called."""
        with self._threads:
            if not self.closed:
                self.closed = True
                os.close(self._descriptor)
                last()
