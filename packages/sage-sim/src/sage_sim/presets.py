"""Topologies with a name, each with the workload that shows it best."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sage_sim.topology import Role, Topology, chain

CAPACITY_BYTES = 1 << 16
"""Small enough that a queue runs full and makes its producers wait, and that waiting in it stays short."""


@dataclass(frozen=True, kw_only=True)
class Preset:
    """
    A topology to be sized.

    Attributes:
        name: What the user types.
        summary: What it is, in one line.
        workload: Name of the work that its processes do.
        items: How many items it makes when nobody says.
        has_payload: Whether the size of an item can be chosen.
        counts: Processes of each part, by the option that sets it.
        build: Makes the topology from these counts and the capacity.
    """

    name: str
    summary: str
    workload: str
    items: int
    has_payload: bool
    counts: Mapping[str, int]
    build: Callable[[Mapping[str, int], int], Topology]


def _pipeline(counts: Mapping[str, int], capacity_bytes: int) -> Topology:
    return chain(
        "pipeline",
        (
            Role(name="reader", count=counts["producers"]),
            Role(name="tokeniser", count=counts["workers"]),
            Role(name="counter", count=counts["consumers"]),
        ),
        ("lines", "words"),
        capacity_bytes=capacity_bytes,
    )


def _ends(name: str) -> Callable[[Mapping[str, int], int], Topology]:
    def build(counts: Mapping[str, int], capacity_bytes: int) -> Topology:
        return chain(
            name,
            (Role(name="producer", count=counts["producers"]), Role(name="consumer", count=counts["consumers"])),
            ("items",),
            capacity_bytes=capacity_bytes,
        )

    return build


PRESETS = {
    preset.name: preset
    for preset in (
        Preset(
            name="pipeline",
            summary="word count of a text: readers, then tokenisers, then counters",
            workload="word-count",
            items=40_000,
            has_payload=False,
            counts={"producers": 2, "workers": 3, "consumers": 2},
            build=_pipeline,
        ),
        Preset(
            name="fan-in",
            summary="many producers, one consumer",
            workload="blobs",
            items=80_000,
            has_payload=True,
            counts={"producers": 4, "consumers": 1},
            build=_ends("fan-in"),
        ),
        Preset(
            name="fan-out",
            summary="one producer, many consumers",
            workload="blobs",
            items=80_000,
            has_payload=True,
            counts={"producers": 1, "consumers": 4},
            build=_ends("fan-out"),
        ),
    )
}
"""By name, in the order in which they are listed."""
