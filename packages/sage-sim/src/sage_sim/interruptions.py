"""Ctrl-C and its kin, as something to look at between two steps instead of an exception anywhere."""

from __future__ import annotations

import os
import signal
from types import FrameType, TracebackType
from typing import Self

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interruptions:
    """
    While this context is open, the signals that ask a program to end are noted; `fileno` becomes readable.

    A signal that was ignored before (as ``nohup`` does with SIGHUP) stays ignored.
    """

    def __init__(self) -> None:
        self.first: signal.Signals | None = None
        """The first that came."""
        self.count = 0
        """How many came: who repeats it does not want to wait."""
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> Self:
        self._read_end, self._write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        for which in SIGNALS:
            before = signal.getsignal(which)
            if before is not signal.SIG_IGN:
                self._before[which] = signal.signal(which, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for which, before in self._before.items():
            signal.signal(which, before)  # type: ignore[arg-type]  # it came from signal.signal
        os.close(self._read_end)
        os.close(self._write_end)

    def fileno(self) -> int:
        """Readable once a signal came, and from then on."""
        return self._read_end

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.first = self.first or signal.Signals(number)
        self.count += 1
        if self.count == 1:
            os.write(self._write_end, b"!")
