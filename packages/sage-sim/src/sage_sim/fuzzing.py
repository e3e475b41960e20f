"""Random scenarios, each of which follows from a seed."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

from sage_sim.presets import PRESETS
from sage_sim.scenario import Scenario

_SECONDS = 1.5
"""How long scenarios with faults make items, instead of a number of them: so that faults have time to strike."""
_FUZZED_FAULTS = ("kill", "stop", "slow")


def drawn(seed: int, kinds: Sequence[str], *, items: int) -> Scenario:
    """
    A scenario that follows from a seed: a graph, kinds of queues, a load, payloads, and faults.

    Args:
        seed: Decides everything.
        kinds: What queues may be.
        items: How many items it makes when nothing strikes it.
    """
    random = Random(f"fuzz/{seed}")
    graph = PRESETS["random-dag"].scenario({"workers": random.randint(2, 6)}, seed=seed)
    fields = graph.model_dump()
    spreads = ("shared", "shared", "target", "pair")
    fields["edges"] = [
        edge
        | {"kind": random.choice(kinds), "spread": random.choice(spreads), "routing": random.choice(("turn", "key"))}
        for edge in fields["edges"]
    ]
    for edge in fields["edges"]:
        if random.random() < 0.3:
            edge["max_items"] = random.choice((1, 2, 16))
    fields["items"] = items
    fields["load"] = random.choice(
        ({}, {}, {"mode": "closed", "window": random.choice((1, 4, 64))}, _open_load(random))
    )
    fields["payload"] = {
        "form": random.choice(("bytes", "dict")),
        "distribution": random.choice(("fixed", "uniform", "lognormal", "zipf")),
        "size_bytes": random.choice((0, 8, 500, 4000)),
    }
    if fields["payload"]["size_bytes"] == 0:
        fields["payload"]["distribution"] = "fixed"
    struck = random.sample(_FUZZED_FAULTS, random.randrange(3))
    fields["faults"] = [{"kind": kind, "rate": random.choice((4.0, 10.0))} for kind in struck]
    if struck:
        fields |= {"items": None, "duration_seconds": _SECONDS}
    return Scenario.model_validate(fields)


def _open_load(random: Random) -> dict[str, Any]:
    shape = random.choice(("constant", "poisson", "burst"))
    return {"mode": "open", "shape": shape, "rate": random.choice((500.0, 2000.0)), "burst": 50}
