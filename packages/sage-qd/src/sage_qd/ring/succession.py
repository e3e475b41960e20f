"""
What names the successor of a ring that was moved: a file beside the segment, ``<name>~moved.<instance>``.

The file is complete and in its place before the ring is sealed, and means nothing before. Whoever makes it holds a lock
on it until then, which the kernel drops with the process: so of several who want to move a ring one is first, and what
a killed one left is replaced.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sage_qd.errors import CorruptQueueError
from sage_qd.ring.places import check_private, nameless_file
from sage_qd.ring.spill import link_into_place, remove_if_there

LONGEST_BYTES = 16 * 1024


@contextmanager
def succession(path: str, successor: str, is_sealed: Callable[[], bool]) -> Iterator[None]:
    """
    Name the successor; nobody else can while the block runs. A block that raises takes the name back.

    Args:
        path: Where the file lies.
        successor: Its text, at most 16 KiB in UTF-8.
        is_sealed: Says whether the ring is sealed; asked with the lock of whoever was here before.

    Raises:
        FileExistsError: Somebody else named one, and sealed the ring.
        ValueError: The text is too long.
    """
    data = successor.encode()
    if len(data) > LONGEST_BYTES:
        raise ValueError(f"the successor takes {len(data):,} bytes and the limit is {LONGEST_BYTES:,}")
    descriptor = nameless_file(os.path.dirname(path))
    try:
        os.write(descriptor, data)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        while True:
            try:
                link_into_place(descriptor, path)
                break
            except FileExistsError:
                _remove_unless_sealed(path, is_sealed)
        try:
            yield
        except BaseException:
            if not is_sealed():  # an interrupt may come after the fact
                remove_if_there(path)
            raise
    finally:
        os.close(descriptor)


def _remove_unless_sealed(path: str, is_sealed: Callable[[], bool]) -> None:
    """Wait until whoever named a successor is done or dead, and take the name away if it came to nothing."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if is_sealed():
            raise FileExistsError(path)
        if os.fstat(descriptor).st_nlink:
            remove_if_there(path)
    finally:
        os.close(descriptor)


def successor_in(path: str) -> str:
    """
    Read the successor of a sealed ring.

    Raises:
        CorruptQueueError: There is none to read, which takes somebody who removes files.
        InsecureQueueError: The file is not a private file of this user.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise CorruptQueueError(field="successor file", value=os.path.basename(path), wanted="a file") from error
    with os.fdopen(descriptor, "rb") as file:
        check_private(descriptor, path)
        data = file.read(LONGEST_BYTES + 1)
    try:
        if 0 < len(data) <= LONGEST_BYTES:
            return data.decode()
    except UnicodeDecodeError:
        pass  # as any other text that nobody wrote here
    raise CorruptQueueError(field="successor file", value=f"{len(data)} bytes", wanted="a text")
