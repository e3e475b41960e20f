"""What is expected of queues under faults: from what their kinds declare."""

import pytest

from sage_sim.faults import KINDS
from sage_sim.promises import Fate, Home, fate, gives_all_back, hits_queues, home, is_durable, kinds_hit
from sage_sim.topology import Edge, Role, Topology

ROLES = (Role(name="a", count=2), Role(name="b", count=3))


def edge(kind: str, **settings: object) -> Edge:
    return Edge(name="e", source="a", target="b", capacity_bytes=4096, kind=kind, settings=settings)


@pytest.mark.parametrize(
    ("fault", "kinds"),
    [
        ("damage", ["sage_queue", "shm_queue"]),
        ("kill-inside", ["sage_queue"]),
        ("cut", ["rpc_queue"]),
        ("silence", ["rpc_queue"]),
        ("kill-actor", ["ray_queue"]),
        ("kill-node", ["ray_queue"]),
        ("kill", []),
        ("full", []),
    ],
)
def test_a_fault_hits_queues_by_where_they_live(fault: str, kinds: list[str]) -> None:
    assert kinds_hit(fault) == kinds
    assert hits_queues(fault) == bool(kinds)


def test_a_durable_queue_survives_its_actor_and_no_queue_its_node() -> None:
    assert fate(edge("ray_queue"), "kill-actor") is Fate.GONE
    assert fate(edge("ray_queue", durable=True), "kill-actor") is Fate.KEPT
    assert {fate(edge("ray_queue", durable=durable), "kill-node") for durable in (False, True)} == {Fate.GONE}


def test_a_kind_that_cannot_be_durable_is_not_whatever_its_settings_say() -> None:
    assert is_durable(edge("ray_queue", durable=True))
    assert not is_durable(edge("ray_queue"))
    assert not is_durable(edge("shm_queue", durable=True))
    assert not is_durable(edge("multiprocessing", durable=True))


def test_queues_of_others_promise_nothing() -> None:
    foreign = edge("multiprocessing")

    assert home(foreign) is Home.CARRIED
    assert {fate(foreign, fault) for fault in KINDS} == {Fate.SPARED}


def test_only_kinds_in_memory_give_back_all_that_they_opened() -> None:
    memory = [edge("sage_queue"), edge("shm_queue")]

    assert gives_all_back(memory)
    assert [gives_all_back([*memory, edge(kind)]) for kind in ("rpc_queue", "ray_queue", "multiprocessing")] == [
        False
    ] * 3


@pytest.mark.parametrize(
    ("spread", "queue", "users"),
    [
        ("shared", "e", {"a-0", "a-1", "b-0", "b-1", "b-2"}),
        ("target", "e.1", {"a-0", "a-1", "b-1"}),
        ("pair", "e.1.2", {"a-1", "b-2"}),
    ],
)
def test_a_queue_is_used_by_those_at_its_ends(spread: str, queue: str, users: set[str]) -> None:
    made = Edge(name="e", source="a", target="b", capacity_bytes=4096, spread=spread)

    assert Topology(name="t", roles=ROLES, edges=(made,)).users_of([queue]) == users
