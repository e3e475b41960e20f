"""Deaths of actors, nodes, users; durable queues; races; handles in tasks and actors."""

import os
import pickle
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from sage_qd import (
    Empty,
    GeometryMismatchError,
    NotShareableError,
    QueueClosedError,
    QueueLostError,
    QueueNotFoundError,
    QueueUnavailableError,
    RayQueueDescriptor,
    clean_ray,
)
from sage_qd import ring as rings
from sage_qd.testing import background, wait_for
from sage_qd.testing.watching import PATIENCE_SECONDS

ray = pytest.importorskip("ray", reason="Ray cannot be installed here")
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # the workers cannot import a test


def named(**settings: Any) -> RayQueueDescriptor:
    return RayQueueDescriptor(f"faults-{uuid.uuid4().hex}", **settings)


@pytest.fixture(params=["at home", "from another node"])
def place(request: Any, other_node: str) -> dict[str, str]:
    """Settings of a queue on this node, and on the other one."""
    return {} if request.param == "at home" else {"node_id": other_node}


def actor_of(descriptor: RayQueueDescriptor) -> Any:
    return ray.get_actor(f"sage-qd/{descriptor.queue_id}", descriptor.namespace)


def kill_process(pid: int) -> None:
    """All nodes are on this machine."""
    os.kill(pid, signal.SIGKILL)


def on_node(node: str) -> Any:
    return ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node, soft=False)


class User:
    """An actor that uses a queue."""

    def __init__(self, descriptor: RayQueueDescriptor) -> None:
        self.queue = descriptor.attach()
        self.held: list[Any] = []

    def about(self) -> tuple[int, bool, str]:
        return os.getpid(), self.queue.at_home, self.queue.instance

    def lease(self) -> Any:
        self.held.append(self.queue.lease(timeout=PATIENCE_SECONDS))
        return self.held[-1].value

    def put(self, item: Any) -> None:
        self.queue.put(item)

    def get(self) -> Any:
        return self.queue.get(timeout=PATIENCE_SECONDS)


@pytest.fixture
def new_user(cluster: Any) -> Any:
    made = []

    def make(descriptor: RayQueueDescriptor, node: str) -> Any:
        made.append(ray.remote(User).options(num_cpus=0, scheduling_strategy=on_node(node)).remote(descriptor))
        return made[-1]

    yield make
    for user in made:
        ray.kill(user)


def until_it_is_lost(queue: Any) -> QueueLostError:
    """Use the queue until it says that it is lost."""
    give_up = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < give_up:
        try:
            queue.wait_message(0)
        except QueueLostError as error:
            return error
    raise AssertionError("it was never lost")


# -- The actor dies ----------------------------------------------------------------------------------------------------


def acked_in_a_block(lease: Any) -> None:
    with lease:
        assert lease.attempt == 0


@pytest.mark.parametrize(
    "settle", [lambda lease: lease.ack(), lambda lease: lease.nack(), acked_in_a_block], ids=["ack", "nack", "with"]
)
def test_a_message_on_trial_is_lost_with_its_queue(place: dict[str, str], settle: Callable[[Any], None]) -> None:
    descriptor = named(**place)
    queue = descriptor.open()
    queue.put("on trial")
    lease = queue.lease()
    ray.kill(actor_of(descriptor))
    until_it_is_lost(queue)

    with pytest.raises(QueueLostError) as caught:
        settle(lease)

    assert caught.value.items_lost is True


LEFT_THE_CLUSTER = """
import sys
import ray
from sage_qd import QueueLostError, RayQueueDescriptor

ray.init(address=sys.argv[2], logging_level="error", log_to_driver=False)
queue = RayQueueDescriptor.from_json(sys.argv[1]).attach()
ray.shutdown()
print("left", flush=True)
sys.stdin.readline()
try:
    queue.get(timeout=60)
except QueueLostError as error:
    print(error.items_lost)
"""


def test_who_has_left_the_cluster_is_told_that_the_queue_is_lost(cluster: Any) -> None:
    descriptor = named(durable=True)
    queue = descriptor.open()
    words = [sys.executable, "-P", "-c", LEFT_THE_CLUSTER, descriptor.to_json(), cluster.address]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as user:
        assert user.stdout is not None
        assert user.stdout.readline() == "left\n"
        ray.kill(actor_of(descriptor), no_restart=False)

        told, _ = user.communicate("\n", timeout=120)

    assert told == "False\n"  # as far as it can know: the messages of a durable queue are kept
    until_it_is_lost(queue)
    queue.close()
    descriptor.open().destroy()


