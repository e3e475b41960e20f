"""
Where queues in shared memory lie, under which names, and who may have made what is found there.

A queue is a file in a private folder of this user, ``sage-qd-shm-<uid>``: in the folder that the environment variable
``SAGE_QD_SHM_FOLDER`` names, else in ``/dev/shm`` where a system has that, else in the folder for temporary files. All
processes that are to meet must come to the same one. The file is the memory; beside it lie small ones that belong to
it::

    <name>                        header and messages; locked, shared, by whoever has the queue open
    <name>~<instance>             locked by whoever changes the queue at this moment
    <name>~<instance>.<holder>    locked by a handle that has messages out on lease
    ~new-<random>                 a queue that is being made; it gets its name when it is complete

These rules are those of :mod:`sage_qd.ring.places`, which cannot be imported where the ring cannot be built.
"""

import errno
import os
import stat
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeVar

from sage_qd.errors import InsecureQueueError, QueueNotFoundError
from sage_qd.queues.names import segment_name

__all__ = [
    "NEW_PREFIX",
    "check_private",
    "checked_folder",
    "companions",
    "drop_folder",
    "folder",
    "in_folder",
    "lock_path",
    "memory_path",
    "opened",
    "remove",
]

T = TypeVar("T")

NEW_PREFIX: Final = "~new-"
FOLDER_ATTEMPTS: Final = 1000
_MEMORY: Final = "/dev/shm"


def folder() -> Path:
    """The folder of this user's queues; it may not exist yet."""
    base = os.environ.get("SAGE_QD_SHM_FOLDER") or _MEMORY
    if base == _MEMORY and not os.access(base, os.W_OK | os.X_OK):
        base = tempfile.gettempdir()
    return Path(base) / f"sage-qd-shm-{os.geteuid()}"


def memory_path(queue_id: str) -> str:
    """The file of a queue; any text is a name."""
    return str(folder() / segment_name(queue_id))


def lock_path(path: str, instance: str) -> str:
    """The file whose lock lets one handle at a time change the queue; with ``.<holder>`` it is that of a holder."""
    return f"{path}~{instance}"


def checked_folder(*, make: bool, place: Path | None = None) -> None:
    """
    Check the folder, making it if need be; ``place`` is another one of this user, with the same rules.

    Raises:
        InsecureQueueError: Somebody else could control what lies in it.
    """
    place = folder() if place is None else place
    if make:
        with suppress(FileExistsError):  # ours or not: the look below decides
            os.mkdir(place, 0o700)
    try:
        found = os.stat(place, follow_symlinks=False)
    except FileNotFoundError:
        return  # then there is no such queue, which is told by whoever opens it
    if not stat.S_ISDIR(found.st_mode):
        raise InsecureQueueError(path=str(place), reason="it is not a folder", stat=found)
    _check_owner(str(place), found)


def in_folder(make: Callable[[], T], place: Path | None = None) -> T:
    """
    Call ``make`` with the folder there; ``place`` is another one.

    Whoever leaves another queue last takes the empty folder along, at any moment; then everything starts again.
    """
    for _ in range(FOLDER_ATTEMPTS - 1):
        with suppress(FileNotFoundError):
            checked_folder(make=True, place=place)
            return make()
    checked_folder(make=True, place=place)
    return make()


def drop_folder(place: Path | None = None) -> None:
    """Remove the folder if it is empty; who needs it makes it anew."""
    try:
        os.rmdir(folder() if place is None else place)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT, errno.EBUSY):
            raise


def opened(path: str, *, make: bool = False) -> int:
    """
    Open a file, never following links and never waiting.

    Raises:
        QueueNotFoundError: There is none.
        InsecureQueueError: It is not a private file of this user.
    """
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | (os.O_CREAT if make else 0)
    try:
        descriptor = os.open(path, flags, 0o600)
    except FileNotFoundError as error:
        raise QueueNotFoundError(name=path) from error
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO, errno.EACCES, errno.ENODEV):
            found = os.stat(path, follow_symlinks=False)
            raise InsecureQueueError(path=path, reason=os.strerror(error.errno), stat=found) from error
        raise
    try:
        check_private(descriptor, path)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def check_private(descriptor: int, path: str) -> None:
    """
    Check that a file is a plain one of this user, closed to others.

    Raises:
        InsecureQueueError: It is not.
    """
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        raise InsecureQueueError(path=path, reason="it is not a regular file", stat=found)
    _check_owner(path, found)


def _check_owner(path: str, found: os.stat_result) -> None:
    if found.st_uid != os.geteuid():
        raise InsecureQueueError(path=path, reason=f"it belongs to user {found.st_uid}", stat=found)
    if found.st_mode & 0o077:
        raise InsecureQueueError(path=path, reason="its mode lets others in", stat=found)


def companions(path: str) -> list[str]:
    """The files that lie beside a queue's own, of any instance."""
    place, name = os.path.split(path)
    try:
        return [os.path.join(place, each) for each in sorted(os.listdir(place)) if each.startswith(f"{name}~")]
    except FileNotFoundError:
        return []


def remove(path: str) -> bool:
    """Remove a file; False when it is gone already."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return False
    return True
