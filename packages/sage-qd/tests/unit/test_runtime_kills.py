"""Tasks that are killed, and drivers that are: what is lost, what comes twice, what is left."""

import array
import fcntl
import itertools
import mmap
import os
import random
import signal
import subprocess
import sys
import termios
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from sage_qd import TaskDiedError
from sage_qd.ring import list_segments
from sage_qd.runtime import BaseFunction, Dispatcher, JobState, ProcessEnvironment
from sage_qd.testing import background, wait_for

PATIENCE = 60.0
COUNT = 100_000

DRIVER = """
import itertools, os, sys, time
from sage_qd.runtime import ProcessEnvironment

env = ProcessEnvironment(sys.argv[1], delivery="at_least_once")
env.from_source(itertools.count).map(lambda x: x, parallelism=2).sink(lambda x: None)
dispatcher = env.submit()
child = os.fork() if sys.argv[2] == "forks" else -1
if child == 0:
    time.sleep(3600)
while dispatcher.status()["tasks"]["sink_0"]["taken"] < 1000:
    time.sleep(0.01)
print(dispatcher.supervisor_pid, child, flush=True)
dispatcher.wait()
"""


def tasks_of(job: Dispatcher) -> list[psutil.Process]:
    """The processes of the tasks."""
    try:
        return psutil.Process(job.supervisor_pid).children()
    except psutil.NoSuchProcess:
        return []


def kill_some(dispatcher: Dispatcher, seed: int) -> int:
    """Kill random tasks until the job has ended; how many."""
    draw, kills = random.Random(seed), 0
    give_up = time.monotonic() + PATIENCE
    while not dispatcher.wait(timeout=draw.uniform(0.01, 0.06)):
        assert time.monotonic() < give_up, f"it hangs: {dispatcher.snapshot()}"
        running = tasks_of(dispatcher)
        if running:
            try:
                draw.choice(running).kill()
            except psutil.NoSuchProcess:
                continue
            kills += 1
    return kills


def job(delivery: str, **settings: Any) -> tuple[ProcessEnvironment, Any]:
    env = ProcessEnvironment("job", delivery=delivery, restarts=1000, batch_size=32, **settings)
    items = (
        env.from_collection(range(COUNT), parallelism=2)
        .map(lambda x: x, parallelism=2)
        .keyby(lambda x: x % 7)
        .map(lambda x: x, parallelism=2)
        .collect()
    )
    return env, items


def test_exactly_once_under_kills() -> None:
    env, items = job("exactly_once")

    kills = kill_some(env.submit(), seed=1)

    assert kills > 0
    assert sorted(items.items) == list(range(COUNT))


def test_state_is_exact_under_kills() -> None:
    env = ProcessEnvironment("job", delivery="exactly_once", restarts=1000, batch_size=16)
    sums = env.from_collection(range(COUNT)).keyby(lambda x: x % 10).sum(at_end=True, parallelism=2).collect()

    assert kill_some(env.submit(), seed=2) > 0

    assert dict(sums.items) == {key: sum(range(key, COUNT, 10)) for key in range(10)}
    assert len(sums.items) == 10


@pytest.mark.parametrize("lanes", ["shared", "per_edge"])
def test_at_least_once_loses_nothing_under_kills(lanes: str) -> None:
    env, items = job("at_least_once", lanes=lanes)

    assert kill_some(env.submit(), seed=3) > 0

    assert set(items.items) == set(range(COUNT))


def test_at_most_once_repeats_nothing_that_was_taken_and_ends() -> None:
    env = ProcessEnvironment("job", restarts=1000, batch_size=32)
    items = env.from_collection(range(COUNT)).map(lambda x: x, name="middle").collect()
    dispatcher = env.submit()
    killed = 0
    while not dispatcher.wait(timeout=0.01):
        for task in tasks_of(dispatcher):
            if killed < 3:
                task.kill()
                killed += 1

    assert killed == 3
    assert max(Counter(items.items).values(), default=1) == 1


def test_a_task_that_is_killed_too_often_ends_the_job() -> None:
    env = ProcessEnvironment("job", restarts=1, delivery="at_least_once")
    env.from_collection([1]).map(lambda x: os.kill(os.getpid(), signal.SIGKILL), name="doomed").sink(str)

    with pytest.raises(TaskDiedError, match="task 'doomed_0' was killed by signal 9") as caught:
        env.execute(timeout=PATIENCE)

    assert caught.value.exit_code == -9
    assert env.dispatcher is not None
    assert env.dispatcher.state is JobState.FAILED


def test_without_restarts_a_kill_ends_the_job() -> None:
    env = ProcessEnvironment("job")
    env.from_collection([1]).map(lambda x: os._exit(3), name="doomed").sink(str)

    with pytest.raises(TaskDiedError, match="ended with exit code 3; give the step, or the environment, more restarts"):
        env.execute(timeout=PATIENCE)


def test_an_error_larger_than_a_pipe_ends_the_job() -> None:
    def fails(item: int) -> None:
        raise ValueError("x" * 1_000_000)

    env = ProcessEnvironment("job")
    env.from_collection([1]).map(fails).sink(str)

    with pytest.raises(ValueError, match=r"x{1000000}"):
        env.execute(timeout=PATIENCE)


