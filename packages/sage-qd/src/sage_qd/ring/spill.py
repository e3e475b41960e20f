"""
Spill files: where payloads go that would take too much of the ring.

A spill file lies beside its segment, named ``<segment>~<16 hexadecimal digits>``; the record in the ring holds 16
bytes: that number and the payload's length. The file is written and linked into place before the record is put, and
removed after the record was taken, so what a killed process leaves is a file that no record refers to. The writer holds
a shared ``flock`` on it until the record is in the ring; `remove_orphans` takes an unlocked file without a record for
what it is.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import struct
from collections.abc import Sequence
from io import FileIO
from pathlib import Path

from sage_qd.errors import CorruptQueueError, QueueNoSpaceError
from sage_qd.ring.places import in_folder, nameless_file

REFERENCE = struct.Struct("<QQ")
SPILL = re.compile("[0-9a-f]{16}")


class SpillFiles:
    """The spill files of one segment. Safe in threads and processes: every file has one writer and one remover."""

    def __init__(self, segment: str) -> None:
        self.prefix = segment + "~"

    def path(self, number: int) -> str:
        """Where the file with that number lies."""
        return f"{self.prefix}{number:016x}"

    def write(self, parts: Sequence[bytes | bytearray | memoryview], length: int) -> tuple[FileIO, bytes]:
        """
        Write one payload.

        Returns:
            The file, which is locked as long as it is open, and the reference to put; who does not put it removes it.

        Raises:
            QueueNoSpaceError: The file system is full; nothing is left behind.
        """
        number = secrets.randbits(64)
        file = FileIO(in_folder(self._folder, nameless_file), "r+")
        try:
            self._fill(file.fileno(), parts, length)
            fcntl.flock(file, fcntl.LOCK_SH)
            in_folder(self._folder, lambda _: link_into_place(file.fileno(), self.path(number)))
            return file, REFERENCE.pack(number, length)
        except BaseException:
            file.close()
            raise

    def _folder(self) -> str:
        """The folder of the segment; that of an unlinked ring may have gone with other queues."""
        folder = os.path.dirname(self.prefix)
        os.makedirs(folder, mode=0o700, exist_ok=True)
        return folder

    def _fill(self, descriptor: int, parts: Sequence[bytes | bytearray | memoryview], length: int) -> None:
        try:
            os.posix_fallocate(descriptor, 0, max(length, 1))
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise QueueNoSpaceError(wanted=length, free=free_bytes(os.path.dirname(self.prefix))) from error
        for part in parts:
            view = memoryview(part)
            rest = view.cast("B") if view.nbytes else b""  # a view with a zero in its shape cannot be cast
            while rest:
                rest = rest[os.write(descriptor, rest) :]

    def read(self, reference: bytes) -> bytes:
        """
        Read the payload that a record refers to.

        Raises:
            CorruptQueueError: The reference or the file is not what a writer makes.
        """
        if len(reference) != REFERENCE.size:
            raise CorruptQueueError(field="spill reference", value=reference.hex(), wanted=f"{REFERENCE.size} bytes")
        number, length = REFERENCE.unpack(reference)
        try:
            descriptor = os.open(self.path(number), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError as error:
            shown = f"{number:016x}"
            raise CorruptQueueError(field="spill file", value=shown, wanted="a file beside the ring") from error
        with os.fdopen(descriptor, "rb") as file:
            if (found := os.fstat(descriptor).st_size) < length:
                raise CorruptQueueError(field="spill file size", value=found, wanted=length)
            data = file.read(length)
        if len(data) != length:
            raise CorruptQueueError(field="spill file size", value=len(data), wanted=length)
        return data

    def remove(self, reference: bytes) -> None:
        """Remove the file of a record that was taken out, or was not put."""
        remove_if_there(self.path(REFERENCE.unpack(reference)[0]))

    def listed(self) -> list[str]:
        """All files there are, in no order."""
        folder, prefix = os.path.split(self.prefix)
        try:
            return [os.path.join(folder, name) for name in os.listdir(folder) if name.startswith(prefix)]
        except FileNotFoundError:  # an unlinked ring's folder goes when nothing is in it any more
            return []

    def unlocked(self) -> list[str]:
        """Spill files whose writer is done, or dead; not what else lies beside the segment."""
        return [path for path in self.listed() if SPILL.fullmatch(path.removeprefix(self.prefix)) and is_unlocked(path)]

    def remove_orphans(self, candidates: Sequence[str], referred: Sequence[int], *, dry_run: bool = False) -> list[str]:
        """
        Remove those of `candidates` that no record refers to.

        Args:
            candidates: From `unlocked`, asked *before* `referred` was read from the ring.
            referred: Numbers that records in the ring hold.
            dry_run: Only return them.
        """
        wanted = {self.path(number) for number in referred}
        orphans = [path for path in candidates if path not in wanted]
        for path in orphans if not dry_run else ():
            remove_if_there(path)
        return orphans

    def remove_all(self) -> None:
        """Remove every file: the ring itself is gone."""
        for path in self.listed():
            remove_if_there(path)


def is_unlocked(path: str) -> bool:
    """Whether nobody holds a lock on the file; False when it is gone."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def remove_if_there(path: str) -> None:
    """Unlink; somebody else having done so is fine."""
    Path(path).unlink(missing_ok=True)


def link_into_place(descriptor: int, path: str) -> None:
    """
    Give a nameless file its name, in one step.

    Raises:
        FileExistsError: The name is taken.
    """
    folder, name = os.path.split(path)
    at = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # Only with a folder descriptor does Python use linkat(2), which can follow the link that /proc shows.
        os.link(f"/proc/self/fd/{descriptor}", name, dst_dir_fd=at, follow_symlinks=True)
    finally:
        os.close(at)


def free_bytes(folder: str) -> int:
    """What the file system has left for us."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize
