"""The verbs as a user types them: output, JSON, exit codes, and one line for each error."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sage_qd import LocalQueueDescriptor, SageQueueDescriptor
from sage_qd.ring import Ring, directory
from sage_qd.runtime import LocalEnvironment
from sage_qd.runtime.board import folder

pytestmark = [pytest.mark.timeout(120), pytest.mark.once]
WORDS = [sys.executable, "-m", "sage_qd"]
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run ``sage-qd`` with these words, in a cache folder of its own."""

    def command(*words: object, **settings: Any) -> "subprocess.CompletedProcess[str]":
        environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache"), "COLUMNS": "200"}
        return subprocess.run(
            [*WORDS, *map(str, words)],
            text=True,
            timeout=100,
            env=environment,
            **({"capture_output": True, "stdin": subprocess.DEVNULL} | settings),
        )

    return command


@pytest.fixture
def left(namespace: str, start: Callable) -> Path:
    """Return the path of a queue that a killed process left."""
    process = start('ring = create("left", namespace=sys.argv[1])\nring.put(b"x")\nsay(ring.path)\nhear()')
    path = Path(process.hear())
    process.kill()
    return path


def document(done: "subprocess.CompletedProcess[str]") -> Any:
    assert done.stderr == ""
    return json.loads(done.stdout)


# -- ls ---------------------------------------------------------------------------------------------------------------


def test_ls_shows_true_names_depth_and_use(namespace: str, left: Path, run: Run) -> None:
    with SageQueueDescriptor("结果 [b]", namespace=namespace, maxsize=70).open() as queue:
        queue.put_many(range(5))

        shown = run("ls", "--namespace", namespace)

    assert shown.returncode == 0
    lines = {line.split()[0]: line for line in shown.stdout.splitlines()}
    assert "left over" in lines[f"{namespace}/left"]
    row = next(line for line in shown.stdout.splitlines() if "结果 [b]" in line)
    assert [word for word in row.split() if word in ("5", "70")] == ["5", "70", "5"]
    assert row.endswith("in use") or row.strip().endswith("in use")
    run("clean", "--namespace", namespace, "--yes")


def test_ls_as_json_has_the_schema_of_all_kinds(ring: Ring, namespace: str, run: Run) -> None:
    ring.put(b"12345")

    found = document(run("ls", "--namespace", namespace, "--json"))

    assert found["schema"] == "sage-qd.queues/1"
    assert [(each["queue_id"], each["stats"]["depth"]) for each in found["queues"]] == [("ring", 1)]


def test_ls_with_rates_looks_twice(ring: Ring, namespace: str, run: Run) -> None:
    found = document(run("ls", "--namespace", namespace, "--rates", "--json"))

    assert found["queues"][0]["rates"]["seconds"] > 0.5
    assert "put/s" in run("ls", "--namespace", namespace, "--rates").stdout


def test_ls_of_nothing_says_so(namespace: str, run: Run) -> None:
    assert run("ls", "--namespace", namespace).stdout == "no queues\n"
    assert document(run("ls", "--namespace", namespace, "--json"))["queues"] == []


# -- inspect, waits, top ----------------------------------------------------------------------------------------------


def test_inspect_shows_one_queue_in_full(ring: Ring, namespace: str, run: Run) -> None:
    ring.put(b"12345")
    lease = ring.lease()

    shown = run("inspect", f"{namespace}/ring").stdout

    assert "Settings" in shown
    assert f"{os.getpid()}" in shown
    assert "holds 1 leases" in shown
    assert document(run("inspect", f"{namespace}/ring", "--json"))["instance"] == ring.instance
    lease.ack()


def test_inspect_of_a_damaged_queue_shows_the_problem_and_fails(ring: Ring, namespace: str, run: Run) -> None:
    text = Path(directory(), namespace, "text")
    text.write_text("no segment")
    text.chmod(0o600)

    done = run("inspect", f"{namespace}/text")

    text.unlink()
    assert done.returncode == 4
    assert "file size" in done.stdout


def test_waits_marks_a_dead_lock(namespace: str, start: Callable, run: Run, eventually: Callable) -> None:
    source = """
mine, other = (attach_or_create(name, namespace=sys.argv[1], max_items=3) for name in sys.argv[2:4])
say("ready")
hear()
while True:
    mine.put(b"message")
"""
    processes = [start(source, "left", "right"), start(source, "right", "left")]
    for process in processes:
        process.hear()
    for process in processes:
        process.tell()

    done = eventually(lambda: (done := run("waits", "--namespace", namespace)).returncode == 1 and done)

    first, second = sorted(process.pid for process in processes)
    assert f"({first}) → " in done.stdout
    assert f"({second}) → " in done.stdout
    assert f"waits for room in {namespace}/left" in done.stdout
    assert document(run("waits", "--namespace", namespace, "--json"))["cycles"] == [
        {"pids": [first, second], "certain": True}
    ]
    for process in processes:
        process.kill()
    run("clean", "--namespace", namespace, "--yes")


