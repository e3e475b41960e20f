"""Real runs over every kind of queue, under every kind of load."""

import signal
import subprocess
from pathlib import Path

import psutil
import pytest
from sim_runs import COMMAND, broken_checks, checks_of, results_of, run, wait_until

from sage_sim.accounts import edge_accounts
from sage_sim.history import read_history


@pytest.mark.parametrize(
    ("kind", "preset"),
    [
        *(("shm_queue", "shuffle"), ("rpc_queue", "service"), ("multiprocessing", "pipeline")),
        pytest.param("faster_fifo", "pipeline", marks=pytest.mark.long),
        pytest.param("multiprocessing", "service", marks=pytest.mark.long),
    ],
)
def test_every_kind_carries_every_item(kind: str, preset: str, tmp_path: Path) -> None:
    pytest.importorskip("faster_fifo" if kind == "faster_fifo" else "zmq")

    ended = run(tmp_path / "run", preset, "--backend", kind, "--items", "600", "--seed", "5")

    results = results_of(tmp_path / "run")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert (results["items"]["confirmed"], results["items"]["taken"]) == (600, 600)
    assert {queue["kind"] for queue in results["queues"]} == {kind}


@pytest.mark.parametrize(
    ("kind", "preset"),
    [
        ("rpc_queue", "pipeline"),
        pytest.param("shm_queue", "diamond", marks=pytest.mark.long),
        pytest.param("sage_queue", "service", marks=pytest.mark.long),
    ],
)
def test_kills_lose_nothing_over_our_kinds(kind: str, preset: str, tmp_path: Path) -> None:
    pytest.importorskip("zmq")

    ended = run(tmp_path / "run", preset, "--backend", kind, "--duration", "2", "--faults", "kill:5", "--seed", "13")

    assert ended.returncode == 0, ended.stdout
    assert sum(role["killed"] for role in results_of(tmp_path / "run")["roles"]) > 0


def test_a_queue_without_leases_loses_what_a_killed_consumer_had_in_hand(tmp_path: Path) -> None:
    pytest.importorskip("zmq")
    faults = "slow@0=tokeniser/60*20,kill@1=tokeniser"

    ended = run(
        tmp_path / "run",
        "pipeline",
        "--backend",
        "faster_fifo",
        "--workers",
        "1",
        "--duration",
        "2",
        "--faults",
        faults,
    )

    assert ended.returncode == 1, ended.stdout
    assert "nothing lost" in broken_checks(tmp_path / "run")


def test_keys_stay_with_one_consumer_also_when_it_is_replaced(tmp_path: Path) -> None:
    run(tmp_path / "run", "shuffle", "--duration", "2", "--faults", "kill:4=reducer", "--seed", "3")

    checks = checks_of(results_of(tmp_path / "run"))
    assert (checks["one consumer for each key"], checks["faults struck"]) == ("valid", "valid")


def test_a_wrong_router_is_found_out(tmp_path: Path) -> None:
    run(tmp_path / "run", "shuffle", "--items", "2000", plant="stray")

    assert broken_checks(tmp_path / "run") == ["one consumer for each key"]


def test_a_run_listens_on_the_loopback_only(tmp_path: Path) -> None:
    pytest.importorskip("zmq")
    words = [*COMMAND, "run", "service", "--backend", "rpc_queue", "--duration", "1000", "--faults", "cut@500"]

    def places() -> list[str]:
        family = psutil.Process(conductor.pid).children(recursive=True)
        return [str(one.laddr.ip) for each in family for one in each.net_connections() if one.status == "LISTEN"]

    with subprocess.Popen([*words, "--out", str(tmp_path / "run")], stdout=subprocess.DEVNULL) as conductor:
        try:
            wait_until(lambda: len(psutil.Process(conductor.pid).children()) == 8 and len(places()) == 2)
            found = places()
        finally:
            conductor.send_signal(signal.SIGINT)

    assert conductor.returncode == 130
    assert {place.removeprefix("::ffff:") for place in found} == {"127.0.0.1"}


