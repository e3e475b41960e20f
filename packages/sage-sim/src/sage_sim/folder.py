"""The folder of a run: inputs, history and results, in one place that can be sent to somebody."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir

RUNS = Path("sage-sim-runs")
"""Where runs go when nobody says."""
_PASSING, _LOCK = "sage-sim-", "in-use"


class RunFolder:
    """
    A new folder, empty at first.

    Args:
        path: Where; must not exist, or be empty. None: a name of its own below `RUNS`, made from time, preset and seed.
        preset: For that name.
        seed: For that name.

    Raises:
        FileExistsError: There is something in it already.
        OSError: It cannot be made.
    """

    def __init__(self, path: Path | None, *, preset: str, seed: int) -> None:
        self.started = datetime.now(UTC)
        self.path = self._made(path) if path is not None else self._named(f"{preset}-{seed}")
        self.work.mkdir()

    @property
    def plan(self) -> Path:
        """What the run was told to do."""
        return self.path / "plan.json"

    @property
    def scenario(self) -> Path:
        """What the user asked for; `sage-sim run` takes it as a topology file."""
        return self.path / "scenario.json"

    @property
    def work(self) -> Path:
        """Where processes keep logs and state while the run goes on."""
        return self.path / "work"

    def remove_work(self) -> None:
        """Drop the raw logs: all they say is in the history."""
        shutil.rmtree(self.work)

    def _made(self, path: Path) -> Path:
        path.mkdir(parents=True, exist_ok=True)
        if any(path.iterdir()):
            raise FileExistsError(f"{path} is not empty; the history of another run is not overwritten")
        return path

    def _named(self, what: str) -> Path:
        """Make one that nobody has, and keep version control from looking at it."""
        RUNS.mkdir(exist_ok=True)
        (RUNS / ".gitignore").write_text("*\n", encoding="utf-8")
        for attempt in count(1):
            path = RUNS / f"{self.started:%Y%m%d-%H%M%S}-{what}{f'-{attempt}' if attempt > 1 else ''}"
            try:
                path.mkdir()
            except FileExistsError:
                continue
            return path
        raise AssertionError("count() has no end")


@contextmanager
def passing_folder(within: Path | None = None, prefix: str = _PASSING) -> Iterator[Path]:
    """
    A folder that goes with the block; or by `remove_passed`, if this process is killed.

    Args:
        within: What it is made in; None: where temporary files are.
        prefix: How its name begins.
    """
    place = TemporaryDirectory(dir=within, prefix=prefix)
    unfinished = Path(place.name, "begins")
    with unfinished.open("xb") as lock, place:
        fcntl.flock(lock, fcntl.LOCK_EX)
        unfinished.rename(Path(place.name, _LOCK))  # from here on, whoever looks finds it locked
        yield Path(place.name)


def remove_passed(within: Path | None = None, prefix: str = _PASSING) -> list[str]:
    """
    Remove the folders of this user whose owners were killed, and return their paths; those in use stay.

    Args:
        within: As of `passing_folder`.
        prefix: Likewise.
    """
    removed = []
    for path in sorted((within or Path(gettempdir())).glob(f"{prefix}*/{_LOCK}")):
        folder = path.parent
        try:
            if path.lstat().st_uid == folder.lstat().st_uid == os.geteuid() and not folder.is_symlink():
                with path.open("rb") as lock:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(folder)
                removed.append(str(folder))
        except (BlockingIOError, FileNotFoundError):  # it is in use, or has just ended in good order
            continue
    return removed
