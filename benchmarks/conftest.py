"""One arena and one report for a session; the table is printed at the end and written as JSON beside the builds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from arena import CONTENDERS, REPETITIONS, Arena, Entry, Measured
from report import ROOT, Report, table, write_json

REPORT: pytest.StashKey[Report] = pytest.StashKey()
TARGET = ROOT / "build" / "benchmarks" / "bench_ring.json"


def pytest_configure(config: pytest.Config) -> None:
    config.stash[REPORT] = Report()
    config.option.benchmark_quiet = True  # its own table would show the length of a run, which means nothing here


@pytest.fixture(scope="session")
def arena() -> Iterator[Arena]:
    """Where all rows of the session run."""
    made = Arena()
    yield made
    made.close()


@pytest.fixture
def measure(
    request: pytest.FixtureRequest, arena: Arena, benchmark: Any
) -> Callable[[str, list[Entry]], list[Measured]]:
    """Measure a row: each round of pytest-benchmark runs our own entry, each setup all others."""

    def run(key: str, entries: list[Entry]) -> list[Measured]:
        def drive(first: Callable[[], object], others: Callable[[], object]) -> None:
            benchmark.pedantic(first, setup=others, rounds=REPETITIONS, iterations=1)

        measured = arena.row(entries, drive)
        request.config.stash[REPORT].add(key, measured)
        benchmark.extra_info.update({one.name: one.problem or one.values for one in measured})
        return measured

    return run


@pytest.fixture
def note(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Say in the table why a row did not run."""
    return lambda key, reason: (request.config.stash[REPORT].add(key, [], reason), None)[1]


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    report = config.stash[REPORT]
    if not report.rows:
        return
    used = {one.name for row in report.rows for one in row.measured if one.problem is None}
    versions = {name: kind.version() for name, kind in CONTENDERS.items() if name in used}
    write_json(report, TARGET, versions)
    terminalreporter.write_line("")
    terminalreporter.write_line(table(report))
    terminalreporter.write_line(f"written to {Path(TARGET).relative_to(ROOT)}; how to read it: benchmarks/README.md")
