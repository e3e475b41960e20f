"""
Names, folders and files: where segments lie, and who may have made what is found there.

Named segments lie in ``/dev/shm/sage-qd-<uid>/<namespace>/``; folders are 0700, files 0600. Nothing is followed,
trusted or waited for that somebody else could have put there.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from sage_qd.errors import InsecureQueueError, InvalidQueueNameError, QueueNotFoundError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", re.ASCII)
NAME_RULE = "1 to 128 of A-Z a-z 0-9 . _ - and the first a letter or digit"
SHARED_MEMORY = "/dev/shm"

T = TypeVar("T")


def directory() -> Path:
    """The folder of this user's named segments; it may not exist yet."""
    return Path(SHARED_MEMORY) / f"sage-qd-{os.geteuid()}"


def checked_name(name: str) -> str:
    """Refuse what could leave the folder, or be unreadable in it."""
    if not isinstance(name, str):
        raise TypeError(f"a name must be text, not {type(name).__name__}")
    if not NAME.fullmatch(name):
        raise InvalidQueueNameError(name=name, rule=NAME_RULE)
    return name


def named_folder(namespace: str, *, make: bool = True) -> str:
    """The checked folder of a namespace."""
    folder = directory() / checked_name(namespace)
    while True:
        if make:
            with suppress(FileExistsError):  # ours or not: the look decides
                os.mkdir(folder.parent, 0o700)
        check_folder(folder.parent)
        try:
            if make:
                os.mkdir(folder, 0o700)
        except FileExistsError:
            pass
        except FileNotFoundError:
            continue  # whoever left a queue took the upper one along
        check_folder(folder)
        return str(folder)


def check_folder(folder: Path) -> None:
    """The folder, if it is there, must be one of this user, closed to others."""
    try:
        found = os.stat(folder, follow_symlinks=False)
    except FileNotFoundError:
        return  # attach() will say that there is no such queue
    if not stat.S_ISDIR(found.st_mode):
        raise InsecureQueueError(path=str(folder), reason="it is not a folder", stat=found)
    if found.st_uid != os.geteuid():
        raise InsecureQueueError(path=str(folder), reason=f"it belongs to user {found.st_uid}", stat=found)
    if found.st_mode & 0o077:
        raise InsecureQueueError(path=str(folder), reason="others may enter it", stat=found)


def in_named_folder(namespace: str, make: Callable[[str], T]) -> T:
    """Call ``make(folder)`` with the folder of the namespace, made if need be; it stays there while that runs."""
    return in_folder(lambda: named_folder(namespace), make)


def in_folder(find: Callable[[], str], make: Callable[[str], T]) -> T:
    """
    Call ``make(folder)`` and return what it returned; nobody who leaves a queue takes the empty folder along meanwhile.

    A shared lock on the folder sees to that. It may go before it is locked; then everything starts again.

    Args:
        find: Makes the folder if need be, and returns its path.
        make: Makes something in it.
    """
    while True:
        folder = find()
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            if os.fstat(descriptor).st_nlink:
                return make(folder)
        finally:
            os.close(descriptor)


def namespaces(namespace: str | None) -> list[Path]:
    """The folders of all namespaces, or of the given one, that exist."""
    top = directory()
    if not top.is_dir():
        return []
    wanted = [checked_name(namespace)] if namespace is not None else sorted(os.listdir(top))
    return [top / name for name in wanted if (top / name).is_dir()]


def entries(folder: Path) -> list[os.DirEntry[str]]:
    """What is in the folder; nothing when it went away."""
    try:
        return list(os.scandir(folder))
    except FileNotFoundError:
        return []


def drop_empty_folders(path: str) -> None:
    """Remove the folders above a segment that is gone, as far as they are empty and nobody makes something in them."""
    folder = os.path.dirname(path)
    for step in (folder, os.path.dirname(folder)):
        try:
            descriptor = os.open(step, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(descriptor).st_nlink == 0:
                return  # it went meanwhile; what has the path now is not what we locked
            os.rmdir(step)
        except OSError as error:  # BlockingIOError is one
            if error.errno not in (errno.ENOTEMPTY, errno.ENOENT, errno.EBUSY, errno.EWOULDBLOCK):
                raise
            return
        finally:
            os.close(descriptor)


def nameless_file(folder: str) -> int:
    """Open a file that has no name yet."""
    descriptor = os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    os.fchmod(descriptor, 0o600)  # whatever the umask says
    return descriptor


def opened_file(where: str, shown: str, *, access: int = os.O_RDWR) -> int:
    """Open what has the name, never following links, never waiting."""
    try:
        return os.open(where, access | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError as error:
        raise QueueNotFoundError(name=shown) from error
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO, errno.EACCES, errno.ENODEV):
            found = os.stat(where, follow_symlinks=False)
            raise InsecureQueueError(path=where, reason=os.strerror(error.errno), stat=found) from error
        raise


def check_private(descriptor: int, where: str) -> None:
    """The file must be a plain one of this user, closed to others, with no second name."""
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        reason = "it is not a regular file"
    elif found.st_uid != os.geteuid():
        reason = f"it belongs to user {found.st_uid}"
    elif found.st_mode & 0o077:
        reason = f"its mode {stat.S_IMODE(found.st_mode):04o} lets others in"
    elif found.st_nlink > 1:
        reason = f"it has {found.st_nlink} names"
    else:
        return
    raise InsecureQueueError(path=where, reason=reason, stat=found)


def is_memory_file(descriptor: int) -> bool:
    """Whether it is a memfd; only those know seals."""
    try:
        fcntl.fcntl(descriptor, fcntl.F_GET_SEALS)
    except OSError as error:
        if error.errno == errno.EINVAL:
            return False
        raise
    return os.readlink(f"/proc/self/fd/{descriptor}").startswith("/memfd:")
