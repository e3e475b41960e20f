"""The least that still fails: a scenario made simpler, one thing at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from sage_sim.scenario import Scenario


def smaller(scenario: Scenario) -> Iterator[Scenario]:
    """Scenarios that are simpler in one thing each, the largest step first; only sound ones."""
    for fields in _simpler(scenario.model_dump()):
        try:
            found = Scenario.model_validate(fields)
        except ValidationError:
            continue
        if not list(found.problems()):
            yield found


def _simpler(whole: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for at in range(len(whole["faults"])):
        yield whole | {"faults": whole["faults"][:at] + whole["faults"][at + 1 :]}
    yield from _without_roles(whole)
    if whole["items"] and whole["items"] > 1:
        for part in (10, 2):
            yield whole | {"items": max(whole["items"] // part, 1)}
    if whole["duration_seconds"] and whole["duration_seconds"] > 0.2:
        yield whole | {"duration_seconds": whole["duration_seconds"] / 2}
    for at, role in enumerate(whole["roles"]):
        for count in sorted({1, role["count"] // 2} - {0, role["count"]}):
            yield whole | {"roles": _changed(whole["roles"], at, count=count)}
    for at, edge in enumerate(whole["edges"]):
        plainer: tuple[Mapping[str, object], ...] = (
            {"spread": "shared", "routing": "turn"},
            {"settings": {}},
            {"max_items": 0},
        )
        for plain in plainer:
            if any(edge[name] != value for name, value in plain.items()) and edge["kind"] != "ray_queue":
                yield whole | {"edges": _changed(whole["edges"], at, **plain)}
    if whole["load"]["mode"] != "saturate":
        yield whole | {"load": {}}
    if whole["payload"]["size_bytes"] > 8 or whole["payload"]["form"] != "bytes":
        yield whole | {"payload": {"size_bytes": 8}}


def _without_roles(whole: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Leave out one role at a time, with its edges; what is left must still be a graph."""
    if len(whole["roles"]) <= 2:
        return
    for role in whole["roles"]:
        name = role["name"]
        edges = [edge for edge in whole["edges"] if name not in (edge["source"], edge["target"])]
        used = {edge[end] for edge in edges for end in ("source", "target")}
        yield whole | {
            "roles": [one for one in whole["roles"] if one["name"] in used],
            "edges": edges,
            "faults": [one for one in whole["faults"] if not (one["target"] or "").startswith(name)],
        }


def _changed(parts: Sequence[dict[str, Any]], at: int, **change: object) -> list[dict[str, Any]]:
    return [part | change if place == at else part for place, part in enumerate(parts)]


def shrunk(scenario: Scenario, fails: Callable[[Scenario], bool], *, tries: int) -> tuple[Scenario, int]:
    """
    Make a scenario that fails as small as it goes while it fails.

    Args:
        scenario: One that fails.
        fails: Runs one and says whether it still fails in the same way.
        tries: How many may be run.

    Returns:
        The smallest that was found, and how many were run.
    """
    used, goes_on = 0, True
    while goes_on:
        goes_on = False
        for candidate in smaller(scenario):
            if used >= tries:
                return scenario, used
            used += 1
            if fails(candidate):
                scenario, goes_on = candidate, True
                break
    return scenario, used
