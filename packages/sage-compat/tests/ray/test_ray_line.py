"""The backend ``ray`` of old programs: on both ways, and moved between them while tasks use it."""

import gc
import os
import pickle
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

from sage_compat import create_queue, ray_line, roll_forward, rollback, set_mode
from sage_compat.legacy.ray_descriptor import LegacyRayQueueDescriptor
from sage_compat.old_behaviour import quirks
from sage_qd import Empty, Full, QueueMovedError, QueueNotFoundError, ShutDown
from sage_qd.testing import background, wait_for

pytestmark = pytest.mark.timeout(300)
WAYS = ("legacy", "descriptor")
_made: list[Any] = []


@pytest.fixture(scope="module", autouse=True)
def tasks_find_functions(cluster: Any) -> None:
    """Send functions of this file along: workers cannot import it."""
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, cluster: Any) -> str:
    """The mode that the queues of the test are made in."""
    set_mode(request.param)
    return str(request.param)


@pytest.fixture(autouse=True)
def lines_are_closed() -> Iterator[None]:
    """Give up what the test opened; what tasks opened goes with their workers."""
    yield
    while _made:
        _made.pop().close()
    gc.collect()


def copied(line: Any) -> Any:
    """Another handle of the queue, as a task gets it."""
    copy = pickle.loads(pickle.dumps(line))
    _made.append(copy)
    return copy


