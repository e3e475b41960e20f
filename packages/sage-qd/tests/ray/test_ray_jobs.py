"""Jobs whose tasks are actors, on a cluster of two nodes."""

import importlib
import itertools
import json
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sage_qd import GraphError, TaskDiedError
from sage_qd.runtime import BaseFunction, JobState, LocalEnvironment, RemoteEnvironment
from sage_qd.testing import wait_for

PATIENCE = 120.0
EXAMPLES = Path(__file__).parents[4] / "docs" / "examples"


@pytest.fixture
def nodes(cluster: Any, other_node: str) -> list[str]:
    import ray

    return [ray.get_runtime_context().get_node_id(), other_node]


def test_the_task_of_ray_is_a_public_name() -> None:
    import sage_qd.runtime

    assert issubclass(sage_qd.runtime.RayTask, sage_qd.runtime.BaseTask)
    assert sage_qd.runtime.RayTask is sage_qd.runtime.RayTask


def queues_left() -> list[str]:
    import ray

    named = ray.util.list_named_actors(all_namespaces=True)
    return [each["name"] for each in named if each["name"].startswith("sage-qd/job")]


def workers_left() -> list[str]:
    """Actors of tasks and services that have not ended, of any job."""
    from ray._private.state import actors  # the public way needs the dashboard

    return [
        found["ActorID"]
        for found in actors().values()
        if "_Worker" in found["ActorClassName"] and found["State"] != "DEAD"
    ]


def test_the_program_of_threads_and_processes_runs_in_actors(nodes: list[str]) -> None:
    env = RemoteEnvironment("job", node_ids=nodes)
    words = ["the", "cat", "and", "the", "dog", "and", "the", "bird"]
    counts = env.from_collection(words).keyby(lambda word: word).count(at_end=True, parallelism=2).collect()

    env.execute(timeout=PATIENCE)

    assert dict(counts.items) == {"the": 3, "and": 2, "cat": 1, "dog": 1, "bird": 1}
    assert env.dispatcher is not None
    assert env.dispatcher.state is JobState.FINISHED
    assert env.dispatcher.status()["tasks"]["keyby_0"]["taken"] == len(words)
    wait_for(lambda: queues_left() == [], "the queues are gone")


