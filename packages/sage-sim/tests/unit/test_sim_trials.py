"""What needs many runs, with runs that are made up: comparing, searching, shrinking, drawing; and what a run needs."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from sage_sim.comparing import Compared, rounds
from sage_sim.faults import parse_faults
from sage_sim.fuzzing import drawn
from sage_sim.needs import missing, needs_of, unmet
from sage_sim.outputs.charts import Chart, ticks
from sage_sim.presets import PRESETS
from sage_sim.request import Request, adapted
from sage_sim.scenario import Scenario
from sage_sim.searching import highest_rate
from sage_sim.shrinking import shrunk, smaller


def test_every_kind_runs_once_in_each_round_and_every_second_round_is_the_one_before_backwards() -> None:
    order = list(rounds(["a", "b", "c"], 4, seed=1))

    each = [[kind for number, kind in order if number == turn] for turn in range(4)]
    assert all(sorted(turn) == ["a", "b", "c"] for turn in each)
    assert each[1] == each[0][::-1]
    assert each[3] == each[2][::-1]
    assert order == list(rounds(["a", "b", "c"], 4, seed=1)) != list(rounds(["a", "b", "c"], 4, seed=3))


def test_the_ratio_is_the_median_of_the_rounds() -> None:
    made = Compared(kind="a", rates=(1, 2, 3), p50_us=(), p99_us=(), ratios=(0.5, 9.0, 1.1), wrong=())

    assert made.ratio == 1.1


@pytest.mark.parametrize("limit", [0.7, 90.0, 500.0, 12_345.0])
def test_the_highest_rate_is_found_from_either_side(limit: float) -> None:
    rate, steps = highest_rate(lambda rate: rate <= limit, start=500, precision=0.05)

    assert limit / 1.05 <= rate <= limit
    assert len(steps) < 25
    assert rate == max(step.rate for step in steps if step.is_sustained)


def test_a_search_ends_where_nothing_or_everything_can_be_sustained() -> None:
    assert highest_rate(lambda rate: False, start=1000)[0] == 0
    assert highest_rate(lambda rate: True, start=1000, most=10_000)[0] == 8000


def processes(scenario: Scenario) -> int:
    return scenario.topology().processes


def test_what_fails_is_made_as_small_as_it_goes() -> None:
    big = adapted(PRESETS["shuffle"].scenario({"workers": 5}), faults=parse_faults("kill:1,stop@1=reducer,slow:2"))

    def fails(one: Scenario) -> bool:
        roles = {role.name for role in one.roles}
        return "reducer" in roles and any(fault.kind == "stop" for fault in one.faults)

    least, used = shrunk(big, fails, tries=200)

    assert [fault.kind for fault in least.faults] == ["stop"]
    assert processes(least) == 2
    assert (len(least.edges), least.edges[0].spread, least.payload.size_bytes) == (1, "shared", 8)
    assert used < 200
    assert list(least.problems()) == []


def test_shrinking_stops_after_so_many_tries() -> None:
    assert shrunk(PRESETS["pipeline"].scenario(), lambda one: True, tries=3)[1] == 3


@pytest.mark.parametrize("preset", PRESETS)
def test_whatever_is_made_smaller_is_sound(preset: str) -> None:
    scenario = PRESETS[preset].scenario()
    candidates = list(smaller(scenario))

    assert candidates
    assert all(list(one.problems()) == [] and one != scenario for one in candidates)


@pytest.mark.parametrize("seed", range(100))
def test_every_drawn_scenario_is_sound_and_follows_from_its_seed(seed: int) -> None:
    made = drawn(seed, ("sage_queue", "shm_queue"), items=100)

    assert list(made.problems()) == []
    assert made == drawn(seed, ("sage_queue", "shm_queue"), items=100)


def requested(preset: str, **counts: int) -> Request:
    return Request(target=preset, scenario=PRESETS[preset].scenario(counts), seed=1)


def test_needs_grow_with_what_a_run_has() -> None:
    small, large = requested("shuffle"), requested("shuffle", workers=60, consumers=60)

    before, after = ({need.what: need.needed for need in needs_of(request, Path())} for request in (small, large))

    assert all(before[what] <= needed for what, needed in after.items())
    assert after["queues"] == 3601
    assert after["MiB of shared memory"] > 200


def test_what_does_not_fit_is_told() -> None:
    needs = needs_of(replace(requested("fan-in", producers=300), most_memory_bytes=64 << 20), Path())

    assert unmet(needs) == [
        "needs 301 processes, and there are 200 (--max-procs raises it)",
        *(text for text in unmet(needs) if "MiB of memory, and there are 64" in text),
    ]


def test_more_queues_than_a_run_can_have_are_told() -> None:
    needs = needs_of(requested("shuffle", workers=200, consumers=200), Path())

    assert "needs 40,001 queues, and there are 20,000" in unmet(needs)


def test_a_library_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "zmq", None)
    scenario = adapted(PRESETS["fan-in"].scenario(), backend="rpc_queue")

    assert missing(scenario.plan(1), None) == ["queues of the kind rpc_queue need pyzmq: pip install pyzmq"]


@pytest.mark.parametrize("highest", [0.003, 0.9, 1.0, 7.0, 99.0, 12_345.0, 4e6])
def test_ticks_are_few_round_and_even(highest: float) -> None:
    made = ticks(highest)

    assert 3 <= len(made) <= 6
    assert made[0] == 0 <= made[-1] <= highest
    assert len({round(after - before, 9) for before, after in pairwise(made)}) == 1


def test_a_chart_has_a_line_for_each_name_and_a_mark_for_each_fault() -> None:
    chart = Chart(
        title="rate <1>",
        unit="x",
        lines={"a": [(0, 1), (1, 2)], "b": [(0, 0), (1, 1)]},
        marks=[(0.5, "kill a-0")],
        spans=[(0.2, 0.4, "stop b-0")],
    )

    drawn_svg = chart.svg()

    assert (drawn_svg.count("<polyline"), drawn_svg.count('class="mark"'), drawn_svg.count('class="span"')) == (2, 1, 1)
    assert "rate &lt;1&gt;" in drawn_svg
    assert chart.legend().count("<li>") == 2