def made(maxsize: int = 0, **others: Any) -> Any:
    """A queue of the backend; a warning would say that it is none."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        queue = create_queue("ray_queue", maxsize=maxsize, **others)
    _made.append(queue._queue)
    return queue


def remote(function: Any, line: Any, *arguments: Any) -> Any:
    """Call a function with a queue in a task; a reference to what it returns."""
    import ray

    def called(line: Any) -> Any:
        try:
            return function(line, *arguments)
        finally:
            line.close()  # the worker stays, for the next task

    return ray.remote(num_cpus=0.1)(called).remote(line)


def put_all(queue: Any, items: list[Any]) -> None:
    for item in items:
        queue.put(item)


def take(queue: Any, count: int) -> list[Any]:
    return [queue.get(timeout=60) for _ in range(count)]


def test_the_backend_has_the_words_of_old(way: str) -> None:
    queue = made(2, name="words", namespace="ignored", auto_cleanup=False)

    queue.put({"a": 1})
    queue.put("two", timeout=5)

    assert (queue.qsize(), queue.full(), queue.empty()) == (2, True, False)
    assert queue.get_stats() == {"size": 2, "empty": False, "full": True}
    assert (queue.get(), queue.get_nowait()) == ({"a": 1}, "two")
    assert queue.empty()
    with pytest.raises(Empty):
        queue.get_nowait()
    with pytest.raises(Empty):
        queue.get(timeout=0.05)
    put_all(queue, [1, 2])
    with pytest.raises(Full):
        queue.put_nowait(3)
    with pytest.raises(Full):
        queue.put(3, timeout=0.05)


def test_tasks_use_the_queue_that_they_are_handed(way: str) -> None:
    import ray

    queue = made()

    ray.get(remote(put_all, queue._queue, [1, 2, 3]))

    assert ray.get(remote(take, queue._queue, 2)) == [1, 2]
    assert queue.get(timeout=60) == 3


def test_a_copy_is_a_handle_of_the_same_queue(way: str) -> None:
    queue = made()._queue

    copy = copied(queue)
    copy.put("here")

    assert (queue.get(timeout=60), copy.maxsize, copy.name) == ("here", 0, "ray_queue")


@pytest.mark.parametrize(("first", "then"), [WAYS, WAYS[::-1]])
def test_a_queue_is_moved_while_it_is_used_and_nothing_is_lost(cluster: Any, first: str, then: str) -> None:
    import ray

    set_mode(first)
    line = made(name="moving")._queue
    elsewhere = copied(line)
    put_all(line, [1, 2])

    done = {"legacy": rollback, "descriptor": roll_forward}[then]("moving")
    wait_for(lambda: line.is_new == (then == "descriptor"), "the watch notices")
    put_all(elsewhere, [3])
    ray.get(remote(put_all, line, [4]))

    assert not done.failed
    assert take(elsewhere, 4) == [1, 2, 3, 4]
    assert line.empty()


def test_a_get_that_waits_goes_over(cluster: Any) -> None:
    set_mode("legacy")
    line = made(name="waiting")._queue
    taken = background(line.get, True, 60)

    roll_forward("waiting")
    wait_for(lambda: line.is_new, "the watch notices")
    copied(line).put("found")

    assert taken.result() == "found"


def test_tasks_and_the_driver_lose_nothing_while_the_way_changes(cluster: Any) -> None:
    import ray

    set_mode("legacy")
    line = made(50, name="storm")._queue
    producers = [remote(put_all, line, [(who, n) for n in range(300)]) for who in (1, 2)]

    for turn in range(4):
        (rollback if turn % 2 else roll_forward)("storm")
        wait_for(lambda turn=turn: line.is_new == (turn % 2 == 0), "the watch notices")
    taken = take(line, 600)
    ray.get(producers)

    assert {who: [n for other, n in taken if other == who] for who in (1, 2)} == {1: [*range(300)], 2: [*range(300)]}
    assert line.empty()


def test_a_queue_whose_actor_is_gone_goes_on_empty_on_the_old_path(cluster: Any) -> None:
    set_mode("descriptor")
    line = made(name="lost")._queue
    line.put("lost with it")

    line.descriptor.attach().destroy()
    rollback("lost")
    wait_for(lambda: not line.is_new, "the watch notices")

    assert line.empty()
    line.put("works")
    assert line.get(timeout=60) == "works"


def test_with_the_quirk_it_is_never_full_and_time_does_not_count(way: str) -> None:
    with quirks("ray_never_full"):
        queue = made(1)
    queue.put("one")
    taken = []
    waiting = threading.Thread(target=lambda: taken.append(queue.get(timeout=0) and queue.get(timeout=0)), daemon=True)
    waiting.start()

    assert not queue.full()
    wait_for(lambda: queue.empty(), "the first one is taken")
    queue.put("two")
    waiting.join(60)
    assert taken == ["two"]


def test_without_a_connection_nothing_is_started(monkeypatch: pytest.MonkeyPatch, cluster: Any) -> None:
    import ray

    monkeypatch.setattr(ray, "is_initialized", lambda: False)

    assert ray_line.ray_missing() == "Ray is not initialised"


# -- The old path as a kind -------------------------------------------------------------------------------------------


@pytest.fixture
def queue(cluster: Any) -> Iterator[Any]:
    with LegacyRayQueueDescriptor(f"kind-{time.monotonic_ns()}", maxsize=3).open() as opened:
        opened.follow(None)
        yield opened


def test_batches_and_looks(queue: Any) -> None:
    assert queue.put_many([1, 2, 3, 4], timeout=0.05) == 3
    assert (queue.peek(), queue.stats().depth, queue.wait_room(0.05)) == (1, 3, False)
    assert queue.get_many(2) == [1, 2]
    assert (queue.clear(), queue.wait_message(0.05), queue.wait_room(5)) == (1, False, True)


def test_a_sealed_queue_says_where_it_went(queue: Any) -> None:
    queue.put("last")

    assert queue.seal("there") == 1

    with pytest.raises(QueueMovedError):
        queue.put("too late")
    assert queue.get() == "last"
    with pytest.raises(QueueMovedError) as told:
        queue.get()
    assert (told.value.successor, queue.successor()) == ("there", "there")


def test_an_end_is_told(queue: Any) -> None:
    queue.shutdown()

    with pytest.raises(ShutDown):
        queue.put("too late")
    with pytest.raises(QueueNotFoundError):
        LegacyRayQueueDescriptor("nobody made this").attach()


def test_with_the_quirk_asking_for_a_queue_starts_ray() -> None:
    program = (
        "import ray\nfrom sage_compat import create_queue\nassert not ray.is_initialized()\n"
        "queue = create_queue('ray', maxsize=2)\nqueue.put('item')\n"
        "print(ray.is_initialized(), queue.get(timeout=60))\nqueue.close()\nray.shutdown()\n"
    )
    around = os.environ | {"SAGE_COMPAT_QUIRKS": "implicit_ray_init"}

    ended = subprocess.run(
        [sys.executable, "-c", program], env=around, capture_output=True, text=True, timeout=200, check=False
    )

    assert (ended.returncode, ended.stdout.splitlines()[-1:]) == (0, ["True item"]), ended.stderr
