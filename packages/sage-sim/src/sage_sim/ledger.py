"""
The reliability ledger: runs the programs of a checkout that measure a figure each, and gathers what they found.

The programs are the sources' own, in ``proof``, and are not installed with the package: they compile C, and look into
the sources. ``proof/ledger.toml`` names them, with the rows that each of them writes.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from time import monotonic
from typing import TextIO

from sage_sim.nurse import SetupError

_PROGRAMS = Path("proof", "ledger.toml")


@dataclass(frozen=True, kw_only=True)
class Row:
    """
    One figure.

    Attributes:
        row: Its number, as in ``R4``.
        figure: What was measured.
        bound: What it has to be.
        value: What it was.
        ok: Whether it was within the bound; None when it was not measured.
        reason: Why it was not measured.
        seed: What repeats it.
        seconds: How long it took.
        commit: Of the sources.
        form: ``short``, or ``long`` before a release.
        command: What measures it again.
    """

    row: str
    figure: str = ""
    bound: str = ""
    value: str = "not run"
    ok: bool | None = None
    reason: str = ""
    seed: int | None = None
    seconds: float = 0.0
    commit: str = ""
    form: str = ""
    command: str = ""

    @property
    def verdict(self) -> str:
        """In a word; with the reason, when it was not run."""
        return {True: "ok", False: "FAILED", None: f"not run: {self.reason}"}[self.ok]


class Ledger:
    """
    The programs of a checkout.

    Args:
        root: Of the checkout.
        programs: Rows of each.
    """

    def __init__(self, root: Path, programs: dict[str, list[str]]) -> None:
        self.root = root
        self._programs = programs

    @classmethod
    def around(cls, folder: Path) -> Ledger:
        """
        That of the checkout in which a folder is.

        Raises:
            SetupError: It is in none.
        """
        for root in (folder, *folder.parents):
            if (root / _PROGRAMS).is_file():
                return cls(root, tomllib.loads((root / _PROGRAMS).read_text(encoding="utf-8")))
        raise SetupError(
            f"the ledger is measured by programs of the sources, which are not installed: there is no {_PROGRAMS} "
            f"in {folder} or above it; run it in a checkout"
        )

    @property
    def out(self) -> Path:
        """Where rows go when nobody says."""
        return self.root / "build" / "ledger"

    @property
    def numbers(self) -> list[str]:
        """Of all rows, in their order."""
        return sorted((number for rows in self._programs.values() for number in rows), key=lambda row: int(row[1:]))

    def measure(
        self, wanted: Collection[str], out: Path, *, long: bool, seed: int | None, words: TextIO
    ) -> dict[str, int]:
        """
        Run each program that writes a wanted row, one after the other.

        Args:
            wanted: Numbers of rows.
            out: Where rows go; old ones are removed first.
            long: The form before a release; hours.
            seed: Of all programs; None lets each draw its own.
            words: Where the programs print.

        Returns:
            Exit codes of the programs that broke down, by name.
        """
        broken = {}
        for name, rows in self._programs.items():
            if not set(rows) & set(wanted):
                continue
            for number in rows:
                (out / f"{number}.json").unlink(missing_ok=True)
            command = [sys.executable, str(self.root / "proof" / name), "--out", str(out.absolute())]
            command += ["--long"] * long + ([] if seed is None else ["--seed", str(seed)])
            print(f"\n-- proof/{name}", file=words, flush=True)
            begin = monotonic()
            code = subprocess.run(command, cwd=self.root, stdout=words, check=False).returncode
            print(f"-- proof/{name}: exit {code} after {monotonic() - begin:.0f} s", file=words, flush=True)
            if code and not any(found.ok is False for found in written(rows, out)):
                broken[name] = code
        return broken


def written(numbers: Iterable[str], out: Path) -> list[Row]:
    """What programs wrote, and for each number that nobody wrote a row that says so."""
    names = {field.name for field in fields(Row)}
    found = []
    for number in numbers:
        path = out / f"{number}.json"
        if path.is_file():
            content = json.loads(path.read_text(encoding="utf-8"))
            found.append(Row(**{name: value for name, value in content.items() if name in names}))
        else:
            found.append(Row(row=number, reason="no program wrote it"))
    return found


def failed(rows: Sequence[Row]) -> list[str]:
    """Numbers of those out of bounds."""
    return [row.row for row in rows if row.ok is False]


def not_run(rows: Sequence[Row]) -> list[str]:
    """Numbers of those that were not measured; they never count as held."""
    return [row.row for row in rows if row.ok is None]
