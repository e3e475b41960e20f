"""
The files of a file queue: making, opening, leaving and removing them, and hints to those who wait.

They lie in the folder ``queues`` of sage-compat. Next to the queue's own file there are::

    <name>~lock       locked by whoever changes the queue at this moment
    <name>~message    a pipe: one byte for each waiting consumer that shall look again
    <name>~room       the same for producers
    <name>~<digits>   a message that was too large for the circle

Whoever has the queue open holds a shared lock on its own file. A queue gets its name when it is complete.
"""

import errno
import os
import secrets
import select
import shutil
from contextlib import suppress
from typing import Final

from sage_compat.legacy.file_layout import DATA_START, header_of
from sage_compat.places import folder
from sage_qd.errors import QueueExistsError, QueueNoSpaceError, QueueNotFoundError
from sage_qd.queues.names import segment_name
from sage_qd.queues.shm_lock import Gate, holders, is_last, lock_shared, locked
from sage_qd.queues.shm_places import companions, opened, remove

__all__ = ["Files", "clean_file_queues", "file_path", "list_file_queues", "open_files"]

_MOST_WOKEN: Final = 1024
_HINT: Final = b"\0"
_NAMELESS: Final[int | None] = getattr(os, "O_TMPFILE", None)


def file_path(queue_id: str) -> str:
    """The file of a queue."""
    return str(folder("queues") / segment_name(queue_id))


class Files:
    """
    One handle's files.

    Args:
        path: Of the queue.
        memory: Descriptor of its own file, with the shared lock; owned from now on.
        queue_id: For errors.
    """

    def __init__(self, path: str, memory: int, queue_id: str) -> None:
        self.path = path
        self.memory = memory
        try:
            self.gate = Gate(opened(f"{path}~lock", make=True), queue_id)
            self._pipes = {kind: _pipe(f"{path}~{kind}") for kind in ("message", "room")}
        except BaseException:
            os.close(memory)
            raise

    def wait(self, kind: str, seconds: float) -> None:
        """Wait for a hint, at most so long."""
        poll = select.poll()
        poll.register(self._pipes[kind], select.POLLIN)
        if poll.poll(seconds * 1000):
            with suppress(BlockingIOError):  # somebody else was faster
                os.read(self._pipes[kind], 1)

    def hint(self, kind: str, count: int) -> bool:
        """Wake so many; False when the pipe is full of hints that nobody took, so that there are fewer than thought."""
        try:
            os.write(self._pipes[kind], _HINT * min(count, _MOST_WOKEN))
        except BlockingIOError:
            return False
        return True

    def is_shared(self) -> bool:
        """Whether anybody else has the queue open."""
        return holders(self.memory) != 1

    def leave(self, *, remove_if_last: bool) -> None:
        """Close the files; the last one of all processes removes them, if that is wanted."""
        try:
            if remove_if_last and is_last(self.memory) and _has_name(self.memory, self.path):
                remove_all(self.path)
        finally:
            os.close(self.memory)

    def __del__(self) -> None:
        """Close the pipes when no thread is left that could wait at one; each wait is short."""
        for pipe in getattr(self, "_pipes", {}).values():
            os.close(pipe)

    # -- Fork: a child needs descriptions of its own, because locks belong to those ------------------------------------

    def for_child(self) -> "ChildFiles | None":
        """Open them again for a child about to be forked; None where that cannot be."""
        try:
            memory = os.open(f"/proc/self/fd/{self.memory}", os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return None
        lock_shared(memory)
        try:
            return ChildFiles(memory, opened(f"{self.path}~lock", make=True))
        except (OSError, QueueNotFoundError):
            os.close(memory)
            return None

    def become(self, files: "ChildFiles | None") -> None:
        """In the child: take over what the parent opened for it."""
        os.close(self.gate.exchange(-1 if files is None else files.lock))
        if files is None:
            self.gate.closed = True
            return
        os.close(self.memory)
        self.memory = files.memory


class ChildFiles:
    """The descriptors that a child gets."""

    def __init__(self, memory: int, lock: int) -> None:
        self.memory = memory
        self.lock = lock

    def close(self) -> None:
        """In the parent: they are the child's."""
        os.close(self.memory)
        os.close(self.lock)


def open_files(queue_id: str, capacity_bytes: int, max_items: int, *, create: bool, exist_ok: bool) -> Files:
    """
    Open a queue, making it if it is missing and that is allowed; one that exists keeps its own capacity.

    Raises:
        QueueExistsError: It exists and may not.
        QueueNotFoundError: It does not exist and may not be made.
        QueueNoSpaceError: There is no room for it.
    """
    path = file_path(queue_id)
    while True:
        if create and (
            made := _made(path, header_of(capacity_bytes, max_items, secrets.token_hex(16)), capacity_bytes)
        ):
            return Files(path, made, queue_id)
        if create and not exist_ok:
            raise QueueExistsError(name=queue_id)
        try:
            memory = opened(path)
        except QueueNotFoundError:
            if create:
                continue  # it went away between the two looks
            raise QueueNotFoundError(name=queue_id) from None
        lock_shared(memory)  # waits only for somebody who is removing it
        if _has_name(memory, path):
            return Files(path, memory, queue_id)
        os.close(memory)


def _made(path: str, header: bytes, capacity_bytes: int) -> int | None:
    """Make a queue and return its file, with our lock; None when the name is taken."""
    if os.path.lexists(path):
        return None
    descriptor, new = _unnamed(os.path.dirname(path))
    try:
        lock_shared(descriptor)
        os.posix_fallocate(descriptor, 0, DATA_START + capacity_bytes)
        os.pwrite(descriptor, header, 0)
        for companion in companions(path):  # of a queue that had the name before
            remove(companion)
        _give_name(descriptor, new, path)
    except FileExistsError:
        os.close(descriptor)
        return None
    except OSError as error:
        os.close(descriptor)
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        free = shutil.disk_usage(os.path.dirname(path)).free
        raise QueueNoSpaceError(wanted=DATA_START + capacity_bytes, free=free) from error
    finally:
        if new is not None:
            remove(new)
    return descriptor


def _unnamed(place: str) -> tuple[int, str | None]:
    """A file without a name, which goes with a maker that is killed; with one where the file system knows none such."""
    if _NAMELESS is not None:
        try:
            return os.open(place, _NAMELESS | os.O_RDWR | os.O_CLOEXEC, 0o600), None
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR):
                raise
    new = os.path.join(place, f"~new-{secrets.token_hex(16)}")
    return os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600), new


