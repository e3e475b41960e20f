"""
A scenario: everything that a topology file says, checked all at once.

Each part is a model that can be made in Python as well; editors complete files with `Scenario.model_json_schema`.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from sage_sim import channels
from sage_sim.faults import EDGE_KINDS, Fault, Faults, completed, targets
from sage_sim.load import Load
from sage_sim.payload import LARGEST_BYTES, Payload
from sage_sim.plan import Plan
from sage_sim.promises import Fate, Home, fate, hits_queues, home, kinds_hit, needs_cluster
from sage_sim.results import Gates
from sage_sim.topology import PROCESSES_AT_MOST, RAY_NODES_AT_MOST, Edge, Role, Topology, node_name

CAPACITY_BYTES = 1 << 16
"""Small enough that a queue runs full and makes its producers wait, and that waiting in it stays short."""

Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,39}$")]
Kind = Literal["sage_queue", "shm_queue", "rpc_queue", "ray_queue", "multiprocessing", "faster_fifo", "ray_util_queue"]
Positive = Annotated[float, Field(gt=0, le=1e9)]
Problem = tuple[tuple[str | int, ...], str]


class Part(BaseModel):
    """What all parts of a scenario have in common: no word or number that means nothing, and no change once made."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class RolePart(Part):
    """Processes that all do the same; see `sage_sim.topology.Role`."""

    name: Name
    count: int = Field(default=1, ge=1, le=PROCESSES_AT_MOST)
    send: Literal["copy", "deal"] = "copy"


class EdgePart(Part):
    """The way from the processes of one role to those of another; see `sage_sim.topology.Edge`."""

    name: Name
    source: str
    target: str
    kind: Kind = "sage_queue"
    capacity_bytes: int = Field(default=CAPACITY_BYTES, ge=4096, le=1 << 30)
    max_items: int = Field(default=0, ge=0, le=2**31 - 1)
    spread: Literal["shared", "target", "pair"] = "shared"
    routing: Literal["turn", "key"] = "turn"
    reply: bool = False
    settings: dict[str, Any] = Field(default_factory=dict)
    node: int = Field(default=0, ge=0, lt=RAY_NODES_AT_MOST)


class LoadPart(Part):
    """How sources send; see `sage_sim.load.Load`."""

    mode: Literal["saturate", "closed", "open", "backlog"] = "saturate"
    window: int = Field(default=16, ge=1, le=1_000_000)
    shape: Literal["constant", "poisson", "ramp", "burst", "trace"] = "constant"
    rate: Positive = 1_000.0
    rate_to: Positive = 1_000.0
    ramp_seconds: Positive = 1.0
    burst: int = Field(default=100, ge=1, le=1_000_000)
    trace: tuple[Annotated[float, Field(ge=0)], ...] = ()

    @model_validator(mode="after")
    def _has_trace(self) -> LoadPart:
        if self.mode == "open" and self.shape == "trace" and (not self.trace or self.trace[-1] <= 0):
            raise ValueError("shape 'trace' needs trace, moments in seconds of which the last is above 0")
        if any(before > after for before, after in pairwise(self.trace)):
            raise ValueError("the moments of trace must be in order")
        return self


class PayloadPart(Part):
    """What items are made of; see `sage_sim.payload.Payload`."""

    form: Literal["bytes", "dict", "numpy"] = "bytes"
    distribution: Literal["fixed", "uniform", "lognormal", "zipf"] = "fixed"
    size_bytes: int = Field(default=64, ge=0, le=LARGEST_BYTES)
    low_bytes: int = Field(default=0, ge=0, le=LARGEST_BYTES)
    sigma: float = Field(default=1.0, gt=0, le=5)
    skew: float = Field(default=1.2, ge=0, le=10)
    keys: int = Field(default=64, ge=1, le=1_000_000)
    key_skew: float = Field(default=1.0, ge=0, le=10)

    @model_validator(mode="after")
    def _is_range(self) -> PayloadPart:
        if self.distribution == "uniform" and self.low_bytes > self.size_bytes:
            raise ValueError(f"low_bytes {self.low_bytes:,} is above size_bytes {self.size_bytes:,}")
        return self


