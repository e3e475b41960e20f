"""Turns measured rows into verdicts, one table and one JSON file. Knows nothing of how a figure is measured."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import time
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from arena import Measured
from references import FLOOR_FLAGS

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
WITH_ROLES = ", roles declared"
HEADINGS = ("figure / contender", "median", "lowest .. highest", "ours / it", "with roles", "bar", "reached")
BUILD_VARIABLES = ("CC", "CFLAGS", "LDFLAGS", "SAGE_QD_DEBUG", "SAGE_QD_SANITIZE", "SAGE_QD_COVERAGE")


@dataclass(frozen=True)
class Bar:
    """One entry of ``bars`` in gates.toml."""

    why: str
    against: str | None = None
    ratio: float | None = None
    most: float | None = None
    least: float | None = None
    key: str = "value"
    subject: str | None = None
    margin: float = 1.0


@dataclass(frozen=True)
class Gate:
    """One table of gates.toml."""

    figure: str
    unit: str
    better: str
    bars: tuple[Bar, ...]


@dataclass
class Row:
    """A measured row with its gate."""

    key: str
    gate: Gate
    measured: Sequence[Measured]
    note: str | None = None

    def find(self, name: str) -> Measured | None:
        """The contender of this name."""
        return next((one for one in self.measured if one.name == name), None)

    @property
    def subject(self) -> Measured | None:
        """Our own line that is judged unless a bar names another."""
        return self.measured[0] if self.measured else None

    @property
    def with_roles(self) -> Measured | None:
        """Our line with declared roles, in rows that have one."""
        return self.find(f"{self.subject.name}{WITH_ROLES}") if self.subject else None


@dataclass
class Report:
    """All rows of a run."""

    rows: list[Row] = field(default_factory=list)
    load: float = field(default_factory=lambda: os.getloadavg()[0])

    def add(self, key: str, measured: Sequence[Measured], note: str | None = None) -> Row:
        """Keep one measured row."""
        made = Row(key, gates()[key], measured, note)
        self.rows.append(made)
        return made


def gates() -> dict[str, Gate]:
    """Read gates.toml; the table ``regression`` is for `sage-sim gate`."""
    with (HERE / "gates.toml").open("rb") as source:
        tables = tomllib.load(source)
    del tables["regression"]
    return {key: Gate(**{**table, "bars": tuple(Bar(**bar) for bar in table["bars"])}) for key, table in tables.items()}


# -- verdicts ----------------------------------------------------------------------------------------------------------


def quotient(ours: Measured | None, theirs: Measured | None, key: str = "value") -> float | None:
    """Ours divided by theirs, or None when one of them has no figure."""
    above, below = (one.median(key) if one else None for one in (ours, theirs))
    return above / below if above is not None and below else None


def reaches(value: float | None, bar: Bar, better: str) -> str | None:
    """``yes``, ``tie`` or ``no`` for a ratio or an absolute figure; None when there is no figure."""
    if value is None:
        return None
    bound = next(limit for limit in (bar.ratio, bar.most, bar.least) if limit is not None)
    at_least = bar.least is not None or (bar.ratio is not None and better == "higher")
    if value >= bound if at_least else value <= bound:
        return "yes"
    return "tie" if (value * bar.margin >= bound if at_least else value <= bound * bar.margin) else "no"


def verdict(row: Row, bar: Bar) -> str:
    """The word of the last column: ``yes``, ``tie``, ``with roles``, ``no``, or ``not judged`` without a figure."""
    subject = row.find(bar.subject) if bar.subject else row.subject
    words = [reaches(compared(row, bar, one), bar, row.gate.better) for one in (subject, row.with_roles)]
    if words[0] in ("yes", "tie"):
        return words[0]
    if words[1] == "yes" and bar.subject is None:
        return "with roles"
    return words[0] or "not judged"


def compared(row: Row, bar: Bar, ours: Measured | None) -> float | None:
    """What a bar is held against: a quotient, or our own figure for an absolute bar."""
    if bar.against is None:
        return ours.median(bar.key) if ours else None
    return quotient(ours, row.find(bar.against), bar.key)


def words(row: Row, bar: Bar) -> str:
    """A bar as the table shows it."""
    if bar.against is None:
        return f"<= {bar.most:g} {row.gate.unit}" if bar.most is not None else f">= {bar.least:g} {row.gate.unit}"
    return f"{'>=' if row.gate.better == 'higher' else '<='} {bar.ratio:g}"


# -- the table ---------------------------------------------------------------------------------------------------------


def table(report: Report) -> str:
    """The whole table as text."""
    lines: list[tuple[str, ...]] = [HEADINGS]
    for row in report.rows:
        lines.append((f"{row.gate.figure} [{row.gate.unit}]", *[""] * 6))
        if row.note:
            lines.append((f"  not run: {row.note}", *[""] * 6))
        for one in row.measured:
            lines.extend(contender_lines(row, one))
    titles = {number for number, line in enumerate(lines) if number and not line[0].startswith("  ")}
    widths = [max(len(line[at]) for number, line in enumerate(lines) if number not in titles) for at in range(7)]
    rule = "-" * (sum(widths) + 2 * 6)
    shown = []
    for number, line in enumerate(lines):
        if number in titles:
            shown += [rule, line[0]]
        else:
            cells = [
                line[0].ljust(widths[0]),
                *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)),
            ]
            shown.append("  ".join(cells).rstrip())
    return "\n".join((*shown, rule, summary(report)))


def contender_lines(row: Row, one: Measured) -> list[tuple[str, ...]]:
    """The line of one contender, and one more for each further bar that names it."""
    if one.problem is not None:
        return [(f"  {one.name}: {one.problem}"[:100], *[""] * 6)]
    bars = [bar for bar in row.gate.bars if held_at(row, bar) == one.name]
    own = one in (row.subject, row.with_roles) or any(bar.against is None for bar in bars)
    lines: list[tuple[str, ...]] = []
    for key in ("value", *sorted({bar.key for bar in bars} - {"value"}), *extra_keys(row, one, bars)):
        matching: list[Bar | None] = [bar for bar in bars if bar.key == key] or [None]
        for bar in matching:
            subject = row.find(bar.subject) if bar and bar.subject else row.subject
            shown_roles = row.with_roles if not (bar and bar.subject) else None
            ratio = "" if own else ratio_text(quotient(subject, one, key))
            roles = "" if own else ratio_text(quotient(shown_roles, one, key))
            name = f"  {one.name}" if key == "value" else f"    {key}"
            if bar and bar.against and bar.subject:
                name += f" (for {bar.subject.rpartition(', ')[2]})"
            last = (words(row, bar), verdict(row, bar)) if bar else ("", "")
            values = one.values[key]
            spread = f"{number_text(min(values))} .. {number_text(max(values))}"
            lines.append((name, number_text(one.median(key) or 0.0), spread, ratio, roles, *last))
    return lines


def held_at(row: Row, bar: Bar) -> str | None:
    """The contender whose line shows a bar: the one compared with, or our own where the bar is absolute."""
    return bar.against or bar.subject or (row.subject.name if row.subject else None)


def extra_keys(row: Row, one: Measured, bars: Sequence[Bar]) -> list[str]:
    """Figures beside the median that some bar of the row judges, for the lines that no bar names."""
    judged = {bar.key for bar in row.gate.bars} - {"value"} - {bar.key for bar in bars}
    return sorted(judged & set(one.values))


def ratio_text(value: float | None) -> str:
    """A quotient with three digits."""
    return "" if value is None else f"{value:.3g}"


def number_text(value: float) -> str:
    """A figure with about three digits."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def summary(report: Report) -> str:
    """One line: how many bars are reached, and which are not."""
    verdicts = [(row, bar, verdict(row, bar)) for row in report.rows for bar in row.gate.bars]
    counts = {
        word: sum(1 for one in verdicts if one[2] == word) for word in ("yes", "tie", "with roles", "no", "not judged")
    }
    said = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
    missed = [
        f"{row.gate.figure}{f', {bar.subject}' if bar.subject else ''} against {bar.against or words(row, bar)}"
        for row, bar, word in verdicts
        if word == "no"
    ]
    lines = [
        f"{len(verdicts)} bars: {said or 'none'}",
        *(f"  not reached: {one}" for one in missed),
        load_note(report.load),
    ]
    return "\n".join(line for line in lines if line)


