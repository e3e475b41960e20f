"""``sage-qd explain``: descriptors and needs as a user types them."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(60)
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run ``sage-qd explain`` with these words, in a cache folder of its own."""

    def command(*words: str) -> "subprocess.CompletedProcess[str]":
        environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path), "COLUMNS": "200"}
        words = (sys.executable, "-m", "sage_qd", *words)
        return subprocess.run(words, capture_output=True, text=True, env=environment, timeout=60)

    return command


def test_needs_lead_to_a_kind(run: Run) -> None:
    done = run("explain", "reach=processes", "ack", "survives_crash", "--json")

    found = json.loads(done.stdout)
    assert (done.returncode, found["choice"]) == (0, "sage_queue")
    assert "taken: sage_queue" in run("explain", "reach=processes", "ack", "survives_crash").stdout


def test_needs_that_no_kind_meets_are_an_answer_with_code_one(run: Run) -> None:
    done = run("explain", "reach=processes", "same_object", "--json")

    assert (done.returncode, json.loads(done.stdout)["choice"]) == (1, None)


@pytest.mark.parametrize("form", ["to_uri", "to_json"])
def test_a_descriptor_is_explained(run: Run, form: str) -> None:
    from sage_qd import SageQueueDescriptor

    done = run("explain", getattr(SageQueueDescriptor("jobs", maxsize=10), form)(), "--json")

    assert json.loads(done.stdout)["queue_id"] == "jobs"


def test_costs_are_those_that_calibrate_measured(run: Run) -> None:
    assert run("calibrate", "sage_queue").returncode == 0

    kinds = {each["kind"]: each for each in json.loads(run("explain", "reach=processes", "--json").stdout)["kinds"]}

    assert kinds["sage_queue"]["cost_source"] == "calibration"
    assert kinds["local_queue"]["cost_source"] == "built-in"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["reach=nowhere"], "it must be one of"),
        (["reech=hosts"], "Did you mean 'reach'?"),
        (["max_items"], "max_items needs a value"),
        (["ack", "ack"], "given twice"),
        (["sage://a/b", "ack"], "a descriptor stands alone"),
        (["ack=maybe"], "ack must be true or false"),
    ],
)
def test_wrong_needs_are_explained(run: Run, words: list[str], said: str) -> None:
    done = run("explain", *words)

    assert done.returncode == 2
    assert said in " ".join(done.stderr.replace("│", " ").split())
