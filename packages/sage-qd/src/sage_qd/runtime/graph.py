"""
The graph of a job: what the user wrote (transformations), and what runs (nodes, one for each parallel instance).

Each logical edge gives every upstream instance one broadcast group, which holds an edge to each downstream instance. A
packet goes to every group, and within a group to one edge or to all, as the group's partition says. A *path* is one
edge between two instances, numbered at its downstream end; stop signals are counted by path.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

from sage_qd.errors import GraphError
from sage_qd.runtime.operators import Operator

__all__ = [
    "ErrorPolicy",
    "ExecutionGraph",
    "GraphNode",
    "Input",
    "ParallelEdge",
    "Partition",
    "ServiceNode",
    "Transformation",
    "path_name",
]

Partition: TypeAlias = Literal["round_robin", "hash", "broadcast"] | Callable[[Any, Any, int], int]
"""How a group chooses an edge: in turn, by key, all of them, or ``function(payload, key, edges) -> index``."""

DEFAULT_BUFFER: Final = 64


@dataclass(frozen=True, kw_only=True)
class ErrorPolicy:
    """
    What becomes of a packet on which the operator raises.

    Attributes:
        kind: ``fail`` ends the job with the error; ``skip`` counts it and keeps the packet as a dead letter.
        retries: How often the operator is tried again first.
    """

    kind: Literal["fail", "skip"] = "fail"
    retries: int = 0

    @classmethod
    def of(cls, text: str) -> "ErrorPolicy":
        """
        Read ``fail``, ``skip``, ``retry(n)`` or ``retry(n), skip``.

        Raises:
            ValueError: It is none of these.
        """
        first, _, last = (part.strip() for part in text.partition(","))
        if (
            first.startswith("retry(")
            and first.endswith(")")
            and first[6:-1].isdigit()
            and last in ("", "fail", "skip")
        ):
            return cls(kind="skip" if last == "skip" else "fail", retries=int(first[6:-1]))
        if first in ("fail", "skip") and not last:
            return cls(kind="skip" if first == "skip" else "fail")
        raise ValueError(f"on_error must be 'fail', 'skip', 'retry(n)' or 'retry(n), skip', not {text!r}")


@dataclass(eq=False, kw_only=True)
class Transformation:
    """
    One step that the user wrote.

    Attributes:
        name: Unique in the job.
        factory: Makes the operator of one instance.
        parallelism: How many instances run.
        inputs: Where packets come from; the place in the list is the ``input_index``.
        buffer_size: Batches that the input queue of an instance holds.
        on_error: What becomes of a packet on which the operator raises.
        restarts: How often an instance is started again after it was killed; None for as often as the job says.
        is_source: Whether it makes packets by itself, and has no inputs.
        is_result: Whether its packets are handed to the driver; it runs no task.
        is_by_key: Whether it keeps something for each key, so that all packets of a key must reach one instance.
    """

    name: str
    factory: Callable[[], Operator]
    parallelism: int = 1
    inputs: list["Input"] = field(default_factory=list)
    buffer_size: int = DEFAULT_BUFFER
    on_error: ErrorPolicy = field(default_factory=ErrorPolicy)
    restarts: int | None = None
    is_source: bool = False
    is_result: bool = False
    is_by_key: bool = False


@dataclass(frozen=True)
class Input:
    """One logical edge, seen from its end."""

    upstream: Transformation
    partition: Partition = "round_robin"


@dataclass(frozen=True, eq=False)
class ParallelEdge:
    """
    One path between two instances.

    Attributes:
        upstream_node: Who sends.
        downstream_node: Who receives.
        input_index: Which input of the receiver this is.
        path: Its number among the paths of the receiver.
    """

    upstream_node: "GraphNode"
    downstream_node: "GraphNode"
    input_index: int
    path: int


@dataclass(eq=False)
class GraphNode:
    """
    One instance of a transformation.

    Attributes:
        name: ``<transformation>_<parallel index>``.
        transformation: What it is an instance of.
        parallel_index: Which one, from 0.
        output_channels: Broadcast groups, each with its edges and how one of them is chosen.
        input_edges: The paths that end here, by number.
    """

    name: str
    transformation: Transformation
    parallel_index: int
    output_channels: list[list[ParallelEdge]] = field(default_factory=list)
    partitions: list[Partition] = field(default_factory=list)
    input_edges: list[ParallelEdge] = field(default_factory=list)

    @property
    def parallelism(self) -> int:
        """How many instances the transformation has."""
        return self.transformation.parallelism

    @property
    def buffer_size(self) -> int:
        """Batches that its input queue holds."""
        return self.transformation.buffer_size

    @property
    def stop_signal_num(self) -> int:
        """How many stop signals it waits for: one for each path that ends here."""
        return len(self.input_edges)


@dataclass(frozen=True, eq=False)
class ServiceNode:
    """A service: ``factory()`` makes the object whose methods are called; restarts are those of a step."""

    name: str
    factory: Callable[[], object]
    restarts: int | None = None


class ExecutionGraph:
    """
    The instances of all transformations and the paths between them, in an order in which every node comes after those
    before it.

    Args:
        transformations: Every step of the job, in any order.
        services: The services that tasks may call.

    Raises:
        GraphError: There is a cycle, an input that is no step of the job, a name used twice, a step without input or
            with an impossible parallelism or number of restarts, or one that works by key, is parallel, and gets
            packets without keys; it names the node.
    """

    def __init__(self, transformations: Iterable[Transformation], services: Iterable[ServiceNode] = ()) -> None:
        steps = list(transformations)
        self.services: dict[str, ServiceNode] = {}
        for service in services:
            if service.name in self.services:
                raise GraphError(node=service.name, reason="two services have this name")
            _check_restarts(service.name, service.restarts)
            self.services[service.name] = service
        _check(steps)
        self.nodes: dict[str, GraphNode] = {}
        instances: dict[int, list[GraphNode]] = {}
        for step in _in_order(steps):
            made = [GraphNode(f"{step.name}_{index}", step, index) for index in range(step.parallelism)]
            instances[id(step)] = made
            for node in made:
                self.nodes[node.name] = node
            for index, source in enumerate(step.inputs):
                _connect(instances[id(source.upstream)], made, index, source.partition)


def path_name(source: GraphNode, target: GraphNode, path: int) -> str:
    """
    Return the name of the queue of a path, by the number that the path has at its end.

    Raises:
        GraphError: No such path starts there.
    """
    edge = target.input_edges[path]
    for group, edges in enumerate(source.output_channels):
        if edge in edges:
            return f"{source.name}_to_{target.name}_{group}_{edges.index(edge)}"
    raise GraphError(node=target.name, reason=f"it has no path from {source.name!r}")


def _connect(upstream: Sequence[GraphNode], downstream: Sequence[GraphNode], index: int, partition: Partition) -> None:
    for sender in upstream:
        group = []
        for receiver in downstream:
            edge = ParallelEdge(sender, receiver, index, len(receiver.input_edges))
            receiver.input_edges.append(edge)
            group.append(edge)
        sender.output_channels.append(group)
        sender.partitions.append(partition)


def _check(steps: list[Transformation]) -> None:
    names: set[str] = set()
    known = {id(step) for step in steps}
    for step in steps:
        if not step.name:
            raise GraphError(node=step.name, reason="it has no name")
        if step.name in names:
            raise GraphError(node=step.name, reason="two steps have this name")
        names.add(step.name)
        if type(step.parallelism) is not int or not 1 <= step.parallelism <= 1000:
            raise GraphError(node=step.name, reason=f"parallelism must be 1 to 1,000, not {step.parallelism!r}")
        _check_restarts(step.name, step.restarts)
        if step.is_source and step.inputs:
            raise GraphError(node=step.name, reason="a source has no inputs")
        if not step.is_source and not step.inputs:
            raise GraphError(node=step.name, reason="nothing is connected to it")
        for source in step.inputs:
            if id(source.upstream) not in known:
                raise GraphError(node=step.name, reason=f"its input {source.upstream.name!r} is no step of this job")
            if step.is_by_key and step.parallelism > 1 and source.partition == "round_robin":
                reason = f"its instances share packets of {source.upstream.name!r} without keys: call keyby() before"
                raise GraphError(node=step.name, reason=reason)


def _check_restarts(name: str, restarts: int | None) -> None:
    if restarts is not None and (type(restarts) is not int or restarts < 0):
        raise GraphError(node=name, reason=f"restarts must be 0 or more, or None, not {restarts!r}")


def _in_order(steps: list[Transformation]) -> list[Transformation]:
    """Sort so that everything comes after its inputs."""
    ordered: list[Transformation] = []
    done: set[int] = set()
    left = list(steps)
    while left:
        ready = [step for step in left if all(id(source.upstream) in done for source in step.inputs)]
        if not ready:
            raise GraphError(node=left[0].name, reason=f"there is a cycle through {', '.join(s.name for s in left)}")
        ordered += ready
        done.update(map(id, ready))
        left = [step for step in left if id(step) not in done]
    return ordered