def test_waits_without_any_is_fine(ring: Ring, namespace: str, run: Run) -> None:
    done = run("waits", "--namespace", namespace)

    assert (done.returncode, done.stdout) == (0, "nobody waits\n")


def test_top_once_has_rates_for_scripts(ring: Ring, namespace: str, run: Run) -> None:
    found = document(run("top", "--namespace", namespace, "--once", "--json", "--interval", "0.1"))

    assert found["schema"] == "sage-qd.top/1"
    assert found["queues"][0]["rates"].keys() >= {"puts_per_second", "gets_per_second", "blocked_producers"}
    assert f"{namespace}/ring" in run("top", "--namespace", namespace, "--once", "--interval", "0.1").stdout


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalEnvironment]:
    """Return a running job, apart from those of other programs."""
    monkeypatch.setenv("SAGE_QD_SHM_FOLDER", str(tmp_path))
    env = LocalEnvironment("wörter [b]", batch_size=1)
    env.from_source(itertools.count, name="numbers").sink(lambda x: time.sleep(0.01), name="slow", buffer_size=2)
    env.submit()
    yield env
    env.stop()


def test_top_of_a_job_has_its_tasks(job: LocalEnvironment, run: Run) -> None:
    shown = run("top", "--job", job.name, "--once", "--interval", "0.2")
    found = document(run("top", "--job", job.job, "--once", "--json", "--interval", "0.2"))

    assert shown.returncode == 0
    assert f"wörter [b]   running, 2 tasks in threads, pid {os.getpid()}, made " in shown.stdout
    assert {line.split()[0] for line in shown.stdout.splitlines()[2:4]} == {"numbers_0", "slow_0"}
    assert (found["schema"], found["job"], found["state"]) == ("sage-qd.job/1", job.name, "running")
    assert found["tasks"]["slow_0"]["rate_in"] > 0


def test_top_of_an_unknown_job_names_those_there_are(job: LocalEnvironment, run: Run) -> None:
    for once in (["--once"], []):
        done = run("top", "--job", "words", *once)

        assert done.returncode == 3
        assert done.stderr == "sage-qd: no job 'words' runs here as this user; these do: wörter [b]\n"


# -- clean ------------------------------------------------------------------------------------------------------------


def test_clean_finds_the_boards_of_dead_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    monkeypatch.setenv("SAGE_QD_SHM_FOLDER", str(tmp_path))
    folder().mkdir(mode=0o700)
    dead = folder() / "words.1"
    dead.touch(mode=0o600)

    done = run("clean", "--dry-run")

    assert f"would remove {dead}\n" in done.stdout
    assert dead.exists()


def test_clean_says_first_and_then_removes(left: Path, namespace: str, run: Run) -> None:
    dry = run("clean", "--namespace", namespace, "--dry-run")
    assert dry.stdout == f"would remove {left}\n1 files would be removed\n"
    assert left.exists()

    done = run("clean", "--namespace", namespace, "--yes")

    assert done.stdout == f"removed {left}\n1 files removed\n"
    assert not left.exists()


def test_clean_asks_and_without_a_terminal_refuses(left: Path, namespace: str, run: Run) -> None:
    done = run("clean", "--namespace", namespace)

    assert done.returncode == 2
    assert "--yes" in done.stderr
    assert left.exists()
    run("clean", "--namespace", namespace, "--yes")


def test_clean_spares_kept_queues_and_those_in_use(ring: Ring, namespace: str, run: Run) -> None:
    descriptor = SageQueueDescriptor("kept", namespace=namespace, auto_cleanup=False)
    descriptor.open().close()

    done = run("clean", "--namespace", namespace, "--yes")

    assert done.stdout.startswith("0 files removed\n1 kept on purpose: ")
    assert document(run("clean", "--namespace", namespace, "--yes", "--json"))["kept"] == [f"{namespace}/kept"]
    assert run("clean", "--namespace", namespace, "--kept", "--yes").stdout.endswith("1 files removed\n")
    assert Path(ring.path or "").exists()


# -- doctor, bench, calibrate -----------------------------------------------------------------------------------------


def test_doctor_prints_a_line_for_each_check(run: Run) -> None:
    found = document(run("doctor", "--json"))

    shown = run("doctor").stdout
    assert found["schema"] == "sage-qd.doctor/1"
    assert all(check["name"] in shown for check in found["checks"])


