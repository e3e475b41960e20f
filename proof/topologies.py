"""
Row R35: ten topologies, over each kind of queue, under each mix of faults: what is lost, doubled or overtaken.

Each run is one of ``sage-sim``: real processes, real faults at planned moments, and books of every item. A run that
nobody can judge, as when a fault did not strike, is no pass.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import row
from rich.console import Console
from rich.table import Table

from sage_sim.checkers import Verdict
from sage_sim.execution import execute
from sage_sim.faults import parse_faults
from sage_sim.folder import RunFolder
from sage_sim.presets import PRESETS
from sage_sim.request import Request, adapted
from sage_sim.results import Results
from sage_sim.scenario import EdgePart, RolePart, Scenario

SECONDS = {False: 0.8, True: 5.0}
REPEATS = {False: 1, True: 10}
RATE = 1500.0
"""Items a second: enough to have several in every queue, few enough to check every one of them soon."""
KILLS = "kill@0.1,kill@0.25,kill@0.4,kill@0.5,kill@0.6"
PAUSES = "stop@0.1/0.2,slow@0.2/0.2*2,stop@0.3/0.2,kill@0.5"
CUTS = "cut@0.15/0.1,delay@0.3/0.2*5,kill@0.4,throttle@0.55/0.1"
MIXES = {"sage_queue": (KILLS, PAUSES), "shm_queue": (KILLS, PAUSES), "rpc_queue": (CUTS,)}
"""Faults by kind of queue."""


def mesh() -> Scenario:
    """Two layers in which everybody has a queue to everybody, and each key one way through."""
    ways = {"spread": "pair", "routing": "key", "capacity_bytes": 1 << 16}
    return Scenario(
        name="mesh",
        roles=tuple(RolePart(name=name, count=count) for name, count in (("in", 2), ("middle", 3), ("out", 3))),
        edges=(
            EdgePart.model_validate({"name": "first", "source": "in", "target": "middle", **ways}),
            EdgePart.model_validate({"name": "second", "source": "middle", "target": "out", **ways}),
        ),
    )


def narrow() -> Scenario:
    """A chain of queues that hold a single message, so that everybody waits for everybody."""
    names = ("first", "second", "third", "fourth")
    return Scenario(
        name="narrow",
        roles=tuple(RolePart(name=name) for name in names),
        edges=tuple(
            EdgePart.model_validate({"name": f"to-{target}", "source": source, "target": target, "max_items": 1})
            for source, target in pairwise(names)
        ),
    )


def topologies(seed: int) -> list[Scenario]:
    """The ten."""
    names = ("pipeline", "fan-out", "fan-in", "diamond", "shuffle", "tree", "random-dag", "service")
    return [*(PRESETS[name].scenario(seed=seed) for name in names), mesh(), narrow()]


@dataclass
class Sums:
    """What the runs of one topology showed."""

    processes: int = 0
    runs: int = 0
    items: int = 0
    deaths: int = 0
    faults: int = 0
    wrong: dict[str, int] = field(default_factory=lambda: dict.fromkeys(("missing", "duplicated", "reordered"), 0))
    flawed: int = 0

    def add(self, results: Results) -> None:
        """Count one run."""
        self.processes = results.plan.topology.processes
        self.runs += 1
        self.items += results.items.taken
        self.deaths += results.deaths.total()
        self.faults += len(results.outcome.blows)
        for figure in self.wrong:
            self.wrong[figure] += sum(getattr(one, figure) for one in (*results.queues.values(), results.items))
        self.flawed += results.verdict is not Verdict.VALID

    def cells(self) -> list[str]:
        """Of the table."""
        counts = (self.runs, self.items, self.faults, self.deaths, *self.wrong.values(), self.flawed)
        return [f"{count:,}" for count in counts]


def runs(scenario: Scenario, *, long: bool) -> Iterator[tuple[str, Scenario]]:
    """Each kind with each of its mixes."""
    for kind, mixes in MIXES.items():
        for mix in mixes:
            faults = parse_faults(mix)
            yield kind, adapted(scenario, backend=kind, faults=faults, rate=RATE, duration=SECONDS[long])


def main() -> int:
    """Run all of them, print the table, and report the row; 1 when one was not valid."""
    options = row.arguments(__doc__ or "")
    proof = row.Row.begin(
        options,
        "R35",
        "ten topologies x kinds x faults: lost / doubled / reordered; runs that are not valid",
        "0/0/0; 0",
    )
    table = Table(title=f"{RATE:,.0f} items/s for {SECONDS[options.long]:g} s a run, kinds {', '.join(MIXES)}")
    for heading in ("topology", "runs", "items", "faults", "killed", "lost", "doubled", "reordered", "not valid"):
        table.add_column(heading, justify="left" if heading == "topology" else "right")
    total = Sums()
    for scenario in topologies(options.seed):
        sums = Sums()
        for number in range(REPEATS[options.long]):
            for kind, asked in runs(scenario, long=options.long):
                results = once(asked, options.seed + number)
                sums.add(results)
                total.add(results)
                if results.verdict is not Verdict.VALID:
                    told = "; ".join(
                        f"{one.check}: {one.sentence}" for one in results.findings if one.verdict != Verdict.VALID
                    )
                    print(f"{scenario.name} over {kind}, {asked.all_faults()}, seed {options.seed + number}: {told}")
        table.add_row(scenario.name, *sums.cells())
        print(f"{scenario.name}: {sums.runs} runs, {sums.flawed} not valid", flush=True)
    table.add_section()
    table.add_row("total", *total.cells())
    Console(width=110).print(table)
    value = f"{'/'.join(map(str, total.wrong.values()))}; {total.flawed} of {total.runs} runs, "
    value += f"{total.items:,} items, {total.faults:,} faults, {total.deaths:,} killed"
    return 0 if proof.report(value, not any(total.wrong.values()) and not total.flawed) else 1


def once(scenario: Scenario, seed: int) -> Results:
    """Run it in a folder that goes."""
    request = Request(target=scenario.name, scenario=scenario, seed=seed)
    with TemporaryDirectory(prefix="sage-sim-") as place:
        results = execute(request, RunFolder(Path(place, "run"), preset=scenario.name, seed=seed))
    if results.outcome.signal_number:
        raise KeyboardInterrupt
    return results


if __name__ == "__main__":
    sys.exit(main())
