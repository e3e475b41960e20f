"""A descriptor that declares needs: which kind it takes, what travels, and that no need is ever given up."""

import json
import pickle
import socket
import subprocess
import sys
import uuid
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from sage_qd import (
    AutoQueueDescriptor,
    BackendUnavailableError,
    BaseQueueDescriptor,
    Capabilities,
    DescriptorError,
    LocalQueueDescriptor,
    NoBackendError,
    NotShareableError,
    Ordering,
    QueueNotFoundError,
    Reach,
    SageQueueDescriptor,
    Setting,
    known_queue_types,
    register_queue_type,
)
from sage_qd.descriptors import registry
from sage_qd.queues.base import Delivery
from sage_qd.queues.local import LocalQueue

HOSTS = Capabilities(
    reach=Reach.HOSTS,
    delivery=Delivery.ONCE_OR_LEASED,
    survives_crash=True,
    lease=True,
    views=False,
    joins=False,
    same_object=False,
    bounded_by_bytes=True,
    uri_scheme="",
    ordering=Ordering.PER_PRODUCER,
    durable=True,
)


class ServerQueueDescriptor(BaseQueueDescriptor):
    """A kind that reaches other hosts through a server."""

    queue_type = "server_queue"
    can_serialize = True
    capabilities = HOSTS
    settings = (
        Setting(name="host", type=str, default="localhost"),
        Setting(name="port", type=int, default=8000),
        Setting(name="maxsize", type=int, default=0),
        Setting(name="max_bytes", type=int, default=0),
        Setting(name="durable", type=bool, default=False),
    )
    missing: ClassVar[str | None] = None

    @classmethod
    def missing_here(cls) -> str | None:
        return cls.missing

    def _open_queue(self, create: bool) -> LocalQueue[Any]:
        return LocalQueue.open(self.queue_id, create=create)


class ClusterQueueDescriptor(ServerQueueDescriptor):
    """A kind that reaches the hosts of a cluster."""

    queue_type = "ray_queue"
    settings = (Setting(name="maxsize", type=int, default=0),)


@pytest.fixture
def name() -> str:
    return f"auto-{uuid.uuid4().hex}"


@pytest.fixture
def others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_registered", {})
    register_queue_type("server_queue", ServerQueueDescriptor)
    register_queue_type("ray_queue", ClusterQueueDescriptor)


# -- The choice -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("needs", "kind"),
    [
        ({}, "sage_queue"),
        ({"reach": "threads"}, "local_queue"),
        ({"reach": "threads", "views": True}, "sage_queue"),
        ({"reach": "threads", "survives_crash": True}, "sage_queue"),
        ({"reach": "threads", "max_bytes": 1 << 16}, "sage_queue"),
        ({"reach": "threads", "joins": True, "same_object": True}, "local_queue"),
        ({"reach": "processes", "ack": True, "ordering": "fifo"}, "sage_queue"),
        ({"producers": "process", "consumers": "process"}, "local_queue"),
        ({"producers": "process", "consumers": "host"}, "sage_queue"),
        ({"producers": "process"}, "sage_queue"),
        ({"producers": ["process", "localhost"], "consumers": "process"}, "sage_queue"),
        ({"producers": "process", "consumers": "process", "reach": "processes"}, "sage_queue"),
    ],
)
def test_the_nearest_and_cheapest_kind_that_meets_the_needs_is_taken(needs: dict[str, Any], kind: str) -> None:
    assert AutoQueueDescriptor("jobs", **needs).resolve().queue_type == kind


def test_the_name_of_this_host_is_this_host() -> None:
    auto = AutoQueueDescriptor("jobs", producers=socket.gethostname(), consumers="host")

    assert auto.resolve().queue_type == "sage_queue"


def test_settings_that_were_asked_for_are_those_of_the_choice() -> None:
    auto = AutoQueueDescriptor("jobs", max_items=7, max_bytes=1 << 16, namespace="team")

    assert auto.resolve() == SageQueueDescriptor("jobs", maxsize=7, capacity_bytes=1 << 16, namespace="team")
    assert auto.resolve() is auto.resolve()
    assert auto.resolve().created_timestamp == auto.created_timestamp


@pytest.mark.parametrize(
    ("needs", "rejected"),
    [
        ({"reach": "hosts"}, {"local_queue": "reaches threads", "sage_queue": "reaches processes"}),
        ({"same_object": True}, {"local_queue": "reach: ", "sage_queue": "same_object: "}),
        ({"consumers": "db1.example,db2"}, {"sage_queue": "does not reach db1.example, db2"}),
        ({"reach": "threads", "joins": True, "namespace": "team"}, {"local_queue": "it has no namespaces"}),
        ({"durable": True, "joins": True}, {"local_queue": "durable: "}),
    ],
)
def test_no_need_is_ever_given_up(needs: dict[str, Any], rejected: dict[str, str]) -> None:
    auto = AutoQueueDescriptor("jobs", **needs)

    with pytest.raises(NoBackendError) as caught:
        auto.open()

    assert set(caught.value.rejected) == set(known_queue_types()) - {"auto"}
    for kind, reason in rejected.items():
        assert reason in caught.value.rejected[kind]
    assert not auto.is_resolved


