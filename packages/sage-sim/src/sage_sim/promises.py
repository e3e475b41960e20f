"""
What the queues of an edge promise when something is broken: it follows from the capabilities that their kind declares.

Whoever expects something of a fault asks here: which queues it can hit, whether they go on or are gone by it for good,
and whether messages may come again because of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any, Final, Protocol

from sage_qd import (
    BaseQueueDescriptor,
    RayQueueDescriptor,
    Reach,
    RPCQueueDescriptor,
    SageQueueDescriptor,
    SharedMemoryQueueDescriptor,
)
from sage_sim.faults import PEER_KINDS
from sage_sim.topology import Edge

DESCRIPTORS: Final[dict[str, type[BaseQueueDescriptor]]] = {
    "sage_queue": SageQueueDescriptor,
    "shm_queue": SharedMemoryQueueDescriptor,
    "rpc_queue": RPCQueueDescriptor,
    "ray_queue": RayQueueDescriptor,
}
"""The kinds of this project that reach other processes; kinds of others promise nothing but to work."""
REDELIVERING: Final = (*PEER_KINDS, "kill-actor")
"""Faults that may take from each consumer what it holds, and give it again, marked."""


class Home(Enum):
    """Where a queue lives."""

    MEMORY = "in memory that its users share"
    SERVER = "at a server"
    ACTOR = "in an actor of Ray"
    CARRIED = "in objects that are carried to each process"


class Fate(Enum):
    """What becomes of a queue."""

    SPARED = "not hit at all"
    KEPT = "goes on, with all that it accepted"
    GONE = "gone for good, and whoever uses it is told"


class Kindred(Protocol):
    """What is asked about: an edge, or a part of a scenario that becomes one."""

    @property
    def kind(self) -> str: ...  # noqa: D102
    @property
    def settings(self) -> Mapping[str, Any]: ...  # noqa: D102


_HIT: Final = {"damage": Home.MEMORY, "kill-inside": Home.MEMORY, "kill-actor": Home.ACTOR, "kill-node": Home.ACTOR} | (
    dict.fromkeys(PEER_KINDS, Home.SERVER)
)
"""Faults that hit queues, or the way to them, and where those live; all others hit processes, or the whole host."""


def home(edge: Kindred) -> Home:
    """Where the queues of an edge live."""
    named = DESCRIPTORS.get(edge.kind)
    if named is None or named.capabilities is None:
        return Home.CARRIED
    if named.capabilities.reach is not Reach.HOSTS:
        return Home.MEMORY
    return Home.ACTOR if issubclass(named, RayQueueDescriptor) else Home.SERVER


def gives_all_back(edges: Iterable[Kindred]) -> bool:
    """Whether a process that is done with these queues has the descriptors and threads that it had before."""
    return all(home(edge) is Home.MEMORY for edge in edges)  # the libraries of others keep some as long as it lives


def needs_cluster(edge: Kindred) -> bool:
    """Whether the processes of an edge have to join a Ray cluster."""
    return home(edge) is Home.ACTOR or edge.kind == "ray_util_queue"


def is_durable(edge: Kindred) -> bool:
    """Whether what its queues accepted outlives everybody who uses them."""
    named = DESCRIPTORS.get(edge.kind)
    can = named is not None and named.capabilities is not None and named.capabilities.durable
    return can and bool(edge.settings.get("durable"))


def fate(edge: Kindred, fault: str) -> Fate:
    """
    What becomes of a queue of an edge that is hit by a fault.

    Args:
        edge: The edge.
        fault: The kind of the fault. A node that dies hits the queues whose home it is.
    """
    if home(edge) is not _HIT.get(fault) or (fault == "kill-inside" and edge.kind != SageQueueDescriptor.queue_type):
        return Fate.SPARED
    if fault in ("damage", "kill-node") or (fault == "kill-actor" and not is_durable(edge)):
        return Fate.GONE
    return Fate.KEPT


def hits_queues(fault: str) -> bool:
    """Whether a fault needs queues of certain kinds."""
    return fault in _HIT


def kinds_hit(fault: str) -> list[str]:
    """The kinds of queue that a fault can hit."""
    edges = [Edge(name="", source="", target="", capacity_bytes=0, kind=kind) for kind in DESCRIPTORS]
    return [edge.kind for edge in edges if fate(edge, fault) is not Fate.SPARED]
