"""How a process of a run hangs on its conductor: it says that it is ready, and never outlives it."""

from __future__ import annotations

import ctypes
import faulthandler
import os
import signal
import sys
from types import FrameType

EXIT_STOPPED = 143
"""Ended by the conductor's SIGTERM, or by its death."""
SECONDS_TO_LEAVE = 2
_PR_SET_PDEATHSIG = 1


def die_with(conductor: int) -> None:
    """
    End when the conductor does, however it does.

    On SIGTERM, which the kernel sends at its death, leave in good order, so that the last one out removes the queues. A
    process that cannot leave in time is ended by the alarm, whatever it is doing.
    """

    def leave(_signal: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.alarm(SECONDS_TO_LEAVE)
        sys.exit(EXIT_STOPPED)

    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the conductor, which then stops everybody
    faulthandler.register(signal.SIGUSR1, all_threads=True)  # "where are you?", answered on standard error
    library = ctypes.CDLL(None, use_errno=True)
    if library.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "the kernel does not tell us when the conductor dies")
    if os.getppid() != conductor:  # it died before we asked
        sys.exit(EXIT_STOPPED)


READY, ALL_SENT = b"r", b"d"
"""What a process tells the conductor, on its pipe."""


def wait_for_go(ready: int) -> tuple[int, int]:
    """Say that we are ready, and wait for the word: the moment of the beginning, and that at which sources stop."""
    os.write(ready, READY)
    word = sys.stdin.readline().split()
    if len(word) != 2:
        sys.exit(EXIT_STOPPED)  # the conductor died
    return int(word[0]), int(word[1])
