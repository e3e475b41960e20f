"""What a run consists of: roles with their number of processes, the edges between them, and the queues of each edge."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

PROCESSES_AT_MOST = 100_000
QUEUES_AT_MOST = 1_000_000
"""Bounds of what `sage-sim predict` works out; what a machine can run, `sage-sim plan` tells."""
ARRIVALS_AT_MOST = 65_535
"""How many copies of one item may reach the sinks: the history has 16 bits for them."""
RAY_NODES_AT_MOST = 8

SENDS = ("copy", "deal")
SPREADS = ("shared", "target", "pair")
ROUTINGS = ("turn", "key")


@dataclass(frozen=True, kw_only=True)
class Role:
    """
    Processes that all do the same; which work that is, follows from the edges and the workload.

    Attributes:
        name: As in tables and names of processes.
        count: How many there are.
        send: ``copy`` turns an item into one for each edge that leaves the role, ``deal`` into one for one of them.
    """

    name: str
    count: int
    send: str = "copy"


@dataclass(frozen=True, kw_only=True)
class Edge:
    """
    The way from the processes of one role to those of another.

    Attributes:
        name: In tables and in the history.
        source: Name of the role that puts.
        target: Name of the role that takes.
        capacity_bytes: Size of the data region of each queue, for kinds that have one.
        max_items: Bound of each queue in messages; 0: bytes alone, or what the kind has of itself.
        kind: Which kind of queue; see :mod:`sage_sim.channels`.
        spread: ``shared``: one queue; ``target``: one for each process that takes; ``pair``: one for each pair.
        routing: Which of several queues an item goes to: each in turn, or by its key.
        reply: Whether it goes back to the source that made the item, against the order of the roles.
        settings: More settings of the queue's descriptor.
        node: Which node of the run's own Ray cluster is the home of its queues; the processes of the run are on node 0.
    """

    name: str
    source: str
    target: str
    capacity_bytes: int
    max_items: int = 0
    kind: str = "sage_queue"
    spread: str = "shared"
    routing: str = "turn"
    reply: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)
    node: int = 0


@dataclass(frozen=True, kw_only=True)
class Line:
    """
    One queue of an edge.

    Attributes:
        name: The edge's, with the index of the taker, or of putter and taker, where those have queues of their own.
        edge: Index of the edge.
        source: Index of the one slot that puts; None for all slots of the role.
        target: Index of the one slot that takes; None for all.
    """

    name: str
    edge: int
    source: int | None = None
    target: int | None = None


@dataclass(frozen=True, kw_only=True)
class Topology:
    """
    Roles and edges, in the order in which items flow.

    A role without an incoming edge is a *source* and makes items; one without an outgoing edge is a *sink*. A reply
    goes against the order, back to the source, where its items end.

    Raises:
        ValueError: The graph has a cycle or loose ends, or it is too large; tells all that is wrong.
    """

    name: str
    roles: tuple[Role, ...]
    edges: tuple[Edge, ...]

    def __post_init__(self) -> None:
        problems = [problem for _, problem in self.problems()]
        if problems:
            raise ValueError(f"topology {self.name!r}: " + "; ".join(problems))

    def problems(self) -> Iterable[tuple[tuple[str | int, ...], str]]:
        """All that is wrong with it, not just the first, each with the place: as in ``("edges", 2)``."""
        found = [*self._wrong_roles(), *self._wrong_edges()]
        yield from found
        if not found:
            yield from self._wrong_counts()

    def _wrong_roles(self) -> Iterable[tuple[tuple[str | int, ...], str]]:
        if len({role.name for role in self.roles}) != len(self.roles):
            yield ("roles",), "two roles have the same name"
        for at, role in enumerate(self.roles):
            if role.count < 1:
                yield ("roles", at, "count"), f"role {role.name!r} needs at least one process, not {role.count}"
            if not any(role.name in (edge.source, edge.target) for edge in self.edges):
                yield ("roles", at), f"role {role.name!r} has no edge"
        if self.processes > PROCESSES_AT_MOST:
            yield ("roles",), f"{self.processes:,} processes are too many (limit {PROCESSES_AT_MOST:,})"

    def _wrong_edges(self) -> Iterable[tuple[tuple[str | int, ...], str]]:
        order = {role.name: at for at, role in enumerate(self.roles)}
        if not self.edges:
            yield ("edges",), "there is no edge"
        if len({edge.name for edge in self.edges}) != len(self.edges):
            yield ("edges",), "two edges have the same name"
        for at, edge in enumerate(self.edges):
            unknown = [name for name in (edge.source, edge.target) if name not in order]
            if unknown:
                yield ("edges", at), f"edge {edge.name!r} refers to unknown roles {unknown}"
            elif edge.reply:
                if order[edge.source] <= order[edge.target]:
                    yield ("edges", at), f"reply {edge.name!r} does not run against the order of the roles"
                elif any(other.target == edge.target and not other.reply for other in self.edges):
                    yield ("edges", at), f"reply {edge.name!r} ends at {edge.target!r}, which is no source"
                elif [role.name for role in self.sources] != [edge.target]:
                    yield ("edges", at), f"with the reply {edge.name!r}, {edge.target!r} must be the only source"
            elif order[edge.source] >= order[edge.target]:
                yield ("edges", at), f"edge {edge.name!r} runs against the order of the roles"
        if sum(edge.reply for edge in self.edges) > 1:
            yield ("edges",), "there are two replies"

    def _wrong_counts(self) -> Iterable[tuple[tuple[str | int, ...], str]]:
        if self.queues > QUEUES_AT_MOST:
            yield ("edges",), f"{self.queues:,} queues are too many (limit {QUEUES_AT_MOST:,})"
        for at, role in enumerate(self.roles):
            weights = {self.weight(edge) for edge in self.outputs_of(role.name)}
            if role.send == "deal" and len(weights) > 1:
                yield ("roles", at, "send"), f"role {role.name!r} cannot deal: its edges end {sorted(weights)} times"
        most = max((self.arrivals(role.name) for role in self.sources), default=0)
        if most > ARRIVALS_AT_MOST:
            yield ("edges",), f"an item would arrive {most:,} times (limit {ARRIVALS_AT_MOST:,})"

    # -- Shape --------------------------------------------------------------------------------------------------------

    @property
    def processes(self) -> int:
        """How many run at a time."""
        return sum(role.count for role in self.roles)

    @property
    def queues(self) -> int:
        """How many queues there are."""
        return sum(self._queues_of(edge) for edge in self.edges)

    def _queues_of(self, edge: Edge) -> int:
        if edge.spread == "shared" and not edge.reply:
            return 1
        return self.role(edge.target).count * (self.role(edge.source).count if edge.spread == "pair" else 1)

    def inputs_of(self, role: str) -> tuple[Edge, ...]:
        """The edges that feed a role; none but a reply for a source."""
        return tuple(edge for edge in self.edges if edge.target == role)

    def outputs_of(self, role: str) -> tuple[Edge, ...]:
        """The edges that leave a role; none for a sink."""
        return tuple(edge for edge in self.edges if edge.source == role)

    @property
    def sources(self) -> tuple[Role, ...]:
        """The roles that make items."""
        fed = {edge.target for edge in self.edges if not edge.reply}
        return tuple(role for role in self.roles if role.name not in fed)

    @property
    def sinks(self) -> tuple[Role, ...]:
        """The roles where items end: those that only take, or the source to which replies go."""
        replied = {edge.target for edge in self.edges if edge.reply}
        return tuple(role for role in self.roles if not self.outputs_of(role.name) or role.name in replied)

    def is_source(self, role: str) -> bool:
        """Whether a role makes items."""
        return role in {source.name for source in self.sources}

    def is_exit(self, edge: Edge) -> bool:
        """Whether items end at the end of an edge."""
        return edge.reply or not self.outputs_of(edge.target)

    def role(self, name: str) -> Role:
        """The role of that name."""
        return next(role for role in self.roles if role.name == name)

    # -- Copies of an item --------------------------------------------------------------------------------------------

    @cached_property
    def _arrivals(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for role in reversed(self.roles):
            weights = [1 if edge.reply else found[edge.target] for edge in self.outputs_of(role.name)]
            found[role.name] = (sum(weights) if role.send == "copy" else weights[0]) if weights else 1
        return found

    def arrivals(self, role: str) -> int:
        """How often an item that reaches a role reaches the end of its way, in copies."""
        return self._arrivals[role]

    def weight(self, edge: Edge) -> int:
        """How often an item that goes through an edge reaches the end of its way."""
        return 1 if edge.reply else self.arrivals(edge.target)

    # -- Queues -------------------------------------------------------------------------------------------------------

    @cached_property
    def lines(self) -> tuple[Line, ...]:
        """All queues, edge by edge; history and meters refer to them by index."""
        found: list[Line] = []
        for at, edge in enumerate(self.edges):
            takers, putters = range(self.role(edge.target).count), range(self.role(edge.source).count)
            if edge.spread == "pair":
                found += (
                    Line(name=f"{edge.name}.{source}.{target}", edge=at, source=source, target=target)
                    for source in putters
                    for target in takers
                )
            elif edge.spread == "target" or edge.reply:
                found += (Line(name=f"{edge.name}.{target}", edge=at, target=target) for target in takers)
            else:
                found.append(Line(name=edge.name, edge=at))
        return tuple(found)

    def users_of(self, queues: Iterable[str]) -> set[str]:
        """The slots, as in ``reader-0``, whose processes use these queues."""
        named, found = set(queues), set()
        for line in self.lines:
            edge = self.edges[line.edge]
            for role, only in ((edge.source, line.source), (edge.target, line.target)):
                if line.name in named:
                    found |= {f"{role}-{at}" for at in range(self.role(role).count) if only in (None, at)}
        return found

    def lines_into(self, role: str, index: int) -> list[int]:
        """The queues from which one slot takes."""
        edges = {at for at, edge in enumerate(self.edges) if edge.target == role}
        return [at for at, line in enumerate(self.lines) if line.edge in edges and line.target in (None, index)]

    def lines_from(self, role: str, index: int) -> list[list[int]]:
        """For each edge that leaves a role, the queues into which one slot puts, in the order of the takers."""
        return [
            [at for at, line in enumerate(self.lines) if self.edges[line.edge] is edge and line.source in (None, index)]
            for edge in self.outputs_of(role)
        ]


def chain(name: str, roles: Iterable[Role], edges: Iterable[str], *, capacity_bytes: int) -> Topology:
    """Roles in a row, with a queue between each two neighbours."""
    row = tuple(roles)
    between = zip(edges, row, row[1:], strict=False)
    return Topology(
        name=name,
        roles=row,
        edges=tuple(
            Edge(name=edge, source=left.name, target=right.name, capacity_bytes=capacity_bytes)
            for edge, left, right in between
        ),
    )


def node_name(node: int) -> str:
    """As faults and reports call a node of the run's own Ray cluster."""
    return f"node-{node}"
