"""The conductor's end of the nursery: it starts it, and asks it for one process after the other."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from sage_sim.nursery import LARGEST_ORDER_BYTES, MOST_DESCRIPTORS, Nursing, pid_in

_PR_SET_CHILD_SUBREAPER = 36
_SECONDS_TO_BEGIN = 60.0
_SECONDS_TO_LEAVE = 5.0


class SetupError(Exception):
    """The run could not begin; the text says what is missing."""


def take_orphans(whether: bool) -> None:
    """
    Become the parent of orphans below us, or no longer.

    Raises:
        SetupError: The kernel does not allow it.
    """
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, int(whether), 0, 0, 0) != 0:
        raise SetupError(f"the kernel does not give us our orphans: {os.strerror(ctypes.get_errno())}")


class Nursery:
    """
    The process from which the others are forked; this process becomes their parent.

    Args:
        folder: For what it writes on its standard error.

    Raises:
        SetupError: It could not be started.
    """

    def __init__(self, folder: Path) -> None:
        take_orphans(True)
        words = folder / "nursery.stderr"
        try:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except OSError as error:
            raise SetupError(f"the nursery could not be started: {error}") from error
        self._orders = ours
        try:
            with theirs, words.open("xb") as file:
                nursing = Nursing(conductor=os.getpid(), orders=theirs.fileno(), folder=str(folder))
                self._child = subprocess.Popen(
                    [sys.executable, "-P", "-m", "sage_sim.nursery", json.dumps(asdict(nursing))],
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=file,
                    pass_fds=(theirs.fileno(),),
                    process_group=0,  # Ctrl-C at the terminal reaches us alone
                )
        except OSError as error:
            ours.close()
            raise SetupError(f"the nursery could not be started: {error}") from error
        ours.settimeout(_SECONDS_TO_BEGIN)
        try:
            is_ready = bool(ours.recv(16))
        except TimeoutError:
            is_ready = False
        if not is_ready:
            self.close()
            raise SetupError(f"the nursery did not begin\n{words.read_text(errors='replace')}".rstrip())
        ours.settimeout(None)

    def born(self, order: dict[str, object], descriptors: Sequence[int]) -> int:
        """
        Ask for a process.

        Args:
            order: Its assignment, but for what the descriptors say.
            descriptors: Its standard input, its output, where it says that it is ready, and what it carries.

        Returns:
            Its process id.

        Raises:
            OSError: It could not be forked, or the nursery is gone.
        """
        packet = json.dumps(order).encode()
        if len(packet) > LARGEST_ORDER_BYTES or len(descriptors) > MOST_DESCRIPTORS:
            raise OSError(errno.E2BIG, "too many queues of kinds that have to be carried to each process")
        socket.send_fds(self._orders, [packet], descriptors)
        answer = self._orders.recv(16)
        pid = pid_in(answer) if answer else -errno.ECHILD
        if pid < 0:
            raise OSError(-pid, f"no process could be made: {os.strerror(-pid)}")
        return pid

    def close(self) -> None:
        """End it."""
        self._orders.close()
        try:
            self._child.wait(_SECONDS_TO_LEAVE)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        take_orphans(False)
