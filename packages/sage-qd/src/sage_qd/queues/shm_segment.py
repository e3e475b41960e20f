"""
The files of a queue in shared memory: make, open, leave and clean them.

A queue gets its name when it is complete, with one ``link``; so nobody opens a half-made one, and a creator that is
killed leaves a nameless file that blocks nothing. Whoever has the queue open holds a shared lock on its file, which the
kernel drops with the process; who can turn it into an exclusive one is the last, and removes everything. Whoever opens
it looks again, with the lock, whether the file still has its name. What killed users leave can be opened until it is
cleaned.
"""

import errno
import os
import secrets
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from sage_qd.errors import (
    CorruptQueueError,
    GeometryMismatchError,
    IncompatibleQueueError,
    QueueExistsError,
    QueueNoSpaceError,
    QueueNotFoundError,
)
from sage_qd.queues import shm_wakes
from sage_qd.queues.shm_handles import remember
from sage_qd.queues.shm_layout import DATA_START, Memory, Settings
from sage_qd.queues.shm_lock import Gate, holders, is_last, lock_shared, locked
from sage_qd.queues.shm_places import (
    NEW_PREFIX,
    checked_folder,
    companions,
    drop_folder,
    folder,
    in_folder,
    lock_path,
    memory_path,
    opened,
    remove,
)

__all__ = ["Files", "Segment", "clean_shared_memory", "open_segment"]

CHUNK_BYTES: Final = 1 << 20


@dataclass(slots=True)
class Files:
    """The descriptors of one handle: the shared memory, whose lock says that we use it, and the lock for changes."""

    memory: int
    lock: int

    def close(self) -> None:
        """Close both."""
        os.close(self.memory)
        os.close(self.lock)


class Segment:
    """
    One handle of a queue's files.

    Args:
        path: Of the queue.
        queue_id: Its name, for errors.
        memory_file: Descriptor with the shared lock; owned by the segment from now on.
    """

    def __init__(self, path: str, queue_id: str, memory_file: int) -> None:
        self.path = path
        self.queue_id = queue_id
        self.memory = Memory(memory_file, os.fstat(memory_file).st_size)
        try:
            self._lock_path = lock_path(path, self.memory.instance)
            lock_file = opened(self._lock_path, make=True)
            try:
                self.semaphores: list[shm_wakes.Semaphore] = shm_wakes.opened(self.memory.instance)
            except BaseException:
                os.close(lock_file)
                raise
        except BaseException:
            self.memory.close()
            raise
        self._files = Files(memory_file, lock_file)
        self.gate = Gate(lock_file, queue_id)
        self._holder_file = -1
        self._holder = 0
        self.stays = False
        """Whether the last one who leaves is to leave the files as they are."""
        self.on_fork: Callable[[], object] = lambda: None
        """Called in a forked child, which must not do again what its parent will."""
        remember(self)

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self.gate.closed

    def is_shared(self) -> bool:
        """Whether anybody else has the queue open."""
        return holders(self._files.memory) != 1

    def close(self) -> None:
        """Leave; the last one of all processes removes the files. Leases of this handle end with its own lock."""
        self.gate.close(self._leave)

    def _leave(self) -> None:
        self.semaphores = []
        instance = self.memory.instance
        self.memory.close()
        self._drop_holder()
        try:
            if not self.stays and is_last(self._files.memory) and _has_name(self._files.memory, self.path):
                _remove_all(self.path, instance)
        finally:
            os.close(self._files.memory)
        drop_folder()

    def __del__(self) -> None:
        if hasattr(self, "_holder"):
            self.close()

    # -- Leases -------------------------------------------------------------------------------------------------------

    def holder(self) -> int:
        """
        The number that our leases carry; its file is locked while this handle lives.

        Called with the queue's lock, so nobody else is between making such a file and locking it: those that are not
        locked are of the dead. Whose file is missing is dead as well, so no lease is forgotten with it.
        """
        if not self._holder:
            for path in companions(self.path):
                if path.startswith(f"{self._lock_path}.") and not _is_locked(path):
                    remove(path)
            number = secrets.randbits(62) + 1
            self._holder_file = opened(self._holder_path(number), make=True)
            if not locked(self._holder_file):
                raise AssertionError("a number that was made up a moment ago is taken")
            self._holder = number
        return self._holder

    def is_own(self, holder: int) -> bool:
        """Whether it is our number."""
        return holder == self._holder

    def is_alive(self, holder: int) -> bool:
        """Whether the handle with this number still is."""
        return self.is_own(holder) or _is_locked(self._holder_path(holder))

    def forget(self, holder: int) -> None:
        """Remove the file of a handle that is no more."""
        remove(self._holder_path(holder))

    def _holder_path(self, holder: int) -> str:
        return f"{self._lock_path}.{holder:016x}"

    def _drop_holder(self) -> None:
        """End our leases: a missing file, like one that is not locked, says that the handle is no more."""
        if self._holder:
            remove(self._holder_path(self._holder))
            os.close(self._holder_file)
            self._holder = 0

    # -- Fork ---------------------------------------------------------------------------------------------------------

    def files_for_child(self) -> Files | None:
        """Open the files again, for a child about to be forked; None where that cannot be: it gets a closed handle."""
        try:
            memory_file = opened(self.path)
        except OSError:
            return None
        try:
            lock_shared(memory_file)
            if os.path.samestat(os.fstat(memory_file), os.fstat(self._files.memory)):
                return Files(memory_file, opened(self._lock_path))
        except OSError:
            pass  # no descriptors left, or files removed by hand; the child's calls say that its handle is closed
        os.close(memory_file)
        return None

    def after_fork(self, files: Files | None) -> None:
        """In the child: use files of our own, and leave our parent's to it."""
        inherited = self._files
        self.on_fork()
        if self._holder:
            os.close(self._holder_file)
            self._holder = 0
        self.gate.exchange(-1 if files is None else files.lock)
        inherited.close()
        if files is None:
            self.gate.closed = True
        else:
            self._files = files


