"""Descriptors read back equal from every form, and no text does more than raise DescriptorError."""

import json
import pickle
from typing import Any

import pytest
from hypothesis import example, given, reject, settings
from hypothesis import strategies as st

from sage_qd import (
    AutoQueueDescriptor,
    BaseQueueDescriptor,
    Capabilities,
    DescriptorError,
    InvalidQueueNameError,
    LocalQueueDescriptor,
    NoBackendError,
    Ordering,
    QueueCreationStrategy,
    QueueDescriptorPool,
    SageQueueDescriptor,
)

IDS = st.text(min_size=1, max_size=30)
MAXSIZES = st.integers(0, 2**31 - 1)
LOCAL = st.builds(LocalQueueDescriptor, queue_id=IDS, maxsize=MAXSIZES)
SAGE = st.builds(
    SageQueueDescriptor,
    queue_id=IDS,
    maxsize=MAXSIZES,
    capacity_bytes=st.integers(1, 2**34),
    namespace=IDS,
    codec=st.sampled_from(["pickle", "msgpack", "json", "raw"]),
    spill_threshold=st.none() | st.integers(1, 2**34),
    single_producer=st.booleans(),
    single_consumer=st.booleans(),
    checksum=st.booleans(),
    auto_cleanup=st.booleans(),
)
PLACES = st.lists(st.sampled_from(["process", "host", "ray", "db1.example", "10.0.0.7"]), min_size=1, max_size=4)
AUTO = st.builds(
    AutoQueueDescriptor,
    queue_id=IDS,
    reach=st.sampled_from([None, "processes", "hosts"]),
    producers=st.none() | PLACES,
    consumers=st.none() | PLACES,
    maxsize=MAXSIZES,
    max_bytes=st.none() | st.integers(1, 2**34),
    ack=st.booleans(),
    views=st.booleans(),
    joins=st.booleans(),
    same_object=st.booleans(),
    survives_crash=st.booleans(),
    durable=st.booleans(),
    ordering=st.sampled_from([None, "fifo", "per_producer"]),
    namespace=IDS,
    endpoint=st.sampled_from([None, "db1:7000", "[::1]:1", "10.0.0.7:65535"]),
    message_bytes=st.integers(0, 2**34),
)
DESCRIPTORS = LOCAL | SAGE | AUTO
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=8), inner, max_size=5),
    max_leaves=12,
)


@given(DESCRIPTORS)
def test_every_form_reads_back_equal(descriptor: BaseQueueDescriptor) -> None:
    text = descriptor.to_json(for_this_process=True)

    assert BaseQueueDescriptor.from_json(text) == descriptor
    assert BaseQueueDescriptor.from_json(text).to_json(for_this_process=True) == text
    assert BaseQueueDescriptor.from_dict(descriptor.to_dict()) == descriptor
    assert BaseQueueDescriptor.from_uri(descriptor.to_uri()) == descriptor
    assert BaseQueueDescriptor.from_uri(descriptor.to_uri()).to_uri() == descriptor.to_uri()
    assert hash(BaseQueueDescriptor.from_uri(descriptor.to_uri())) == hash(descriptor)


@given(SAGE)
def test_pickles_read_back_equal(descriptor: SageQueueDescriptor) -> None:
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        assert pickle.loads(pickle.dumps(descriptor, protocol)) == descriptor


@given(st.dictionaries(st.text(max_size=8), SAGE, max_size=5))
def test_pools_read_back_equal(descriptors: dict[str, BaseQueueDescriptor]) -> None:
    assert QueueDescriptorPool.deserialize_pool(QueueDescriptorPool(descriptors).serialize_pool()) == descriptors