def test_a_kind_that_cannot_be_used_here_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sage_qd.ring", None)

    with pytest.raises(NoBackendError, match="the compiled ring cannot be imported"):
        AutoQueueDescriptor("jobs", survives_crash=True, views=True).resolve()
    assert AutoQueueDescriptor("jobs", reach="threads").resolve() == LocalQueueDescriptor("jobs")


@pytest.mark.usefixtures("others")
def test_a_server_is_used_when_it_is_named() -> None:
    with pytest.raises(NoBackendError, match="endpoint='host:port'"):
        AutoQueueDescriptor("jobs", consumers="db1").resolve()

    found = AutoQueueDescriptor("jobs", consumers="db1", endpoint="[::1]:7000", max_bytes=9, durable=True).resolve()

    wanted = {"host": "::1", "port": 7000, "maxsize": 0, "max_bytes": 9, "durable": True}
    assert found == ServerQueueDescriptor("jobs", **wanted)


@pytest.mark.usefixtures("others")
def test_the_cluster_reaches_its_hosts_and_no_named_ones() -> None:
    assert AutoQueueDescriptor("jobs", producers="ray", consumers="host").resolve().queue_type == "ray_queue"
    with pytest.raises(NoBackendError, match="whether db1 is in it is not known"):
        AutoQueueDescriptor("jobs", producers="ray", consumers="db1").resolve()


@pytest.mark.usefixtures("others")
def test_an_order_that_is_not_kept_is_a_reason() -> None:
    with pytest.raises(NoBackendError, match="ordering: it keeps the messages of one producer"):
        AutoQueueDescriptor("jobs", producers="ray", ordering="fifo").resolve()
    assert AutoQueueDescriptor("jobs", producers="ray", ordering="per_producer").resolve().queue_type == "ray_queue"


@pytest.mark.usefixtures("others")
def test_what_a_kind_misses_here_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ServerQueueDescriptor, "missing", "the moon is not up")

    with pytest.raises(NoBackendError, match="the moon is not up"):
        AutoQueueDescriptor("jobs", producers="ray").resolve()


def test_ray_is_usable_once_the_program_has_started_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from sage_qd.descriptors.availability import missing_for

    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(is_initialized=lambda: False))
    assert "ray.init()" in str(missing_for("ray_queue"))
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(is_initialized=lambda: True))
    assert missing_for("ray_queue") is None
    assert missing_for("local_queue") is None


def test_every_built_in_kind_declares_what_it_can_do_where_it_is_there() -> None:
    for kind in set(known_queue_types()) - {"auto"}:
        try:
            found = registry.queue_kind(kind)
        except BackendUnavailableError:
            continue
        assert isinstance(found.capabilities, Capabilities), kind


# -- What travels -----------------------------------------------------------------------------------------------------


def test_once_chosen_the_choice_is_what_travels() -> None:
    auto = AutoQueueDescriptor("jobs", maxsize=3)
    chosen = auto.resolve()

    assert isinstance(chosen, SageQueueDescriptor)
    assert auto.to_dict() == chosen.to_dict()
    assert BaseQueueDescriptor.from_json(auto.to_json()) == chosen
    assert auto.to_uri() == chosen.to_uri() == "sage://default/jobs?max_items=3"
    assert pickle.loads(pickle.dumps(auto)) == chosen
    assert auto.to_serializable_descriptor() is chosen
    assert "SageQueueDescriptor" in repr(auto)


def test_needs_travel_until_something_was_chosen() -> None:
    auto = AutoQueueDescriptor("jobs", maxsize=3, producers=["ray", "db1"], endpoint="db1:7000", message_bytes=4096)

    for again in (
        BaseQueueDescriptor.from_json(auto.to_json()),
        BaseQueueDescriptor.from_uri(auto.to_uri()),
        pickle.loads(pickle.dumps(auto)),
    ):
        assert again == auto
        assert type(again) is AutoQueueDescriptor
        assert again.producers == "ray,db1"
        assert not again.is_resolved
    assert json.loads(auto.to_json())["queue_type"] == "auto"


