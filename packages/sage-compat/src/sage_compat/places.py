"""
The folder of this user where sage-compat keeps what the programs of a host share.

It is the one that the environment variable ``SAGE_COMPAT_DIR`` names, else ``sage-compat-<uid>`` among the temporary
files of the system. It is on purpose not where the rings lie: the old path must work when that place is full::

    control            the page whose generation every program looks at
    standing.json      what `rollback`, `roll-forward` and `set` decided for this host
    records/           one file for each named queue: which queue stands behind the name now
    queues/            the queues of the old path
    evidence/          what the shadow mode found
"""

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from sage_qd.errors import InsecureQueueError

__all__ = ["FOLDER_VARIABLE", "folder", "locked_file", "replace_file"]

FOLDER_VARIABLE: Final = "SAGE_COMPAT_DIR"


def folder(part: str = "") -> Path:
    """
    Return the folder, or a part of it, made if need be and checked.

    Raises:
        InsecureQueueError: Somebody else could control what lies in it.
    """
    named = os.environ.get(FOLDER_VARIABLE)
    top = Path(named) if named else Path(tempfile.gettempdir()) / f"sage-compat-{os.geteuid()}"
    _made(top, parents=bool(named))
    if not part:
        return top
    place = top / part
    _made(place)
    return place


def _made(place: Path, *, parents: bool = False) -> None:
    with suppress(FileExistsError):  # ours or not: the look below decides
        place.mkdir(0o700, parents=parents)
    found = os.stat(place, follow_symlinks=False)
    if not stat.S_ISDIR(found.st_mode):
        raise InsecureQueueError(path=str(place), reason="it is not a folder", stat=found)
    if found.st_uid != os.geteuid():
        raise InsecureQueueError(path=str(place), reason=f"it belongs to user {found.st_uid}", stat=found)
    if found.st_mode & 0o022:
        raise InsecureQueueError(path=str(place), reason="others may write to it", stat=found)


def replace_file(path: Path, text: str, *, keeps_mode: bool = False) -> None:
    """Give a file new content in one step: whoever reads it, or is killed, meets all of the old or all of the new."""
    new = path.with_name(f".{path.name}.{os.getpid()}.new")
    new.write_text(text, encoding="utf-8")
    if keeps_mode:
        new.chmod(path.stat().st_mode & 0o7777)
    new.replace(path)


@contextmanager
def locked_file(path: Path) -> Iterator[None]:
    """
    Let one process and thread at a time into the block; the kernel drops the lock of whoever dies in it.

    Whoever is in the block may remove the file.
    """
    import fcntl

    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if os.fstat(descriptor).st_nlink:
                yield
                return
        finally:
            fcntl.flock(descriptor, fcntl.LOCK_UN)  # a child forked meanwhile has the descriptor, too
            os.close(descriptor)
