"""Namespaces of a run's own: parts of the system that nobody else sees, and that may be broken for nobody else."""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
import subprocess
import sys
from pathlib import Path

MOUNTS, NETWORK = 0x00020000, 0x40000000
_NEW_USER = 0x10000000
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1
_INTERFACE = struct.Struct("16sH22x")
_LOOPBACK = b"lo"


class NotAllowedError(OSError):
    """This process may not have a part of the system of its own."""


def refused(what: str) -> NotAllowedError:
    """The error for what the last call of the system did not give."""
    number = ctypes.get_errno()
    return NotAllowedError(
        number,
        f"this process may not have {what} ({os.strerror(number)}); run as root, or where user namespaces are allowed",
    )


def enter(kind: int, what: str) -> None:
    """
    Enter a new namespace, with this process and its future children; there is no way back.

    Args:
        kind: `MOUNTS` or `NETWORK`.
        what: In words.

    Raises:
        NotAllowedError: The system does not allow it, neither to us nor in a user namespace.
    """
    library = ctypes.CDLL(None, use_errno=True)
    user, group = os.geteuid(), os.getegid()
    if library.unshare(kind) == 0:
        return
    if library.unshare(_NEW_USER | kind) != 0:
        raise refused(what)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
    Path("/proc/self/gid_map").write_text(f"{group} {group} 1")


def are_allowed() -> bool:
    """Whether this process may have namespaces of its own; a child tries it."""
    words = [sys.executable, "-P", "-c", "from sage_sim.namespaces import MOUNTS, enter; enter(MOUNTS, '')"]
    return subprocess.run(words, capture_output=True, check=False).returncode == 0


def take_own_network() -> None:
    """
    Have a network of our own, with a loopback and nothing else.

    Raises:
        NotAllowedError: The system does not allow it.
    """
    enter(NETWORK, "a network namespace")
    plug(True)


def plug(is_in: bool) -> None:
    """Set the loopback of this network up, or down: then nothing comes through, and nobody is told."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as door:
        found = fcntl.ioctl(door, _SIOCGIFFLAGS, _INTERFACE.pack(_LOOPBACK, 0))
        flags = _INTERFACE.unpack(found)[1]
        flags = flags | _IFF_UP if is_in else flags & ~_IFF_UP
        fcntl.ioctl(door, _SIOCSIFFLAGS, _INTERFACE.pack(_LOOPBACK, flags))
