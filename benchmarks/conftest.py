"""One report for each file of benchmarks; the tables are printed at the end and written as JSON beside the builds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from arena import CONTENDERS, REPETITIONS, SECONDS, Arena, Entry, Measured
from report import ROOT, Report, table, write_json
from rows import ROWS, NotPossibleError

REPORTS: pytest.StashKey[dict[str, Report]] = pytest.StashKey()
TARGETS = ROOT / "build" / "benchmarks"

Measure = Callable[[str, list[Entry]], list[Measured]]
Record = Callable[..., list[Measured]]
Note = Callable[[str, str], None]


def pytest_configure(config: pytest.Config) -> None:
    config.stash[REPORTS] = {}
    config.option.benchmark_quiet = True  # its own table would show the length of a run, which means nothing here


def bench(key: str, measure: Measure, note: Note) -> None:
    """Measure one row; everything of ours in it must have run with right results."""
    try:
        entries = ROWS[key]()
    except NotPossibleError as reason:
        note(key, str(reason))
        pytest.skip(str(reason))
    check(measure(key, entries))


def check(measured: Sequence[Measured]) -> None:
    """Fail for what of ours has no figure, unless something that it needs is not installed here."""
    ours = [one for one in measured if one.name.startswith("sage-qd")]
    problems = [f"{one.name}: {one.problem}" for one in ours if one.problem not in (None, "not installed")]
    assert not problems, problems


@pytest.fixture(scope="module")
def arena(request: pytest.FixtureRequest) -> Iterator[Arena]:
    """Where the rows of one file run; a file may say ``SECONDS`` for shorter runs."""
    made = Arena(seconds=getattr(request.module, "SECONDS", SECONDS))
    yield made
    made.close()


@pytest.fixture
def report(request: pytest.FixtureRequest) -> Report:
    """The report of the file that the benchmark is in."""
    return request.config.stash[REPORTS].setdefault(request.module.__name__, Report())


@pytest.fixture
def measure(report: Report, arena: Arena, benchmark: Any) -> Measure:
    """Measure a row: each round of pytest-benchmark runs our own entry, each setup all others."""

    def run(key: str, entries: list[Entry]) -> list[Measured]:
        def drive(first: Callable[[], object], others: Callable[[], object]) -> None:
            benchmark.pedantic(first, setup=others, rounds=REPETITIONS, iterations=1)

        measured = arena.row(entries, drive)
        report.add(key, measured)
        benchmark.extra_info.update({one.name: one.problem or one.values for one in measured})
        return measured

    return run


@pytest.fixture
def record(report: Report, benchmark: Any) -> Record:
    """Add the row that a function measures by itself, in one round of pytest-benchmark."""

    def run(key: str, function: Callable[..., list[Measured]], *arguments: Any) -> list[Measured]:
        measured = benchmark.pedantic(function, args=arguments, rounds=1, iterations=1)
        report.add(key, measured)
        benchmark.extra_info.update({one.name: one.problem or one.values for one in measured})
        check(measured)
        return measured

    return run


@pytest.fixture
def note(report: Report) -> Note:
    """Say in the table why a row did not run."""
    return lambda key, reason: (report.add(key, [], reason), None)[1]


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    for name, report in config.stash[REPORTS].items():
        if not report.rows:
            continue
        used = {one.name for row in report.rows for one in row.measured if one.problem is None}
        versions = {contender: kind.version() for contender, kind in CONTENDERS.items() if contender in used}
        target = TARGETS / f"{name}.json"
        write_json(report, target, versions)
        terminalreporter.write_line("")
        terminalreporter.write_line(table(report))
        shown = Path(target).relative_to(ROOT)
        terminalreporter.write_line(f"written to {shown}; how to read it: benchmarks/README.md")