@pytest.mark.parametrize("name", ["sliding_window", "join", "embedding", "word_count"])
def test_the_examples_of_the_documentation_run_in_actors(
    nodes: list[str], name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import ray

    text = tmp_path / "text"
    text.write_text("a b a\n")
    more = {"sliding_window": (30,), "word_count": (str(text),)}.get(name, ())
    monkeypatch.syspath_prepend(EXAMPLES)
    example = importlib.import_module(name)
    ray.cloudpickle.register_pickle_by_value(example)  # the nodes do not have this module
    results = []

    for env in (LocalEnvironment("here"), RemoteEnvironment("job", node_ids=nodes)):
        result = example.build(env, *more)
        env.execute(timeout=PATIENCE)
        results.append(sorted(result.items))

    assert results[0] == results[1] != []


def test_a_killed_actor_starts_again_and_nothing_is_lost_or_doubled(nodes: list[str]) -> None:
    def slowly(item: int) -> int:
        time.sleep(0.0005)
        return item

    env = RemoteEnvironment("job", node_ids=nodes, delivery="exactly_once", restarts=100, batch_size=16)
    items = env.from_collection(range(3000)).map(slowly, name="middle").keyby(lambda x: x % 3).sum().collect()
    dispatcher = env.submit()
    wait_for(lambda: dispatcher.wait(timeout=0.05) or len(items.items) > 100, "it is on its way")

    import ray

    draw, kills = random.Random(1), 0
    while not dispatcher.wait(timeout=0.5) and kills < 3:
        task: Any = dispatcher.tasks[draw.choice(["middle_0", "keyby_0", "reduce_0"])]
        ray.kill(task.actor)
        kills += 1
    assert dispatcher.wait(timeout=PATIENCE)

    sums = {key: list(itertools.accumulate(range(key, 3000, 3))) for key in range(3)}
    assert {key: [value for found, value in items.items if found == key] for key in range(3)} == sums
    assert len(dispatcher.restarted) == kills > 0


@pytest.fixture
def doomed(cluster: Any) -> Iterator[tuple[str, Callable[[], None]]]:
    """Return a node more for one test, and what kills it with all its processes."""
    node = cluster.add_node(num_cpus=1, object_store_memory=100_000_000, include_dashboard=False)
    cluster.wait_for_nodes()
    gone: list[Any] = []

    def kill() -> None:
        gone.append(node)
        cluster.remove_node(node, allow_graceful=False)

    yield node.node_id, kill
    if not gone:
        kill()
    import ray

    def is_known() -> bool:
        return all(found["NodeID"] != node.node_id or not found["Alive"] for found in ray.nodes())

    wait_for(is_known, "the cluster knows, and places nothing there any more")


def slow_sums(env: RemoteEnvironment, count: int) -> Any:
    def slowly(item: int) -> int:
        time.sleep(0.0005)
        return item

    return env.from_collection(range(count)).map(slowly, name="middle").keyby(lambda x: x % 3).sum().collect()


def test_tasks_of_a_killed_node_start_again_on_others_and_nothing_is_lost_or_doubled(
    nodes: list[str], doomed: tuple[str, Callable[[], None]]
) -> None:
    there, kill = doomed
    env = RemoteEnvironment("job", node_ids=[nodes[0], there], delivery="exactly_once", restarts=3, batch_size=16)
    items = slow_sums(env, 3000)
    dispatcher = env.submit()
    wait_for(lambda: dispatcher.wait(timeout=0.05) or len(items.items) > 100, "it is on its way")
    before = {name for name, task in dispatcher.tasks.items() if getattr(task, "node_id", None) == there}

    kill()
    assert dispatcher.wait(timeout=PATIENCE)

    sums = {key: list(itertools.accumulate(range(key, 3000, 3))) for key in range(3)}
    assert {key: [value for found, value in items.items if found == key] for key in range(3)} == sums
    assert before == {"middle_0", "reduce_0"}
    assert {task for task, _ in dispatcher.restarted} == before
    wait_for(lambda: queues_left() == [], "the queues are gone")


def test_a_killed_node_ends_a_job_whose_policy_is_to_fail(
    nodes: list[str], doomed: tuple[str, Callable[[], None]]
) -> None:
    there, kill = doomed
    env = RemoteEnvironment("job", node_ids=[nodes[0], there], delivery="exactly_once", batch_size=16)
    items = slow_sums(env, 1_000_000)
    dispatcher = env.submit()
    wait_for(lambda: dispatcher.wait(timeout=0.05) or len(items.items) > 100, "it is on its way")

    kill()

    with pytest.raises(TaskDiedError, match=r"task '(middle|reduce)_0' was killed"):
        dispatcher.wait(timeout=PATIENCE)
    assert dispatcher.state is JobState.FAILED
    wait_for(lambda: queues_left() == [], "the queues are gone")


def test_an_error_in_an_actor_ends_the_job_with_its_traceback(nodes: list[str]) -> None:
    def picky(item: int) -> int:
        raise LookupError(f"no {item}")

    env = RemoteEnvironment("job")
    env.from_collection([3]).map(picky).sink(str)

    with pytest.raises(LookupError, match="no 3") as caught:
        env.execute(timeout=PATIENCE)

    assert "in picky" in str(caught.value.__cause__)
    wait_for(lambda: queues_left() == [], "the queues are gone")


class ArrivesBroken:
    """Can be sent, and fails where it arrives."""

    def __call__(self, item: int) -> int:
        return item

    def __reduce__(self) -> tuple[Any, ...]:
        return int, ("no number",)


def test_an_actor_that_cannot_be_made_ends_the_job_with_the_reason_and_is_not_restarted(nodes: list[str]) -> None:
    env = RemoteEnvironment("job", restarts=3)
    env.from_collection([3]).map(ArrivesBroken()).sink(str)

    with pytest.raises(Exception, match=r"invalid literal for int.*no number"):
        env.execute(timeout=PATIENCE)

    assert env.dispatcher is not None
    assert env.dispatcher.state is JobState.FAILED
    assert env.dispatcher.restarted == []


def test_an_actor_for_which_there_is_no_node_ends_the_job(nodes: list[str]) -> None:
    env = RemoteEnvironment("job", node_ids=["f" * 56])
    env.from_collection([3]).sink(str)

    with pytest.raises(Exception, match="node"):
        env.execute(timeout=PATIENCE)

    assert env.dispatcher is not None
    assert env.dispatcher.state is JobState.FAILED


def test_an_operator_that_cannot_be_sent_is_told_with_its_step_and_leaves_nothing(nodes: list[str]) -> None:
    lock = threading.Lock()

    def locked(item: int) -> int:
        with lock:
            return item

    env = RemoteEnvironment("job")
    env.from_source(itertools.count).map(locked, name="locked").sink(str)

    with pytest.raises(GraphError, match=r"'locked_0': it cannot be sent .*cannot pickle '_thread\.lock' object"):
        env.execute(timeout=PATIENCE)

    assert env.dispatcher is not None
    assert env.dispatcher.state is JobState.FAILED
    wait_for(lambda: queues_left() == [], "the queues are gone")
    wait_for(lambda: workers_left() == [], "the actors are gone")


def test_an_actor_that_dies_too_often_ends_the_job(nodes: list[str]) -> None:
    def die(item: int) -> None:
        import os

        os._exit(1)

    env = RemoteEnvironment("job")
    env.from_collection([3]).map(die, name="doomed").sink(str)

    with pytest.raises(TaskDiedError, match="task 'doomed_0'"):
        env.execute(timeout=PATIENCE)


def test_services_run_in_actors(nodes: list[str]) -> None:
    class Model:
        def double(self, x: int) -> int:
            return 2 * x

    class Ask(BaseFunction):
        def execute(self, data: int) -> int:
            answer: int = self.ctx.call_service("model", data, method="double")
            return answer

    env = RemoteEnvironment("job", node_ids=nodes)
    env.add_service("model", Model)
    items = env.from_collection(range(5)).map(Ask).collect()
    env.execute(timeout=PATIENCE)

    assert items.items == [0, 2, 4, 6, 8]
    wait_for(lambda: workers_left() == [], "tasks and the service are gone")


def test_a_source_without_end_is_stopped(nodes: list[str]) -> None:
    env = RemoteEnvironment("job")
    env.from_source(itertools.count).sink(lambda x: None, name="end")
    dispatcher = env.submit()
    wait_for(lambda: dispatcher.wait(timeout=0) or dispatcher.status()["tasks"]["end_0"]["taken"] > 1000, "it runs")
    assert len(workers_left()) == 2

    dispatcher.stop()

    assert dispatcher.state is JobState.STOPPED
    wait_for(lambda: queues_left() == [], "the queues are gone")
    wait_for(lambda: workers_left() == [], "the actors are gone")


def test_a_job_in_actors_is_seen_from_another_process(nodes: list[str]) -> None:
    def slowly(item: int) -> None:
        time.sleep(0.002)

    env = RemoteEnvironment("seen-in-actors", node_ids=nodes, batch_size=8)
    env.from_source(itertools.count, name="numbers").sink(slowly, name="slow", buffer_size=2)
    dispatcher = env.submit()
    command = [sys.executable, "-m", "sage_qd", "top", "--job", env.job, "--once", "--json", "--interval", "0.5"]
    found: dict[str, Any] = {}

    def is_seen() -> bool:
        """Look from outside while the driver does not even wait for its job."""
        ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        found.update(json.loads(ended.stdout))
        return bool(found["slow"] == ["slow_0"] and found["tasks"]["slow_0"]["rate_in"] > 0)

    wait_for(is_seen, "the slow task is known")
    dispatcher.stop()

    assert (found["platform"], found["state"]) == ("remote", "running")
    assert found["tasks"]["slow_0"]["depth"] <= 2
    assert found["tasks"]["numbers_0"]["blocked_ns"] > 0
    assert dispatcher.status()["tasks"]["slow_0"]["taken"] > 0


def test_without_a_cluster_it_is_told() -> None:
    text = (
        "from sage_qd import QueueUnavailableError\n"
        "from sage_qd.runtime import RemoteEnvironment\n"
        "env = RemoteEnvironment('job')\n"
        "env.from_collection([1]).sink(print)\n"
        "try:\n"
        "    env.execute()\n"
        "except QueueUnavailableError as error:\n"
        "    assert 'call ray.init() before submit()' in str(error), error\n"
        "    print('told')\n"
    )
    ended = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=120, check=False)

    assert ended.stdout == "told\n", ended.stderr