def test_a_serializable_descriptor_is_a_choice(name: str) -> None:
    auto = AutoQueueDescriptor(name, reach="threads")
    auto.put("kept")

    with pytest.raises(NotShareableError):
        auto.to_json()
    shared = auto.to_serializable_descriptor()

    assert isinstance(shared, SageQueueDescriptor)
    assert shared.get(timeout=0) == "kept"
    auto.put("both ways")
    assert shared.get(timeout=0) == "both ways"
    shared.close()
    auto.close()


@pytest.mark.parametrize(
    ("needs", "leaves"),
    [
        ({}, True),
        ({"reach": "threads"}, False),
        ({"producers": "process", "consumers": "process"}, False),
        ({"producers": "process", "consumers": "host"}, True),
        ({"producers": "process", "consumers": "process", "reach": "processes"}, True),
    ],
)
def test_needs_of_one_process_do_not_leave_it(needs: dict[str, Any], leaves: bool) -> None:
    auto = AutoQueueDescriptor("jobs", **needs)

    assert auto.can_serialize is leaves
    if not leaves:
        with pytest.raises(NotShareableError):
            pickle.dumps(auto)


OTHER_PROCESS = """
import sys
from sage_qd import BaseQueueDescriptor
queue = BaseQueueDescriptor.from_json(sys.argv[1]).attach()
queue.put([queue.get(timeout=60), type(queue).__name__])
"""


def test_another_process_uses_the_queue_that_was_chosen_here(name: str) -> None:
    auto = AutoQueueDescriptor(name)
    queue = auto.open()
    queue.put("from here")

    subprocess.run([sys.executable, "-c", OTHER_PROCESS, auto.to_json()], timeout=120, check=True)

    assert auto.get(timeout=0) == ["from here", "SageQueue"]
    auto.close()


# -- Opening ----------------------------------------------------------------------------------------------------------


def test_it_works_as_the_queue(name: str) -> None:
    auto = AutoQueueDescriptor(name, maxsize=2)

    auto.put_many([1, 2])

    assert (auto.full(), auto.qsize(), auto.is_initialized(), auto.is_resolved) == (True, 2, True, True)
    assert auto.open() is auto.get_queue()
    assert auto.attach().get_many(5) == [1, 2]
    assert auto.open().descriptor == auto.resolve()
    auto.trim()
    assert not auto.is_initialized()


def test_clones_share_and_derived_ones_do_not(name: str) -> None:
    auto = AutoQueueDescriptor(name, maxsize=2)
    auto.open()

    assert auto.clone().open() is auto.open()
    assert auto.clone().resolve() == auto.resolve()
    assert not auto.derive("other").is_resolved
    assert auto.derive("other").metadata == auto.metadata
    auto.close()


def test_what_came_out_of_a_pickle_makes_no_queue(name: str) -> None:
    again = pickle.loads(pickle.dumps(AutoQueueDescriptor(name)))

    with pytest.raises(QueueNotFoundError):
        again.open()


# -- Arguments --------------------------------------------------------------------------------------------------------


def test_needs_have_their_other_names() -> None:
    assert AutoQueueDescriptor("q", lease=True, max_items=3) == AutoQueueDescriptor("q", ack=True, maxsize=3)
    assert AutoQueueDescriptor("q", maxsize=-1) == AutoQueueDescriptor("q")
    for twice in ({"lease": True, "ack": True}, {"max_items": 1, "maxsize": 1}):
        with pytest.raises(TypeError, match="are the same"):
            AutoQueueDescriptor("q", **twice)


@pytest.mark.parametrize(
    ("needs", "error"),
    [
        ({"reach": "galaxy"}, ValueError),
        ({"ordering": "random"}, ValueError),
        ({"producers": ""}, ValueError),
        ({"producers": "a,,b"}, ValueError),
        ({"consumers": "a b"}, ValueError),
        ({"consumers": 7}, TypeError),
        ({"endpoint": "db1"}, ValueError),
        ({"endpoint": "db1:0"}, ValueError),
        ({"endpoint": "db1:65536"}, ValueError),
        ({"namespace": ""}, ValueError),
        ({"max_bytes": 0}, ValueError),
        ({"views": 1}, TypeError),
        ({"colour": "red"}, TypeError),
    ],
)
def test_malformed_needs_are_refused(needs: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        AutoQueueDescriptor("q", **needs)


def test_malformed_needs_in_a_document_are_told_by_their_place() -> None:
    document = AutoQueueDescriptor("q").to_dict()

    for name, value in (("reach", "galaxy"), ("producers", "a b"), ("endpoint", "x:y"), ("views", 1)):
        with pytest.raises(DescriptorError) as caught:
            BaseQueueDescriptor.from_dict(document | {"metadata": document["metadata"] | {name: value}})
        assert caught.value.pointer == f"/metadata/{name}"
