"""A small file system of our own where queues have their memory, so that it can run full for nobody else."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from sage_sim.namespaces import MOUNTS, enter, refused

SHARED_MEMORY = "/dev/shm"
_MS_REC, _MS_PRIVATE, _MS_NOSUID, _MS_NODEV = 0x4000, 1 << 18, 2, 4
_PIECE_BYTES = 1 << 20


def take_own_room(size_bytes: int) -> None:
    """
    Put a small memory file system over `/dev/shm`, seen by this process and its future children only.

    It goes with the last of them. There is no way back.

    Args:
        size_bytes: Its size.

    Raises:
        NotAllowedError: The system does not allow it, neither to us nor in a user namespace.
    """
    enter(MOUNTS, "a mount namespace")
    library = ctypes.CDLL(None, use_errno=True)
    if library.mount(None, b"/", None, _MS_REC | _MS_PRIVATE, None) != 0:
        raise refused("mounts that others do not see")
    options = f"size={size_bytes},mode=1777".encode()
    if library.mount(b"tmpfs", SHARED_MEMORY.encode(), b"tmpfs", _MS_NOSUID | _MS_NODEV, options) != 0:
        raise refused(f"a file system of its own at {SHARED_MEMORY}")


class Filler:
    """A file that takes all the room there is left, until it is removed."""

    def __init__(self) -> None:
        self._path = Path(SHARED_MEMORY, f"sage-sim-filler-{os.getpid()}")

    def fill(self) -> int:
        """Take all the room; how many bytes that was."""
        taken = 0
        with self._path.open("xb", buffering=0) as file:
            piece = _PIECE_BYTES
            while piece:
                try:
                    taken += file.write(bytes(piece))
                except OSError:  # no room for so much
                    piece //= 2
        return taken

    def remove(self) -> None:
        """Give the room back."""
        self._path.unlink(missing_ok=True)
