"""Real runs over a Ray cluster of their own: nodes and actors on them are killed, and nothing of it is left."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from sage_qd import SageQueueError
from sage_qd.ring import attach, list_segments
from sage_qd.testing import wait_for

PLANTED = Path(__file__).parents[1] / "stress" / "planted"
COMMAND = [sys.executable, "-P", "-m", "sage_sim"]
TOPOLOGY = """
name = "a"
duration_seconds = {seconds}
roles = [{{name = "p"}}, {{name = "m"}}, {{name = "c"}}]
load = {{mode = "open", rate = 200}}
ray = {{nodes = 2}}
[[edges]]
name = "first"
source = "p"
target = "m"
kind = "ray_queue"
max_items = 64
node = 1
settings = {{durable = true}}
[[edges]]
name = "second"
source = "m"
target = "c"
kind = "ray_queue"
max_items = 64
node = {second}
"""


@pytest.fixture(autouse=True)
def needs_ray() -> None:
    pytest.importorskip("ray", reason="Ray cannot be installed here")


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    before = folders()
    yield
    wait_for(lambda: folders() <= before, "the folders of clusters are gone")  # other runs may be under way


def folders() -> set[Path]:
    """Of clusters of runs."""
    return set(Path("/tmp").glob(f"sim{os.geteuid()}-*"))


def started(folder: Path, *words: str, plant: str = "", seconds: int = 60, second: int = 1) -> "subprocess.Popen[str]":
    """A run over two queues whose home is not where its processes are."""
    (folder / "a.toml").write_text(TOPOLOGY.format(seconds=seconds, second=second))
    around = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    around |= {"PLANT": plant, "PYTHONPATH": str(PLANTED)} if plant else {}
    words = ("run", str(folder / "a.toml"), "--out", str(folder / "run"), "--seed", "2", *words)
    return subprocess.Popen([*COMMAND, *words], env=around, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def results_of(run: "subprocess.Popen[str]", folder: Path, code: int) -> dict[str, Any]:
    """What a run showed that ended with that exit code."""
    told, complained = run.communicate(timeout=200)
    assert run.returncode == code, told + complained
    results: dict[str, Any] = json.loads((folder / "run" / "results.json").read_text())
    return results


def noticed(results: dict[str, Any]) -> list[tuple[str, str]]:
    """Of each check that damage was noticed: the queue, and whether it was."""
    found = [finding for finding in results["findings"] if finding["check"] == "damage noticed"]
    return [(finding["sentence"].split(" at ")[1].split()[0], finding["verdict"]) for finding in found]


def test_everybody_notices_that_a_node_is_gone_with_its_queues_durable_or_not(tmp_path: Path) -> None:
    run = started(tmp_path, "--faults", "kill-node@0.5")

    results = results_of(run, tmp_path, 0)
    assert [(blow["whom"], blow["ruined"]) for blow in results["blows"]] == [("node-1", ["first", "second"])]
    assert noticed(results) == [("first", "valid"), ("second", "valid")]


def test_who_does_not_notice_that_a_node_is_gone_is_found_out(tmp_path: Path) -> None:
    run = started(tmp_path, "--faults", "kill-node@0.5=node-1", plant="deaf")

    assert "invalid" in dict(noticed(results_of(run, tmp_path, 1))).values()


def test_a_durable_queue_on_another_node_loses_nothing_when_its_actor_is_killed(tmp_path: Path) -> None:
    run = started(tmp_path, "--faults", "slow@0=c/60*2,kill-actor@0.7=first,kill-actor@2=first", seconds=4, second=0)

    results = results_of(run, tmp_path, 0)
    assert [blow["kind"] for blow in results["blows"]].count("kill-actor") == 2
    assert (results["items"]["lost"], noticed(results)) == (0, [])


def rings() -> set[str]:
    """What tells the rings of all Ray queues of this user apart."""
    found = set()
    for info in list_segments("ray"):
        with suppress(SageQueueError), attach(info.name, namespace="ray") as ring:
            found.add(ring.instance)
    return found


def test_of_a_run_that_was_killed_with_its_cluster_nothing_is_left_after_the_next_clean(tmp_path: Path) -> None:
    run = started(tmp_path)
    log = tmp_path / "run" / "work" / "1.log"
    wait_for(lambda: log.exists() and any(log.read_bytes()), "the run is under way")
    (keeper,) = [one for one in psutil.Process(run.pid).children() if "sage_sim.ray_nodes" in one.cmdline()]
    theirs = keeper.children(recursive=True)
    folder = Path(theirs[0].environ()["RAY_TMPDIR"])
    noted = set((folder / "rings").read_text().split())
    assert len(noted & rings()) == 2

    for pid in (keeper.pid, run.pid):
        os.kill(pid, signal.SIGKILL)
    run.communicate()
    subprocess.run([*COMMAND, "clean"], capture_output=True, check=True)

    wait_for(lambda: not folder.exists(), "the folder is gone, by this or by a process that was the last one out")
    assert psutil.wait_procs(theirs, timeout=60)[1] == []
    assert noted & rings() == set()


def test_a_node_of_a_cluster_of_others_is_not_killed(tmp_path: Path) -> None:
    run = started(tmp_path, "--faults", "kill-node@1=node-0")
    _, told = run.communicate()
    assert (run.returncode, "'kill-node' hits node-1, not 'node-0'" in told) == (2, True), told

    words = ("fan-in", "--backend", "ray_queue", "--faults", "kill-node@0.5")
    refused = subprocess.run([*COMMAND, "run", *words], capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert "a cluster that the run did not start is never killed" in " ".join(refused.stderr.replace("│", " ").split())
