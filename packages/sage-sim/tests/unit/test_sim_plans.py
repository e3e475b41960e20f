"""Topologies, presets, plans and fault plans."""

from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from sage_sim.faults import Fault, Faults, parse_faults, strikes
from sage_sim.plan import Plan
from sage_sim.presets import PRESETS, Preset
from sage_sim.topology import Edge, Role, Topology, chain
from sage_sim.workloads import WORKLOADS


def edge(name: str, source: str, target: str, **more: Any) -> Edge:
    return Edge(name=name, source=source, target=target, capacity_bytes=4096, **more)


def plan(**changes: object) -> Plan:
    topology = chain("row", [Role(name="a", count=3), Role(name="b", count=1)], ["ab"], capacity_bytes=4096)
    fields: dict[str, object] = {
        "topology": topology,
        "workload": "blobs",
        "seed": 1,
        "items": 10,
        "duration_seconds": None,
        "queues": {"ab": "{}"},
    }
    return Plan(**(fields | changes))  # type: ignore[arg-type]


def diamond(send: str = "copy") -> Topology:
    return Topology(
        name="diamond",
        roles=(Role(name="a", count=1, send=send), *(Role(name=name, count=2) for name in "bcd")),
        edges=(edge("ab", "a", "b"), edge("ac", "a", "c"), edge("bd", "b", "d"), edge("cd", "c", "d")),
    )


def test_a_chain_joins_neighbours() -> None:
    topology = chain(
        "row",
        [Role(name="a", count=1), Role(name="b", count=2), Role(name="c", count=1)],
        ["ab", "bc"],
        capacity_bytes=4096,
    )

    assert topology.edges == (edge("ab", "a", "b"), edge("bc", "b", "c"))
    assert topology.inputs_of("a") == ()
    assert topology.inputs_of("b") == (edge("ab", "a", "b"),)
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
        ([("a", 99_500), ("b", 501)], [("e", "a", "b")], "100,001 processes are too many"),
        ([("a", 1), ("b", 1)], [("e", "a", "x")], "unknown roles"),
        ([("a", 1), ("b", 1)], [("e", "b", "a")], "runs against the order"),
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


def test_items_that_meet_again_arrive_once_for_each_way() -> None:
    topology = diamond()

    assert (topology.arrivals("a"), topology.arrivals("b"), topology.arrivals("d")) == (2, 1, 1)
    assert [topology.weight(one) for one in topology.edges] == [1, 1, 1, 1]
    assert diamond("deal").arrivals("a") == 1


def test_a_role_cannot_deal_to_ways_of_different_width() -> None:
    with pytest.raises(ValueError, match=r"role 'a' cannot deal: its edges end \[1, 2\] times"):
        Topology(
            name="uneven",
            roles=(Role(name="a", count=1, send="deal"), *(Role(name=name, count=1) for name in "bcd")),
            edges=(
                *(edge("ab", "a", "b"), edge("ac", "a", "c"), edge("bd", "b", "d")),
                *(edge("bc", "c", "d"), edge("bx", "b", "d")),
            ),
        )


@pytest.mark.parametrize(
    ("spread", "names"),
    [
        ("shared", ["ab"]),
        ("target", ["ab.0", "ab.1", "ab.2"]),
        ("pair", ["ab.0.0", "ab.0.1", "ab.0.2", "ab.1.0", "ab.1.1", "ab.1.2"]),
    ],
)
def test_an_edge_has_as_many_queues_as_its_spread_says(spread: str, names: list[str]) -> None:
    topology = Topology(
        name="spread",
        roles=(Role(name="a", count=2), Role(name="b", count=3)),
        edges=(edge("ab", "a", "b", spread=spread),),
    )

    assert [line.name for line in topology.lines] == names
    assert topology.queues == len(names)
    assert all(names[at].endswith("1") or spread == "shared" for at in topology.lines_into("b", 1))
    assert [len(way) for way in topology.lines_from("a", 1)] == [3 if spread != "shared" else 1]


