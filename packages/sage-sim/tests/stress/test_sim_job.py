"""Real runs of a job of the dataflow runtime."""

import json
import signal
import subprocess
from pathlib import Path

import psutil
import pytest
from sim_runs import COMMAND, WATCHDOG_SECONDS, broken_checks, results_of, run

from sage_qd.ring import list_segments


def segments() -> list[str]:
    return [info.path for info in list_segments() if info.name.startswith("sage-sim%2E")]


def test_a_job_counts_every_word_once_although_its_tasks_are_killed(tmp_path: Path) -> None:
    before = segments()

    ended = run(tmp_path / "run", "dataflow", "--faults", "kill:8", "--seed", "4", "--html", str(tmp_path / "job.html"))

    results = results_of(tmp_path / "run")
    assert (ended.returncode, ended.stderr) == (0, ""), ended.stdout
    assert results["answer"]["sentence"].startswith("289,855 words")
    assert sum(role["killed"] for role in results["roles"]) > 0
    assert segments() == before
    assert "by-word" in (tmp_path / "job.html").read_text()
    assert ended.stdout.splitlines()[-1] == "repeat   sage-sim run dataflow --seed 4 --faults kill:8"


def test_a_word_that_a_job_lost_is_found(tmp_path: Path) -> None:
    ended = run(tmp_path / "run", "dataflow", "--items", "500", plant="forget")

    assert ended.returncode == 1
    assert broken_checks(tmp_path / "run") == ["result right"]


@pytest.mark.long
def test_a_job_can_be_played_again(tmp_path: Path) -> None:
    run(tmp_path / "run", "dataflow", "--items", "300", "--seed", "1")

    ended = subprocess.run(
        [*COMMAND, "replay", str(tmp_path / "run"), "--out", str(tmp_path / "again"), "--json"],
        capture_output=True,
        text=True,
        timeout=WATCHDOG_SECONDS,
        check=False,
    )

    assert json.loads(ended.stdout)["answer"] == results_of(tmp_path / "run")["answer"]


def test_an_interrupted_job_leaves_nothing(tmp_path: Path) -> None:
    before = segments()
    with subprocess.Popen(
        [*COMMAND, "run", "dataflow", "--items", "2000000", "--plain", "--out", str(tmp_path / "run")],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert " taken " in process.stdout.readline()
        family = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=WATCHDOG_SECONDS)

    assert process.returncode == 130
    assert results_of(tmp_path / "run")["ending"] == "interrupted"
    assert [one for one in family if one.is_running() and one.status() != "zombie"] == []
    assert segments() == before
