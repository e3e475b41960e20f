"""Descriptors read back equal from every form, and no text does more than raise DescriptorError."""

import json
import pickle
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from sage_qd import BaseQueueDescriptor, DescriptorError, LocalQueueDescriptor, SageQueueDescriptor

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
DESCRIPTORS = LOCAL | SAGE
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
