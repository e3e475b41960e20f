"""The folder of a run: inputs, history and results, in one place that can be sent to somebody."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

RUNS = Path("sage-sim-runs")
"""Where runs go when nobody says."""


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
