"""Every verb ended at any moment, by whatever may end it: the promised exit code, and nothing is left behind."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any

import pytest
from sim_runs import COMMAND, WATCHDOG_SECONDS

from sage_sim import namespaces
from sage_sim.cli.trials import once
from sage_sim.crew import Crew
from sage_sim.presets import PRESETS
from sage_sim.request import Request, adapted

ALONE = Path(__file__).parent / "alone.py"
FEW = ["--items", "3000", "--seed", "1"]
NO_END = ["--duration", "1000"]
VERBS = {
    "run": ["run", "pipeline", *NO_END, "--plain"],
    "run-rpc": ["run", "service", *NO_END, "--backend", "rpc_queue", "--faults", "cut:1"],
    "run-full": ["run", "fan-in", *NO_END, "--faults", "full:2"],
    "job": ["run", "dataflow", "--items", "2000000"],
    "compare": ["compare", "fan-in", *FEW, "--rounds", "50"],
    "search-rate": ["search-rate", "fan-in", "--start", "50", "--duration", "1"],
    "fuzz": ["fuzz", "--runs", "100", "--items", "500", "--seed", "1"],
    "soak": ["soak", "fan-in", *FEW],
    "calibrate": ["calibrate", "--kind", "sage_queue"],
    "top": ["top", "--once", "--interval", "50"],
}
QUICK = {
    "plan": ["plan", "shuffle"],
    "presets": ["presets"],
    "schema": ["schema"],
    "doctor": ["doctor"],
    "clean": ["clean"],
    "new": ["new", "fan-in", "made.toml"],
}
needs_namespaces = pytest.mark.skipif(not namespaces.are_allowed(), reason="needs namespaces of its own")


def alone(folder: Path, *words: str, signals: list[tuple[float, int]], **sizes: int) -> dict[str, Any]:
    order = {"words": [*COMMAND, *words], "signals": signals, **sizes}
    folder.mkdir(exist_ok=True)
    shown = subprocess.run(
        [sys.executable, "-P", str(ALONE), json.dumps(order)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=WATCHDOG_SECONDS,
        check=False,
    )
    assert shown.returncode == 0, shown.stderr
    found: dict[str, Any] = json.loads(shown.stdout)
    return found


def delays(name: str, count: int, most: float) -> list[float]:
    """Moments that follow from the name: from before the program has loaded, to where it is at work."""
    random = Random(name)
    return [random.uniform(0.05, most) for _ in range(count)]


@needs_namespaces
@pytest.mark.parametrize("verb", VERBS)
def test_ctrl_c_at_any_moment_leaves_nothing(verb: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    for seconds in delays(verb, 20 if request.config.getoption("--long") else 2, 2.5):
        found = alone(tmp_path / f"{seconds}", *VERBS[verb], signals=[(seconds, signal.SIGINT)])

        assert found["code"] in (130, -signal.SIGINT), found  # the second: before the interpreter was ready
        assert (found["processes"], found["temporary"], found["files"]) == ([], [], []), found
        assert "Traceback" not in found["wrong"]


def test_ctrl_c_when_a_run_is_just_over_ends_a_verb_of_many_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    stop_all = Crew.stop_all

    def interrupted(crew: Crew) -> None:
        signal.raise_signal(signal.SIGINT)
        stop_all(crew)

    monkeypatch.setattr(Crew, "stop_all", interrupted)
    monkeypatch.setenv("SAGE_QD_SHM_FOLDER", "/dev/shm")  # a run sets it, and here it is put back

    with pytest.raises(KeyboardInterrupt):
        once(Request(target="fan-in", scenario=adapted(PRESETS["fan-in"].scenario(), items=100), seed=1))


@needs_namespaces
@pytest.mark.long
@pytest.mark.parametrize("verb", QUICK)
def test_ctrl_c_ends_what_is_quick_too(verb: str, tmp_path: Path) -> None:
    for seconds in delays(verb, 10, 0.8):
        found = alone(tmp_path / f"{seconds}", *QUICK[verb], signals=[(seconds, signal.SIGINT)])

        assert found["code"] in (0, 130, -signal.SIGINT), found
        assert (found["processes"], found["temporary"], found["files"]) == ([], [], []), found


@needs_namespaces
@pytest.mark.parametrize("verb", [name for name in VERBS if name != "top"])
def test_what_a_killed_program_leaves_is_gone_after_the_next_clean(
    verb: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    for seconds in delays(f"{verb} killed", 20 if request.config.getoption("--long") else 2, 2.5):
        found = alone(tmp_path / f"{seconds}", *VERBS[verb], signals=[(seconds, signal.SIGKILL)])

        assert found["code"] == -signal.SIGKILL
        assert found["alive"] == []
        assert found["cleaned"] == {"temporary": [], "files": [], "code": 0}, found


@needs_namespaces
@pytest.mark.parametrize(
    ("words", "size", "told"),
    [
        (["fan-in", "--duration", "60"], 4 << 20, "No space left on device"),
        (["pipeline", "--duration", "60"], 4 << 20, "No space left on device"),
        (["fan-in", "--duration", "60"], 16 << 10, "No space left on device"),
        (["dataflow", "--items", "100"], 8 << 10, "No space left on device"),
        (["fan-in", "--items", "90000"], 4 << 20, "MiB of disk for the history, at most, and there are 3"),
    ],
)
def test_a_full_disk_is_told_and_no_check_fails_for_it(words: list[str], size: int, told: str, tmp_path: Path) -> None:
    found = alone(tmp_path, "run", *words, "--out", "run", signals=[], disk_bytes=size)

    assert found["code"] == 5, found
    assert told in found["said"] + found["wrong"], found
    assert (found["processes"], found["files"]) == ([], [])


@needs_namespaces
@pytest.mark.parametrize(
    ("words", "full", "code"),
    [
        (["plan"], "disk_bytes", 5),
        (["plan", "--out", "/dev/shm/not/there"], "disk_bytes", 0),
        (["run", "--quiet", "--out", "/dev/shm/run"], "disk_bytes", 0),
        (["compare", "--rounds", "1", "--kind", "sage_queue"], "disk_bytes", 0),
        (["compare", "--rounds", "1", "--kind", "sage_queue"], "temporary_bytes", 5),
        (["plan"], "temporary_bytes", 0),
    ],
    ids=["plan", "plan-out", "run-out", "compare", "compare-temporary", "plan-temporary"],
)
def test_the_disk_that_is_looked_at_is_the_one_that_is_written_to(
    words: list[str], full: str, code: int, tmp_path: Path
) -> None:
    verb, *more = words

    found = alone(tmp_path, verb, "fan-in", *FEW, *more, signals=[], **{full: 256 << 10})

    assert found["code"] == code, found


@needs_namespaces
@pytest.mark.parametrize(
    "words",
    [
        ["fuzz", "--runs", "1", "--seed", "22"],
        ["soak", "fan-in", "--duration", "60"],
        ["search-rate", "fan-in", "--start", "5000", "--duration", "60"],
    ],
    ids=["fuzz", "soak", "search-rate"],
)
def test_a_full_disk_ends_a_verb_of_many_runs(words: list[str], tmp_path: Path) -> None:
    found = alone(tmp_path, *words, signals=[], temporary_bytes=1 << 20)

    assert found["code"] == 5, found
    assert "No space left on device" in found["wrong"], found
    assert (found["processes"], found["temporary"], found["files"]) == ([], [], [])


@needs_namespaces
def test_a_program_whose_parent_named_its_folder_makes_it_where_it_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAGE_QD_SHM_FOLDER", f"/dev/shm/sage-sim-{os.geteuid()}")

    found = alone(tmp_path, "compare", "fan-in", *FEW, "--rounds", "1", signals=[])

    assert found["code"] == 0, found


@pytest.mark.parametrize("words", [["schema"], ["presets"], ["run", "fan-in", "--items", "200", "--json"]])
def test_output_for_which_there_is_no_room_is_told(words: list[str], tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [*COMMAND, *words], cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )

    assert (ended.returncode, ended.stderr) == (5, "sage-sim: No space left on device\n")


@needs_namespaces
@pytest.mark.parametrize(
    "words", [["run", "pipeline", *NO_END], ["run", "dataflow", "--items", "2000000"], ["soak", "fan-in", *FEW]]
)
def test_a_run_ends_in_good_order_when_nobody_reads_any_more(words: list[str], tmp_path: Path) -> None:
    program = " ".join([*COMMAND, *words])

    shown = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {program} | head -1"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=WATCHDOG_SECONDS,
        check=False,
    )

    assert shown.returncode == 130, shown
    assert "Traceback" not in shown.stderr
    assert len(shown.stdout.splitlines()) == 1