# -- the file ----------------------------------------------------------------------------------------------------------


def write_json(report: Report, target: Path, versions: Mapping[str, str]) -> None:
    """Write everything: machine, Python, build flags, commit, each repetition of each contender, and the verdicts."""
    target.parent.mkdir(parents=True, exist_ok=True)
    rows = [as_data(row) for row in report.rows]
    target.write_text(json.dumps({**surroundings(versions, report.load), "rows": rows}, indent=1) + "\n")


def as_data(row: Row) -> dict[str, Any]:
    """One row as plain data."""
    return {
        "key": row.key,
        "figure": row.gate.figure,
        "unit": row.gate.unit,
        "better": row.gate.better,
        "note": row.note,
        "contenders": [
            {"name": one.name, "median": one.median(), "values": one.values, "items": one.count, "problem": one.problem}
            for one in row.measured
        ],
        "bars": [
            {
                "bar": words(row, bar),
                "against": bar.against,
                "key": bar.key,
                "value": compared(row, bar, row.find(bar.subject) if bar.subject else row.subject),
                "with_roles": compared(row, bar, row.with_roles) if bar.subject is None else None,
                "reached": verdict(row, bar),
                "why": bar.why,
            }
            for bar in row.gate.bars
        ],
    }


BUSY = 0.5


def load_note(load: float) -> str:
    """A warning when other work was running as the session began; empty otherwise."""
    return f"the machine was busy at the start (load {load:.1f}): compare with care" if load > BUSY else ""


def surroundings(versions: Mapping[str, str], load: float) -> dict[str, Any]:
    """Where the numbers come from."""
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "machine": {
            "processor": processor(),
            "architecture": platform.machine(),
            "cores": os.cpu_count(),
            "cores allowed": sorted(os.sched_getaffinity(0)),
            "kernel": platform.release(),
            "load before": load,
        },
        "python": sys.version,
        "python build flags": sysconfig.get_config_var("CFLAGS"),
        "floor build flags": " ".join(FLOOR_FLAGS),
        "build variables": {name: os.environ[name] for name in BUILD_VARIABLES if name in os.environ},
        "versions": dict(versions),
        "commit": commit(),
    }


def processor() -> str:
    """The processor's name as the kernel gives it."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def commit() -> str:
    """Short hash of the commit, with ``+changes`` when the tree differs; ``unknown`` outside a checkout."""
    git = shutil.which("git")
    if git is None:
        return "unknown"
    asked = [
        subprocess.run([git, *words], cwd=ROOT, capture_output=True, text=True, check=False)
        for words in (("rev-parse", "--short=12", "HEAD"), ("status", "--porcelain"))
    ]
    if asked[0].returncode:
        return "unknown"
    return asked[0].stdout.strip() + ("+changes" if asked[1].stdout.strip() else "")
