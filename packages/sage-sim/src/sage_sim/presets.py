"""Scenarios with a name, each with the workload that shows it best."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random

from sage_sim.scenario import CAPACITY_BYTES, EdgePart, LoadPart, RolePart, Scenario

__all__ = ["CAPACITY_BYTES", "PRESETS", "Preset", "Shape"]


@dataclass(frozen=True, kw_only=True)
class Shape:
    """
    What decides the roles and edges of a preset.

    Attributes:
        counts: Processes of each part, by the option that sets it.
        capacity_bytes: Of each queue.
        seed: For presets that are drawn.
    """

    counts: Mapping[str, int]
    capacity_bytes: int = CAPACITY_BYTES
    seed: int = 0

    def __getitem__(self, part: str) -> int:
        return self.counts[part]

    def edge(self, name: str, source: str, target: str, **settings: object) -> EdgePart:
        """An edge with queues of that capacity."""
        fields = {"name": name, "source": source, "target": target, "capacity_bytes": self.capacity_bytes}
        return EdgePart.model_validate(fields | settings)


Parts = tuple[tuple[RolePart, ...], tuple[EdgePart, ...]]


@dataclass(frozen=True, kw_only=True)
class Preset:
    """
    A scenario to be sized.

    Attributes:
        name: What the user types.
        summary: What it is, in one line.
        workload: Name of the work that its processes do.
        items: How many items it makes when nobody says.
        counts: Processes of each part, by the option that sets it.
        build: Makes the roles and edges.
        load: When its sources send.
        runs_as: ``processes`` of its own, or a ``job`` of the dataflow runtime.
    """

    name: str
    summary: str
    items: int
    counts: Mapping[str, int]
    build: Callable[[Shape], Parts]
    workload: str = "blobs"
    load: LoadPart = field(default_factory=LoadPart)
    runs_as: str = "processes"

    @property
    def has_payload(self) -> bool:
        """Whether the size of an item can be chosen."""
        return self.workload != "word-count"

    def scenario(
        self, counts: Mapping[str, int] | None = None, *, capacity_bytes: int = CAPACITY_BYTES, seed: int = 0
    ) -> Scenario:
        """
        The scenario in a size.

        Args:
            counts: Processes of each part that is not to be as the preset has it.
            capacity_bytes: Of each queue.
            seed: For presets that are drawn.

        Raises:
            ValueError: That is too large.
        """
        roles, edges = self.build(
            Shape(counts={**self.counts, **(counts or {})}, capacity_bytes=capacity_bytes, seed=seed)
        )
        return Scenario.model_validate(
            {
                "name": self.name,
                "workload": self.workload,
                "items": self.items,
                "roles": roles,
                "edges": edges,
                "load": self.load,
                "runs_as": self.runs_as,
            }
        )


def _role(name: str, count: int, send: str = "copy") -> RolePart:
    return RolePart.model_validate({"name": name, "count": count, "send": send})


def _pipeline(shape: Shape) -> Parts:
    roles = (
        _role("reader", shape["producers"]),
        _role("tokeniser", shape["workers"]),
        _role("counter", shape["consumers"]),
    )
    return roles, (shape.edge("lines", "reader", "tokeniser"), shape.edge("words", "tokeniser", "counter"))


def _ends(shape: Shape) -> Parts:
    roles = (_role("producer", shape["producers"]), _role("consumer", shape["consumers"]))
    return roles, (shape.edge("items", "producer", "consumer"),)


def _diamond(shape: Shape) -> Parts:
    roles = (
        _role("producer", shape["producers"]),
        _role("left", shape["workers"]),
        _role("right", shape["workers"]),
        _role("consumer", shape["consumers"]),
    )
    edges = (
        shape.edge("to-left", "producer", "left"),
        shape.edge("to-right", "producer", "right"),
        shape.edge("from-left", "left", "consumer"),
        shape.edge("from-right", "right", "consumer"),
    )
    return roles, edges


def _shuffle(shape: Shape) -> Parts:
    roles = (
        _role("producer", shape["producers"]),
        _role("mapper", shape["workers"]),
        _role("reducer", shape["consumers"]),
    )
    edges = (
        shape.edge("items", "producer", "mapper"),
        shape.edge("parts", "mapper", "reducer", spread="pair", routing="key"),
    )
    return roles, edges


def _tree(shape: Shape) -> Parts:
    roles = (
        _role("root", shape["producers"], "deal"),
        _role("branch-a", shape["workers"], "deal"),
        _role("branch-b", shape["workers"], "deal"),
        *(_role(f"leaf-{leaf}", shape["consumers"]) for leaf in "abcd"),
    )
    edges = (
        shape.edge("root-a", "root", "branch-a"),
        shape.edge("root-b", "root", "branch-b"),
        shape.edge("twig-a", "branch-a", "leaf-a"),
        shape.edge("twig-b", "branch-a", "leaf-b"),
        shape.edge("twig-c", "branch-b", "leaf-c"),
        shape.edge("twig-d", "branch-b", "leaf-d"),
    )
    return roles, edges


_DRAWN_COPIES_AT_MOST = 2
"""How many copies of an item one role of a drawn graph makes."""


def _random_dag(shape: Shape) -> Parts:
    """Roles in an order; each takes from one or two before it, and no role sends more than two copies on."""
    random = Random(f"dag/{shape.seed}")
    count = max(shape["workers"], 2)
    names = [f"node-{at}" for at in range(count)]
    left: list[int] = [0] * count
    ends: set[tuple[int, int]] = set()
    for at in range(1, count):
        room = [before for before in range(at) if left[before] < _DRAWN_COPIES_AT_MOST]
        for before in random.sample(room, min(len(room), random.choice((1, 1, 2)))):
            ends.add((before, at))
            left[before] += 1
    roles = tuple(_role(name, random.choice((1, 1, 2))) for name in names)
    edges = tuple(
        shape.edge(f"edge-{source}-{target}", names[source], names[target]) for source, target in sorted(ends)
    )
    return roles, edges


def _service(shape: Shape) -> Parts:
    roles = (_role("client", shape["producers"]), _role("server", shape["workers"]))
    edges = (
        shape.edge("requests", "client", "server"),
        shape.edge("replies", "server", "client", reply=True),
    )
    return roles, edges


PRESETS = {
    preset.name: preset
    for preset in (
        Preset(
            name="pipeline",
            summary="word count of a text: readers, then tokenisers, then counters",
            workload="word-count",
            items=40_000,
            counts={"producers": 2, "workers": 3, "consumers": 2},
            build=_pipeline,
        ),
        Preset(
            name="fan-in",
            summary="many producers, one consumer",
            items=80_000,
            counts={"producers": 4, "consumers": 1},
            build=_ends,
        ),
        Preset(
            name="fan-out",
            summary="one producer, many consumers",
            items=80_000,
            counts={"producers": 1, "consumers": 4},
            build=_ends,
        ),
        Preset(
            name="diamond",
            summary="each item on two ways, which meet again",
            items=30_000,
            counts={"producers": 1, "workers": 1, "consumers": 1},
            build=_diamond,
        ),
        Preset(
            name="shuffle",
            summary="a queue between each mapper and each reducer, chosen by key",
            items=40_000,
            counts={"producers": 1, "workers": 3, "consumers": 3},
            build=_shuffle,
        ),
        Preset(
            name="tree",
            summary="items dealt out to branches, and by those to leaves",
            items=40_000,
            counts={"producers": 1, "workers": 1, "consumers": 1},
            build=_tree,
        ),
        Preset(
            name="random-dag",
            summary="a graph drawn from the seed; --workers says of how many roles",
            items=5_000,
            counts={"workers": 6},
            build=_random_dag,
        ),
        Preset(
            name="service",
            summary="requests to servers, and each reply back to who asked",
            items=20_000,
            counts={"producers": 3, "workers": 2},
            build=_service,
            load=LoadPart(mode="closed", window=16),
        ),
        Preset(
            name="dataflow",
            summary="the words again, as a job of the runtime: each exactly once, although its tasks are killed",
            workload="word-count",
            items=20_000,
            counts={"producers": 1, "workers": 2, "consumers": 2},
            build=_pipeline,
            runs_as="job",
        ),
    )
}
"""By name, in the order in which they are listed."""
