"""Real runs over queues in a Ray cluster; nothing of the cluster is left."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_enable_metrics_collection": "0",
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": uuid.uuid4().hex * 2,  # or Ray would write one into the home directory
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
HEAD = """
import sys
from ray.cluster_utils import Cluster

arguments = {"num_cpus": 2, "object_store_memory": 100_000_000, "include_dashboard": False}
cluster = Cluster(initialize_head=True, head_node_args=arguments)
print(cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""

PLANTED = str(Path(__file__).parents[1] / "stress" / "planted")


@pytest.fixture(scope="module")
def settings() -> Iterator[dict[str, str]]:
    """The environment in which a cluster can be joined."""
    pytest.importorskip("ray", reason="Ray cannot be installed here")
    folder = tempfile.mkdtemp(prefix="r", dir="/tmp")  # paths of sockets are short
    Path(folder, "ray").mkdir()
    around = os.environ | SETTINGS | {"RAY_TMPDIR": folder}
    with subprocess.Popen(
        [sys.executable, "-c", HEAD], env=around, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as head:
        assert head.stdout is not None
        yield around | {"RAY_ADDRESS": head.stdout.readline().strip()}
        head.communicate()
    shutil.rmtree(folder, ignore_errors=True)


def run(around: dict[str, str], folder: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-P", "-m", "sage_sim", "run", "fan-in", "--backend", "ray_queue", *words]
    return subprocess.run(
        [*command, "--out", str(folder)], env=around, capture_output=True, text=True, timeout=200, check=False
    )


def test_items_pass_through_a_cluster(settings: dict[str, str], tmp_path: Path) -> None:
    ended = run(settings, tmp_path / "run", "--producers", "2", "--items", "300")

    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert (results["items"]["taken"], results["items"]["lost"]) == (300, 0)
    assert {queue["kind"] for queue in results["queues"]} == {"ray_queue"}


def test_the_queue_of_ray_itself_is_a_kind_to_compare_with(settings: dict[str, str], tmp_path: Path) -> None:
    words = ["compare", "fan-in", "--producers", "2", "--items", "200", "--rounds", "1", "--json"]

    ended = subprocess.run(
        [sys.executable, "-P", "-m", "sage_sim", *words, "--kind", "ray_util_queue", "--kind", "ray_queue"],
        env=settings,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )

    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert [(one["kind"], one["wrong"]) for one in json.loads(ended.stdout)] == [
        ("ray_util_queue", []),
        ("ray_queue", []),
    ]


def test_without_a_cluster_it_says_so(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="Ray cannot be installed here")

    ended = run(os.environ | SETTINGS | {"RAY_ADDRESS": "127.0.0.1:9"}, tmp_path / "run")

    assert ended.returncode == 5
    assert "no Ray cluster can be joined" in ended.stderr


def struck(around: dict[str, str], folder: Path, settings: str, faults: str) -> "subprocess.CompletedProcess[str]":
    """A run whose queue loses its actor."""
    (folder / "a.toml").write_text(
        'name = "a"\nduration_seconds = 4\nroles = [{name = "p"}, {name = "c"}]\nload = {mode = "open", rate = 200}\n'
        '[[edges]]\nname = "e"\nsource = "p"\ntarget = "c"\nkind = "ray_queue"\nmax_items = 64\n'
        f"settings = {settings}\n"
    )
    command = [sys.executable, "-P", "-m", "sage_sim", "run", str(folder / "a.toml"), "--faults", faults, "--seed", "2"]
    return subprocess.run(
        [*command, "--out", str(folder / "run")], env=around, capture_output=True, text=True, timeout=200, check=False
    )


def test_a_durable_queue_loses_nothing_when_its_actor_is_killed(settings: dict[str, str], tmp_path: Path) -> None:
    ended = struck(settings, tmp_path, "{durable = true}", "slow@0=c/60*2,kill-actor@1,kill-actor@2.5")

    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert [blow["kind"] for blow in results["blows"]].count("kill-actor") == 2
    assert results["items"]["lost"] == 0


def test_what_a_durable_queue_forgets_when_its_actor_dies_is_found_out(
    settings: dict[str, str], tmp_path: Path
) -> None:
    planted = {"PLANT": "forgetful", "PYTHONPATH": PLANTED}

    ended = struck(settings | planted, tmp_path, "{durable = true}", "kill-actor@1,kill-actor@2,kill-actor@3")

    findings = json.loads((tmp_path / "run" / "results.json").read_text())["findings"]
    assert ended.returncode == 1, ended.stdout + ended.stderr
    assert {finding["check"]: finding["verdict"] for finding in findings}["nothing lost"] == "invalid"


def test_everybody_notices_that_a_queue_is_gone_with_its_actor(settings: dict[str, str], tmp_path: Path) -> None:
    ended = struck(settings, tmp_path, "{}", "kill-actor@1")

    results = json.loads((tmp_path / "run" / "results.json").read_text())
    findings = {finding["check"]: finding["verdict"] for finding in results["findings"]}
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert findings["damage noticed"] == "valid"


def test_who_does_not_notice_that_a_queue_is_gone_is_found_out(settings: dict[str, str], tmp_path: Path) -> None:
    planted = {"PLANT": "deaf", "PYTHONPATH": PLANTED}

    ended = struck(settings | planted, tmp_path, "{}", "kill-actor@1")

    findings = json.loads((tmp_path / "run" / "results.json").read_text())["findings"]
    assert ended.returncode == 1, ended.stdout + ended.stderr
    assert {finding["check"]: finding["verdict"] for finding in findings}["damage noticed"] == "invalid"


def test_an_actor_can_only_be_killed_where_there_is_one(tmp_path: Path) -> None:
    ended = struck(dict(os.environ), tmp_path, "{}", "kill-actor")

    assert ended.returncode == 2
    assert "needs a moment where a queue is not durable" in " ".join(ended.stderr.replace("│", " ").split())
