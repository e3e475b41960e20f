"""What once went wrong in programs like this one, and must not again; other files have the rest of these rules."""

import itertools
import os
import pickle
import subprocess
import sys
import time
from typing import Any

import psutil
import pytest

from sage_qd import LocalQueueDescriptor, QueueExistsError, SageQueueDescriptor
from sage_qd.ring import list_segments
from sage_qd.runtime import (
    BaseFunction,
    BaseRouter,
    Connection,
    Dispatcher,
    Environment,
    ExecutionGraph,
    LocalEnvironment,
    Packet,
    ProcessEnvironment,
    RuntimeContext,
    StopSignal,
)
from sage_qd.runtime.operators import MapOperator
from sage_qd.runtime.task import LocalTask
from sage_qd.testing import background, wait_for

PATIENCE = 60.0

both = pytest.mark.parametrize("make", [LocalEnvironment, ProcessEnvironment], ids=["threads", "processes"])


class Model:
    """A service."""

    def double(self, x: int) -> int:
        return 2 * x


class Asks(BaseFunction):
    def execute(self, data: int) -> Any:
        return self.ctx.call_service("model", data, method="double")


def submitted(env: Environment) -> Dispatcher:
    """A job whose queues and tasks are made, and nothing runs."""
    dispatcher = env.dispatcher = Dispatcher(ExecutionGraph(env._steps, env._services), env)
    dispatcher.submit()
    return dispatcher


def segments_of(env: Environment) -> set[str]:
    return {info.name for info in list_segments() if env.job.rpartition(".")[2] in info.name}


def test_a_stop_signal_waits_for_room_and_overtakes_nothing() -> None:
    target = LocalQueueDescriptor("full-for-a-stop", maxsize=1)
    router = BaseRouter("task", batch_size=2)
    router.add_connection(Connection(0, 0, "t", None, 0, target_queue_descriptor=target))
    router.send([1, 2], None)
    router.send([3], None)

    stopping = background(router.stop)
    wait_for(lambda: target.stats().put_waiters == 1, "it waits for room")
    found = [target.get(timeout=PATIENCE) for _ in range(3)]
    stopping.result()

    assert found == [(0, 0, [1, 2], None), (0, 2, [3], None), StopSignal(0, "task")]
    target.close()


@both
def test_stop_signals_are_counted_before_contexts_are_made(make: type[Environment]) -> None:
    env = make("job")
    source = env.from_collection([1], parallelism=2)
    source.connect(source.map(lambda x: x, parallelism=3)).comap(lambda x: x, lambda x: x, name="end").sink(str)

    dispatcher = submitted(env)

    wanted = {name: task.ctx.stop_signal_num for name, task in dispatcher.tasks.items()}
    assert wanted == {"source_0": 0, "source_1": 0, "map_0": 2, "map_1": 2, "map_2": 2, "end_0": 5, "sink_0": 1}
    assert dispatcher.tasks["end_0"].ctx.input_indices == [0, 0, 1, 1, 1]
    dispatcher.cleanup()


@both
def test_every_queue_exists_before_a_task_starts_and_tasks_make_none(make: type[Environment]) -> None:
    env = make("job")
    env.add_service("model", Model)
    items = env.from_collection([1, 2]).map(Asks, parallelism=2).collect()

    dispatcher = submitted(env)
    before = segments_of(env)

    assert all(descriptor.is_initialized() for descriptor in dispatcher.queue_descriptors.values())
    assert len(before) == len({each.queue_id for each in dispatcher.queue_descriptors.values()})
    for name in ("input_map_1", "service_request_model", "service_response_map_0"):
        descriptor: Any = dispatcher.queue_descriptors[name]
        with pytest.raises(QueueExistsError):
            SageQueueDescriptor(descriptor.queue_id, namespace=descriptor.namespace).create()
    dispatcher.start()
    while not items.items:
        dispatcher.wait(timeout=0.01)
    assert segments_of(env) <= before
    assert dispatcher.wait(timeout=PATIENCE)
    assert segments_of(env) == set()


def test_what_is_shipped_pickles_though_it_was_used() -> None:
    env = LocalEnvironment("job")
    env.add_service("model", Model)
    items = env.from_collection([1, 2]).keyby(lambda x: x).map(Asks).collect()
    dispatcher = env.submit()
    wait_for(lambda: dispatcher.wait(timeout=0.01) or bool(items.items), "the service was called")
    for task in dispatcher.tasks.values():
        again = pickle.loads(pickle.dumps(task.ctx))

        assert (again.name, again.stop_signal_num) == (task.name, task.ctx.stop_signal_num)
        assert [each.target_name for each, _ in again.connections] == [
            each.target_name for each, _ in task.ctx.connections
        ]
    assert dispatcher.wait(timeout=PATIENCE)
    assert items.items == [2, 4]


def test_an_empty_queue_is_a_queue() -> None:
    descriptor = LocalQueueDescriptor("empty-but-there", maxsize=3)
    queue = descriptor.open()
    ctx = RuntimeContext(name="task", job="job", stop_signal_num=1, input_indices=[0])
    ctx.set_input_queue_descriptor(descriptor)

    task = LocalTask(ctx, lambda: MapOperator(str))

    assert queue.empty()
    assert task.get_input_buffer() is queue
    task.put_packet(Packet(1))
    assert queue.qsize() == 1
    descriptor.close()


@both
def test_results_that_come_long_after_the_source_has_ended_all_arrive(make: type[Environment]) -> None:
    env = make("job", batch_size=1)
    items = env.from_collection(range(4)).map(lambda x: time.sleep(0.3) or x, parallelism=2).collect()

    env.execute(timeout=PATIENCE)

    assert sorted(items.items) == [0, 1, 2, 3]


@pytest.mark.parametrize("fails", [False, True], ids=["that ends", "that fails"])
def test_a_job_leaves_no_process_and_no_queue(fails: bool) -> None:
    env = ProcessEnvironment("job")
    env.add_service("model", Model)
    source = env.from_source(itertools.count) if fails else env.from_collection([1])
    source.map(Asks).map(lambda x: 1 // (x - 10)).sink(str)
    dispatcher = env.submit()
    wait_for(lambda: dispatcher.supervisor_pid is not None, "it runs")
    supervisor = psutil.Process(dispatcher.supervisor_pid)
    processes = [supervisor, *supervisor.children()]

    if fails:
        with pytest.raises(ZeroDivisionError):
            dispatcher.wait(timeout=PATIENCE)
    else:
        assert dispatcher.wait(timeout=PATIENCE)

    assert [process for process in processes if process.is_running()] == []
    assert segments_of(env) == set()


@both
def test_a_job_says_nothing_by_itself(make: type[Environment]) -> None:
    program = (
        f"from sage_qd.runtime import {make.__name__} as Environment\n"
        "env = Environment('quiet')\n"
        "env.from_collection(range(9)).map(lambda x: 1 // (x - 3), on_error='skip').keyby(abs).sum().sink(str)\n"
        "env.execute(timeout=60)\n"
    )

    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", program], capture_output=True, text=True, env=os.environ, timeout=PATIENCE
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
