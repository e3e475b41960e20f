"""What goes through a codec comes out equal, and no bytes do more than raise."""

import pickle
from typing import Any

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from sage_qd import InvalidQueueNameError
from sage_qd.codecs import get_codec
from sage_qd.codecs.base import JSON_TAG, MSGPACK_TAG, PICKLE_BUFFERS_TAG
from sage_qd.queues.names import LONGEST_NAME, segment_name, text_of

PLAIN = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**63), st.floats(allow_nan=False), st.text()),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)
ARRAYS = arrays.arrays(
    dtype=st.one_of(arrays.integer_dtypes(), arrays.floating_dtypes(), arrays.byte_string_dtypes(max_len=4)),
    shape=arrays.array_shapes(max_dims=3, max_side=5, min_side=0),
)


def joined(encoded: Any) -> tuple[int, bytes]:
    tag, parts = encoded
    return tag, b"".join(bytes(part) for part in parts)


@given(PLAIN)
def test_plain_data_survives_every_codec_of_objects(message: Any) -> None:
    for name in ("pickle", "msgpack"):
        codec = get_codec(name)
        assert codec.decode(*joined(codec.encode(message))) == message


@given(PLAIN.filter(lambda message: "inf" not in repr(message)))
def test_plain_data_survives_json(message: Any) -> None:
    codec = get_codec("json")

    assert codec.decode(*joined(codec.encode(message))) == message


@given(st.lists(ARRAYS, min_size=1, max_size=4))
def test_arrays_survive_pickle_on_every_kind_of_memory(message: list[Any]) -> None:
    codec = get_codec("pickle")
    tag, record = joined(codec.encode(message))

    for payload in (record, bytearray(record), memoryview(record)):
        for before, after in zip(message, codec.decode(tag, payload), strict=True):
            numpy.testing.assert_array_equal(before, after)


@given(st.binary(max_size=200))
def test_any_bytes_are_an_error_or_plain_data(record: bytes) -> None:
    for name, tag in (("msgpack", MSGPACK_TAG), ("json", JSON_TAG)):
        try:
            get_codec(name).decode(tag, record)
        except (ValueError, RecursionError):
            continue


@given(
    st.integers(0, 3),
    st.integers(0, 2**64 - 1),
    st.lists(st.integers(0, 2**64 - 1), max_size=6),
    st.binary(max_size=99),
)
def test_any_index_of_buffers_stays_inside_the_record(count: int, size: int, words: list[int], rest: bytes) -> None:
    """The pickle inside is a list of two buffers, when the index lets it be found."""
    stream = pickle.dumps(1, 5)
    index = count.to_bytes(8, "little") + size.to_bytes(8, "little")
    index += b"".join(word.to_bytes(8, "little") for word in words)
    refused = (ValueError, EOFError, pickle.UnpicklingError, TypeError, KeyError, IndexError, AttributeError)

    for record in (index + stream + rest, index + rest):
        if b"c" in rest or b"\x93" in rest:  # opcodes that look names up are no matter of the index
            continue
        try:
            get_codec("pickle").decode(PICKLE_BUFFERS_TAG, record)
        except (*refused, OverflowError, MemoryError, ImportError):
            continue


@given(st.text(min_size=1, max_size=140))
def test_any_text_has_a_segment_name_that_leads_back_or_is_too_long(text: str) -> None:
    try:
        name = segment_name(text)
    except InvalidQueueNameError as error:
        assert "the limit is 128" in error.rule  # noqa: PT017  (which texts are too long is what is tested)
        return

    assert len(name) <= LONGEST_NAME
    assert text_of(name) == text


@given(
    st.text("abcXYZ019._-", max_size=140)
    | st.sampled_from(["e--", "u--", "w--"]).flatmap(
        lambda start: st.text("ABCabc019._-", max_size=20).map(lambda rest: start + rest)
    )
)
def test_a_segment_name_leads_to_one_text_or_none(name: str) -> None:
    try:
        text = text_of(name)
    except ValueError:
        return

    assert segment_name(text) == name


def test_two_texts_never_have_the_same_name() -> None:
    texts = ["e--a", "e--e--a", "a", "é", "u--w6k", "w--AOk"]

    assert len({segment_name(text) for text in texts}) == len(texts)
    with pytest.raises(ValueError, match="not the name"):
        text_of("u--" + "YQ")
