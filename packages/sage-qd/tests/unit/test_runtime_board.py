"""The board of a job: what others see of it while it runs, and what is left when it was killed."""

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sage_qd import (
    BaseQueueDescriptor,
    CorruptQueueError,
    JobNotFoundError,
    LocalQueueDescriptor,
    QueueCreationStrategy,
)
from sage_qd.runtime import Environment, LocalEnvironment, ProcessEnvironment
from sage_qd.runtime.board import BLOCK_BYTES, Board, boards, clean_boards, folder
from sage_qd.runtime.sampling import JobSample, JobSampler, find_job, jobs_here
from sage_qd.testing import wait_for

PATIENCE = 60.0
DRIVER = """
import itertools, sys
from sage_qd.runtime import LocalEnvironment, ProcessEnvironment

env = {"threads": LocalEnvironment, "processes": ProcessEnvironment}[sys.argv[1]](sys.argv[2], restarts=1)
env.from_source(itertools.count).sink(lambda x: None)
env.submit()
print("running", flush=True)
sys.stdin.read()
"""

Make = Callable[..., Environment]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep the boards of the test apart from those of other programs."""
    monkeypatch.setenv("SAGE_QD_SHM_FOLDER", str(tmp_path))
    return tmp_path


@pytest.fixture(params=[LocalEnvironment, ProcessEnvironment], ids=["threads", "processes"])
def make(request: pytest.FixtureRequest) -> Iterator[Make]:
    made: list[Environment] = []

    def environment(name: str, **settings: Any) -> Environment:
        made.append(request.param(name, **({"batch_size": 8} | settings)))
        return made[-1]

    yield environment
    for env in made:
        env.stop()
    assert not folder().exists()


class ThreadQueues(QueueCreationStrategy):
    """Queues that cannot be seen from outside."""

    def _made(self, name: str, is_remote: bool, settings: dict[str, Any]) -> BaseQueueDescriptor:
        return LocalQueueDescriptor(f"{self.job}.{name}", maxsize=settings.get("maxsize", 64))


def slow_job(env: Environment) -> None:
    env.from_source(itertools.count, name="numbers").map(lambda x: x, parallelism=2).sink(
        lambda x: time.sleep(0.005), name="slow", buffer_size=2
    )


def seen(name: str, condition: Callable[[JobSample], bool]) -> JobSample:
    """Look at a job until the condition holds."""
    sampler, found = JobSampler(find_job(name)), []

    def holds() -> bool:
        found[:] = [sampler.look()]
        return condition(found[0])

    wait_for(holds, "the job is seen so")
    return found[0]


def test_a_job_is_found_by_its_name_and_shows_what_its_tasks_do(make: Make) -> None:
    env = make("shop <1>")
    env.add_service("model", dict)
    slow_job(env)
    env.submit()

    sample = seen(
        "shop <1>", lambda job: job.slow == ["slow_0"] and job.tasks[0].blocked > 0 and job.tasks[-1].taken > 0
    )

    assert (sample.job, sample.id, sample.pid, sample.state) == ("shop <1>", env.job, os.getpid(), "running")
    assert [task.name for task in sample.tasks] == ["numbers_0", "map_0", "map_1", "slow_0"]
    assert [(each.name, each.depth) for each in sample.services] == [("model", 0)]
    assert [(edge["source"], edge["target"]) for edge in sample.edges] == [("numbers", "map"), ("map", "slow")]
    source, last = sample.tasks[0], sample.tasks[-1]
    assert (source.depth, source.load) == (None, None)
    assert source.out > last.taken
    assert sample.edges[1]["load"] == last.load
    assert last.depth is not None
    assert sample.as_dict()["tasks"]["numbers_0"]["taken"] == source.taken


def test_queues_of_single_paths_are_seen_together(make: Make) -> None:
    env = make("lanes", batch_size=1, lanes="per_edge")
    slow_job(env)
    dispatcher = env.submit()

    sample = seen("lanes", lambda job: job.slow == ["slow_0"])

    assert sample.tasks[-1].depth is not None
    assert sample.tasks[-1].depth > 0
    wait_for(lambda: dispatcher.snapshot()["tasks"]["slow_0"]["load"] == 1.0, "its own snapshot says so, too")
    assert {edge["queue"] for edge in dispatcher.snapshot()["edges"] if edge["target"] == "slow_0"} == {
        "map_0_to_slow_0_0_0",
        "map_1_to_slow_0_0_0",
    }


def test_the_last_figures_and_the_outcome_stay_with_who_looks(make: Make) -> None:
    env = make("short")
    env.from_collection(range(10)).map(lambda x: x).collect()
    dispatcher = env.submit()
    sampler = JobSampler(find_job("short"))
    assert sampler.look().state == "running"

    dispatcher.wait(timeout=PATIENCE)
    sample = sampler.look()
    assert sample.state == "finished"
    assert [task.out for task in sample.tasks] == [10, 10]
    with pytest.raises(JobNotFoundError, match="no job 'short' runs here as this user; none does"):
        find_job("short")


def test_a_failed_job_says_so(make: Make) -> None:
    env = make("bad")
    env.from_collection([0]).map(lambda x: 1 // x).sink(str)
    dispatcher = env.submit()
    sampler = JobSampler(find_job("bad"))

    with pytest.raises(ZeroDivisionError):
        dispatcher.wait(timeout=PATIENCE)

    assert sampler.look().state == "failed"


def test_a_wrong_name_is_told_with_the_names_there_are(make: Make) -> None:
    for name in ("one", "other"):
        env = make(name)
        slow_job(env)
        env.submit()

    with pytest.raises(
        JobNotFoundError, match="no job 'missing' runs here as this user; these do: one, other"
    ) as caught:
        find_job("missing")

    assert caught.value.known == ("one", "other")
    assert jobs_here() == ["one", "other"]


def test_of_two_jobs_with_one_name_the_id_says_which(make: Make) -> None:
    twins = [make("twin"), make("twin")]
    for env in twins:
        slow_job(env)
        env.submit()

    with pytest.raises(ValueError, match=r"2 jobs are called 'twin'; give the id of one: twin\.\w+ \(pid \d+\), twin"):
        find_job("twin")

    assert find_job(twins[1].job).description["id"] == twins[1].job


def test_queues_that_cannot_be_seen_from_outside_are_told_by_the_driver() -> None:
    env = LocalEnvironment("inside", strategy=ThreadQueues, batch_size=1)
    slow_job(env)
    env.submit()
    sampler = JobSampler(find_job("inside"))

    sampler.await_answer()
    first = sampler.look()
    sampler.await_answer()
    second = sampler.look()
    env.stop()

    assert first.tasks[-1].depth is not None
    assert first.tasks[-1].depth <= 2
    assert second.tasks[0].rate_out > 0
    assert second.age_seconds < 60
    assert [thread.name for thread in threading.enumerate() if thread.name == "sage-qd-publisher"] == []


def test_a_driver_whom_nobody_asks_publishes_nothing() -> None:
    env = LocalEnvironment("quiet", strategy=ThreadQueues, batch_size=8)
    slow_job(env)
    dispatcher = env.submit()
    board = find_job("quiet")

    dispatcher.wait(timeout=1.0)

    assert board.published_ns == 0
    env.stop()


# -- What a kill leaves -----------------------------------------------------------------------------------------------


def killed(where: str, name: str, snapshots: Path) -> None:
    """Run a job in a program of its own, and kill that."""
    command, place = [sys.executable, "-c", DRIVER, where, name], os.environ | {"TMPDIR": str(snapshots)}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=place) as driver:
        assert driver.stdout is not None
        assert driver.stdout.readline() == "running\n"
        assert find_job(name).description["pid"] == driver.pid
        sampler = JobSampler(find_job(name))
        driver.send_signal(signal.SIGKILL)
        driver.wait(PATIENCE)
    wait_for(lambda: sampler.look().state == "killed", "who looks is told")


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """Return where the jobs of other programs keep their snapshots."""
    place = tmp_path / "snapshots"
    place.mkdir()
    return place


def test_a_killed_driver_takes_the_board_along_where_its_tasks_are_processes(kept: Path) -> None:
    killed("processes", "gone", kept)

    wait_for(lambda: not folder().exists(), "the board is gone")
    assert list(kept.iterdir()) == []


def test_a_board_of_the_dead_is_no_job_and_is_cleaned_with_its_snapshots(kept: Path) -> None:
    killed("threads", "dead", kept)
    (path,) = folder().iterdir()
    (snapshots,) = kept.iterdir()

    assert jobs_here() == []
    assert clean_boards(dry_run=True) == [str(path), str(snapshots)]
    assert path.exists()
    assert clean_boards() == [str(path), str(snapshots)]
    assert not folder().exists()
    assert not snapshots.exists()


def test_a_running_job_is_not_cleaned(make: Make) -> None:
    env = make("alive")
    slow_job(env)
    env.submit()

    assert clean_boards() == []
    assert jobs_here() == ["alive"]


def test_what_is_no_board_is_no_job_and_is_told_to_who_opens_it() -> None:
    board = Board.create("job.1", {"job": "job", "id": "job.1"}, 2)
    assert board.block(1) - board.block(0) == BLOCK_BYTES
    assert [each.description["job"] for each in boards()] == ["job"]
    board.memory[:4] = b"oops"

    with pytest.raises(CorruptQueueError, match="magic"):
        Board.attach(board.path)

    assert list(boards()) == []
    board.remove()
    board.remove()
    assert not folder().exists()


def test_a_board_that_was_not_completed_is_cleaned() -> None:
    folder().mkdir(mode=0o700)
    (folder() / "~new-1").touch(mode=0o600)

    assert jobs_here() == []
    assert clean_boards() == [str(folder() / "~new-1")]
    assert not folder().exists()
