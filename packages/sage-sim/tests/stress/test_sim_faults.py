"""Real faults: a run holds under each of them, and what each could break would be seen."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from sim_runs import COMMAND, WATCHDOG_SECONDS, broken_checks, results_of, run

LINE = ["fan-in", "--producers", "1", "--duration", "2"]
FAR = [*LINE, "--backend", "rpc_queue", "--rate", "500"]
FAULTS = {
    "kill": [*LINE, "--faults", "slow@0=consumer/60*20,kill:3=consumer"],
    "stop": [*LINE, "--faults", "stop@0.5=consumer/0.5,stop:1", "--capacity", "4096"],
    "slow": [*LINE, "--faults", "slow@0.2=consumer/2*250", "--capacity", "4096"],
    "files": [*LINE, "--faults", "limit-files@0.5=producer", "--payload", "60000"],
    "memory": [*LINE, "--faults", "limit-memory@0.5=producer", "--payload", "200000", "--capacity", "1048576"],
    "full": [*LINE, "--faults", "full@0.5/0.7", "--payload", "60000"],
    "peer": [*LINE, "--backend", "rpc_queue", "--faults", "cut@0.4/0.3,delay@1/0.3*50,throttle@1.5/0.3*20000"],
    "loss": [*FAR, "--faults", "loss@0.4/0.5*20,silence@1.2/0.4"],
    "cut": [*FAR, "--faults", "cut@0.5/0.7"],
    "delay": [*FAR, "--faults", "delay@0.5/0.7*200"],
    "throttle": [*FAR, "--faults", "throttle@0.5/0.7*500"],
    "loss-alone": [*FAR, "--faults", "loss@0.5/0.7*40"],
    "silence": [*FAR, "--faults", "silence@0.5/0.7"],
    "unplug": [*FAR, "--faults", "unplug@0.5/0.7"],
    "damage": [*LINE, "--faults", "damage@0.5"],
    "damage-waiting": ["fan-in", "--producers", "1", "--window", "4", "--duration", "60", "--faults", "damage@0.5"],
    "damage-shm": [*LINE, "--faults", "damage@0.5", "--backend", "shm_queue"],
}


SHORT = ("stop", "memory", "full", "peer", "loss", "unplug", "damage", "damage-waiting")


@pytest.mark.parametrize(
    "fault", [name if name in SHORT else pytest.param(name, marks=pytest.mark.long) for name in FAULTS]
)
def test_a_run_holds_under_the_fault(fault: str, tmp_path: Path) -> None:
    pytest.importorskip("zmq")

    ended = run(tmp_path / "run", *FAULTS[fault], "--seed", "4")

    results = results_of(tmp_path / "run")
    assert (ended.returncode, ended.stderr) == (0, ""), ended.stdout
    assert results["blows"]
    assert results["items"]["taken"] > 0
    if fault == "full":
        assert results["puts_refused"] > 0


@pytest.mark.parametrize(
    ("fault", "plant", "check"),
    [
        ("kill", "early", "nothing lost"),
        pytest.param("stop", "late", "nothing lost", marks=pytest.mark.long),
        pytest.param("slow", "late", "nothing lost", marks=pytest.mark.long),
        pytest.param("files", "swallow", "nothing lost", marks=pytest.mark.long),
        ("memory", "swallow", "nothing lost"),
        ("full", "swallow", "nothing lost"),
        ("peer", "again", "nothing duplicated"),
        ("loss", "again", "nothing duplicated"),
        *(
            pytest.param(kind, "again", "nothing duplicated", marks=pytest.mark.long)
            for kind in ("cut", "delay", "throttle", "silence", "loss-alone")
        ),
        ("unplug", "again", "nothing duplicated"),
        ("damage", "blind", "damage noticed"),
        pytest.param("damage-shm", "blind", "damage noticed", marks=pytest.mark.long),
    ],
)
def test_what_the_fault_could_break_would_be_seen(fault: str, plant: str, check: str, tmp_path: Path) -> None:
    pytest.importorskip("zmq")

    for seed in range(4, 12):  # memory may run out in the put, which the plant swallows, or beside it
        folder = tmp_path / f"run-{seed}"
        ended = run(folder, *FAULTS[fault], "--seed", str(seed), plant=plant)
        if ended.returncode == 1 or fault != "memory":
            break

    assert ended.returncode == 1, ended.stdout
    assert check in broken_checks(folder)


def test_whoever_is_stopped_with_a_lock_in_his_hands_does_not_stop_the_run(tmp_path: Path) -> None:
    words = ["--duration", "1.5", "--backend", "shm_queue", "--faults", "stop:60/0.05"]

    ended = run(tmp_path / "run", "fan-in", *words)

    assert ended.returncode == 0, ended.stdout
    assert len(results_of(tmp_path / "run")["blows"]) > 20


def test_a_fault_that_came_too_late_proves_nothing(tmp_path: Path) -> None:
    ended = run(tmp_path / "run", "fan-in", "--duration", "0.3", "--faults", "kill@50")

    assert ended.returncode == 4
    assert broken_checks(tmp_path / "run") == ["faults struck"]


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv")
def test_without_the_right_to_mount_it_says_so(tmp_path: Path) -> None:
    alone = ["unshare", "-Ur", "sh", "-c", 'echo 0 >/proc/sys/user/max_user_namespaces && exec "$@"', "sh"]
    if subprocess.run([*alone, "true"], capture_output=True, check=False).returncode:
        pytest.skip("user namespaces are not allowed here")
    words = [*COMMAND, "run", *FAULTS["full"], "--out", str(tmp_path / "run")]

    ended = subprocess.run(
        [*alone, "setpriv", "--bounding-set", "-sys_admin", *words],
        capture_output=True,
        text=True,
        timeout=WATCHDOG_SECONDS,
        check=False,
        env=os.environ | {"SAGE_QD_SHM_FOLDER": str(tmp_path)},
    )

    assert ended.returncode == 5, ended.stderr
    assert (
        "the fault 'full' needs a mount of its own: run as root, or where user namespaces are allowed" in ended.stderr
    )
    assert not (tmp_path / "run").exists()