def test_doctor_fails_with_a_failed_check(ring: Ring, namespace: str, run: Run) -> None:
    Path(directory(), namespace).chmod(0o755)

    done = run("doctor")

    Path(directory(), namespace).chmod(0o700)
    assert done.returncode == 1
    assert "chmod 700" in done.stdout


def test_bench_measures_and_calibrate_keeps_it(run: Run, tmp_path: Path) -> None:
    benched = run("bench", "sage_queue", "--seconds", "0.1", "--json")
    assert document(benched)["kinds"][0]["kind"] == "sage_queue"

    done = run("calibrate", "sage_queue")

    path = tmp_path / "cache" / "sage-qd" / "calibration.json"
    assert done.stdout == f"sage_queue written to {path}\n"
    assert json.loads(path.read_text())["kinds"]["sage_queue"]["put_get_ns"] > 0


# -- Errors and endings -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["inspect", "never-made"], 3, "sage-qd: there is no queue 'never-made'; create it, or check its name"),
        (["inspect", "sage://a/never-made"], 3, "there is no queue 'never-made'"),
        (["inspect", '{"queue_type": "no_such"}'], 2, "sage-qd: "),
        (["inspect", "nonsense://x"], 2, "sage-qd: "),
        (["inspect", json.dumps(LocalQueueDescriptor("q").to_dict())], 4, "ask it inside its process: queue.stats()"),
        (["ls", "--namespace", "x" * 200], 2, "is not a queue name"),
        (["export", "--prometheus", "--listen", "0.0.0.0:0"], 2, "say so explicitly"),
        (["export", "--prometheus", "--listen", "nowhere:1"], 2, "does not appear to be an IPv4 or IPv6 address"),
        (["calibrate", "local_queue", "--out", "/proc/no/such/file"], 4, "sage-qd: "),
    ],
)
def test_wrong_input_gives_one_line_and_no_trace(run: Run, words: list[str], code: int, said: str) -> None:
    done = run(*words)

    assert done.returncode == code
    assert said in done.stderr
    assert done.stdout == ""
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    "words",
    [
        ["no-such-verb"],
        ["ls", "--no-such"],
        ["top", "--json"],
        ["top", "--job", "a", "--namespace", "b"],
        ["export"],
        ["export", "--prometheus", "--otel"],
    ],
)
def test_wrong_usage_is_explained(run: Run, words: list[str]) -> None:
    done = run(*words)

    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "Usage:" in done.stderr


@pytest.mark.parametrize(
    "verb", ["ls", "inspect", "top", "waits", "explain", "doctor", "clean", "serve", "bench", "calibrate", "export"]
)
def test_help_teaches_with_examples(run: Run, verb: str) -> None:
    done = run(verb, "--help")

    assert done.returncode == 0
    assert "Examples:" in done.stdout
    assert f"sage-qd {verb}" in done.stdout
    assert "Exit codes:" in done.stdout


def test_a_pipe_that_is_closed_early_is_no_error(ring: Ring) -> None:
    done = subprocess.run(
        f"{sys.executable} -m sage_qd ls --json | head -c 1", shell=True, capture_output=True, text=True, timeout=60
    )

    assert (done.stdout, done.stderr) == ("{", "")


def test_the_script_is_the_same_as_the_module(run: Run) -> None:
    script = Path(sys.executable).with_name("sage-qd")

    version = subprocess.run([script, "--version"], capture_output=True, text=True, timeout=60).stdout

    assert version == run("--version").stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_exporter_serves_until_it_is_interrupted(number: signal.Signals) -> None:
    pytest.importorskip("prometheus_client")
    words = [*WORDS, "export", "--prometheus", "--listen", "127.0.0.1:0"]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    token, serving = process.stderr.readline(), process.stderr.readline()
    url = serving.split()[1].rstrip(";")

    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token.split()[1]}"})
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as answer:
        text = answer.read().decode()
    process.send_signal(number)
    _, rest = process.communicate(timeout=60)

    assert "# TYPE sage_qd_puts_total counter" in text
    assert (process.returncode, rest.strip()) == (130, "sage-qd: interrupted")


def test_what_an_extra_would_bring_is_named_when_it_is_missing(tmp_path: Path) -> None:
    """A library that cannot be imported, as when it was never installed."""
    for name in ("textual", "prometheus_client", "opentelemetry"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"raise ModuleNotFoundError('none', name={name!r})")
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}

    for words, extra in (
        (["top"], "sage-qd[top]"),
        (["export", "--once"], "sage-qd[prometheus]"),
        (["export", "--otel"], "sage-qd[otel]"),
    ):
        done = subprocess.run([*WORDS, *words], capture_output=True, text=True, env=environment, timeout=60)
        assert (done.returncode, done.stdout) == (5, "")
        assert f"pip install '{extra}'" in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
