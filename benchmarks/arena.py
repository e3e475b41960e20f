"""Runs one row of the table: starts every contender's crew, sizes the runs, and interleaves the repetitions.

Each contender first does a small run in which every item is checked, then a sizing run; neither counts. Then come the
repetitions: in each, every contender runs once, in an order that rotates, so that a slow spell of the machine hits all.
"""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from channels import SMALL, Channel, Shape, remove_folder
from coding import CODERS
from crew import Crew, CrewError, describe
from kinds import KINDS
from ours import OURS
from peers import PEERS
from topologies import Job, Topology, now

REPETITIONS = 7
SECONDS = 0.25  # how long one run of one contender is meant to take
CONTENDERS: dict[str, type[Channel]] = {**OURS, **PEERS, **KINDS, **CODERS}


@dataclass
class Measured:
    """What one contender did in one row: the figures of every repetition, or why there are none."""

    name: str
    values: dict[str, list[float]] = field(default_factory=dict)
    count: int = 0
    problem: str | None = None

    def add(self, figures: Mapping[str, float]) -> None:
        """Append one repetition."""
        for key, value in figures.items():
            self.values.setdefault(key, []).append(value)

    def median(self, key: str = "value") -> float | None:
        """The median over the repetitions; None when there are none."""
        return median(self.values[key]) if self.values.get(key) else None


@dataclass(frozen=True)
class Entry:
    """A contender of a row: its name, and a topology or shape of its own where it differs from the row's."""

    name: str
    topology: Topology
    shape: Shape = SMALL
    cores: tuple[int, ...] = ()
    kind: type[Channel] | None = None
    label: str | None = None


class Arena:
    """
    Makes rows. One arena is used for a whole session; `close` removes its folder.

    Args:
        repetitions: How often every contender runs.
        seconds: How long one run is meant to take.
    """

    def __init__(self, repetitions: int = REPETITIONS, seconds: float = SECONDS) -> None:
        self.repetitions, self.seconds = repetitions, seconds
        room = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        self.folder = Path(tempfile.mkdtemp(prefix="sageqd-bench-", dir=room))
        self.numbers = itertools.count()

    def close(self) -> None:
        """Remove the folder."""
        remove_folder(self.folder)

    def new_folder(self) -> Path:
        """A folder name for one more crew; the crew makes and removes it."""
        return self.folder / str(next(self.numbers))

    def row(
        self,
        entries: Sequence[Entry],
        drive: Callable[[Callable[[], object], Callable[[], object]], object] | None = None,
    ) -> list[Measured]:
        """
        Measure all entries, interleaved.

        Args:
            entries: Ours first; it is what ``drive`` sees as the thing measured.
            drive: Called once with (run the first entry, run all others), must call both `repetitions` times in turn.
        """
        measured = [Measured(entry.label or entry.name) for entry in entries]
        crews: dict[int, Crew] = {}
        try:
            for at, entry in enumerate(entries):
                self._enter(at, entry, measured, crews)
            turns = itertools.count()

            def others() -> None:
                places = [at for at in crews if at != 0]
                turn = next(turns) % max(1, len(places))
                for at in places[turn:] + places[:turn]:
                    self._once(at, measured, crews)

            (drive or self._drive)(lambda: self._once(0, measured, crews), others)
        finally:
            for at in sorted(crews, reverse=True):  # later crews were forked with what earlier ones had open
                crews[at].close()
        return measured

    def _drive(self, first: Callable[[], object], others: Callable[[], object]) -> None:
        for _ in range(self.repetitions):
            others()
            first()

    def _enter(self, at: int, entry: Entry, measured: list[Measured], crews: dict[int, Crew]) -> None:
        """Start a contender, check a small run in full, and size its runs; a failure stays in its cell."""
        kind = entry.kind or CONTENDERS[entry.name]
        measured[at].problem = kind.missing()
        if measured[at].problem is not None:
            return
        try:
            crew = Crew(kind, entry.topology, entry.shape, self.new_folder(), entry.cores)
        except CrewError as failure:
            measured[at].problem = str(failure)
            return
        try:
            measured[at].count = self._size(crew, entry.topology)
            crews[at] = crew
        except CrewError as failure:
            measured[at].problem = str(failure)
            crew.close()

    def _size(self, crew: Crew, topology: Topology) -> int:
        """Run everything once with every item checked, then find how many items fill the time."""
        crew.run(Job(topology.least, check=True))
        count = topology.least
        while True:
            began = now()
            crew.run(Job(count))
            spent = (now() - began) / 1e9
            if spent >= self.seconds / 4 or count >= topology.most:
                wanted = count * self.seconds / max(spent, 1e-4)
                break
            growth = max(2.0, min(20.0, self.seconds / 2 / max(spent, 1e-4)))
            count = min(topology.most, int(count * growth) // topology.unit * topology.unit)
        return int(min(topology.most, max(topology.least, wanted)) // topology.unit * topology.unit)

    def _once(self, at: int, measured: list[Measured], crews: dict[int, Crew]) -> None:
        """One repetition of one contender; one that fails drops out with its reason."""
        crew = crews.get(at)
        if crew is None:
            return
        try:
            measured[at].add(crew.run(Job(measured[at].count)))
        except CrewError as failure:
            measured[at].problem, measured[at].values = str(failure), {}
            crews.pop(at).close()


def take_turns(
    contenders: Mapping[str, Callable[[], Mapping[str, float]]], repetitions: int = REPETITIONS
) -> list[Measured]:
    """
    Measure contenders that start their own processes: each once a repetition, in an order that rotates.

    One that raises drops out with its reason in its cell, as in `Arena.row`.
    """
    measured = {name: Measured(name) for name in contenders}
    for turn in range(repetitions):
        names = list(contenders)
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            if measured[name].problem is not None:
                continue
            try:
                measured[name].add(contenders[name]())
            except Exception as failure:  # noqa: BLE001  (each library has its own errors; the table shows them)
                measured[name].problem, measured[name].values = f"failed: {describe(failure)}", {}
    return list(measured.values())


def cores() -> list[int]:
    """The cores this process may use, in order."""
    return sorted(os.sched_getaffinity(0))
