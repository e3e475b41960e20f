"""The statistics of the gate, on rounds that are made up from a seed."""

import random
from collections import Counter
from math import exp

import pytest

from sage_sim.gate.findings import Finding, exit_code
from sage_sim.gate.rounds import SIDES, Ending, Limits, Round, Sample, Timing, judged, measured, order, settled
from sage_sim.gate.rules import Shape
from sage_sim.gate.shapes import shaped
from sage_sim.gate.statistics import Interval, interval, middle
from sage_sim.results import ExitCode

LIMITS = Limits(slower=0.07)
SPREAD = 0.03  # of the ratio of a round; measured on a machine of two cores: 0.015


def verdict_of(seed: int, *, slower: float, spread: float = SPREAD, disturbed: float = 0.0) -> Timing:
    """Add one round after the other until there is a verdict."""
    draw, rounds = random.Random(seed), list[Round]()
    while (timing := judged(rounds, LIMITS, seed)) is None or not rounds:
        rounds.append(
            Round(
                head=slower * exp(draw.gauss(0, spread)),
                guard=exp(draw.gauss(0, spread)),
                ns={},
                disturbed=draw.random() < disturbed,
            )
        )
    return timing


def endings(runs: int = 60, **machine: float) -> Counter[Ending]:
    return Counter(verdict_of(seed, **machine).ending for seed in range(runs))


def test_equal_code_passes() -> None:
    assert endings(slower=1.0) == {Ending.PASS: 60}


def test_a_tenth_slower_is_caught() -> None:
    assert endings(slower=1.1)[Ending.REGRESSION] >= 57


def test_a_tenth_slower_is_so_in_both_tries() -> None:
    tries = [[verdict_of(seed, slower=1.1) for seed in (one, 60 + one)] for one in range(60)]

    held = Counter(settled(first, second).ending for first, second in tries)

    assert held[Ending.REGRESSION] >= 57


def test_a_tenth_faster_passes() -> None:
    assert endings(slower=0.9) == {Ending.PASS: 60}


def test_what_is_allowed_is_no_regression() -> None:
    assert endings(slower=1.06, runs=15)[Ending.REGRESSION] == 0


@pytest.mark.parametrize("slower", [1.0, 1.1])
def test_noise_of_the_machine_is_inconclusive_and_never_red(slower: float) -> None:
    assert endings(slower=slower, spread=0.5, runs=5) == {Ending.INCONCLUSIVE: 5}


@pytest.mark.parametrize("slower", [1.0, 1.3])
def test_rounds_in_which_others_had_the_cores_decide_nothing(slower: float) -> None:
    assert endings(slower=slower, disturbed=1.0, runs=20) == {Ending.INCONCLUSIVE: 20}


def test_a_biased_guard_is_no_proof() -> None:
    rounds = [Round(head=1.2, guard=1.15, ns={})] * LIMITS.most

    timing = judged(rounds, LIMITS, 1)

    assert timing is not None
    assert timing.ending is Ending.INCONCLUSIVE
    assert "base against itself" in timing.why


def test_nothing_is_decided_before_there_are_enough_rounds() -> None:
    assert judged([Round(head=2.0, guard=1.0, ns={})] * (LIMITS.least - 1), LIMITS, 1) is None


def test_each_side_is_timed_on_the_way_there_and_on_the_way_back() -> None:
    orders = {order(random.Random(seed)) for seed in range(50)}

    assert all(one == one[::-1] and sorted(one) == sorted(SIDES * 2) for one in orders)
    assert len(orders) == 6


def test_a_drift_meets_all_sides_alike() -> None:
    clock = iter(range(100, 112))

    found = measured(random.Random(1), lambda side: Sample(ns=float(next(clock)), waited=0.0), 0.1)

    assert found.head == pytest.approx(1.0, abs=1e-3)
    assert found.guard == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize(("waited", "disturbed"), [([0.5] * 2, False), ([0.5] * 3, True), ([0.2] * 12, True)])
def test_a_round_is_disturbed_by_much_waiting_over_all(waited: list[float], disturbed: bool) -> None:
    waits = iter(waited + [0.0] * (12 - len(waited)))

    assert measured(random.Random(1), lambda side: Sample(ns=1.0, waited=next(waits)), 0.1).disturbed is disturbed


def test_one_round_in_ten_that_met_something_else_decides_nothing() -> None:
    assert middle([*[1.0] * 9, 8.0]) == middle([1.0] * 10)


def test_an_interval_is_around_the_middle_and_the_same_for_a_seed() -> None:
    ratios = [0.5, 2.0, 1.0, 1.1, 0.9]

    found = interval(ratios, seed=3)

    assert middle([0.5, 2.0]) == pytest.approx(1.0)
    assert found.low < found.ratio < found.high
    assert found == interval(ratios, seed=3)


@pytest.mark.parametrize(
    ("first", "second", "held"),
    [
        (Ending.REGRESSION, Ending.REGRESSION, Ending.REGRESSION),
        (Ending.REGRESSION, Ending.PASS, Ending.INCONCLUSIVE),
        (Ending.REGRESSION, Ending.INCONCLUSIVE, Ending.INCONCLUSIVE),
        (Ending.INCONCLUSIVE, Ending.PASS, Ending.PASS),
        (Ending.INCONCLUSIVE, Ending.REGRESSION, Ending.INCONCLUSIVE),
        (Ending.INCONCLUSIVE, Ending.INCONCLUSIVE, Ending.INCONCLUSIVE),
    ],
)
def test_who_is_called_slower_has_to_be_so_in_both_tries(first: Ending, second: Ending, held: Ending) -> None:
    tries = [Timing(ending=one, why="", rounds=10, disturbed=0) for one in (first, second)]

    assert settled(*tries).ending is held


@pytest.mark.parametrize(
    ("found", "ending"),
    [
        (Interval(ratio=60, low=50, high=70), Ending.PASS),
        (Interval(ratio=12, low=10, high=14), Ending.PASS),
        (Interval(ratio=10, low=8, high=12), Ending.INCONCLUSIVE),
        (Interval(ratio=8, low=7, high=9), Ending.REGRESSION),
    ],
)
def test_a_shape_fails_only_below_its_margin(found: Interval, ending: Ending) -> None:
    shape = Shape(subject="ours", against="theirs", ratio=50, margin=5, why="it is so")

    assert shaped(found, shape)[0] is ending


@pytest.mark.parametrize(
    ("endings", "code", "lenient"),
    [
        ([Ending.PASS, Ending.LEFT_OUT], ExitCode.PASS, ExitCode.PASS),
        ([Ending.PASS, Ending.INCONCLUSIVE], ExitCode.INCONCLUSIVE, ExitCode.PASS),
        ([Ending.INCONCLUSIVE, Ending.CANNOT], ExitCode.ENVIRONMENT, ExitCode.PASS),
        ([Ending.CANNOT, Ending.REGRESSION, Ending.PASS], ExitCode.REGRESSION, ExitCode.REGRESSION),
    ],
)
def test_the_exit_code_is_that_of_the_worst(endings: list[Ending], code: ExitCode, lenient: ExitCode) -> None:
    findings = [Finding(layer="time", name="", ending=ending, why="") for ending in endings]

    assert exit_code(findings, lenient=False) is code
    assert exit_code(findings, lenient=True) is lenient
