"""
What messages cost on this machine: measured with real runs, and kept in a file.

A backlog is built by a source that nobody disturbs, and then drained by a sink that never waits; the processor time of
either, divided by the items, is what a put and a take cost, with everything that a process does around them. Two sizes
of backlog are run: the difference leaves out what a process costs by itself.

What a byte costs is the difference between streams of small and of large payloads through one ring. A backlog of large
ones lies in memory that nobody has touched before, of which the processor has nothing in its caches; a run goes round
and round its ring. Measured with backlogs, a byte costs three times as much.

What a machine loses to waking, switching and its other work is not in these costs. Probes, runs of the simplest shapes,
tell it: their rates over those of the model are the efficiency, and how far they are apart is the error.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from sage_sim.checkers import Verdict
from sage_sim.model import Cost, Forecast, forecast
from sage_sim.nurse import SetupError
from sage_sim.plan import Plan
from sage_sim.request import Request
from sage_sim.results import Results
from sage_sim.scenario import Scenario
from sage_sim.topology import Edge

SIZES = (64, 4096)
FEW, MANY = 4_000, 24_000
ROUNDS = 3
MESSAGE_BYTES = 100
"""What a message takes in a queue beyond its payload: its numbers, and the record around it."""
_ROOM_BYTES = 1 << 28
_STREAM_BYTES = 1 << 20
Run = Callable[[Request], Results]


class NoCalibrationError(ValueError):
    """There is no figure for a kind of queue, or for this workload."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """A cost that grows with the size of the payload, in nanoseconds, and in nanoseconds for each byte."""

    fixed_ns: float
    byte_ns: float

    def at(self, size: float) -> float:
        """For a payload of that size."""
        return self.fixed_ns + self.byte_ns * size


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """
    What was measured.

    Attributes:
        kinds: For each kind, the cost of a put and of a take.
        cores: How many processes can work at a time.
        efficiency: Rates of real runs over those that costs alone would allow.
        error: How far the rates of the probes were from the model with that efficiency: 0.1 is 10 %.
        machine: Where.
    """

    kinds: Mapping[str, Mapping[str, Line]]
    cores: int
    efficiency: float
    error: float
    machine: Mapping[str, object]

    def write(self, path: Path) -> None:
        """Write it as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Calibration:
        """
        Read what `write` wrote.

        Raises:
            NoCalibrationError: The file is none of a calibration.
        """
        try:
            fields: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            kinds = {
                kind: {verb: Line(**line) for verb, line in lines.items()}
                for kind, lines in fields.pop("kinds").items()
            }
            return cls(kinds=kinds, **fields)
        except (KeyError, TypeError, ValueError) as error:
            raise NoCalibrationError(f"{path} is no calibration: {error}") from None

    def forecast(self, plan: Plan, cores: int | None = None) -> Forecast:
        """
        What a run would show.

        Args:
            plan: What it does.
            cores: How many there are, each like one of this machine; None: as many as here.

        Raises:
            NoCalibrationError: One of its kinds was not measured, or it does other work than was measured.
        """
        if plan.workload != "blobs":
            raise NoCalibrationError(f"the work {plan.workload!r} was not measured, only 'blobs'")
        if lacking := sorted({edge.kind for edge in plan.topology.edges} - set(self.kinds)):
            raise NoCalibrationError(f"not measured: {', '.join(lacking)}; sage-sim calibrate --kind {lacking[0]}")
        sizes = plan.payload.sizes(plan.seed)
        size = sum(sizes) / len(sizes)

        def cost(edge: Edge) -> Cost:
            lines = self.kinds[edge.kind]
            put_ns, take_ns = lines["put"].at(size), lines["take"].at(size)
            return Cost(put_ns=put_ns / self.efficiency, take_ns=take_ns / self.efficiency)

        def room(edge: Edge) -> int:
            fits = max(int(edge.capacity_bytes / (size + MESSAGE_BYTES)), 1)
            return min(edge.max_items or fits, fits) if edge.kind != "rpc_queue" else edge.max_items or 1024

        return forecast(plan, cost, cores=cores or self.cores, room=room)