def _is_locked(path: str) -> bool:
    """Whether somebody holds the lock of a file; nobody does of one that is not there."""
    try:
        descriptor = opened(path)
    except QueueNotFoundError:
        return False
    try:
        return not locked(descriptor)
    finally:
        os.close(descriptor)


def open_segment(queue_id: str, settings: Settings, *, create: bool, exist_ok: bool = True) -> Segment:
    """
    Open the queue of this name, making it if it is missing and that is allowed.

    Raises:
        GeometryMismatchError: It exists with other settings.
        QueueExistsError: It exists and may not.
        QueueNotFoundError: It does not exist and may not be made.
        QueueNoSpaceError: There is no room for it.
        InsecureQueueError: A folder or file could be under somebody else's control.
        CorruptQueueError: What has the name is no queue, or a damaged one.
    """
    path = memory_path(queue_id)
    while True:
        made: int | None = None
        if create:
            made = in_folder(lambda: _made(path, settings))
        if made is not None:
            return _adopted(path, queue_id, made, is_new=True)
        if create and not exist_ok:
            raise QueueExistsError(name=queue_id)
        checked_folder(make=False)
        try:
            segment = _attached(path, queue_id)
        except QueueNotFoundError:
            if create:
                continue  # it went away between the two looks
            raise QueueNotFoundError(name=queue_id) from None
        found = segment.memory.settings
        if (found.maxsize, found.capacity_bytes) != (settings.maxsize, settings.capacity_bytes):
            segment.close()
            raise GeometryMismatchError(name=queue_id, wanted=_shown(settings), found=_shown(found))
        return segment


def _shown(settings: Settings) -> dict[str, object]:
    return {"maxsize": settings.maxsize, "capacity_bytes": settings.capacity_bytes}


def _adopted(path: str, queue_id: str, memory_file: int, *, is_new: bool = False) -> Segment:
    """Make a handle of an open file; if that fails, a new queue goes, and one that was found stays."""
    try:
        return Segment(path, queue_id, memory_file)
    except BaseException:
        if is_new and is_last(memory_file):
            _remove_all(path, None)
            drop_folder()
        os.close(memory_file)
        raise