def test_a_job_whose_restarts_nobody_read_is_stopped() -> None:
    env = ProcessEnvironment("job", restarts=100_000)
    env.from_source(itertools.count).map(lambda x: os.kill(os.getpid(), signal.SIGKILL)).sink(str)
    dispatcher = env.submit()
    events = dispatcher._runner._events  # type: ignore[union-attr]
    room = fcntl.fcntl(events, fcntl.F_SETPIPE_SZ, mmap.PAGESIZE)  # a full pipe after tens of restarts, not thousands
    waiting = array.array("i", [0])

    def is_full() -> bool:
        fcntl.ioctl(events, termios.FIONREAD, waiting)
        return waiting[0] > room - 200

    wait_for(is_full, "the pipe of events is full")
    stopping = background(dispatcher.stop)

    stopping.result()
    assert dispatcher.state is JobState.STOPPED
    assert len(dispatcher.restarted) > 10


def dies_once(mark: Path) -> Callable[[int], int]:
    """Make a function that kills its process at the first packet, and never again."""

    def function(item: int) -> int:
        if not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return item

    return function


def test_a_step_may_be_restarted_where_the_job_is_not(tmp_path: Path) -> None:
    env = ProcessEnvironment("job", delivery="exactly_once")
    items = env.from_collection(range(1000)).map(dies_once(tmp_path / "mark"), name="shaky", restarts=1).collect()
    dispatcher = env.execute(timeout=PATIENCE)

    assert items.items == list(range(1000))
    assert dispatcher.restarted == [("shaky_0", -9)]
    assert dispatcher.status()["tasks"]["shaky_0"]["restarts"] == 1


def test_a_step_may_end_the_job_where_others_are_restarted(tmp_path: Path) -> None:
    env = ProcessEnvironment("job", delivery="exactly_once", restarts=10)
    stream = env.from_collection(range(1000)).map(dies_once(tmp_path / "first"), name="shaky")
    stream.map(dies_once(tmp_path / "second"), name="precious", restarts=0).sink(str)

    with pytest.raises(TaskDiedError, match="task 'precious_0' was killed by signal 9; give the step"):
        env.execute(timeout=PATIENCE)

    assert env.dispatcher is not None
    assert [each.task for each in env.dispatcher.restarted] == ["shaky_0"]


def test_without_delivery_that_repeats_only_a_step_that_restarts_has_a_snapshot(tmp_path: Path) -> None:
    env = ProcessEnvironment("job", batch_size=100)
    items = env.from_collection(range(1000)).map(dies_once(tmp_path / "mark"), name="shaky", restarts=1).collect()
    dispatcher = env.execute(timeout=PATIENCE)

    assert dispatcher.tasks["shaky_0"].ctx.snapshots is not None
    assert dispatcher.tasks["source_0"].ctx.snapshots is None
    assert items.items == list(range(100, 1000))


def test_a_service_may_be_restarted(tmp_path: Path) -> None:
    class Shaky:
        def add(self, item: int) -> int:
            return dies_once(tmp_path / "mark")(item) + 1

    class Asks(BaseFunction):
        def execute(self, data: int) -> int:
            answer: int = self.ctx.call_service("shaky", data, method="add", timeout=1.0)
            return answer

    env = ProcessEnvironment("job")
    env.add_service("shaky", Shaky, restarts=1)
    items = env.from_collection(range(3)).map(Asks, on_error="retry(20)").collect()
    dispatcher = env.execute(timeout=PATIENCE)

    assert items.items == [1, 2, 3]
    assert [each.task for each in dispatcher.restarted] == ["shaky"]


def test_an_iterator_is_a_source_where_its_end_is_that_of_the_job() -> None:
    env = ProcessEnvironment("job", delivery="exactly_once", restarts=3)
    items = env.from_source(iter(range(100)), restarts=0).map(lambda x: x).collect()
    env.execute(timeout=PATIENCE)

    assert items.items == list(range(100))


def test_a_killed_supervisor_takes_the_tasks_along_and_is_told() -> None:
    env = ProcessEnvironment("job", delivery="at_least_once")
    env.from_source(itertools.count).map(lambda x: x, parallelism=2).sink(lambda x: None)
    dispatcher = env.submit()
    supervisor = psutil.Process(dispatcher.supervisor_pid)
    wait_for(lambda: len(supervisor.children()) == 4, "all tasks run")
    tasks = supervisor.children()

    supervisor.kill()

    with pytest.raises(RuntimeError, match="the supervisor of the job was killed"):
        dispatcher.wait(timeout=PATIENCE)
    wait_for(lambda: not any(task.is_running() and task.status() != "zombie" for task in tasks), "the tasks are gone")


@pytest.mark.parametrize("child", ["alone", "forks"])
@pytest.mark.parametrize("death", [signal.SIGKILL, signal.SIGINT])
def test_a_driver_that_dies_leaves_nothing(death: int, child: str, tmp_path: Path) -> None:
    """A child that it forked while the job ran inherited all that is open, and lives on."""
    name = f"job-{os.getpid()}-{int(death)}-{child}"
    command = [sys.executable, "-c", DRIVER, name, child]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {"TMPDIR": str(tmp_path)}
    ) as driver:
        assert driver.stdout is not None
        pid, forked = map(int, driver.stdout.readline().split())
        supervisor = psutil.Process(pid)
        processes = [supervisor, *supervisor.children()]
        assert len(processes) == 5
        assert len([info for info in list_segments() if name in info.name]) == 4
        driver.send_signal(death)
        driver.wait(PATIENCE)

    try:
        wait_for(lambda: not any(process.is_running() for process in processes), "all processes are gone")
        wait_for(lambda: not [info for info in list_segments() if name in info.name], "no queue is left")
        wait_for(lambda: list(tmp_path.iterdir()) == [], "no snapshot is left")
    finally:
        if forked > 0:
            os.kill(forked, signal.SIGKILL)
    assert driver.returncode == -death
