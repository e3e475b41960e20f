"""Death inside the ring, in a build of sage-qd with fault points: ``tox run -e inside``."""

import re
from pathlib import Path

import pytest
from sim_runs import broken_checks, results_of, run

from sage_sim.inside import PUTTING, TAKING, points, points_of
from sage_sim.presets import PRESETS

FAULTS = ["--duration", "2", "--faults", "kill-inside:20", "--seed", "3"]
with_points = pytest.mark.skipif(not points(), reason="needs a build with fault points: tox run -e inside")


@with_points
@pytest.mark.parametrize("preset", ["pipeline", "service"])
def test_a_run_holds_when_processes_die_inside_the_ring(preset: str, tmp_path: Path) -> None:
    ended = run(tmp_path / "run", preset, *FAULTS)

    blows = results_of(tmp_path / "run")["blows"]
    assert (ended.returncode, ended.stderr) == (0, ""), ended.stdout
    assert {blow["kind"] for blow in blows} == {"kill-inside"}
    assert all(re.fullmatch(r"[a-z]+-\d+\.\d+ at [a-z_]+", blow["whom"]) for blow in blows)
    assert len({blow["whom"].partition(" at ")[2] for blow in blows}) > 3


@with_points
def test_what_a_death_inside_could_break_would_be_seen(tmp_path: Path) -> None:
    ended = run(tmp_path / "run", "pipeline", *FAULTS, plant="early")

    assert ended.returncode == 1, ended.stdout
    assert "nothing lost" in broken_checks(tmp_path / "run")


@with_points
def test_each_role_dies_where_it_comes_by() -> None:
    topology = PRESETS["pipeline"].scenario().topology()

    assert points_of(topology, "reader") == PUTTING
    assert points_of(topology, "counter") == TAKING
    assert {*PUTTING, *TAKING} <= set(points())


@pytest.mark.skipif(bool(points()), reason="this build can do it")
def test_without_fault_points_it_says_so(tmp_path: Path) -> None:
    ended = run(tmp_path / "run", "pipeline", *FAULTS)

    assert ended.returncode == 5
    assert "needs a build of sage-qd with fault points: SAGE_QD_POINTS=1" in ended.stderr