class FaultPart(Part):
    """One way to break things; see `sage_sim.faults.Fault`."""

    kind: Literal[
        "kill",
        "kill-inside",
        "stop",
        "slow",
        "limit-files",
        "limit-memory",
        "cut",
        "delay",
        "throttle",
        "loss",
        "silence",
        "unplug",
        "full",
        "damage",
        "kill-node",
        "kill-actor",
    ]
    rate: float | None = None
    at: float | None = Field(default=None, ge=0)
    target: str | None = None
    seconds: float | None = Field(default=None, ge=0, le=3600)
    amount: float | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _is_sound(self) -> FaultPart:
        if problem := self.fault().problem():
            raise ValueError(problem)
        return self

    def fault(self) -> Fault:
        """With everything decided that was left open."""
        return completed(**self.model_dump())


class RayPart(Part):
    """
    The Ray cluster of the run itself, on this host: started for it, and ended with it.

    Attributes:
        nodes: How many; the processes of the run are on node 0.
    """

    nodes: int = Field(default=1, ge=1, le=RAY_NODES_AT_MOST)


class GatePart(Part):
    """How fast a run has to be; see `sage_sim.results.Gates`."""

    lowest_rate: Positive | None = None
    highest_p99_ms: Positive | None = None


class Scenario(Part):
    """
    A whole run, apart from the machine that it runs on.

    Attributes:
        name: Of the run, in tables and in the name of its folder.
        workload: ``blobs``: bytes that are compared on arrival; ``word-count``: lines of a text, whose words are
            counted.
        runs_as: ``processes`` of sage-sim, or a ``job`` of the dataflow runtime.
        text: A file whose lines are counted; that of the package when it is not given.
        items: How many are made, over all sources; as many as the duration allows when it is not given.
        duration_seconds: How long sources make items; until all are made when it is not given.
        warmup_seconds: How much of the beginning is left out of rates and latencies.
        time_limit_seconds: After how long the run is called hung; 600 when it is not given.
        seed: Decides input, payloads and faults; that of the command line is before it, and without either it is drawn
            anew for each run.
        roles: Who takes part, in the order in which items flow.
        edges: The queues between them.
        load: When sources send.
        payload: What items are made of.
        faults: What is broken.
        ray: A Ray cluster of the run's own; it joins the one that is there when this is not given.
        gates: How fast the run has to be.

    Raises:
        pydantic.ValidationError: Something is wrong; names every place. `problems` says what is wrong with the whole.
    """

    name: Name
    workload: Literal["blobs", "word-count"] = "blobs"
    runs_as: Literal["processes", "job"] = "processes"
    text: str | None = None
    items: int | None = Field(default=None, ge=1)
    duration_seconds: Positive | None = None
    warmup_seconds: float = Field(default=0.0, ge=0, le=3600)
    time_limit_seconds: Positive | None = None
    seed: int | None = Field(default=None, ge=0, lt=2**32)
    roles: tuple[RolePart, ...]
    edges: tuple[EdgePart, ...]
    load: LoadPart = Field(default_factory=LoadPart)
    payload: PayloadPart = Field(default_factory=PayloadPart)
    faults: tuple[FaultPart, ...] = ()
    ray: RayPart | None = None
    gates: GatePart = Field(default_factory=GatePart)

    def topology(self) -> Topology:
        """
        The roles and edges.

        Raises:
            ValueError: They do not make a graph; tells all that is wrong.
        """
        return Topology(
            name=self.name,
            roles=tuple(Role(**role.model_dump()) for role in self.roles),
            edges=tuple(Edge(**edge.model_dump()) for edge in self.edges),
        )

    def all_faults(self) -> Faults | None:
        """The faults, None when there are none."""
        return Faults(each=tuple(part.fault() for part in self.faults)) if self.faults else None

    def speed_gates(self) -> Gates:
        """How fast it has to be."""
        return Gates(**self.gates.model_dump())

    def plan(self, seed: int) -> Plan:
        """
        What its processes are told, before its queues have names.

        Args:
            seed: Of this run; that of the scenario is for who has no other.
        """
        return Plan(
            topology=self.topology(),
            workload=self.workload,
            text=self.text,
            seed=seed,
            items=self.items,
            duration_seconds=self.duration_seconds,
            warmup_seconds=self.warmup_seconds,
            payload=Payload(**self.payload.model_dump()),
            load=Load(**self.load.model_dump()),
            ray_nodes=self._nodes,
        )

    @property
    def _nodes(self) -> int:
        return 0 if self.ray is None else self.ray.nodes

    def problems(self) -> Iterable[Problem]:
        """What is wrong with the whole although every part is sound; each with its place."""
        topology = object.__new__(Topology)
        parts = {"name": self.name, "roles": self.roles, "edges": self.edges}
        topology.__dict__.update(parts)
        wrong = list(topology.problems())
        yield from wrong
        for at, edge in enumerate(self.edges):
            yield from ((("edges", at, *place), text) for place, text in _edge_problems(edge, self._nodes))
        for at, fault in enumerate(self.faults):
            problem = self._fault_problem(fault)
            if problem is not None:
                yield ("faults", at), problem
        if self.workload == "word-count" and (any(edge.reply for edge in self.edges) or len(self.roles) < 3):
            yield ("workload",), "word-count needs roles that turn lines into words, between sources and sinks"
        if self.runs_as == "job":
            yield from self._job_problems()
        if self.workload != "word-count" and self.text is not None:
            yield ("text",), f"workload {self.workload!r} counts no text"

    def _job_problems(self) -> Iterable[Problem]:
        ends = [(edge.source, edge.target) for edge in self.edges]
        names = [role.name for role in self.roles]
        if self.workload != "word-count" or len(names) != 3 or ends != list(pairwise(names)):
            yield ("runs_as",), "a job needs the workload word-count, and three roles in a row"
        if any(fault.kind != "kill" or fault.target is not None for fault in self.faults):
            yield ("faults",), "a job can only be struck by 'kill', and no task by name"
        if self.items is None:
            yield ("items",), "a job needs a number of items"

    def _fault_problem(self, part: FaultPart) -> str | None:
        fault = part.fault()
        hit = {edge.name: fate(edge, fault.kind) for edge in self.edges if fate(edge, fault.kind) is not Fate.SPARED}
        needed = f"{fault.kind!r} needs an edge of the kind {' or '.join(kinds_hit(fault.kind))}"
        if hits_queues(fault.kind) and not hit:
            return needed
        if fault.kind == "unplug" and any(map(needs_cluster, self.edges)):
            return "'unplug' takes a network of the run's own, from which no Ray cluster can be reached"
        if fault.kind == "kill-node":
            return self._node_problem(fault)
        if fault.kind in EDGE_KINDS:
            if fault.target not in (None, *hit):
                return f"{needed}, not {fault.target!r}"
            if fault.rate is not None and Fate.GONE in (hit.values() if fault.target is None else [hit[fault.target]]):
                return f"{fault.kind!r} needs a moment where a queue is not durable: nothing goes on after it"
            return None
        slots = [f"{role.name}-{index}" for role in self.roles for index in range(role.count)]
        try:
            targets(fault, slots)
        except ValueError as error:
            return str(error)
        return None

    def _node_problem(self, fault: Fault) -> str | None:
        if self._nodes < 2:
            return (
                "'kill-node' needs two nodes of a Ray cluster of the run's own: nodes = 2 under [ray], --ray-nodes 2. "
                "A node of a cluster that the run did not start is never killed"
            )
        names = [node_name(at) for at in range(1, self._nodes)]
        if fault.target not in (None, *names):
            return f"'kill-node' hits {' or '.join(names)}, not {fault.target!r}"
        return None


