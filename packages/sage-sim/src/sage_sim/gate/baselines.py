"""Wheels that are kept to be compared with, each with the record of what it took when it was kept."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sage_sim.channels import NAMESPACE, use_own_folder
from sage_sim.folder import RUNS, passing_folder, remove_passed
from sage_sim.gate.record import benchmark_json
from sage_sim.gate.sides import Side
from sage_sim.gate.timing import sized
from sage_sim.gate.wheels import Wheel, install

SAMPLES = 10
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
PLACE = RUNS / "baselines"
"""Where they are when nobody says."""
_MAKING, _BEFORE = ".making-", ".before-"
_WHEEL_END, _RECORD, _ABOUT = ".whl", "record.json", "about.json"


class BaselineError(ValueError):
    """There is no baseline of that name, or there is one already, or it can be no name."""


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """
    One that is kept.

    Attributes:
        name: Its name.
        wheel: What is compared with.
        record: What it took, in pytest-benchmark's form.
    """

    name: str
    wheel: Wheel
    record: dict[str, Any]

    def told(self) -> dict[str, str]:
        """For people and programs: what it is, and since when."""
        return {
            "name": self.name,
            "of": self.wheel.commit or self.wheel.told,
            "sources": self.wheel.digest,
            "kept": self.record["datetime"],
        }


class Baselines:
    """
    All that are kept.

    Args:
        place: The folder with one for each.
    """

    def __init__(self, place: Path = PLACE) -> None:
        self._place = place

    def all(self) -> list[Baseline]:
        """In the order of their names."""
        names = {path.parent.name.removeprefix(_BEFORE) for path in self._place.glob(f"*/{_ABOUT}")}
        return [one for name in sorted(names) if (one := self.find(name)) is not None]

    def find(self, name: str) -> Baseline | None:
        """
        The one of a name, if there is any.

        Raises:
            BaselineError: It is damaged.
        """
        places = (self._place / name, self._place / f"{_BEFORE}{name}")
        folder = next((place for place in places if (place / _ABOUT).exists()), None)
        if not _NAME.fullmatch(name) or folder is None:
            return None
        try:
            about = json.loads((folder / _ABOUT).read_text(encoding="utf-8"))
            record = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
            wheel = Wheel(path=folder / about.pop("path"), **about)
        except (OSError, TypeError, KeyError, ValueError) as error:
            raise BaselineError(f"the baseline in {folder} is damaged: {error}") from None
        return Baseline(name=name, wheel=wheel, record=record)

    def check(self, name: str, *, replace: bool) -> None:
        """
        Whether one can be kept under a name.

        Raises:
            BaselineError: It cannot.
        """
        if not _NAME.fullmatch(name):
            raise BaselineError(f"{name!r} can be no name: letters, digits, dots, dashes and underscores, at most 64")
        if not replace and self.find(name) is not None:
            raise BaselineError(f"there is a baseline {name!r} already; --again replaces it")

    def record(
        self, name: str, wheel: Wheel, benchmarks: Sequence[str], say: Callable[[str], None], *, replace: bool = False
    ) -> None:
        """
        Measure a wheel, and keep it.

        Args:
            name: Under which name.
            wheel: Which.
            benchmarks: What is measured.
            say: Told what is done.
            replace: Whether there may be one of that name.

        Raises:
            BaselineError: There is one, or it can be no name.
            SideError: It cannot do any of the benchmarks.
        """
        self.check(name, replace=replace)
        use_own_folder()
        RUNS.mkdir(exist_ok=True)
        (RUNS / ".gitignore").write_text("*\n", encoding="utf-8")
        self._place.mkdir(parents=True, exist_ok=True)
        self.remove_unfinished()
        with passing_folder(self._place, _MAKING) as place:
            made = place / "made"
            made.mkdir()
            times = _measured(wheel, benchmarks, place, say)
            path = made / (wheel.path.name.removesuffix(_WHEEL_END) + _WHEEL_END)
            shutil.copyfile(wheel.path, path)
            record = benchmark_json(times, {}, commit=wheel.commit, changed=wheel.commit is None)
            about = {"path": path.name, "told": wheel.told, "digest": wheel.digest, "commit": wheel.commit}
            (made / _RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
            (made / _ABOUT).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
            self._put(made, name)

    def remove_unfinished(self) -> list[str]:
        """Remove what is left of those whose making was killed, and return the paths."""
        return remove_passed(self._place, _MAKING)

    def _put(self, made: Path, name: str) -> None:
        """Give one its name; whenever that is killed, the one before or the new one is found."""
        kept, before = self._place / name, self._place / f"{_BEFORE}{name}"
        if (kept / _ABOUT).exists():
            shutil.rmtree(before, ignore_errors=True)
            kept.rename(before)
        shutil.rmtree(kept, ignore_errors=True)
        made.rename(kept)
        shutil.rmtree(before, ignore_errors=True)


def _measured(
    wheel: Wheel, benchmarks: Sequence[str], place: Path, say: Callable[[str], None]
) -> dict[str, list[float]]:
    """Nanoseconds for each operation, a few samples of each benchmark."""
    folder = place / "wheel"
    install(wheel, folder)
    times: dict[str, list[float]] = {}
    with Side("baseline", folder, namespace=NAMESPACE, words=place / "side.log") as side:
        refused = side.refused(benchmarks)
        for name, why in refused.items():
            say(f"{name} is left out: {why}")
        for name in (one for one in benchmarks if one not in refused):
            say(f"time of {name}")
            side.open(name)
            count = sized(side, name)
            times[name] = [side.sample(name, count).ns for _ in range(SAMPLES)]
            side.release(name)
    return times
