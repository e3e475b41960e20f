"""
The board of a running job: a file in memory that says what the job is, and holds what its tasks count.

The driver makes it, and the tasks count in it, so who looks from another process sees figures as they are, and the job
does nothing for that. It goes with the job. The driver, and whoever was forked from it, holds a shared lock on the
file: one that nobody holds was left by a job that was killed as a whole::

    0     magic and version, length of the description
    16    state        of the job, by number; written by the driver
    24    asked_ns     when somebody last wanted what only the driver knows; written by who looks
    32    published_ns when the driver last wrote that; by the monotonic clock of the machine, as above
    64    description, as JSON
    ...   a block of 16 words of 8 bytes for each task, then one for each service

Only jobs whose queues cannot be seen from outside are asked: those on a Ray cluster, and those with thread queues.
"""

import fcntl
import json
import mmap
import os
import shutil
import struct
import uuid
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from sage_qd.errors import CorruptQueueError, QueueNotFoundError
from sage_qd.queues import shm_places
from sage_qd.queues.names import segment_name

__all__ = ["BLOCK_BYTES", "SEEN_KINDS", "SNAPSHOTS_PREFIX", "STATES", "WORDS", "Board", "boards", "clean_boards"]

STATES: Final = ("created", "submitted", "running", "finished", "failed", "stopped")
WORDS: Final = (
    *("taken", "out", "errors", "skipped", "dropped", "restarts", "told_to_stop", "blocked_ns"),
    *("depth", "leased", "load_millionths"),
)
"""The words of a block, in order; the rest of it is not used."""
BLOCK_BYTES: Final = 128
SNAPSHOTS_PREFIX: Final = "sage-qd-job-"
"""How the names of folders for snapshots begin; nothing else is removed with a board."""
SEEN_KINDS: Final = frozenset({"sage_queue", "shm_queue"})
"""Kinds whose queues can be seen from outside."""
_MAGIC: Final = b"sageJOB1"
_HEAD: Final = struct.Struct("<8sQ")
_WORD: Final = struct.Struct("<Q")
_STATE, _ASKED, _PUBLISHED = 16, 24, 32
_DESCRIPTION: Final = 64


def folder() -> Path:
    """The folder of this user's boards, beside that of queues in shared memory; it may not exist."""
    return shm_places.folder().with_name(f"sage-qd-jobs-{os.geteuid()}")


