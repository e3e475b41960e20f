"""Which queue each place of a job gets, under which name, and how all of them travel at once."""

import itertools
import json
import subprocess
import sys
import uuid
from types import SimpleNamespace
from typing import Any

import pytest

from sage_qd import (
    AutoQueueDescriptor,
    BaseQueueDescriptor,
    DescriptorError,
    InvalidQueueNameError,
    LocalQueueDescriptor,
    NoBackendError,
    NotShareableError,
    QueueCreationStrategy,
    QueueDescriptorPool,
    SageQueueDescriptor,
    Setting,
    register_queue_type,
)
from sage_qd.descriptors import registry
from sage_qd.queues.local import LocalQueue


class ClusterQueueDescriptor(BaseQueueDescriptor):
    """Stands where the kind for Ray is."""

    queue_type = "ray_queue"
    can_serialize = True
    settings = (Setting(name="maxsize", type=int, default=0),)

    def _open_queue(self, create: bool) -> LocalQueue[Any]:
        return LocalQueue.open(self.queue_id, create=create)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_registered", {})
    register_queue_type("ray_queue", ClusterQueueDescriptor)


@pytest.fixture
def no_ring(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SageQueueDescriptor, "missing_here", classmethod(lambda cls: "the ring is at sea"))


# -- Kinds ------------------------------------------------------------------------------------------------------------


def test_local_places_get_a_ring() -> None:
    strategy = QueueCreationStrategy("etl")

    assert strategy.create_task_input_queue("map", False) == SageQueueDescriptor("etl.input_map", maxsize=1000)
    assert strategy.create_inter_task_queue("read", "map", is_remote=False, maxsize=5, capacity_bytes=4096) == (
        SageQueueDescriptor("etl.read_to_map", maxsize=5, capacity_bytes=4096)
    )
    assert strategy.create_service_request_queue("cache", maxsize=0).queue_id == "etl.service_request_cache"
    assert strategy.create_service_response_queue("map").queue_id == "etl.service_response_map"


@pytest.mark.usefixtures("cluster")
def test_remote_places_get_a_queue_of_the_cluster() -> None:
    made = QueueCreationStrategy("etl").create_task_input_queue("map", True, maxsize=7)

    assert made == ClusterQueueDescriptor(queue_id="etl.input_map", maxsize=7)


@pytest.mark.usefixtures("no_ring")
def test_without_the_ring_only_a_kind_that_meets_the_needs_is_taken() -> None:
    with pytest.raises(NoBackendError, match="the ring is at sea") as caught:
        QueueCreationStrategy("etl", views=True).create_task_input_queue("map", False)
    assert "reach" in caught.value.rejected["local_queue"]

    made = QueueCreationStrategy("etl", reach="threads").create_task_input_queue("map", False)
    assert made == LocalQueueDescriptor("etl.input_map", maxsize=1000)


@pytest.mark.usefixtures("no_ring")
def test_a_setting_is_never_dropped_on_the_way_to_another_kind() -> None:
    strategy = QueueCreationStrategy("etl", reach="threads")

    with pytest.raises(NoBackendError, match="it has no setting checksum"):
        strategy.create_task_input_queue("map", False, checksum=True)


def test_needs_that_the_ring_does_not_meet_lead_to_another_kind() -> None:
    strategy = QueueCreationStrategy("etl", reach="threads", joins=True)

    assert isinstance(strategy.create_task_input_queue("map", False), LocalQueueDescriptor)


def test_default_settings_are_those_of_a_call_that_gives_none() -> None:
    assert QueueCreationStrategy.get_default_queue_params() == {"maxsize": 1000}
    assert QueueCreationStrategy("etl").get_default_queue_params(is_remote=True) == {"maxsize": 1000}


class Small(QueueCreationStrategy):
    """Another strategy, as users write it."""

    def get_default_queue_params(self, is_remote: bool = False) -> dict[str, Any]:  # type: ignore[override]
        return {"maxsize": 3}

    @staticmethod
    def create_service_request_queue(service_name: str, is_remote: bool = False, **settings: Any) -> Any:
        return LocalQueueDescriptor(service_name)


def test_a_subclass_changes_what_it_overrides() -> None:
    assert Small("etl").create_task_input_queue("map", False).metadata["maxsize"] == 3
    assert Small("etl").create_service_request_queue("cache") == LocalQueueDescriptor("cache")
    assert Small.create_task_input_queue("map", False).metadata["maxsize"] == 3


def test_wrong_settings_and_names_are_refused() -> None:
    strategy = QueueCreationStrategy("etl")

    with pytest.raises(TypeError, match="maxsice"):
        strategy.create_task_input_queue("map", False, maxsice=3)
    with pytest.raises(TypeError, match="text"):
        strategy.create_task_input_queue(7, False)  # type: ignore[arg-type]
    with pytest.raises(InvalidQueueNameError):
        QueueCreationStrategy("")
    with pytest.raises(TypeError):
        QueueCreationStrategy("etl", colour="red")


# -- Names ------------------------------------------------------------------------------------------------------------


def test_two_jobs_never_meet() -> None:
    one, other = QueueCreationStrategy(), QueueCreationStrategy()

    assert one.create_task_input_queue("map", False) != other.create_task_input_queue("map", False)
    assert one.create_task_input_queue("map", False).queue_id.startswith(f"{one.job}.")


def test_calls_on_the_class_are_those_of_one_job() -> None:
    one = QueueCreationStrategy.create_task_input_queue(task_name="map", is_remote=False, maxsize=2)
    other = QueueCreationStrategy.create_task_input_queue("map", False, maxsize=2)

    assert one == other
    assert one.queue_id == f"{QueueCreationStrategy.default().job}.input_map"
    assert Small.default() is not QueueCreationStrategy.default()


