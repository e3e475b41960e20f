"""What a run consists of: roles with their number of processes, and the queues between them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

PROCESSES_AT_MOST = 200
"""Bound of one run: so many processes start in seconds, and fit into the memory of a small machine."""


@dataclass(frozen=True, kw_only=True)
class Role:
    """Processes that all do the same; which work that is, follows from the edges and the workload."""

    name: str
    count: int


@dataclass(frozen=True, kw_only=True)
class Edge:
    """
    One queue: every process of `source` puts into it, every process of `target` takes from it.

    Attributes:
        name: Of the queue, in tables and in the history.
        source: Name of the role that puts.
        target: Name of the role that takes.
        capacity_bytes: Size of the queue's data region.
    """

    name: str
    source: str
    target: str
    capacity_bytes: int


@dataclass(frozen=True, kw_only=True)
class Topology:
    """
    Roles and edges without a cycle, in the order in which items flow.

    A role without an incoming edge is a *source* and makes items; one without an outgoing edge is a *sink*; the others
    turn each item they take into one item for each edge that leaves them.

    Raises:
        ValueError: A role is fed by more than one edge, the graph has a cycle or loose ends, or it is too large.
    """

    name: str
    roles: tuple[Role, ...]
    edges: tuple[Edge, ...]

    def __post_init__(self) -> None:
        problems = list(self._problems())
        if problems:
            raise ValueError(f"topology {self.name!r}: " + "; ".join(problems))

    def _problems(self) -> Iterable[str]:
        """All that is wrong with it, not just the first."""
        order = {role.name: at for at, role in enumerate(self.roles)}
        if len(order) != len(self.roles):
            yield "two roles have the same name"
        if len({edge.name for edge in self.edges}) != len(self.edges):
            yield "two edges have the same name"
        for role in self.roles:
            if role.count < 1:
                yield f"role {role.name!r} needs at least one process, not {role.count}"
        if self.processes > PROCESSES_AT_MOST:
            yield f"{self.processes} processes are too many (limit {PROCESSES_AT_MOST})"
        for edge in self.edges:
            unknown = [name for name in (edge.source, edge.target) if name not in order]
            if unknown:
                yield f"edge {edge.name!r} refers to unknown roles {unknown}"
            elif order[edge.source] >= order[edge.target]:
                yield f"edge {edge.name!r} runs against the order of the roles"
        for role in self.roles:
            incoming = [edge.name for edge in self.edges if edge.target == role.name]
            if len(incoming) > 1:
                yield f"role {role.name!r} is fed by {len(incoming)} edges {incoming}; a process takes from one queue"
            if not incoming and not self.outputs_of(role.name):
                yield f"role {role.name!r} has no edge"

    @property
    def processes(self) -> int:
        """How many run at a time."""
        return sum(role.count for role in self.roles)

    def input_of(self, role: str) -> Edge | None:
        """The edge that feeds a role; None for a source."""
        return next((edge for edge in self.edges if edge.target == role), None)

    def outputs_of(self, role: str) -> tuple[Edge, ...]:
        """The edges that leave a role; none for a sink."""
        return tuple(edge for edge in self.edges if edge.source == role)

    @property
    def sources(self) -> tuple[Role, ...]:
        """The roles that make items."""
        return tuple(role for role in self.roles if self.input_of(role.name) is None)

    @property
    def sinks(self) -> tuple[Role, ...]:
        """The roles where items end."""
        return tuple(role for role in self.roles if not self.outputs_of(role.name))

    def role(self, name: str) -> Role:
        """The role of that name."""
        return next(role for role in self.roles if role.name == name)


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
