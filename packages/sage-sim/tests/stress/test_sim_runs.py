"""Real runs: real processes over real queues, ended in every way a run can end."""

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from sim_runs import COMMAND, WATCHDOG_SECONDS, broken_checks, checks_of, results_of, run, wait_until

from sage_qd import SageQueueDescriptor
from sage_qd.ring import list_segments
from sage_sim.accounts import edge_accounts, item_account
from sage_sim.channels import NAMESPACE
from sage_sim.checkers import check_duplicates, check_loss, check_order
from sage_sim.history import read_history

NO_END = ["--duration", "1000"]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder for one run, of which nothing may be left afterwards."""
    yield tmp_path / "run"

    wait_until(lambda: not workers_of(tmp_path / "run"))
    assert segments_of(tmp_path / "run") == []


def workers_of(folder: Path) -> list[psutil.Process]:
    """Those who work for a run, whoever their parent is: they have the words of the nursery, and names of their own."""
    found = []
    for process in psutil.process_iter(["cmdline", "name"]):
        words = process.info["cmdline"] or []
        if "sage_sim.nursery" in words and any(str(folder) in word for word in words):
            found.append(process)
    return found


def workers_in(folder: Path, role: str) -> list[psutil.Process]:
    return [process for process in workers_of(folder) if process.name().startswith(f"{role}-")]


def segments_of(folder: Path) -> list[str]:
    plan = json.loads((folder / "plan.json").read_text())
    names = {SageQueueDescriptor.from_json(text).queue_id for text in plan["queues"].values()}
    return [info.path for info in list_segments(NAMESPACE) if info.name in names]


def start(folder: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, "run", *words, "--plain", "--out", str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for_progress(process: subprocess.Popen[str]) -> None:
    """Read until the run says that something was taken."""
    assert process.stdout is not None
    for line in process.stdout:
        if " taken " in line and "queued" in line:
            return
    raise AssertionError("the run ended before it got anywhere")


@pytest.mark.parametrize(
    ("preset", "arrivals"),
    [("pipeline", 1), ("fan-in", 1), ("fan-out", 1), ("diamond", 2), ("tree", 1), ("random-dag", 3)],
)
def test_every_preset_is_valid_and_loses_nothing(preset: str, arrivals: int, folder: Path) -> None:
    ended = run(folder, preset, "--items", "3000", "--seed", "5")

    results = results_of(folder)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert results["verdict"] == "valid"
    assert (results["items"]["confirmed"], results["items"]["taken"]) == (3000 * arrivals, 3000 * arrivals)
    for books in (results["items"], *results["queues"]):
        assert (books["lost"], books["duplicated"], books["reordered"], books["redelivered"]) == (0, 0, 0, 0)
    assert ended.stdout.splitlines()[-1] == f"repeat   sage-sim run {preset} --seed 5 --items 3000"
    assert sorted(path.name for path in folder.iterdir()) == [
        *("history.jsonl", "plan.json", "results.json", "scenario.json"),
    ]


def test_the_same_seed_gives_the_same_count_of_words(folder: Path, tmp_path: Path) -> None:
    run(folder, "pipeline", "--items", "1000", "--seed", "5")
    run(tmp_path / "again", "pipeline", "--items", "1000", "--seed", "5", "--workers", "1", "--consumers", "1")

    assert results_of(folder)["answer"] == results_of(tmp_path / "again")["answer"]


def test_a_duration_ends_a_run_that_has_no_other_end(folder: Path) -> None:
    ended = run(folder, "fan-in", "--duration", "0.5")

    assert ended.returncode == 0
    assert results_of(folder)["items"]["taken"] > 0


@pytest.mark.parametrize("preset", ["pipeline", "fan-in", "fan-out"])
def test_kills_lose_nothing_and_double_nothing(preset: str, folder: Path) -> None:
    ended = run(folder, preset, "--duration", "3", "--faults", "kill:8", "--seed", "11")

    results = results_of(folder)
    assert ended.returncode == 0, ended.stdout
    assert results["verdict"] == "valid"
    assert sum(role["killed"] for role in results["roles"]) > 0
    for books in (results["items"], *results["queues"]):
        assert (books["lost"], books["duplicated"], books["reordered"]) == (0, 0, 0)


@pytest.mark.parametrize(
    ("plant", "check"), [("lose", "nothing lost"), ("double", "nothing duplicated"), ("swap", "order kept")]
)
def test_a_broken_queue_is_found_out(plant: str, check: str, folder: Path) -> None:
    ended = run(folder, "fan-in", "--items", "1000", "--producers", "2", plant=plant)

    assert ended.returncode == 1
    assert broken_checks(folder) == [check]


def test_a_history_on_disk_says_what_the_run_said(folder: Path) -> None:
    run(folder, "pipeline", "--duration", "2", "--faults", "kill:8", "--seed", "12")

    history, results = read_history(folder / "history.jsonl"), results_of(folder)
    books, items = edge_accounts(history), item_account(history)

    assert [account.taken for account in books] == [queue["taken"] for queue in results["queues"]]
    assert [account.redelivered for account in books] == [queue["redelivered"] for queue in results["queues"]]
    again = [check(history, books, items) for check in (check_loss, check_duplicates, check_order)]
    assert [finding.sentence for finding in again] == [finding["sentence"] for finding in results["findings"][:3]]


def test_json_is_all_there_is_on_standard_output(folder: Path) -> None:
    ended = run(folder, "fan-out", "--items", "500", "--json")

    assert json.loads(ended.stdout) == results_of(folder)
    assert ended.stderr == ""


def test_quiet_prints_the_verdict_only(folder: Path) -> None:
    ended = run(folder, "fan-out", "--items", "500", "--quiet")

    assert [line.split()[0] for line in ended.stdout.splitlines()] == ["verdict", "history", "repeat"]


def test_kept_logs_stay(folder: Path) -> None:
    run(folder, "fan-in", "--items", "500", "--producers", "1", "--keep")

    assert {"1.log", "2.log"} <= {path.name for path in (folder / "work").iterdir()}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_run_ends_everybody_and_prints_what_it_has(number: signal.Signals, folder: Path) -> None:
    with start(folder, "pipeline", *NO_END) as process:
        wait_for_progress(process)
        process.send_signal(number)
        shown, _ = process.communicate(timeout=WATCHDOG_SECONDS)

    results = results_of(folder)
    assert process.returncode == 130
    assert workers_of(folder) == []
    assert "verdict  unknown (interrupted)" in shown
    assert "repeat   sage-sim run pipeline" in shown
    assert results["items"]["taken"] > 0
    assert results["items"]["lost"] is None
    assert checks_of(results)["order kept"] == checks_of(results)["nothing duplicated"] == "valid"


def test_no_process_and_no_segment_outlives_a_killed_conductor(folder: Path) -> None:
    with start(folder, "pipeline", *NO_END) as process:
        wait_for_progress(process)
        process.kill()

    wait_until(lambda: not workers_of(folder))
    assert segments_of(folder) == []


def test_nothing_outlives_a_conductor_killed_while_it_starts(folder: Path) -> None:
    with start(folder, "pipeline", *NO_END) as process:
        wait_until(lambda: workers_of(folder))
        process.kill()

    wait_until(lambda: not workers_of(folder))
    assert segments_of(folder) == []


def test_leftovers_of_the_dead_are_cleaned_and_the_living_are_left_alone() -> None:
    make = (
        "import os, signal, sys; from sage_qd import SageQueueDescriptor;"
        f"queue = SageQueueDescriptor(sys.argv[1], namespace={NAMESPACE!r}).open();"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", make, f"dead-{os.getpid()}"], check=False)
    with SageQueueDescriptor(f"alive-{os.getpid()}", namespace=NAMESPACE).open():
        before = {info.name for info in list_segments(NAMESPACE)}

        cleaned = subprocess.run([*COMMAND, "clean"], capture_output=True, text=True, check=True)

        after = {info.name for info in list_segments(NAMESPACE)}
    assert {f"dead-{os.getpid()}", f"alive-{os.getpid()}"} <= before
    assert f"dead-{os.getpid()}" not in after
    assert f"alive-{os.getpid()}" in after
    assert f"dead-{os.getpid()}" in cleaned.stdout


def test_a_run_that_hangs_says_where_everybody_is(folder: Path) -> None:
    with start(folder, "pipeline", *NO_END, "--time-limit", "4") as process:
        wait_for_progress(process)
        for worker in workers_in(folder, "counter"):
            worker.suspend()
        shown, _ = process.communicate(timeout=WATCHDOG_SECONDS)

    assert process.returncode == 6
    assert "verdict  unknown (hung)" in shown
    assert "queue words:" in shown
    assert "in pass_on" in shown


def test_a_process_that_dies_unplanned_makes_the_run_invalid(folder: Path) -> None:
    with start(folder, "pipeline", *NO_END) as process:
        wait_for_progress(process)
        workers_in(folder, "reader")[0].kill()
        shown, _ = process.communicate(timeout=WATCHDOG_SECONDS)

    assert process.returncode == 1
    assert checks_of(results_of(folder))["no process failed"] == "invalid"
    assert "died of signal 9" in shown


def test_a_machine_that_cannot_is_told_apart_from_a_check_that_failed(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    ended = subprocess.run(
        [*COMMAND, "run", "fan-in", "--out", tmp_path / "file" / "run"], capture_output=True, text=True, check=False
    )

    assert ended.returncode == 5
    assert "the folder for the run cannot be made" in ended.stderr
    assert ended.stdout == ""


def test_a_run_for_which_there_are_too_few_descriptors_does_not_begin(tmp_path: Path) -> None:
    ended = subprocess.run(
        ["sh", "-c", 'ulimit -n 20; exec "$@"', "sh", *COMMAND, "run", "pipeline", "--out", str(tmp_path / "run")],
        capture_output=True,
        text=True,
        timeout=WATCHDOG_SECONDS,
        check=False,
    )

    assert ended.returncode == 5
    assert "descriptors of the conductor, and there are 20" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "run").exists()


def test_a_terminal_gets_a_live_table_and_then_the_report(folder: Path) -> None:
    primary, secondary = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, "run", "pipeline", "--items", "3000", "--out", str(folder)],
        stdout=secondary,
        stderr=secondary,
        env=os.environ | {"TERM": "xterm-256color", "COLUMNS": "100", "LINES": "50"},
    )
    os.close(secondary)
    shown = b""
    try:
        while piece := os.read(primary, 65536):
            shown += piece
    except OSError:  # the other end is closed
        os.close(primary)

    assert process.wait(WATCHDOG_SECONDS) == 0
    for wanted in (b"starting 7 processes", b"alive", b"checking the history", b"valid", b"repeat"):
        assert wanted in shown