def test_replies_end_at_their_source_in_queues_of_its_processes() -> None:
    topology = Topology(
        name="service",
        roles=(Role(name="client", count=2), Role(name="server", count=1)),
        edges=(edge("ask", "client", "server"), edge("answer", "server", "client", reply=True)),
    )

    assert [role.name for role in topology.sources] == [role.name for role in topology.sinks] == ["client"]
    assert [line.name for line in topology.lines] == ["ask", "answer.0", "answer.1"]
    assert [topology.is_exit(one) for one in topology.edges] == [False, True]


@pytest.mark.parametrize(
    ("edges", "problem"),
    [
        ([edge("back", "client", "server", reply=True)], "does not run against the order"),
        ([edge("back", "end", "server", reply=True)], "which is no source"),
    ],
)
def test_a_reply_that_goes_anywhere_else_is_refused(edges: list[Edge], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        Topology(
            name="wrong",
            roles=tuple(Role(name=name, count=1) for name in ("client", "server", "end")),
            edges=(edge("ask", "client", "server"), edge("on", "server", "end"), *edges),
        )


@pytest.mark.parametrize("preset", PRESETS.values(), ids=lambda preset: preset.name)
def test_every_preset_makes_a_sound_scenario(preset: Preset) -> None:
    scenario = preset.scenario()

    assert list(scenario.problems()) == []
    assert scenario.workload in WORKLOADS
    assert scenario.topology().processes >= sum(preset.counts.values())


@pytest.mark.parametrize("seed", range(200))
def test_every_drawn_graph_is_one(seed: int) -> None:
    topology = PRESETS["random-dag"].scenario({"workers": 2 + seed % 12}, seed=seed).topology()

    assert all(topology.inputs_of(role.name) for role in topology.roles[1:])


def test_a_drawn_graph_follows_from_its_seed() -> None:
    draw = PRESETS["random-dag"].scenario

    assert draw(seed=1) == draw(seed=1) != draw(seed=2)


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


@pytest.mark.parametrize(
    "text",
    [
        "kill:2",
        "kill:2.5,stop:1",
        "kill@1.5=reader",
        "stop@0.5=reader-0/2",
        "slow:1*20",
        "cut@3/0.2",
        "throttle@1*5000",
        "kill-node@1=node-1",
    ],
)
def test_faults_are_written_as_they_are_read(text: str) -> None:
    assert str(parse_faults(text)) == text


def test_what_the_user_leaves_open_is_decided() -> None:
    assert parse_faults("kill") == Faults(each=(Fault(kind="kill", rate=2.0),))
    assert parse_faults("stop@1") == Faults(each=(Fault(kind="stop", at=1.0, seconds=0.3),))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("kil", "did you mean 'kill'"),
        ("explode", "unknown faults 'explode'"),
        ("kill:", "unknown faults"),
        ("kill:fast", "unknown faults"),
        ("kill:1.2.3", "is not a number"),
        ("kill:0", "above 0"),
        ("kill:101", "at most 100"),
        ("damage:1", "needs a moment"),
        ("kill-node:1", "needs a moment"),
        ("kill,,stop", "unknown faults ''"),
    ],
)
def test_other_faults_are_refused(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        parse_faults(text)


def test_strikes_follow_from_the_seed() -> None:
    faults, slots = parse_faults("kill:5"), ["a-0", "a-1", "b-0"]

    first, again, other = (list(islice(strikes(faults, seed, slots), 200)) for seed in (1, 1, 2))

    assert first == again
    assert first != other
    assert {strike.slot for strike in first} == set(slots)
    assert [strike.after_seconds for strike in first] == sorted(strike.after_seconds for strike in first)
    assert first[-1].after_seconds / 200 == pytest.approx(1 / 5, rel=0.3)


def test_planned_and_random_strikes_come_in_the_order_of_time() -> None:
    plan = list(islice(strikes(parse_faults("stop@0.25=b,kill:4=a-1"), 1, ["a-0", "a-1", "b-0"]), 20))

    assert [strike.after_seconds for strike in plan] == sorted(strike.after_seconds for strike in plan)
    assert [strike.slot for strike in plan if strike.fault.kind == "stop"] == ["b-0"]
    assert {strike.slot for strike in plan if strike.fault.kind == "kill"} == {"a-1"}
