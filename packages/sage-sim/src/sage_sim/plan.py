"""Everything that decides a run, as one value: what the user chose, and what its processes are told."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sage_sim.load import Load
from sage_sim.payload import Payload
from sage_sim.topology import Edge, Role, Topology


@dataclass(frozen=True, kw_only=True)
class Plan:
    """
    What a run does.

    Attributes:
        topology: Roles and queues.
        workload: Name of the work.
        seed: Decides the order of the input, payloads and faults.
        items: Total to make, over all sources; None: as many as the duration allows.
        duration_seconds: How long sources make items; None: until all are made.
        warmup_seconds: How much of the beginning is left out of rates and latencies.
        payload: For workloads that make payloads up.
        load: When sources send.
        text: A file whose lines are counted, for the workload that counts words; None for the text of the package.
        ray_nodes: Of a Ray cluster of the run's own; 0: it joins the one that is there.
        queues: For each queue its descriptor, as JSON; see :mod:`sage_sim.channels`.
    """

    topology: Topology
    workload: str
    seed: int
    items: int | None
    duration_seconds: float | None
    warmup_seconds: float = 0.0
    payload: Payload = field(default_factory=Payload)
    load: Load = field(default_factory=Load)
    text: str | None = None
    ray_nodes: int = 0
    queues: Mapping[str, str] = field(default_factory=dict)

    def share(self, origin: int) -> int | None:
        """How many items one source slot makes; the first ones make the rest of an uneven division."""
        if self.items is None:
            return None
        share, rest = divmod(self.items, self.origins)
        return share + (origin < rest)

    @property
    def origins(self) -> int:
        """How many source slots there are."""
        return sum(role.count for role in self.topology.sources)

    def origin_of(self, role: str, index: int) -> int:
        """The number of a source slot, as items carry it."""
        names = [source.name for source in self.topology.sources]
        return sum(source.count for source in self.topology.sources[: names.index(role)]) + index

    def arrivals(self) -> tuple[int, ...]:
        """For each origin, how often each of its items arrives."""
        topology = self.topology
        return tuple(topology.arrivals(role.name) for role in topology.sources for _ in range(role.count))

    def write(self, path: Path) -> None:
        """Write it as JSON."""
        path.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Plan:
        """Read what `write` wrote."""
        fields: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        topology, load = fields.pop("topology"), fields.pop("load")
        return cls(
            topology=Topology(
                name=topology["name"],
                roles=tuple(Role(**role) for role in topology["roles"]),
                edges=tuple(Edge(**edge) for edge in topology["edges"]),
            ),
            payload=Payload(**fields.pop("payload")),
            load=Load(**load | {"trace": tuple(load["trace"])}),
            **fields,
        )