def _give_name(descriptor: int, new: str | None, path: str) -> None:
    if new is not None:
        os.link(new, path)
        return
    place, name = os.path.split(path)
    at = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:  # with the folder's descriptor, Python follows the link that /proc shows
        os.link(f"/proc/self/fd/{descriptor}", name, dst_dir_fd=at, follow_symlinks=True)
    finally:
        os.close(at)


def _pipe(path: str) -> int:
    with suppress(FileExistsError):
        os.mkfifo(path, 0o600)
    return os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)


def _has_name(descriptor: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False


def remove_all(path: str) -> None:
    """Remove a queue; its own file goes first, so that nobody opens what is half gone."""
    remove(path)
    for companion in companions(path):
        remove(companion)


def list_file_queues() -> list[str]:
    """The file names of all queues of the old path."""
    return sorted(name for name in os.listdir(folder("queues")) if "~" not in name)


def clean_file_queues(*, force: bool = False) -> list[str]:
    """
    Remove queues that nobody has open; return their file names.

    Args:
        force: Also those that are in use; who has one open goes on with it, alone.
    """
    removed = []
    for name in list_file_queues():
        path = str(folder("queues") / name)
        try:
            descriptor = opened(path)
        except QueueNotFoundError:
            continue
        try:
            if force or locked(descriptor):
                remove_all(path)
                removed.append(name)
        finally:
            os.close(descriptor)
    return removed
