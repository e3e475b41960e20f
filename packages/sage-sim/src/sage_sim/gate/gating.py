"""The whole gate: two wheels, all layers, one verdict, and a record of everything."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sage_sim.channels import NAMESPACE, use_own_folder
from sage_sim.folder import RunFolder
from sage_sim.gate.benchmarks import BENCHMARKS
from sage_sim.gate.counting import ALLOCATIONS, CALLS, COPIED, INSTRUCTIONS, counted
from sage_sim.gate.findings import Finding, overall
from sage_sim.gate.record import benchmark_json
from sage_sim.gate.rounds import Ending
from sage_sim.gate.rules import Rules, vanished
from sage_sim.gate.shapes import Shaper
from sage_sim.gate.sides import Side, at_fixed_addresses
from sage_sim.gate.timing import Timer, Timings
from sage_sim.gate.wheels import Wheel, install
from sage_sim.machine import describe_machine

LAYERS = ("exact", "time", "shapes")
"""What can be left out; the names of the benchmarks are always compared."""
SHORT_ROUNDS = 20
SHORT_SECONDS = 80.0
SECONDS = 300.0
SHAPE_SECONDS = 5.0
_COPYING = ("seq[ring-64KiB]",)
"""Whose copied bytes are counted: where copying is what an operation costs."""
_SCHEMA = "sage-sim/gate/1"


@dataclass(frozen=True, kw_only=True)
class Order:
    """
    What a gate is asked.

    Attributes:
        rules: What a change may cost.
        base: What it is compared with.
        head: The change.
        pinned_before: Names that base pins.
        seed: Decides the order of sides, and the draws of the bootstrap.
        layers: Which of `LAYERS`.
        is_short: Fewer rounds, no allocations and copied bytes, no times where instructions are counted, and peers of
            the standard library alone.
        seconds: How long rounds may begin for times; None for what is usual.
    """

    rules: Rules
    base: Wheel
    head: Wheel
    pinned_before: frozenset[str] = frozenset()
    seed: int = field(default_factory=lambda: secrets.randbits(32))
    layers: tuple[str, ...] = LAYERS
    is_short: bool = False
    seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """
    What came out.

    Attributes:
        ending: Over all.
        findings: One by one.
        fields: Everything, as it stands in ``results.json``.
    """

    ending: Ending
    findings: list[Finding]
    fields: dict[str, Any]


def gate(order: Order, folder: RunFolder, say: Callable[[str], None]) -> Verdict:
    """
    Measure and judge.

    The folder then has ``results.json``, and ``head.json`` and ``base.json`` in the form of pytest-benchmark.

    Args:
        order: What is asked.
        folder: Of the run.
        say: Told what is done.

    Raises:
        SetupError: This machine cannot do any of it.
        HungError: A process does not answer.
    """
    use_own_folder()
    sides = {"head": folder.work / "head", "base": folder.work / "base"}
    for name, wheel in (("head", order.head), ("base", order.base)):
        say(f"{name} is {wheel.told}, sources {wheel.digest}")
        install(wheel, sides[name])
    machine = describe_machine()
    findings, able = _names(order, sides, folder.work)
    timings = Timings()
    if "exact" in order.layers:
        findings += _exact(order, sides, able, folder.work, say)
    if "time" in order.layers:
        timings = _times(order, sides, able["base"], folder.work, say)
        findings += timings.findings
    if "shapes" in order.layers:
        findings += _shapes(order, sides["head"], able["head"], folder.work, say)
    fields = _fields(order, findings, timings, machine, folder.started.isoformat(timespec="seconds"))
    _write(order, folder, findings, timings, fields)
    return Verdict(ending=overall(findings), findings=findings, fields=fields)


def _names(order: Order, sides: Mapping[str, Path], work: Path) -> tuple[list[Finding], dict[str, list[str]]]:
    """Whether all that is pinned can be measured; and what of it each side can do, head everything that base can."""
    gone = vanished(order.rules, set(BENCHMARKS), set(order.pinned_before))
    found = [Finding(layer="names", name="", ending=Ending.REGRESSION, why=text) for text in gone]
    names, able = [one.name for one in order.rules.benchmarks if one.name in BENCHMARKS], dict[str, list[str]]()
    if len(os.sched_getaffinity(0)) < 2:
        both = [name for name in names if BENCHMARKS[name].processes > 1]
        found += [Finding(layer="names", name=name, ending=Ending.CANNOT, why="it needs two cores") for name in both]
        names = [name for name in names if name not in both]
    refused = dict[str, dict[str, str]]()
    for side in ("head", "base"):
        with Side(side, sides[side], namespace=NAMESPACE, words=work / "sides.log") as process:
            refused[side] = process.refused(names)
    head, base = refused["head"], refused["base"]
    for name, why in (base | head).items():
        if name not in head:
            ending, who = Ending.LEFT_OUT, "base cannot"
        elif name not in base:
            ending, who = Ending.REGRESSION, "head cannot"
        else:
            ending, who = Ending.CANNOT, "neither side can"  # the change is not why
        found.append(Finding(layer="names", name=name, ending=ending, why=f"{who} do it: {why}"))
    able["head"] = [name for name in names if name not in head]
    able["base"] = [name for name in able["head"] if name not in base]
    every = f"all {len(order.rules.benchmarks)} benchmarks that are pinned are here"
    return found or [Finding(layer="names", name="", ending=Ending.PASS, why=every)], able


def _exact(
    order: Order,
    sides: Mapping[str, Path],
    able: Mapping[str, list[str]],
    work: Path,
    say: Callable[[str], None],
) -> list[Finding]:
    free = {one.name for one in order.rules.benchmarks if one.system_calls is None}
    counts = (CALLS, INSTRUCTIONS) if order.is_short else (CALLS, INSTRUCTIONS, ALLOCATIONS, COPIED)
    found: list[Finding] = []
    for count in counts:
        say(f"counting {count.layer}")
        names = {
            side: [
                name
                for name in each
                if BENCHMARKS[name].processes == 1
                and (count is not CALLS or name not in free)
                and (count is not COPIED or name in _COPYING)
            ]
            for side, each in able.items()
        }
        found += counted(count, sides, names, order.rules, namespace=NAMESPACE, work=work)
    return found


def _times(
    order: Order, sides: Mapping[str, Path], names: list[str], work: Path, say: Callable[[str], None]
) -> Timings:
    rules = order.rules
    if order.is_short:
        rules = rules.model_copy(update={"rounds_at_most": min(rules.rounds_at_most, SHORT_ROUNDS)})
    if order.is_short and "exact" in order.layers:
        names = [name for name in names if BENCHMARKS[name].processes > 1]
    timer = Timer(
        folders={"head": sides["head"], "base": sides["base"], "again": sides["base"]},
        rules=rules,
        namespace=NAMESPACE,
        words=work / "sides.log",
        seed=order.seed,
        seconds=_seconds(order),
        say=say,
    )
    return timer.all(names)


def _shapes(order: Order, folder: Path, able: Sequence[str], work: Path, say: Callable[[str], None]) -> list[Finding]:
    """Of those that head can do; of the others it was said already, with the names, that it cannot."""
    shaper = Shaper(
        folder=folder, namespace=NAMESPACE, words=work / "sides.log", seed=order.seed, seconds=SHAPE_SECONDS, say=say
    )
    gone = {one.name for one in order.rules.benchmarks}.difference(able)
    asked = [
        one
        for one in order.rules.shapes
        if one.subject not in gone and (not order.is_short or BENCHMARKS[one.against].needs is None)
    ]
    return [shaper.one(shape) for shape in asked]


def _seconds(order: Order) -> float:
    usual = SHORT_SECONDS if order.is_short else SECONDS
    return usual if order.seconds is None else order.seconds


# -- The record -------------------------------------------------------------------------------------------------------


def _fields(
    order: Order, findings: list[Finding], timings: Timings, machine: Mapping[str, Any], started: str
) -> dict[str, Any]:
    return {
        "schema": _SCHEMA,
        "verdict": overall(findings).value,
        "started": started,
        "seed": order.seed,
        "layers": list(order.layers),
        "short": order.is_short,
        "base": asdict(order.base) | {"path": order.base.path.name},
        "head": asdict(order.head) | {"path": order.head.path.name},
        "rules": order.rules.model_dump(),
        "findings": [asdict(finding) for finding in findings],
        "addresses": "fixed" if at_fixed_addresses() else "random",
        "rounds": {name: [asdict(one) for one in rounds] for name, rounds in timings.rounds.items()},
        "machine": dict(machine),
    }


def _write(order: Order, folder: RunFolder, findings: list[Finding], timings: Timings, fields: dict[str, Any]) -> None:
    _write_json(folder.path / "results.json", fields)
    for side, wheel in (("head", order.head), ("base", order.base)):
        times = {name: [one.ns[side] for one in rounds] for name, rounds in timings.rounds.items()}
        more: dict[str, dict[str, float]] = {}
        for finding in findings:
            if (figure := finding.figures.get(side)) is not None and isinstance(figure, float):
                more.setdefault(finding.name, {})[finding.layer] = figure
        record = benchmark_json(times, more, commit=wheel.commit, changed=wheel.commit is None)
        _write_json(folder.path / f"{side}.json", record)
    shutil.rmtree(folder.work)


def _write_json(path: Path, fields: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(fields, indent=1) + "\n", encoding="utf-8")


def middle_ns(fields: Mapping[str, Any], side: str, name: str) -> float | None:
    """The median time of an operation on a side, from ``results.json``."""
    rounds = fields["rounds"].get(name)
    return statistics.median(one["ns"][side] for one in rounds) if rounds else None