def test_the_memory_of_a_message_on_trial_is_gone_with_its_queue(cluster: Any) -> None:
    descriptor = named()
    queue = descriptor.open()
    queue.put("on trial")
    lease = queue.lease()
    ray.kill(actor_of(descriptor))
    until_it_is_lost(queue)

    with pytest.raises(QueueLostError):
        pytest.fail(f"{lease.value!r} is there")


@pytest.mark.parametrize("how", ["ray.kill", "SIGKILL"])
def test_the_death_of_the_actor_ends_waiting_and_later_calls(place: dict[str, str], how: str) -> None:
    descriptor = named(maxsize=2, **place)
    queue, other = descriptor.open(), descriptor.attach()
    empty = named(**place).open()
    queue.put_many([1, 2])
    waiting = [background(queue.put, 3), background(other.wait_room), background(other.put_many, [3, 4])]
    elsewhere = background(empty.get)
    wait_for(lambda: queue.stats().put_waiters > 0, "somebody waits for room")

    if how == "SIGKILL":
        kill_process(queue._link.facts.pid)
    else:
        ray.kill(actor_of(descriptor))

    for call in waiting:
        with pytest.raises(QueueLostError) as caught:
            call.result()
        assert caught.value.items_lost is True
    calls: list[Callable[[], Any]] = [
        lambda: queue.put(1), queue.get_nowait, lambda: queue.get_many(2), queue.lease, queue.peek, queue.clear,
        queue.qsize, queue.empty, queue.full, queue.stats, queue.shutdown, lambda: queue.put_many([1]),
        lambda: queue.wait_message(0), lambda: queue.seal("successor"),
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(QueueLostError):
            call()
    assert elsewhere.is_waiting()
    for handle in (queue, other):
        handle.close()
        with pytest.raises(QueueClosedError):
            handle.put(1)
    empty.close()
    with pytest.raises(QueueClosedError):
        elsewhere.result()


def test_a_lost_queue_can_be_made_anew(place: dict[str, str]) -> None:
    descriptor = named(**place)
    first = descriptor.open()
    first.put("lost")
    kill_process(first._link.facts.pid)
    until_it_is_lost(first)
    first.close()

    second = descriptor.open()

    assert second.instance != first.instance
    assert second.empty()
    second.close()


def test_a_durable_queue_keeps_what_it_accepted(place: dict[str, str]) -> None:
    descriptor = named(durable=True, **place)
    first = descriptor.open()
    first.put_many(range(1000))
    assert first.get() == 0

    kill_process(first._link.facts.pid)
    assert until_it_is_lost(first).items_lost is False
    first.close()
    second = descriptor.open()

    assert second.instance == first.instance
    assert second.incarnation != first.incarnation
    assert [second.get() for _ in range(999)] == list(range(1, 1000))
    with pytest.raises(NotShareableError):
        second.seal("successor")
    second.put("for later")
    second.close()
    third = descriptor.open()
    assert third.get(timeout=0) == "for later"
    third.destroy()
    with pytest.raises(QueueNotFoundError):
        descriptor.attach()


def test_a_durable_queue_can_be_opened_while_its_actor_is_restarted(place: dict[str, str]) -> None:
    descriptor = named(durable=True, **place)
    queue = descriptor.open()
    queue.put("kept")
    incarnations = {queue.incarnation}
    while len(incarnations) < 4:
        kill_process(queue._link.facts.pid)
        until_it_is_lost(queue)
        queue.close()
        queue = descriptor.open(create=False)
        incarnations.add(queue.incarnation)

    assert queue.get() == "kept"
    queue.destroy()


def test_the_death_of_the_home_node_loses_the_queue_durable_or_not(cluster: Any) -> None:
    before = {node["NodeID"] for node in ray.nodes()}
    node = cluster.add_node(num_cpus=1, object_store_memory=100_000_000, include_dashboard=False)
    cluster.wait_for_nodes()
    (there,) = {found["NodeID"] for found in ray.nodes()} - before
    descriptors = [named(node_id=there, durable=durable) for durable in (False, True)]
    queues = [descriptor.open() for descriptor in descriptors]
    waiting = [background(queue.get) for queue in queues]

    cluster.remove_node(node, allow_graceful=False)

    for queue, getter, descriptor in zip(queues, waiting, descriptors, strict=True):
        for call in (getter.result, lambda queue=queue: queue.put(1)):
            with pytest.raises(QueueLostError) as caught:
                call()
            assert caught.value.items_lost is True
        queue.close()
        with pytest.raises(QueueNotFoundError):
            descriptor.attach()
        with pytest.raises(QueueUnavailableError, match="node"):
            descriptor.open(create=True)
    with rings.attach(queues[1]._link.facts.ring, namespace="ray") as ring:  # this node was no host of its own
        ring.unlink()


# -- A user dies -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("consumer", ["at home", "on the other node"])
def test_what_a_killed_consumer_leased_comes_back(other_node: str, new_user: Any, consumer: str) -> None:
    descriptor = named()
    queue = descriptor.open()
    queue.put_many(["held", "younger"])
    here = ray.get_runtime_context().get_node_id()
    user = new_user(descriptor, here if consumer == "at home" else other_node)
    pid, at_home, _ = ray.get(user.about.remote())
    assert at_home == (consumer == "at home")
    assert ray.get(user.lease.remote()) == "held"

    kill_process(pid)

    assert queue.get() == "younger"
    lease = queue.lease(timeout=PATIENCE_SECONDS)
    assert (lease.value, lease.redelivered) == ("held", True)
    lease.ack()
    queue.close()


def test_the_last_user_takes_the_queue_along_even_by_its_death(other_node: str, new_user: Any) -> None:
    descriptor = named()
    queue = descriptor.open()
    user = new_user(descriptor, other_node)
    pid, _, _ = ray.get(user.about.remote())
    queue.close()
    actor_of(descriptor)  # it lives on: there is still a user

    kill_process(pid)

    wait_for(lambda: not is_there(descriptor), "the actor ended")


def is_there(descriptor: RayQueueDescriptor) -> bool:
    try:
        descriptor.attach().close()
    except QueueNotFoundError:
        return False
    return True


def test_a_handle_that_is_dropped_leaves(cluster: Any) -> None:
    descriptor = named()
    queue = descriptor.open()
    descriptor.clear_cache()
    del queue

    wait_for(lambda: not is_there(descriptor), "the dropped handle left")


# -- Requests ----------------------------------------------------------------------------------------------------------


def test_a_request_that_is_sent_again_is_done_once(other_node: str) -> None:
    queue = named(node_id=other_node).open()
    link: Any = queue._link

    first = link.send("put", ([b"once"], b"\0"), None, 0)
    again = [link._sent(first.number, first.verb, first.arguments) for _ in range(3)]
    assert [link.answer(request) for request in (first, *again)] == [(1, 1)] * 4
    taken = link.send("take", 1, None, 0, False)
    answers = [link.answer(link._sent(taken.number, taken.verb, taken.arguments)) for _ in range(2)]
    assert answers == [([b"once"], b"\0")] * 2

    assert queue.qsize() == 0
    queue.close()


def test_batches_from_another_node_keep_their_order_and_the_bound(other_node: str) -> None:
    queue = named(node_id=other_node, maxsize=700).open()
    putter = background(queue.put_many, range(20_000))

    taken: list[int] = []
    while len(taken) < 20_000:
        taken += queue.get_many(1000, timeout=PATIENCE_SECONDS)

    assert taken == list(range(20_000))
    assert putter.result() == 20_000
    assert queue.stats().high_water <= 700
    queue.close()


def test_a_connection_that_breaks_again_and_again_costs_no_message_and_doubles_none(other_node: str) -> None:
    queue = named(node_id=other_node, maxsize=50).open()
    link: Any = queue._link
    putter = background(lambda: [queue.put(number) for number in range(400)])
    taken: list[int] = []
    broken = set()
    while len(taken) < 400:
        taken += queue.get_many(20, timeout=PATIENCE_SECONDS)
        broken.add(link._stream)
        link._stream.close()

    assert taken == list(range(400))
    putter.result()
    assert len(broken) > 5
    assert (queue.qsize(), queue.stats().puts) == (0, 400)
    queue.close()


def test_where_no_connection_comes_about_requests_go_through_ray(
    other_node: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from sage_qd.queues import ray_actor

    def refused(door: Any) -> None:
        raise ConnectionRefusedError(f"nobody listens at {door.host}")

    monkeypatch.setattr(ray_actor, "Stream", refused)
    queue = named(node_id=other_node).open()
    monkeypatch.undo()
    queue.put_many(range(100))
    assert queue.get_many(200) == list(range(100))
    assert queue._link._stream is None  # type: ignore[attr-defined]
    assert "through Ray: nobody listens at" in caplog.text
    queue.close()


# -- Tasks and actors --------------------------------------------------------------------------------------------------


def test_descriptors_open_the_same_queue_in_tasks_and_actors(other_node: str, new_user: Any) -> None:
    descriptor = named()
    queue = descriptor.open()
    here = ray.get_runtime_context().get_node_id()

    def echo(given: RayQueueDescriptor) -> str:
        with given.attach() as opened:
            opened.put(["from a task", opened.at_home])
            return opened.instance

    for node in (here, other_node):
        task = ray.remote(echo).options(num_cpus=0, scheduling_strategy=on_node(node))
        assert ray.get(task.remote(queue.descriptor)) == queue.instance
        assert queue.get(timeout=0) == ["from a task", node == here]
    users = [new_user(descriptor, node) for node in (here, other_node)]
    ray.get(users[0].put.remote("from one to the other"))
    assert ray.get(users[1].get.remote()) == "from one to the other"
    assert pickle.loads(pickle.dumps(descriptor)) == descriptor
    queue.close()


def test_opening_at_the_same_time_makes_one_queue(cluster: Any, other_node: str) -> None:
    descriptor = named()
    here = ray.get_runtime_context().get_node_id()

    class Opener:
        def open(self, given: RayQueueDescriptor) -> str:
            self.queue = given.open(create=True)
            return str(self.queue.instance)

    openers = [
        ray.remote(Opener).options(num_cpus=0, scheduling_strategy=on_node(node)).remote()
        for node in (here, other_node) * 3
    ]
    instances = ray.get([opener.open.remote(descriptor) for opener in openers])

    assert len(set(instances)) == 1
    for opener in openers:
        ray.kill(opener)
    wait_for(lambda: not is_there(descriptor), "the queue ended with its users")


def test_other_settings_are_a_mismatch(place: dict[str, str]) -> None:
    descriptor = named(maxsize=3, **place)
    queue = descriptor.open()

    with pytest.raises(GeometryMismatchError, match="maxsize is 3, wanted 4"):
        RayQueueDescriptor(descriptor.queue_id, maxsize=4, **place).open()

    queue.close()


# -- Detached queues ---------------------------------------------------------------------------------------------------


def test_clean_ray_ends_detached_queues_that_nobody_uses(place: dict[str, str]) -> None:
    namespace = f"clean-{uuid.uuid4().hex}"
    used, unused, full = (named(namespace=namespace, detached=True, **place) for _ in range(3))
    for descriptor in (used, unused, full):
        descriptor.open()
    full.put("message")
    unused.close()
    full.close()

    assert clean_ray(namespace) == [f"{namespace}/{unused.queue_id}"]
    queue = full.open()
    assert queue.get(timeout=0) == "message"
    queue.put("again")
    queue.close()
    assert clean_ray(namespace, discard=True) == [f"{namespace}/{full.queue_id}"]
    with pytest.raises(Empty):
        used.get_nowait()
    used.destroy()
    assert clean_ray(namespace) == []


def test_a_killed_actors_ring_goes_with_the_next_queue(cluster: Any) -> None:
    descriptor = named(detached=True)
    queue = descriptor.open()
    pid, path = queue._link.facts.pid, os.path.join(rings.directory(), "ray", queue._link.facts.ring)
    assert os.path.exists(path)
    queue.close()
    kill_process(pid)
    wait_for(lambda: not is_there(descriptor), "Ray noticed")

    with named().open():
        wait_for(lambda: not os.path.exists(path), "it was removed")


def test_a_forked_child_cannot_use_the_handle(place: dict[str, str]) -> None:
    queue = named(**place).open()
    queue.put("stays")

    child = os.fork()
    if child == 0:
        try:
            queue.get(timeout=0)
        except QueueClosedError:
            os._exit(17)
        os._exit(1)
    _, status = os.waitpid(child, 0)

    assert os.waitstatus_to_exitcode(status) == 17
    assert queue.get(timeout=0) == "stays"
    queue.close()