def _attached(path: str, queue_id: str) -> Segment:
    """Open a queue that exists; whoever is removing it is waited for, and then it is looked for again."""
    while True:
        memory_file = opened(path)
        try:
            lock_shared(memory_file)
            if _has_name(memory_file, path):
                break
        except BaseException:
            os.close(memory_file)
            raise
        os.close(memory_file)
    return _adopted(path, queue_id, memory_file)


def _has_name(descriptor: int, path: str) -> bool:
    """Whether the file is still the one that has the name."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False


# -- Making one -------------------------------------------------------------------------------------------------------


def _made(path: str, settings: Settings) -> int | None:
    """Make a queue and return its file, with our lock; None when the name is taken."""
    if os.path.lexists(path):
        return None
    place = os.path.dirname(path)
    new = os.path.join(place, f"{NEW_PREFIX}{secrets.token_hex(16)}")
    descriptor = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        lock_shared(descriptor)
        os.fchmod(descriptor, 0o600)  # whatever the umask says
        _reserve(descriptor, DATA_START + settings.capacity_bytes, place)
        os.pwrite(descriptor, Memory.header(settings, secrets.token_hex(16)), 0)
        os.link(new, path)
    except FileExistsError:
        os.close(descriptor)
        return None
    except BaseException:
        os.close(descriptor)
        raise
    finally:
        remove(new)
    return descriptor


def _reserve(descriptor: int, size: int, place: str) -> None:
    """Give the file its size, and the pages that it takes, so that no later write finds no room."""
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(descriptor, 0, size)
            return
        zeros = bytes(CHUNK_BYTES)
        for start in range(0, size, CHUNK_BYTES):
            os.pwrite(descriptor, zeros[: size - start], start)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise QueueNoSpaceError(wanted=size, free=shutil.disk_usage(place).free) from error


# -- Removing ---------------------------------------------------------------------------------------------------------


def _remove_all(path: str, instance: str | None) -> list[str]:
    """Remove a queue that is locked by us alone; its own file goes last, so that cleaning finds what a kill leaves."""
    removed = [each for each in companions(path) if remove(each)]
    if instance is not None:
        shm_wakes.remove(instance)
    return [path, *removed] if remove(path) else removed


def clean_shared_memory(*, dry_run: bool = False, leads_on: Callable[[str], bool] | None = None) -> list[str]:
    """
    Remove the queues of this user that nobody has open, and what killed processes left; return the paths.

    Messages in a queue whose users were all killed go with it: open it first if they matter.

    Args:
        dry_run: Remove nothing; return what would be.
        leads_on: Asked with the text that names the successor of a queue that was moved; if it says yes, the queue is
            spared, because its name still leads there. None spares none.

    Raises:
        InsecureQueueError: The folder could be under somebody else's control.
    """
    checked_folder(make=False)
    place = folder()
    try:
        names = sorted(os.listdir(place))
    except FileNotFoundError:
        return []
    removed = []
    for name in names:
        path = str(place / name)
        if name.startswith(NEW_PREFIX) or "~" not in name:
            removed += _cleaned(path, dry_run, leads_on)
        elif not os.path.lexists(place / name.partition("~")[0]) and (dry_run or remove(path)):
            removed.append(path)
    drop_folder()
    return removed


def _cleaned(path: str, dry_run: bool, leads_on: Callable[[str], bool] | None) -> list[str]:
    """Remove one queue, with the lock: whoever opens it at this moment waits, and looks again."""
    try:
        descriptor = opened(path)
    except QueueNotFoundError:
        return []
    try:
        if not locked(descriptor) or not _has_name(descriptor, path):
            return []
        instance, successor = _written_in(descriptor)
        if successor is not None and leads_on is not None and leads_on(successor):
            return []
        return [path, *companions(path)] if dry_run else _remove_all(path, instance)
    finally:
        os.close(descriptor)


def _written_in(descriptor: int) -> tuple[str | None, str | None]:
    """Whose file this is, and what the queue was sealed with; None where it is damaged."""
    try:
        memory = Memory(descriptor, os.fstat(descriptor).st_size)
    except (CorruptQueueError, IncompatibleQueueError):
        return None, None
    try:
        return memory.instance, memory.successor_of(memory.load())
    except CorruptQueueError:
        return memory.instance, None
    finally:
        memory.close()