@pytest.mark.parametrize(
    "shape",
    ["poisson", *(pytest.param(name, marks=pytest.mark.long) for name in ("constant", "ramp", "burst", "trace"))],
)
def test_an_open_load_sends_at_the_planned_moments(shape: str, tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(
        f'name = "a"\nitems = 200\nroles = [{{name = "p", count = 2}}, {{name = "c"}}]\n'
        'edges = [{name = "e", source = "p", target = "c"}]\n'
        f'[load]\nmode = "open"\nshape = "{shape}"\nrate = 200\nrate_to = 400\ntrace = [0.0, 0.0078125, 0.015625]\n'
    )

    ended = run(tmp_path / "run", str(tmp_path / "a.toml"), "--seed", "5")

    assert ended.returncode == 0, ended.stdout
    due = [one.due_ns for one in read_history(tmp_path / "run" / "history.jsonl").read()]
    assert min(due) > 0
    assert len(set(due)) == {"burst": 2, "trace": 134}.get(shape, 200)


@pytest.mark.long
def test_a_slow_consumer_shows_in_the_latency_from_the_planned_moment(tmp_path: Path) -> None:
    words = ["fan-in", "--producers", "1", "--rate", "200", "--items", "60", "--capacity", "4096"]

    run(tmp_path / "fast", *words)
    run(tmp_path / "slow", *words, "--faults", "slow@0=consumer/60*20")

    fast, slow = (results_of(tmp_path / name)["items"]["latency_us"]["p50"] for name in ("fast", "slow"))
    assert slow > 200_000 > fast


def test_no_more_items_are_under_way_than_the_window_lets(tmp_path: Path) -> None:
    run(tmp_path / "run", "pipeline", "--items", "600", "--window", "3", "--producers", "2")

    high_water = under_way = 0
    for line in sorted(
        (one.begin_ns, 1) if one.edge == 0 else (one.end_ns, -1)
        for one in read_history(tmp_path / "run" / "history.jsonl").read()
        if (one.edge, one.kind) in ((0, 1), (1, 2))
    ):
        under_way += line[1]
        high_water = max(high_water, under_way)
    assert results_of(tmp_path / "run")["verdict"] == "valid"
    assert 2 <= high_water <= 6 + 2  # a sink counts an item as ended just before it settles it


def test_a_backlog_is_built_before_anybody_takes(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(
        'name = "a"\nitems = 500\nroles = [{name = "p"}, {name = "c"}]\n'
        'edges = [{name = "e", source = "p", target = "c", capacity_bytes = 1048576}]\nload = {mode = "backlog"}\n'
    )

    ended = run(tmp_path / "run", str(tmp_path / "a.toml"))

    history = read_history(tmp_path / "run" / "history.jsonl")
    assert ended.returncode == 0, ended.stdout
    assert results_of(tmp_path / "run")["backlog"] == 500
    assert max(one.end_ns for one in history.read() if one.kind == 1) < min(
        one.begin_ns for one in history.read() if one.kind == 2
    )
    assert edge_accounts(history)[0].taken == 500


@pytest.mark.parametrize(
    ("form", "kind"),
    [
        *(("dict", "sage_queue"), ("numpy", "rpc_queue")),
        pytest.param("numpy", "sage_queue", marks=pytest.mark.long),
        pytest.param("dict", "rpc_queue", marks=pytest.mark.long),
    ],
)
def test_every_form_arrives_unharmed(form: str, kind: str, tmp_path: Path) -> None:
    pytest.importorskip("zmq")
    (tmp_path / "a.toml").write_text(
        'name = "a"\nitems = 100\nroles = [{name = "p"}, {name = "c"}]\n'
        f'edges = [{{name = "e", source = "p", target = "c", kind = "{kind}"}}]\n'
        f'payload = {{form = "{form}", distribution = "lognormal", size_bytes = 2000}}\n'
    )

    ended = run(tmp_path / "run", str(tmp_path / "a.toml"))

    assert ended.returncode == 0, ended.stdout


@pytest.mark.long
def test_warm_up_is_left_out_of_rate_and_latency(tmp_path: Path) -> None:
    run(tmp_path / "run", "fan-in", "--rate", "200", "--duration", "2", "--warmup", "1")

    results = results_of(tmp_path / "run")
    assert results["items"]["taken"] == pytest.approx(400, abs=2)
    assert results["items"]["seconds"] < results["seconds"] - 0.5
