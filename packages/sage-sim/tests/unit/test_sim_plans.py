"""Topologies, presets, plans and fault plans."""

from itertools import islice
from pathlib import Path

import pytest

from sage_sim.faults import Faults, parse_faults, strikes
from sage_sim.plan import Plan
from sage_sim.presets import PRESETS, Preset
from sage_sim.topology import Edge, Role, Topology, chain
from sage_sim.workloads import WORKLOADS


def edge(name: str, source: str, target: str) -> Edge:
    return Edge(name=name, source=source, target=target, capacity_bytes=4096)


def plan(**changes: object) -> Plan:
    topology = chain("row", [Role(name="a", count=3), Role(name="b", count=1)], ["ab"], capacity_bytes=4096)
    fields: dict[str, object] = {
        "topology": topology,
        "workload": "blobs",
        "seed": 1,
        "items": 10,
        "duration_seconds": None,
        "payload_bytes": 8,
        "queues": {"ab": "{}"},
    }
    return Plan(**(fields | changes))  # type: ignore[arg-type]


def test_a_chain_joins_neighbours() -> None:
    topology = chain(
        "row",
        [Role(name="a", count=1), Role(name="b", count=2), Role(name="c", count=1)],
        ["ab", "bc"],
        capacity_bytes=4096,
    )

    assert topology.edges == (edge("ab", "a", "b"), edge("bc", "b", "c"))
    assert topology.input_of("a") is None
    assert topology.input_of("b") == edge("ab", "a", "b")
    assert topology.outputs_of("c") == ()
    assert [role.name for role in topology.sources] == ["a"]
    assert [role.name for role in topology.sinks] == ["c"]
    assert topology.processes == 4


@pytest.mark.parametrize(
    ("roles", "edges", "problem"),
    [
        ([("a", 1), ("a", 1)], [], "two roles have the same name"),
        ([("a", 1), ("b", 1)], [("e", "a", "b"), ("e", "a", "b")], "two edges have the same name"),
        ([("a", 0), ("b", 1)], [("e", "a", "b")], "needs at least one process, not 0"),
        ([("a", 150), ("b", 51)], [("e", "a", "b")], "201 processes are too many"),
        ([("a", 1), ("b", 1)], [("e", "a", "x")], "unknown roles"),
        ([("a", 1), ("b", 1)], [("e", "b", "a")], "runs against the order"),
        ([("a", 1), ("b", 1), ("c", 1)], [("e", "a", "c"), ("f", "b", "c")], "fed by 2 edges"),
        ([("a", 1), ("b", 1), ("c", 1)], [("e", "a", "b")], "role 'c' has no edge"),
    ],
)
def test_a_topology_that_cannot_run_is_refused(
    roles: list[tuple[str, int]], edges: list[tuple[str, str, str]], problem: str
) -> None:
    with pytest.raises(ValueError, match=problem):
        Topology(
            name="wrong",
            roles=tuple(Role(name=name, count=count) for name, count in roles),
            edges=tuple(edge(*ends) for ends in edges),
        )


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(ValueError, match=r"needs at least one.*needs at least one"):
        chain("wrong", [Role(name="a", count=0), Role(name="b", count=-1)], ["ab"], capacity_bytes=4096)


@pytest.mark.parametrize("preset", PRESETS.values(), ids=lambda preset: preset.name)
def test_every_preset_makes_a_topology_and_names_a_workload(preset: Preset) -> None:
    topology = preset.build(preset.counts, 4096)

    assert topology.processes == sum(preset.counts.values())
    assert preset.workload in WORKLOADS


def test_items_are_shared_among_sources_without_a_rest() -> None:
    shares = [plan().share(origin) for origin in range(3)]

    assert shares == [4, 3, 3]


def test_sources_have_no_share_when_only_time_bounds_them() -> None:
    assert plan(items=None, duration_seconds=1.0).share(0) is None


def test_every_source_slot_has_an_origin_of_its_own() -> None:
    topology = Topology(
        name="two",
        roles=(Role(name="a", count=2), Role(name="b", count=3), Role(name="c", count=1), Role(name="d", count=1)),
        edges=(edge("ac", "a", "c"), edge("bd", "b", "d")),
    )
    two = plan(topology=topology)

    assert [two.origin_of("a", 0), two.origin_of("a", 1)] == [0, 1]
    assert [two.origin_of("b", index) for index in range(3)] == [2, 3, 4]
    assert two.origins == 5


def test_a_plan_comes_back_from_its_file(tmp_path: Path) -> None:
    plan().write(tmp_path / "plan.json")

    assert Plan.read(tmp_path / "plan.json") == plan()


def test_faults_are_read_as_the_user_writes_them() -> None:
    assert parse_faults("kill") == Faults(kills_per_second=2.0)
    assert parse_faults("kill:2.5") == Faults(kills_per_second=2.5)
    assert parse_faults(str(Faults(kills_per_second=0.5))) == Faults(kills_per_second=0.5)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("kil", "did you mean 'kill'"),
        ("stop", "unknown faults 'stop'"),
        ("kill:", "unknown faults"),
        ("kill:fast", "unknown faults"),
        ("kill:1.2.3", "is not a number"),
        ("kill:0", "above 0"),
        ("kill:101", "at most 100"),
    ],
)
def test_other_faults_are_refused(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        parse_faults(text)


def test_strikes_follow_from_the_seed() -> None:
    faults, slots = Faults(kills_per_second=5), ["a-0", "a-1", "b-0"]

    first, again, other = (list(islice(strikes(faults, seed, slots), 200)) for seed in (1, 1, 2))

    assert first == again
    assert first != other
    assert {strike.slot for strike in first} == set(slots)
    assert [strike.after_seconds for strike in first] == sorted(strike.after_seconds for strike in first)
    assert first[-1].after_seconds / 200 == pytest.approx(1 / 5, rel=0.3)
