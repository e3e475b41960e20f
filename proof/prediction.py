"""
Row R36: what the model forecasts against what real runs show, on topologies that were not measured for it.

Costs are processor time, which other work on the machine hardly changes. What it does change, how much of the machine
we get, is measured anew by probes right before and right after each run, and only ratios within such a group count.
When probes that should be equal are far apart, the machine is too busy to tell, and the row says so instead of failing.
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import row

from sage_sim.calibration import Calibration, calibrate, probes
from sage_sim.execution import execute
from sage_sim.folder import RunFolder
from sage_sim.machine import describe_machine
from sage_sim.presets import PRESETS
from sage_sim.request import Request, adapted
from sage_sim.results import Results
from sage_sim.scenario import Scenario

KIND = "sage_queue"
WITHIN = 0.2
ENOUGH = 5
UNQUIET = 1.6
"""Probes of one shape, over the whole row, may be so far apart: fastest over slowest."""
ROUNDS = {False: 3, True: 9}


def shapes(seed: int) -> dict[str, Scenario]:
    """What is forecast, by name."""
    return {
        "fan-in, 4 to 1": sized("fan-in", 40_000, producers=4),
        "fan-out, 1 to 4": sized("fan-out", 40_000, consumers=4),
        "diamond": sized("diamond", 20_000),
        "shuffle": sized("shuffle", 30_000),
        "tree": sized("tree", 30_000),
        "random-dag": adapted(PRESETS["random-dag"].scenario(seed=seed), items=6_000),
        "fan-in, 2,000 bytes": adapted(sized("fan-in", 30_000, producers=2), payload=2_000),
    }


def sized(preset: str, items: int, **counts: int) -> Scenario:
    """A preset that makes so many items."""
    return adapted(PRESETS[preset].scenario(counts), items=items)


def main() -> int:
    """Print the error of each forecast and report the row; 1 when too many are too far off."""
    options = row.arguments(__doc__ or "")
    proof = row.Row.begin(
        options,
        "R36",
        f"throughput that the model forecasts: topologies within {WITHIN:.0%} of real runs",
        f">= {ENOUGH} of {len(shapes(0))}",
    )
    costs = calibrate(
        [KIND],
        run,
        cores=len(os.sched_getaffinity(0)),
        machine=describe_machine(),
        say=lambda text: print(text, flush=True),
    )
    bare = replace(costs, efficiency=1.0)
    ratios: dict[str, list[float]] = {name: [] for name in shapes(options.seed)}
    shares: list[list[float]] = [probed(bare)]
    for _ in range(ROUNDS[options.long]):
        for name, scenario in shapes(options.seed).items():
            request = Request(target=name, scenario=scenario, seed=options.seed)
            rate = run(request).items.rate
            shares.append(probed(bare))
            share = median(shares[-2] + shares[-1])
            ratios[name].append(rate / replace(costs, efficiency=share).forecast(request.plan()).rate)
    errors = {name: median(each) - 1 for name, each in ratios.items()}
    for name, error in errors.items():
        print(f"{name:20} {error:+6.1%}   each round: {', '.join(f'{one - 1:+.1%}' for one in ratios[name])}")
    unquiet = max(max(column) / min(column) for column in zip(*shares, strict=True))
    print(f"equal probes are up to {unquiet:.2f} apart")
    good = sum(abs(error) <= WITHIN for error in errors.values())
    value = f"{good} of {len(errors)}: " + ", ".join(f"{name} {error:+.0%}" for name, error in errors.items())
    if good < ENOUGH and unquiet > UNQUIET:
        return 0 if proof.not_run(f"the machine is too busy to tell: equal runs are {unquiet:.2f} apart") else 1
    return 0 if proof.report(value, good >= ENOUGH) else 1


def probed(bare: Calibration) -> list[float]:
    """How much of what costs alone would allow is reached now, by the simplest runs."""
    found = []
    for scenario in probes(KIND):
        request = Request(target="probe", scenario=scenario, seed=1)
        found.append(run(request).items.rate / bare.forecast(request.plan()).rate)
    return found


def run(request: Request) -> Results:
    """Run it in a folder that goes."""
    with TemporaryDirectory(prefix="sage-sim-") as place:
        results = execute(request, RunFolder(Path(place, "run"), preset=request.scenario.name, seed=request.seed))
    if results.outcome.signal_number:
        raise KeyboardInterrupt
    return results


if __name__ == "__main__":
    sys.exit(main())