class Board:
    """
    One board, opened by its job or by who looks. Safe in threads and forked processes: each word has one writer.

    Attributes:
        path: The file.
        description: What the driver wrote when it made the board.
    """

    def __init__(self, file: int, path: str, memory: mmap.mmap) -> None:
        self.path = path
        self.memory = memory
        self._file = file
        try:
            magic, length = _HEAD.unpack_from(self.memory)
            if magic != _MAGIC:
                raise CorruptQueueError(field="magic", offset=0, value=magic, wanted=_MAGIC)
            self._blocks = _aligned(_DESCRIPTION + length)
            self.description: dict[str, Any] = json.loads(self.memory[_DESCRIPTION : _DESCRIPTION + length])
        except (ValueError, struct.error) as error:
            raise CorruptQueueError(
                field="description", offset=_DESCRIPTION, value=str(error), wanted="JSON"
            ) from error

    @classmethod
    def create(cls, job: str, description: Mapping[str, Any], blocks: int) -> "Board":
        """
        Make the board of a job; it has its name when it is complete and locked.

        Args:
            job: What no other job has.
            description: Plain data.
            blocks: How many tasks and services count.

        Raises:
            OSError: There is no room for it.
            InsecureQueueError: Somebody else could control the folder.
        """
        text = json.dumps(description).encode()
        size = _aligned(_DESCRIPTION + len(text)) + blocks * BLOCK_BYTES

        def make() -> Board:
            path = str(folder() / segment_name(job))
            new = str(folder() / f"{shm_places.NEW_PREFIX}{uuid.uuid4().hex}")
            file = shm_places.opened(new, make=True)
            try:
                fcntl.flock(file, fcntl.LOCK_SH)
                os.ftruncate(file, size)
                os.pwrite(file, _HEAD.pack(_MAGIC, len(text)), 0)
                os.pwrite(file, text, _DESCRIPTION)
                os.rename(new, path)
                return cls(file, path, mmap.mmap(file, 0))
            except BaseException:
                os.close(file)
                shm_places.remove(new)
                raise

        return shm_places.in_folder(make, folder())

    @classmethod
    def attach(cls, path: str) -> "Board | None":
        """
        Open the board of a job that runs; None where the job is gone.

        Raises:
            InsecureQueueError: It is not a private file of this user.
            CorruptQueueError: It is no board, or that of another version.
        """
        try:
            file = shm_places.opened(path)
        except QueueNotFoundError:
            return None
        try:
            return cls(-1, path, mmap.mmap(file, 0)) if _is_held(file) else None
        finally:
            os.close(file)

    def is_held(self) -> bool:
        """Whether a process of the job is left."""
        try:
            file = shm_places.opened(self.path)
        except QueueNotFoundError:
            return False
        try:
            return _is_held(file)
        finally:
            os.close(file)

    def block(self, number: int) -> int:
        """Where in the memory the words of a task begin."""
        return self._blocks + number * BLOCK_BYTES

    def words(self, number: int) -> dict[str, int]:
        """Return the words of a task by name."""
        found = struct.unpack_from(f"<{len(WORDS)}Q", self.memory, self.block(number))
        return dict(zip(WORDS, found, strict=True))

    def write_queue(self, number: int, depth: int, leased: int, load: float) -> None:
        """Write how full the queue of a task is, for those who cannot see it from outside."""
        place = self.block(number) + 8 * WORDS.index("depth")
        struct.pack_into("<3Q", self.memory, place, depth, leased, round(load * 1_000_000))

    @property
    def state(self) -> str:
        """The state of the job."""
        return STATES[self._word(_STATE)]

    @state.setter
    def state(self, state: str) -> None:
        _WORD.pack_into(self.memory, _STATE, STATES.index(state))

    @property
    def asked_ns(self) -> int:
        """When somebody last asked; 0 for never."""
        return self._word(_ASKED)

    def ask(self, now_ns: int) -> None:
        """Let the driver know that somebody looks."""
        _WORD.pack_into(self.memory, _ASKED, now_ns)

    @property
    def published_ns(self) -> int:
        """When the driver last answered; 0 for never."""
        return self._word(_PUBLISHED)

    def publish(self, now_ns: int) -> None:
        """Say that what was written is from now."""
        _WORD.pack_into(self.memory, _PUBLISHED, now_ns)

    def _word(self, place: int) -> int:
        value: int = _WORD.unpack_from(self.memory, place)[0]
        return value

    def remove(self) -> None:
        """Take the name away, and the lock; who looks keeps the last figures. Twice is once; for the driver only."""
        if self._file >= 0:
            shm_places.remove(self.path)
            os.close(self._file)
            self._file = -1
            shm_places.drop_folder(folder())


def boards() -> Iterator[Board]:
    """Open the board of every job of this user that runs on this machine, by name; not those of other versions."""
    for path in _paths():
        with suppress(CorruptQueueError):
            board = Board.attach(path)
            if board is not None:
                yield board


def clean_boards(*, dry_run: bool = False) -> list[str]:
    """Remove the boards of jobs that were killed as a whole, and the folders of their snapshots; the paths."""
    removed: list[str] = []
    for path in _paths(with_new=True):
        with suppress(QueueNotFoundError):
            file = shm_places.opened(path)
            try:
                if not _is_held(file):
                    removed += [path, *_snapshots_of(file, path)]
            finally:
                os.close(file)
    if removed and not dry_run:
        for path in removed:
            if os.path.isdir(path):
                shutil.rmtree(path)
            else:
                shm_places.remove(path)
        shm_places.drop_folder(folder())
    return removed


def _snapshots_of(file: int, path: str) -> list[str]:
    """The folder that a job made for its snapshots, if it is still there."""
    try:
        place = Board(-1, path, mmap.mmap(file, 0)).description.get("snapshots")
    except (CorruptQueueError, ValueError):
        return []  # it was not complete
    if not isinstance(place, str) or not os.path.basename(place).startswith(SNAPSHOTS_PREFIX):
        return []
    return [place] if os.path.isdir(place) else []


def _paths(*, with_new: bool = False) -> list[str]:
    shm_places.checked_folder(make=False, place=folder())
    try:
        names = sorted(os.listdir(folder()))
    except FileNotFoundError:
        return []
    return [str(folder() / name) for name in names if with_new or not name.startswith(shm_places.NEW_PREFIX)]


def _is_held(file: int) -> bool:
    """Whether somebody holds the lock of the file; it is taken for a moment where nobody does."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(file, fcntl.LOCK_UN)
    return False


def _aligned(size: int) -> int:
    return -(-size // 64) * 64
