"""What a topology file may hold, for editors and for the reference: each word with its meaning."""

from __future__ import annotations

import inspect
import re
from typing import Any

from sage_sim.faults import Fault
from sage_sim.load import Load
from sage_sim.payload import Payload
from sage_sim.results import Gates
from sage_sim.scenario import RayPart, Scenario
from sage_sim.topology import Edge, Role

PARTS = {
    "Scenario": ("", Scenario),
    "RolePart": ("[[roles]]", Role),
    "EdgePart": ("[[edges]]", Edge),
    "LoadPart": ("[load]", Load),
    "PayloadPart": ("[payload]", Payload),
    "FaultPart": ("[[faults]]", Fault),
    "RayPart": ("[ray]", RayPart),
    "GatePart": ("[gates]", Gates),
}
"""The parts of a file: how each begins, and the class that says what its words mean."""
_ATTRIBUTE = re.compile(r"^    (\w+): (.*(?:\n {8}.*)*)", re.MULTILINE)


def meanings(kind: type) -> dict[str, str]:
    """What the docstring of a class says about its attributes, by name."""
    _, _, told = inspect.cleandoc(kind.__doc__ or "").partition("Attributes:\n")
    return {name: " ".join(text.split()).replace("``", "`") for name, text in _ATTRIBUTE.findall(told)}


def schema() -> dict[str, Any]:
    """The JSON Schema of topology files; every word has a description."""
    found = Scenario.model_json_schema()
    parts = found["$defs"] | {"Scenario": found}
    for name, (_, kind) in PARTS.items():
        for word, text in meanings(kind).items():
            if word in parts[name]["properties"]:
                parts[name]["properties"][word]["description"] = text
    return found
