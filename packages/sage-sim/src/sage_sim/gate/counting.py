"""Exact counts of both sides, held against what is allowed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sage_sim.gate import exact
from sage_sim.gate.findings import Finding
from sage_sim.gate.rounds import Ending
from sage_sim.gate.rules import Rules
from sage_sim.gate.sides import SideError

_FEW_CALLS = 0.05
"""Of the system for each operation: what the allocator and the interpreter do now and then."""
_FEW_BYTES = 16


@dataclass(frozen=True, kw_only=True)
class Count:
    """
    Something that can be counted.

    Attributes:
        layer: What it is called.
        measure: Counts it.
        tools: What that needs.
        sides: Whose it is counted of.
    """

    layer: str
    measure: Callable[..., dict[str, float]]
    tools: tuple[str, ...]
    sides: tuple[str, ...] = ("head", "base")


INSTRUCTIONS = Count(layer="instructions", measure=exact.instructions, tools=("valgrind", "setarch", "setpriv"))
ALLOCATIONS = Count(layer="allocations", measure=exact.allocations, tools=("valgrind", "setarch", "setpriv"))
COPIED = Count(layer="copied bytes", measure=exact.copied_bytes, tools=("valgrind", "setarch", "setpriv"))
CALLS = Count(layer="system calls", measure=exact.system_calls, tools=("strace", "setarch", "setpriv"), sides=("head",))


def counted(
    count: Count,
    folders: Mapping[str, Path],
    names: Mapping[str, Sequence[str]],
    rules: Rules,
    *,
    namespace: str,
    work: Path,
) -> list[Finding]:
    """
    Count one thing, and judge it.

    Args:
        count: What.
        folders: Where the wheels are, by side.
        names: Of what, by side; head has all of base's.
        rules: What is allowed.
        namespace: Of the queues.
        work: For files of the tools.
    """
    if lacking := exact.lacking(*count.tools):
        why = f"not installed: {'; '.join(lacking)}"
        return [Finding(layer=count.layer, name="", ending=Ending.CANNOT, why=why)]
    try:
        found = exact.side_by_side(
            count.measure, {side: folders[side] for side in count.sides}, names, namespace=namespace, work=work
        )
    except SideError as error:
        ending = Ending.REGRESSION if error.side == "head" else Ending.INCONCLUSIVE
        return [Finding(layer=count.layer, name="", ending=ending, why=f"{error.side}: {error}")]
    return [
        _judged(count, name, {side: found[side][name] for side in count.sides if name in found[side]}, rules)
        for name in names["head"]
    ]


def _judged(count: Count, name: str, each: Mapping[str, float], rules: Rules) -> Finding:
    head, base = each["head"], each.get("base")
    limit, told = _limit(count, name, base, rules)
    if limit is None:
        return Finding(layer=count.layer, name=name, ending=Ending.LEFT_OUT, why=told, figures=each)
    ending = Ending.REGRESSION if head > limit else Ending.PASS
    return Finding(layer=count.layer, name=name, ending=ending, why=told, figures=each)


def _limit(count: Count, name: str, base: float | None, rules: Rules) -> tuple[float | None, str]:
    """How many there may be, and why."""
    if count is CALLS:
        allowed = next(one.system_calls for one in rules.benchmarks if one.name == name)
        assert allowed is not None  # or nobody would have counted
        return allowed + _FEW_CALLS, f"{allowed:g} are allowed"
    if base is None:
        return None, "new: base cannot do it"
    if count is ALLOCATIONS:
        return base + rules.allocations, f"{rules.allocations:g} more are allowed"
    slack = _FEW_BYTES if count is COPIED else 0
    return base * (1 + rules.instructions) + slack, f"{rules.instructions:.0%} more are allowed"