@given(AUTO)
def test_what_is_chosen_meets_every_need(auto: AutoQueueDescriptor) -> None:
    found = auto.explain()
    if found.choice is None:
        with pytest.raises(NoBackendError):
            auto.resolve()
        return

    chosen = auto.resolve()

    able = type(chosen).capabilities
    assert isinstance(able, Capabilities)
    for need, met in (
        (auto.ack, able.lease),
        (auto.views, able.views),
        (auto.joins, able.joins),
        (auto.same_object, able.same_object),
        (auto.survives_crash, able.survives_crash),
        (auto.durable, able.durable),
        (auto.ordering == "fifo", able.ordering is Ordering.FIFO),
        (auto.max_bytes is not None, able.bounded_by_bytes),
    ):
        assert met or not need
    assert chosen.metadata["maxsize"] == auto.maxsize
    assert chosen.queue_id == auto.queue_id
    assert chosen.queue_type == found.choice


PARTS = ["_", "to", "_to_", "input", "a", "%", ".", "5F", "service_request"]
WORDS = st.lists(st.sampled_from(PARTS), min_size=1, max_size=4).map("".join)
PLACE = st.tuples(WORDS, WORDS, WORDS)


@given(PLACE, PLACE)
def test_names_of_places_are_read_in_one_way_only(one: tuple[str, str, str], other: tuple[str, str, str]) -> None:
    jobs = [QueueCreationStrategy(place[0]) for place in (one, other)]

    try:
        first = jobs[0].create_inter_task_queue(*one[1:]).queue_id
        second = jobs[1].create_inter_task_queue(*other[1:]).queue_id
    except InvalidQueueNameError:  # too long
        reject()

    assert (first == second) == (one == other)
    assert first != jobs[1].create_task_input_queue(other[1]).queue_id
    assert first != jobs[1].create_service_request_queue(other[1]).queue_id


@given(DESCRIPTORS, DESCRIPTORS)
def test_equal_descriptors_and_no_others_have_equal_forms(one: BaseQueueDescriptor, other: BaseQueueDescriptor) -> None:
    assert (one == other) == (one.to_uri() == other.to_uri())


@given(st.text(max_size=300) | st.binary(max_size=300))
def test_any_text_is_a_descriptor_or_rejected(text: str | bytes) -> None:
    for reader in (BaseQueueDescriptor.from_json, SageQueueDescriptor.from_json):
        reads(reader, text)
    if isinstance(text, str):
        reads(BaseQueueDescriptor.from_uri, text)
        reads(BaseQueueDescriptor.from_uri, f"sage://{text}")
        reads(BaseQueueDescriptor.from_uri, f"sage://default/jobs?{text}")


@settings(max_examples=300)
@given(
    SAGE,
    st.sampled_from(["", "metadata"]),
    st.text(max_size=12) | st.sampled_from(["version", "queue_type", "codec"]),
    JSON,
)
@example(SageQueueDescriptor("q"), "metadata", "namespace", "\ud800")
def test_any_member_is_taken_or_rejected(descriptor: SageQueueDescriptor, inside: str, name: str, value: Any) -> None:
    document = json.loads(descriptor.to_json())
    (document[inside] if inside else document)[name] = value

    reads(BaseQueueDescriptor.from_json, json.dumps(document))
    reads(BaseQueueDescriptor.from_dict, document)


@given(SAGE, st.data())
def test_any_spoiled_character_is_taken_or_rejected(descriptor: SageQueueDescriptor, data: st.DataObject) -> None:
    text = SageQueueDescriptor.from_dict(descriptor.to_dict() | {"created_timestamp": 1.5}).to_json()
    at = data.draw(st.integers(0, len(text)))
    spoiled = text[:at] + data.draw(st.text(max_size=2)) + text[at + data.draw(st.integers(0, 3)) :]

    reads(BaseQueueDescriptor.from_json, spoiled)


def reads(reader: Any, text: Any) -> None:
    """Read, and be sure that what is read can be written again; nothing but DescriptorError may stop it."""
    try:
        descriptor = reader(text)
    except DescriptorError as error:
        assert isinstance(error.pointer, str)  # noqa: PT017  (any text may be either)
    else:
        assert BaseQueueDescriptor.from_json(descriptor.to_json(for_this_process=True)) == descriptor