def test_different_places_have_different_names_whatever_they_are_called() -> None:
    words = ["a", "to", "_to_", "a_to", "to_b", "a_to_b", "input", "input_a", "service_request", "service_response_a"]
    words += ["_", "%", "%5F", "a%5Fto", ".", "a.input_b"]
    jobs = [QueueCreationStrategy(job) for job in words]

    names = [
        made.queue_id
        for job in jobs
        for made in (
            *(job.create_inter_task_queue(*pair, False) for pair in itertools.product(words, words)),
            *(job.create_task_input_queue(word, False) for word in words),
            *(job.create_service_request_queue(word) for word in words),
            *(job.create_service_response_queue(word) for word in words),
        )
    ]

    assert len(set(names)) == len(names)


# -- Pool -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def name() -> str:
    return f"pool-{uuid.uuid4().hex}"


def test_a_pool_shows_what_the_dispatcher_has() -> None:
    dispatcher = SimpleNamespace(queue_descriptors={"input_map": SageQueueDescriptor("map")})
    pool = QueueDescriptorPool(dispatcher)

    dispatcher.queue_descriptors["input_sink"] = SageQueueDescriptor("sink")

    assert (pool.dispatcher, pool.descriptors) == (dispatcher, dispatcher.queue_descriptors)
    assert dict(pool) == dispatcher.queue_descriptors
    assert (len(pool), "input_sink" in pool, bool(QueueDescriptorPool({}))) == (2, True, True)
    assert "2 descriptors" in repr(pool)


@pytest.mark.parametrize("wrong", [None, 7, [], SimpleNamespace(), SimpleNamespace(queue_descriptors=[])])
def test_a_pool_needs_descriptors(wrong: Any) -> None:
    with pytest.raises(TypeError, match="queue_descriptors"):
        QueueDescriptorPool(wrong)


def test_a_pool_goes_through_one_text() -> None:
    pool = QueueDescriptorPool({"b/~": SageQueueDescriptor("two", maxsize=2), "一": SageQueueDescriptor("one")})

    text = pool.serialize_pool()

    assert QueueDescriptorPool.deserialize_pool(text) == dict(pool)
    assert QueueDescriptorPool.deserialize_pool(text.encode()) == dict(pool)
    assert list(json.loads(text)) == ["b/~", "一"]
    assert QueueDescriptorPool.deserialize_pool("{}") == {}


OTHER_PROCESS = """
import sys
from sage_qd import QueueDescriptorPool
queues = QueueDescriptorPool.deserialize_pool(sys.stdin.read())
queues["answers"].put([queues["questions"].get(timeout=60), sorted(queues)])
"""


def test_local_queues_move_to_where_others_reach_them(name: str) -> None:
    questions, answers = LocalQueueDescriptor(f"{name}-q"), SageQueueDescriptor(f"{name}-a")
    answers.open()
    questions.put("asked before")
    text = QueueDescriptorPool({"questions": questions, "again": questions, "answers": answers}).serialize_pool()

    subprocess.run([sys.executable, "-c", OTHER_PROCESS], input=text, text=True, timeout=120, check=True)

    assert answers.get(timeout=0) == ["asked before", ["again", "answers", "questions"]]
    assert json.loads(text)["again"] == json.loads(text)["questions"]
    questions.close()
    answers.close()


def test_all_readers_of_a_pool_get_the_kind_that_was_chosen_for_it() -> None:
    text = QueueDescriptorPool({"jobs": AutoQueueDescriptor("jobs", maxsize=3)}).serialize_pool()

    assert QueueDescriptorPool.deserialize_pool(text) == {"jobs": SageQueueDescriptor("jobs", maxsize=3)}


def test_what_cannot_leave_is_told_and_stays(name: str) -> None:
    held = LocalQueueDescriptor(name)
    held.put("work")
    lease = held.lease()

    with pytest.raises(NotShareableError):
        QueueDescriptorPool({"held": held}).serialize_pool()

    lease.nack()
    assert held.get(timeout=0) == "work"
    held.close()


GOOD = SageQueueDescriptor("q").to_json()


@pytest.mark.parametrize(
    ("text", "pointer"),
    [
        ("", ""),
        ("[]", ""),
        ("{", ""),
        ("[" * 100_000, ""),
        ('{"a": ' * 100_000, ""),
        ('{"a": {}}', "/a/version"),
        ('{"a": 7}', "/a"),
        (f'{{"a": {GOOD}, "a/b": {GOOD.replace("sage_queue", "nothing")}}}', "/a~1b/queue_type"),
        (f'{{"a": {GOOD}, "a": {GOOD}}}', ""),
        (f'{{"a": {GOOD}, "\\u0061": {GOOD}}}', ""),
        ('{"a": {"x": 1, "x": 2}}', ""),
        ("\ud800", ""),
        (b"\xff", ""),
        (b"{}" + b" " * (16 << 20), ""),
    ],
)
def test_a_wrong_pool_is_rejected_as_a_whole(text: Any, pointer: str) -> None:
    with pytest.raises(DescriptorError) as caught:
        QueueDescriptorPool.deserialize_pool(text)

    assert caught.value.pointer == pointer


def test_a_pool_that_is_no_text_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="str or bytes"):
        QueueDescriptorPool.deserialize_pool({})  # type: ignore[arg-type]


def test_a_pool_that_could_not_be_read_again_is_not_written() -> None:
    one = SageQueueDescriptor("q")

    with pytest.raises(ValueError, match="at most"):
        QueueDescriptorPool({str(number): one for number in range(16 * 1024 + 1)}).serialize_pool()
