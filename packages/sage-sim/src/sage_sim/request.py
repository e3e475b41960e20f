"""What the user asked for, and the command that asks for the same again."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sage_sim.faults import Faults
from sage_sim.plan import Plan
from sage_sim.scenario import EdgePart, Scenario

TIME_LIMIT_SECONDS = 600.0
PROCESSES_AT_MOST = 200
"""Bound of one run when nobody says: so many processes start in seconds, and fit into a small machine."""
MOST_PROCESSES = 2_000
"""What that bound can be raised to, however large a machine is."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """
    What the user asked for, with everything left open decided.

    Attributes:
        target: The preset or file, as it was typed.
        scenario: All of it.
        seed: Decides everything that is drawn.
        options: What was chosen besides, in the order of the command line; a flag has no value.
        most_processes: What is too many.
        most_memory_bytes: What is too much; None: what is free.
    """

    target: str
    scenario: Scenario
    seed: int
    options: Mapping[str, str | None] = field(default_factory=dict)
    most_processes: int = PROCESSES_AT_MOST
    most_memory_bytes: int | None = None

    def plan(self) -> Plan:
        """
        The plan, before its queues have names.

        Raises:
            ValueError: It is too large, or no graph.
        """
        plan = self.scenario.plan(self.seed)
        if plan.topology.processes > self.most_processes:
            raise ValueError(
                f"{plan.topology.processes:,} processes are too many (limit {self.most_processes:,}, "
                "which --max-procs raises)"
            )
        return plan

    @property
    def faults(self) -> Faults | None:
        """What to break."""
        return self.scenario.all_faults()

    @property
    def time_limit(self) -> float:
        """Seconds after which it hangs."""
        return self.scenario.time_limit_seconds or TIME_LIMIT_SECONDS

    def command(self) -> str:
        """What repeats the run: the target, the seed, and all that was chosen."""
        words = ["sage-sim", "run", self.target, "--seed", str(self.seed)]
        for option, value in self.options.items():
            words += [option] if value is None else [option, value]
        return shlex.join(words)


def adapted(
    scenario: Scenario,
    *,
    items: int | None = None,
    duration: float | None = None,
    warmup: float | None = None,
    rate: float | None = None,
    window: int | None = None,
    payload: int | None = None,
    backend: str | None = None,
    faults: Faults | None = None,
    time_limit: float | None = None,
    text: str | None = None,
    ray_nodes: int | None = None,
) -> Scenario:
    """
    The same scenario, with what was chosen on the command line; None leaves a thing as it is.

    Args:
        scenario: From a preset or a file.
        items: Items to make, over all sources.
        duration: Seconds for which sources make items; alone, it replaces the number of items.
        warmup: Seconds at the beginning that do not count.
        rate: Items per second of an open load.
        window: Items under way of each source.
        payload: Bytes of an item.
        backend: The kind of all queues.
        faults: What to break.
        time_limit: Seconds after which the run hangs.
        text: A file whose lines are counted.
        ray_nodes: Of a Ray cluster of the run's own.

    Raises:
        ValueError: Something does not fit; pydantic's error says where.
    """
    fields: dict[str, Any] = scenario.model_dump()
    if duration is not None:
        fields |= {"duration_seconds": duration, "items": items}
    elif items is not None:
        fields["items"] = items
    if faults is not None:
        fields["faults"] = [vars(fault) for fault in faults.each]
    if rate is not None:
        is_open_load = scenario.load.mode == "open"
        fields["load"] |= {"mode": "open", "rate": rate}
        fields["load"] |= {} if is_open_load else {"shape": "constant"}
    if window is not None:
        fields["load"] |= {"mode": "closed", "window": window}
    if payload is not None:
        fields["payload"] |= {"size_bytes": payload, "low_bytes": min(payload, scenario.payload.low_bytes)}
    if ray_nodes is not None:
        fields["ray"] = {"nodes": ray_nodes}
    if backend is not None:
        fields["edges"] = [_of_kind(edge, backend) for edge in scenario.edges]
    chosen = {"warmup_seconds": warmup, "time_limit_seconds": time_limit, "text": text}
    fields |= {name: value for name, value in chosen.items() if value is not None}
    return Scenario.model_validate(fields)


def _of_kind(edge: EdgePart, kind: str) -> dict[str, Any]:
    """An edge of another kind; what was set for its old one does not apply."""
    fields = edge.model_dump()
    if kind != edge.kind:
        fields |= {"kind": kind, "settings": {}, "node": 0}
    if kind == "ray_queue" and not edge.max_items:
        fields["max_items"] = 1024
    return fields
