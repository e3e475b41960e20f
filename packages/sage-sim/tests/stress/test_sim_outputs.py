"""What a real run says to others, and verbs that run many."""

import json
import os
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import psutil
import pytest
from click.testing import CliRunner
from sim_runs import COMMAND, PLANTED, WATCHDOG_SECONDS, results_of, run, wait_until

from sage_qd.ring import list_segments
from sage_sim.calibration import Calibration, Line, calibrate
from sage_sim.channels import NAMESPACE
from sage_sim.checkers import Verdict
from sage_sim.cli import trials
from sage_sim.cli.app import main
from sage_sim.cli.trials import once
from sage_sim.request import Request
from sage_sim.results import Results

FEW = ["--items", "400", "--producers", "1"]


def called(folder: Path, *words: str, plant: str | None = None) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(filter(None, (str(PLANTED), os.environ.get("PYTHONPATH"))))
    planted = {} if plant is None else {"PLANT": plant, "PYTHONPATH": path}
    return subprocess.run(
        [*COMMAND, *words],
        cwd=folder,
        env=os.environ | planted,
        capture_output=True,
        text=True,
        timeout=WATCHDOG_SECONDS,
        check=False,
    )


@pytest.fixture(scope="module")
def struck(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with faults, and all its outputs."""
    folder = tmp_path_factory.mktemp("struck")
    files = [word for form in ("html", "junit", "markdown") for word in (f"--{form}", str(folder / f"run.{form}"))]
    ended = run(folder / "run", "service", "--duration", "1.5", "--faults", "kill:4,stop:3", "--seed", "5", *files)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return folder


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium")
def test_the_page_is_drawn_by_a_browser_without_a_network(struck: Path) -> None:
    browser = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={struck / 'profile'}"]
    browser += ["--host-resolver-rules=MAP * ~NOTFOUND", "--window-size=1000,1600"]
    page = (struck / "run.html").as_uri()

    shown = subprocess.run(
        [*browser, "--dump-dom", page], capture_output=True, text=True, timeout=WATCHDOG_SECONDS, check=True
    ).stdout
    subprocess.run(
        [*browser, f"--screenshot={struck / 'page.png'}", page],
        capture_output=True,
        timeout=WATCHDOG_SECONDS,
        check=True,
    )

    results = results_of(struck / "run")
    text = re.sub(r"<[^>]*>", " ", shown)
    assert shown.count("<polyline") == 2 * len(results["queues"])
    assert len(re.findall(r'class="(?:mark|span)"', shown)) == 2 * len(results["blows"])
    for word in ("client", "server", "requests", "replies", "nothing lost", "p99.9", results["command"]):
        assert word in text
    assert "<script" not in shown
    assert not re.search(r'(?:src|href)="', shown)
    assert (struck / "page.png").stat().st_size > 20_000


def test_junit_has_a_test_for_each_check(struck: Path) -> None:
    suite = ElementTree.parse(struck / "run.junit").getroot()

    checks = [finding["check"] for finding in results_of(struck / "run")["findings"]]
    assert [case.get("name") for case in suite.iter("testcase")] == checks
    assert (suite.get("tests"), suite.get("failures")) == (str(len(checks)), "0")


def test_a_failed_check_is_a_failure_in_junit_and_stands_out_elsewhere(tmp_path: Path) -> None:
    words = [word for form in ("html", "junit", "markdown") for word in (f"--{form}", str(tmp_path / f"run.{form}"))]

    run(tmp_path / "run", "fan-in", *FEW, *words, plant="lose")

    (failure,) = ElementTree.parse(tmp_path / "run.junit").getroot().iter("failure")
    assert failure.get("message") == "1 messages lost in queues, 1 items lost between source and sink"
    assert "| nothing lost | **failed** |" in (tmp_path / "run.markdown").read_text()
    assert '<span class="bad">invalid</span>' in (tmp_path / "run.html").read_text()


def test_a_report_can_be_made_again_from_the_folder(struck: Path) -> None:
    shown = called(struck, "report", "run")
    called(struck, "report", "run", "--html", "again.html")
    as_json = called(struck, "report", "run", "--json")

    assert "service: valid" in shown.stdout
    assert (struck / "again.html").read_text() == (struck / "run.html").read_text()
    assert json.loads(as_json.stdout) == results_of(struck / "run")


def test_a_folder_without_a_run_has_no_report(tmp_path: Path) -> None:
    ended = called(tmp_path, "report", ".")

    assert ended.returncode == 2
    assert "has no results" in ended.stderr


def test_replay_does_the_same_again(tmp_path: Path) -> None:
    run(tmp_path / "run", "pipeline", "--items", "300", "--seed", "9", "--workers", "2")

    ended = called(tmp_path, "replay", "run", "--out", "again", "--quiet")

    first, again = results_of(tmp_path / "run"), results_of(tmp_path / "again")
    assert ended.returncode == 0, ended.stderr
    assert (first["answer"], first["seed"], first["processes"]) == (again["answer"], again["seed"], again["processes"])


def test_kinds_are_compared_side_by_side(tmp_path: Path) -> None:
    kinds = ["multiprocessing", "sage_queue"]

    ended = called(
        tmp_path, "compare", "fan-in", *FEW, "--rounds", "2", "--json", *(w for kind in kinds for w in ("--kind", kind))
    )

    found = json.loads(ended.stdout)
    assert ended.returncode == 0
    assert [one["kind"] for one in found] == kinds
    assert [len(one["rates"]) for one in found] == [2, 2]
    assert found[0]["ratios"] == [1.0, 1.0]


@pytest.mark.long
def test_a_comparison_in_which_something_is_lost_fails(tmp_path: Path) -> None:
    ended = called(tmp_path, "compare", "fan-in", *FEW, "--rounds", "1", "--kind", "sage_queue", plant="lose")

    assert ended.returncode == 1
    assert "nothing lost" in ended.stdout


@pytest.mark.long
def test_the_highest_rate_is_searched_with_real_runs(tmp_path: Path) -> None:
    words = ["--start", "200", "--precision", "1", "--duration", "0.4", "--warmup", "0.1", "--json"]

    ended = called(tmp_path, "search-rate", "fan-in", "--faults", "slow@0=consumer/60*1", "--producers", "1", *words)

    found = json.loads(ended.stdout)
    assert ended.returncode == 0
    assert 0 < found["rate"] < 1000  # each item takes the consumer a millisecond
    assert not all(step["is_sustained"] for step in found["steps"])


@pytest.mark.parametrize("form", [[], ["--json"]], ids=["table", "json"])
def test_a_search_ends_where_something_is_lost(form: list[str], tmp_path: Path) -> None:
    ended = called(tmp_path, "search-rate", "fan-in", *FEW, "--duration", "0.5", *form, plant="lose")

    assert ended.returncode == 1
    assert ended.stderr == "sage-sim: at 500 items/s: nothing lost\n"


def test_a_search_ends_where_a_run_hangs(tmp_path: Path) -> None:
    words = ["--duration", "0.5", "--time-limit", "0.2"]

    ended = called(tmp_path, "search-rate", "fan-in", *words)

    assert ended.returncode == 6, ended
    assert ended.stderr == "sage-sim: at 500 items/s: it hung\n"


def test_fuzz_runs_random_scenarios_and_stops_at_one_that_fails(tmp_path: Path) -> None:
    fine = called(tmp_path, "fuzz", "--runs", "2", "--items", "200", "--seed", "13")
    broken = called(
        tmp_path, "fuzz", "--runs", "5", "--items", "300", "--kind", "sage_queue", "--seed", "13", plant="double"
    )

    assert (fine.returncode, fine.stdout.count(": valid")) == (0, 2), fine.stdout
    assert broken.returncode == 1
    assert "nothing duplicated" in broken.stdout
    assert "repeat   sage-sim run sage-sim-runs/" in broken.stdout


def test_fuzz_in_which_no_run_was_valid_proves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGE_QD_SHM_FOLDER", "/dev/shm")  # a run sets it, and here it is put back
    monkeypatch.setattr(trials, "once", lambda request: replace(once(request), verdict=Verdict.UNKNOWN))

    ended = CliRunner().invoke(main, ["fuzz", "--runs", "1", "--items", "200", "--seed", "13"])

    assert ended.exit_code == 4, ended.output


def test_a_run_that_fails_is_no_calibration(tmp_path: Path) -> None:
    ended = called(tmp_path, "calibrate", "--kind", "sage_queue", plant="lose")

    assert ended.returncode == 5
    assert "nothing was measured, as a run did not pass: 1 " in ended.stderr
    assert not list(tmp_path.iterdir())


def test_what_fails_is_shrunk_to_a_file_that_fails(tmp_path: Path) -> None:
    ended = called(
        tmp_path,
        "shrink",
        "fan-in",
        "--items",
        "300",
        "--producers",
        "2",
        "--seed",
        "1",
        "--again",
        "1",
        plant="double",
    )

    again = called(tmp_path, "run", "shrunk.toml", "--seed", "1", "--quiet", plant="double")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "2 processes, 1 edges" in ended.stdout
    assert again.returncode == 1


@pytest.mark.long
def test_nothing_is_shrunk_that_does_not_fail(tmp_path: Path) -> None:
    assert called(tmp_path, "shrink", "fan-in", *FEW).returncode == 4


@pytest.mark.long
def test_soak_goes_on_with_other_seeds_until_one_fails(tmp_path: Path) -> None:
    fine = called(tmp_path, "soak", "fan-in", *FEW, "--runs", "2", "--seed", "1")
    broken = called(tmp_path, "soak", "fan-in", *FEW, "--runs", "3", "--seed", "1", plant="lose")

    assert fine.returncode == 0, fine.stdout
    assert "2 runs, 800 items, 0 descriptors more than before" in fine.stdout
    assert broken.returncode == 1
    assert "repeat   sage-sim run fan-in --seed 1" in broken.stdout


def test_a_file_with_a_seed_is_run_with_others_and_repeated_with_those(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds = []

    def noted(request: Request) -> Results:
        results = once(request)
        seeds.append(results.plan.seed)
        return results

    called(tmp_path, "new", "fan-in", "a.toml")
    (tmp_path / "a.toml").write_text("seed = 42\n" + (tmp_path / "a.toml").read_text())
    monkeypatch.setattr(trials, "once", noted)
    monkeypatch.setenv("SAGE_QD_SHM_FOLDER", "/dev/shm")  # a run sets it, and here it is put back

    soaked = CliRunner().invoke(main, ["soak", str(tmp_path / "a.toml"), "--items", "200", "--runs", "2"])
    run(tmp_path / "run", str(tmp_path / "a.toml"), "--items", "200", "--seed", "7")
    called(tmp_path, "replay", "run", "--out", "again")

    assert (soaked.exit_code, seeds) == (0, [42, 43]), soaked.output
    assert [results_of(tmp_path / name)["seed"] for name in ("run", "again")] == [7, 7]


@pytest.mark.long
def test_a_gate_that_is_not_met_fails_the_run(tmp_path: Path) -> None:
    called(tmp_path, "new", "fan-in", "a.toml")
    text = (tmp_path / "a.toml").read_text()
    (tmp_path / "a.toml").write_text(text.replace("items = 80000", "items = 200") + "\n[gates]\nlowest_rate = 1e9\n")

    ended = run(tmp_path / "run", str(tmp_path / "a.toml"))

    assert ended.returncode == 1
    assert "fast enough" in ended.stdout


def test_plan_refuses_what_does_not_fit(tmp_path: Path) -> None:
    fits = called(tmp_path, "plan", "shuffle")
    many = called(tmp_path, "plan", "fan-in", "--producers", "300")
    wide = called(tmp_path, "run", "fan-in", "--capacity", str(1 << 30), "--max-mem", "64")

    assert fits.returncode == 0
    assert many.returncode == 5
    assert "needs 301 processes, and there are 200" in many.stdout
    assert wide.returncode == 5
    assert "MiB of memory, and there are 64" in wide.stderr


def test_portable_queues_of_a_killed_run_go_with_the_next_clean(tmp_path: Path) -> None:
    words = [*COMMAND, "run", "fan-in", "--backend", "shm_queue", "--duration", "1000", "--out", str(tmp_path / "run")]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL) as conductor:
        wait_until(lambda: (tmp_path / "run" / "plan.json").exists())
        wait_until(lambda: psutil.Process(conductor.pid).children())
        family = psutil.Process(conductor.pid).children(recursive=True)
        for process in [psutil.Process(conductor.pid), *family]:
            process.kill()
    name = re.search(r"run-[0-9a-f]{12}", (tmp_path / "run" / "plan.json").read_text())
    assert name is not None
    wait_until(lambda: not any(process.is_running() and process.status() != "zombie" for process in family))

    called(tmp_path, "clean")

    place = Path(f"/dev/shm/sage-sim-{os.geteuid()}")
    assert [path for path in place.rglob("*") if name[0] in path.name] == []
    assert [info for info in list_segments(NAMESPACE) if name[0] in info.name] == []


def test_a_forecast_has_its_error_beside_every_figure(tmp_path: Path) -> None:
    lines = {"put": Line(fixed_ns=20_000, byte_ns=0), "take": Line(fixed_ns=50_000, byte_ns=0)}
    Calibration(kinds={"sage_queue": lines}, cores=2, efficiency=1.0, error=0.15, machine={}).write(
        tmp_path / "here.json"
    )

    without = called(tmp_path, "predict", "fan-in")
    shown = called(tmp_path, "predict", "fan-in", "--producers", "1", "--calibration", "here.json")

    assert without.returncode == 5
    assert "run `sage-sim calibrate` first" in without.stderr
    figures = [line for line in shown.stdout.splitlines() if not line.startswith("worked out")]
    assert figures[0] == "items/s  20,000 ± 15%"
    assert all(line.endswith("± 15%") for line in figures)


@pytest.mark.long
def test_what_messages_cost_is_measured_with_real_runs() -> None:
    heard: list[str] = []

    def few(request: Request) -> Results:
        smaller = request.scenario.model_copy(update={"items": max((request.scenario.items or 0) // 8, 1)})
        return once(replace(request, scenario=smaller))

    found = calibrate(["sage_queue"], few, cores=2, machine={}, say=heard.append)

    lines = found.kinds["sage_queue"]
    assert heard == ["sage_queue: 64 bytes", "sage_queue: 4,096 bytes", "sage_queue: how far off the model is"]
    assert 0 < lines["put"].at(64) <= lines["put"].at(4096) < 1e6
    assert 0 < found.efficiency < 20