def backlog(kind: str, size: int, items: int) -> Scenario:
    """One source that fills a queue, and one sink that empties it afterwards."""
    return Scenario.model_validate(
        {
            "name": "calibration",
            "items": items,
            "roles": [{"name": "source"}, {"name": "sink"}],
            "edges": [
                {
                    "name": "items",
                    "source": "source",
                    "target": "sink",
                    "kind": kind,
                    "capacity_bytes": min(_ROOM_BYTES, 2 * (size + 400) * items),
                    "max_items": 0 if kind in ("sage_queue", "shm_queue", "faster_fifo") else items,
                }
            ],
            "load": {"mode": "backlog"},
            "payload": {"size_bytes": size},
        }
    )


def stream(kind: str, size: int, items: int) -> Scenario:
    """One source and one sink that work at the same time, with room enough that they seldom wait."""
    ends = {"source": "source", "target": "sink", "kind": kind, "capacity_bytes": _STREAM_BYTES}
    return Scenario.model_validate(
        {
            "name": "calibration",
            "items": items,
            "roles": [{"name": "source"}, {"name": "sink"}],
            "edges": [{"name": "items", **ends}],
            "payload": {"size_bytes": size},
        }
    )


def probes(kind: str) -> Iterator[Scenario]:
    """Runs with which the model is compared, to say how far off it is."""
    for producers, consumers in ((1, 1), (2, 2)):
        yield Scenario.model_validate(
            {
                "name": "probe",
                "items": MANY,
                "roles": [{"name": "source", "count": producers}, {"name": "sink", "count": consumers}],
                "edges": [{"name": "items", "source": "source", "target": "sink", "kind": kind}],
            }
        )


def calibrate(
    kinds: list[str], run: Run, *, cores: int, machine: Mapping[str, object], say: Callable[[str], None]
) -> Calibration:
    """
    Measure kinds of queues with real runs.

    Args:
        kinds: Which.
        run: Runs a request.
        cores: How many processes can work at a time.
        machine: What it is measured on.
        say: Told what is measured now.

    Raises:
        SetupError: A run did not pass, so that its figures mean nothing.
    """
    run = partial(_passed, run)
    measured: dict[str, dict[str, Line]] = {}
    small, large = SIZES
    for kind in kinds:
        say(f"{kind}: {small:,} bytes")
        costs = _costs(partial(backlog, kind, small), run)
        low = _costs(partial(stream, kind, small), run)
        say(f"{kind}: {large:,} bytes")
        high = _costs(partial(stream, kind, large), run)
        measured[kind] = {verb: _line(costs[verb], low[verb], high[verb]) for verb in ("put", "take")}
    made = Calibration(kinds=measured, cores=cores, efficiency=1.0, error=0.0, machine=machine)
    ratios = []
    for kind in kinds:
        say(f"{kind}: how far off the model is")
        for scenario in probes(kind):
            request = Request(target="probe", scenario=scenario, seed=1)
            expected = made.forecast(request.plan()).rate
            ratios += [run(request).items.rate / expected for _ in range(ROUNDS)]
    efficiency = median(ratios)
    error = max(abs(ratio / efficiency - 1) for ratio in ratios)
    return replace(made, efficiency=round(efficiency, 4), error=round(error, 3))


def _passed(run: Run, request: Request) -> Results:
    results = run(request)
    if results.exit_code != 0:
        bad = [finding.sentence for finding in results.findings if finding.verdict is not Verdict.VALID]
        raise SetupError(f"nothing was measured, as a run did not pass: {'; '.join(bad)}")
    return results


def _costs(scenario: Callable[[int], Scenario], run: Run) -> dict[str, float]:
    """Nanoseconds of processor time that a put and a take cost, in runs of so many items."""
    found: dict[str, list[float]] = {"put": [], "take": []}
    for number in range(ROUNDS):
        seconds = {}
        for items in (FEW, MANY):
            results = run(Request(target="calibration", scenario=scenario(items), seed=number))
            seconds[items] = results.outcome.cpu_seconds
        for verb, role in (("put", "source"), ("take", "sink")):
            found[verb].append((seconds[MANY][role] - seconds[FEW][role]) / (MANY - FEW) * 1e9)
    return {verb: median(each) for verb, each in found.items()}


def _line(cost: float, low: float, high: float) -> Line:
    """Through the cost of a small payload, as steep as streams of the two sizes say."""
    small, large = SIZES
    slope = max((high - low) / (large - small), 0.0)
    return Line(fixed_ns=max(cost - slope * small, 1.0), byte_ns=slope)