def _edge_problems(edge: EdgePart, nodes: int) -> Iterable[Problem]:
    where = home(edge)
    if edge.node and where is not Home.ACTOR:
        yield ("node",), f"the kind {edge.kind} has no home on a node of Ray"
    elif edge.node and edge.node >= nodes:
        yield ("node",), f"there is no {node_name(edge.node)}: nodes = {edge.node + 1} under [ray] would start it"
    if where is Home.ACTOR and nodes and edge.settings.get("node_id") is not None:
        yield ("settings",), "node_id names a node of another cluster; in one of the run's own it is node = 1"
    if where is Home.CARRIED:
        if edge.settings:
            yield ("settings",), f"the kind {edge.kind} has no settings but its bounds"
        return
    try:
        server = channels.Server(port=1)
        channels.descriptor_of("run", edge.name, Edge(**edge.model_dump()), server)
    except (TypeError, ValueError) as error:
        yield ("settings",), str(error)
    if where is Home.ACTOR and not edge.max_items:
        yield ("max_items",), "a ray_queue needs a bound in messages"


def as_file(scenario: Scenario) -> dict[str, Any]:
    """What a topology file has to say for it: nothing that is so anyway."""
    found: dict[str, Any] = scenario.model_dump(exclude_defaults=True, exclude_none=True, mode="json")
    return found
