"""Codecs: what they carry, what they refuse, and that hostile bytes are an error and nothing else."""

import datetime
import pickle
import threading
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import msgspec
import numpy
import pytest

from sage_qd.codecs import CODEC_NAMES, codec_name, get_codec
from sage_qd.codecs.base import (
    ARRAY_TAG,
    JSON_TAG,
    MSGPACK_TAG,
    PICKLE_BUFFERS_TAG,
    PICKLE_TAG,
    RAW_TAG,
    RAW_VIEW_TAG,
)
from sage_qd.codecs.pickled import PLAIN, plain_pickles
from sage_qd.errors import UntrustedPayloadError
from sage_qd.ring import WRITABLE

ALL_TAGS = {PICKLE_TAG, PICKLE_BUFFERS_TAG, ARRAY_TAG, MSGPACK_TAG, JSON_TAG, RAW_VIEW_TAG}


def joined(encoded: Any) -> tuple[int, bytes]:
    """One record, as the ring would store it."""
    tag, parts = encoded
    return tag, b"".join(bytes(part) for part in parts)


def through(codec: Any, message: Any) -> Any:
    """A message after encoding and decoding, on memory of the reader's own."""
    tag, record = joined(codec.encode(message))
    return codec.decode(tag, bytearray(record) if tag >= WRITABLE else record)


# -- All codecs -------------------------------------------------------------------------------------------------------


def test_names_and_numbers_are_fixed() -> None:
    numbers = {name: get_codec(name).number for name in CODEC_NAMES}

    assert numbers == {"json": 3, "msgpack": 2, "pickle": 1, "raw": 0}
    assert {name: codec_name(number) for name, number in numbers.items()} == {name: name for name in CODEC_NAMES}
    assert codec_name(77) == "number 77"
    assert [get_codec(name).name for name in CODEC_NAMES] == list(CODEC_NAMES)


def test_unknown_codec_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="json, msgpack, pickle, raw, not 'yaml'"):
        get_codec("yaml")


def test_only_pickle_runs_code() -> None:
    assert [name for name in CODEC_NAMES if get_codec(name).runs_code] == ["pickle"]


def test_each_handle_has_a_codec_of_its_own() -> None:
    assert get_codec("pickle") is not get_codec("pickle")


@pytest.mark.parametrize("name", CODEC_NAMES)
def test_plain_bytes_are_decoded_by_every_codec(name: str) -> None:
    assert get_codec(name).decode(RAW_TAG, memoryview(b"as they are")) == b"as they are"


@pytest.mark.parametrize("name", CODEC_NAMES)
def test_records_of_other_codecs_are_refused(name: str) -> None:
    codec = get_codec(name)
    own = {tag for tag in ALL_TAGS if codec_of(tag) == name}

    for tag in {*ALL_TAGS, 77} - own:
        with pytest.raises(UntrustedPayloadError) as caught:
            codec.decode(tag, b"whatever")
        assert caught.value.allowed == (name,)
        assert caught.value.codec == codec_of(tag)


def codec_of(tag: int) -> str:
    return {
        PICKLE_TAG: "pickle",
        PICKLE_BUFFERS_TAG: "pickle",
        ARRAY_TAG: "pickle",
        MSGPACK_TAG: "msgpack",
        JSON_TAG: "json",
        RAW_VIEW_TAG: "raw",
    }.get(tag, f"with tag {tag}")


def test_only_records_with_buffers_ask_for_writable_memory() -> None:
    assert {tag for tag in ALL_TAGS if tag >= WRITABLE} == {PICKLE_BUFFERS_TAG, ARRAY_TAG}


# -- raw --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "message", [bytearray(b"abc"), memoryview(b"abc"), memoryview(bytearray(b"abc")), numpy.frombuffer(b"abc", "u1")]
)
def test_raw_carries_buffers_as_bytes(message: Any) -> None:
    assert through(get_codec("raw"), message) == b"abc"


def test_raw_carries_buffers_of_any_shape() -> None:
    array = numpy.arange(6, dtype="<u2").reshape(2, 3)

    assert through(get_codec("raw"), array) == array.tobytes()


def test_raw_carries_empty_buffers() -> None:
    assert through(get_codec("raw"), bytearray()) == b""
    assert through(get_codec("raw"), numpy.zeros((0, 3))) == b""


@pytest.mark.parametrize("message", ["text", None, 7, [b"bytes"]])
def test_raw_refuses_objects_and_says_what_to_do(message: Any) -> None:
    with pytest.raises(TypeError, match="codec='pickle'"):
        get_codec("raw").encode(message)


def test_raw_refuses_memory_that_is_not_in_a_row() -> None:
    with pytest.raises(BufferError, match="C-contiguous"):
        get_codec("raw").encode(memoryview(b"abcdef")[::2])


# -- msgpack and json -------------------------------------------------------------------------------------------------


@dataclass
class Point:
    x: int
    y: int


@pytest.mark.parametrize("name", ["msgpack", "json"])
@pytest.mark.parametrize(
    ("message", "arrives"),
    [
        (None, None),
        ("文字", "文字"),
        (2**53, 2**53),
        (1.5, 1.5),
        ([1, [2]], [1, [2]]),
        ((1, 2), [1, 2]),
        ({"a": {"b": True}}, {"a": {"b": True}}),
        (Point(1, 2), {"x": 1, "y": 2}),
    ],
)
def test_packed_codecs_carry_plain_data(name: str, message: Any, arrives: Any) -> None:
    assert through(get_codec(name), message) == arrives


def test_msgpack_keeps_bytes_and_times_inside_messages() -> None:
    moment = datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)

    assert through(get_codec("msgpack"), [b"\xff", moment]) == [b"\xff", moment]


@pytest.mark.parametrize("name", ["msgpack", "json"])
@pytest.mark.parametrize("message", [object(), threading.Lock(), numpy.zeros(2), 1j])
def test_packed_codecs_refuse_what_is_no_plain_data(name: str, message: Any) -> None:
    with pytest.raises(TypeError):
        get_codec(name).encode(message)


@pytest.mark.parametrize("name", ["msgpack", "json"])
def test_packed_codecs_bound_the_nesting(name: str) -> None:
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]

    with pytest.raises(RecursionError):
        get_codec(name).encode(deep)

    while deep:  # take it apart without recursion, too
        deep = deep[0]


@pytest.mark.parametrize(
    ("name", "record"),
    [
        ("msgpack", b""),
        ("msgpack", b"\xc1"),
        ("msgpack", b"\x91" * 100_000),
        ("msgpack", b"\xdf\xff\xff\xff\xff"),
        ("msgpack", b"\x01\x02"),
        ("json", b""),
        ("json", b"[1"),
        ("json", b"NaN"),
        ("json", b"[" * 100_000),
        ("json", b"\xff"),
    ],
)
def test_packed_codecs_answer_broken_bytes_with_an_error(name: str, record: bytes) -> None:
    tag = MSGPACK_TAG if name == "msgpack" else JSON_TAG

    with pytest.raises((msgspec.MsgspecError, RecursionError, UnicodeDecodeError)):
        get_codec(name).decode(tag, record)


# -- pickle -----------------------------------------------------------------------------------------------------------


def test_pickle_carries_objects_in_one_part() -> None:
    tag, parts = get_codec("pickle").encode({"a": (1, {2})})

    assert (tag, len(parts)) == (PICKLE_TAG, 1)
    assert through(get_codec("pickle"), {"a": (1, {2})}) == {"a": (1, {2})}


@pytest.mark.parametrize("is_alone", [True, False])
def test_pickle_does_not_copy_the_memory_of_arrays(is_alone: bool) -> None:
    array = numpy.arange(1000.0)

    tag, parts = get_codec("pickle").encode(array if is_alone else [array])

    assert tag == (ARRAY_TAG if is_alone else PICKLE_BUFFERS_TAG)
    assert any(numpy.shares_memory(numpy.frombuffer(part, "u1"), array) for part in parts if len(part) == 8000)


@pytest.mark.parametrize(
    "array",
    [
        numpy.arange(10.0),
        numpy.asfortranarray(numpy.arange(12).reshape(3, 4)),
        numpy.arange(20)[::2],
        numpy.zeros((0, 3)),
        numpy.array(5),
        numpy.arange(24, dtype="i2").reshape(2, 3, 4),
        numpy.arange(3.0).astype(">f8"),
        numpy.array([True, False]),
        numpy.array([1 + 2j]),
        numpy.array([1.5], numpy.longdouble),
        numpy.zeros((1,) * 9),
        numpy.array([None, {}], object),
        numpy.ma.masked_array([1, 2], [True, False]),
        numpy.array(["文", "字"]),
        numpy.zeros(3, dtype=[("a", "i4"), ("b", "f8")]),
    ],
    ids=lambda array: f"{array.dtype}-{array.shape}",
)
def test_pickle_carries_arrays(array: Any) -> None:
    again = through(get_codec("pickle"), array)

    numpy.testing.assert_array_equal(again, array)
    assert again.dtype == array.dtype
    assert type(again) is type(array)
    assert again.flags.f_contiguous == array.flags.f_contiguous or not array.flags.contiguous


@pytest.mark.parametrize("is_alone", [True, False])
def test_arrays_that_were_writable_are_writable_on_own_memory_and_read_only_on_a_lease(is_alone: bool) -> None:
    writable, fixed = numpy.arange(4.0), numpy.arange(4.0)
    fixed.flags.writeable = False
    codec = get_codec("pickle")

    for array, is_writable in ((writable, True), (fixed, False)):
        tag, record = joined(codec.encode(array if is_alone else [array]))
        arrived = [codec.decode(tag, payload) for payload in (bytearray(record), record, memoryview(record))]
        found = arrived if is_alone else [one for [one] in arrived]

        assert [one.flags.writeable for one in found] == [is_writable, is_writable, False]
        assert all((one == array).all() for one in found)


def test_arrays_lie_on_the_payload_without_a_copy() -> None:
    codec = get_codec("pickle")
    tag, record = joined(codec.encode(numpy.arange(1000.0)))
    payload = bytearray(record)

    array = codec.decode(tag, payload)

    assert numpy.shares_memory(array, numpy.frombuffer(payload, "u1"))


def test_buffers_are_aligned_within_the_record() -> None:
    codec = get_codec("pickle")
    tag, record = joined(codec.encode([numpy.arange(3, dtype="u1"), numpy.arange(3.0), numpy.zeros(1, "c16")]))
    start = numpy.frombuffer(record, "u1").ctypes.data

    for array in codec.decode(tag, memoryview(record)):
        assert (array.ctypes.data - start) % 64 == 0


def test_only_messages_with_buffers_come_in_parts() -> None:
    codec = get_codec("pickle")
    messages = [1, [numpy.arange(3)], (numpy.arange(3),), 2, 3, {"a": numpy.arange(3)}]

    tags = [codec.encode(message)[0] for message in messages]

    assert tags == [
        PICKLE_TAG,
        PICKLE_BUFFERS_TAG,
        PICKLE_BUFFERS_TAG,
        PICKLE_TAG,
        PICKLE_TAG,
        PICKLE_BUFFERS_TAG,
    ]


def test_many_plain_pickles_are_those_of_one_at_a_time() -> None:
    shared = ["again"]
    messages: list[Any] = [1, "text", ("job", 17, {"a": 1.5}), shared, [shared, shared], None, b"raw", Fraction(1, 3)]

    assert plain_pickles(messages) == [PLAIN(message) for message in messages]
    assert plain_pickles(iter(())) == []


@pytest.mark.parametrize("message", [numpy.arange(3), "x" * (1 << 20), lambda: None], ids=["array", "large", "lambda"])
def test_many_pickles_that_are_not_plain_are_left_to_the_codec(message: Any) -> None:
    with pytest.raises((TypeError, AttributeError, pickle.PicklingError)):
        plain_pickles([1, message])


@pytest.mark.parametrize("name", ["pickle", "msgpack", "json"])
def test_the_plain_way_of_a_codec_is_its_own(name: str) -> None:
    codec, message = get_codec(name), {"a": [1, "two", None]}
    assert codec.plain is not None

    assert codec.encode(message) == (codec.plain.tag, (codec.plain.encode(message),))
    assert codec.plain.decode(codec.plain.encode(message)) == message
    with pytest.raises((TypeError, AttributeError, pickle.PicklingError)):
        codec.plain.encode([lambda: None])


class Moody:
    """Fails to be pickled, in a way of its own."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __reduce__(self) -> Any:
        raise self.error


@pytest.mark.parametrize("error", [LookupError("no"), TypeError("no"), RecursionError("no")])
def test_errors_of_pickling_pass_through(error: Exception) -> None:
    with pytest.raises(type(error), match="no"):
        get_codec("pickle").encode([1, Moody(error)])


def test_what_cannot_be_pickled_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="lock"):
        get_codec("pickle").encode(threading.Lock())


@pytest.mark.parametrize("record", [b"", b"junk", pickle.dumps([1, 2])[:-1], b"\x80\x05\x97."])
def test_broken_pickles_are_errors(record: bytes) -> None:
    with pytest.raises((pickle.UnpicklingError, EOFError)):
        get_codec("pickle").decode(PICKLE_TAG, record)


@pytest.mark.parametrize("message", [[numpy.arange(3.0)], numpy.arange(3.0)], ids=["buffers", "array"])
def test_every_truncation_of_a_record_with_buffers_is_an_error(message: Any) -> None:
    codec = get_codec("pickle")
    tag, record = joined(codec.encode(message))

    for size in range(len(record)):
        with pytest.raises((ValueError, EOFError, pickle.UnpicklingError)):
            codec.decode(tag, record[:size])


def test_every_flipped_bit_of_an_index_is_an_error_or_stays_inside_the_record() -> None:
    codec = get_codec("pickle")
    tag, record = joined(codec.encode([numpy.arange(3.0), numpy.arange(5, dtype="u1")]))
    refused = 0

    for bit in range(8 * (16 + 2 * 16)):
        spoiled = bytearray(record)
        spoiled[bit // 8] ^= 1 << bit % 8
        try:
            arrays = codec.decode(tag, spoiled)
        except (ValueError, TypeError, EOFError, pickle.UnpicklingError, IndexError, OverflowError):
            refused += 1
        else:
            inside = numpy.frombuffer(spoiled, "u1")
            assert all(not array.size or numpy.shares_memory(array, inside) for array in arrays)

    assert refused > 200


def test_every_flipped_bit_of_a_header_is_an_error_or_an_array_of_the_same_memory() -> None:
    codec = get_codec("pickle")
    tag, record = joined(codec.encode(numpy.arange(6.0).reshape(2, 3)))
    accepted = []

    for bit in range(8 * 64):
        spoiled = bytearray(record)
        spoiled[bit // 8] ^= 1 << bit % 8
        try:
            array = codec.decode(tag, spoiled)
        except ValueError:
            continue
        assert array.nbytes == 48
        accepted.append(bit)

    read_only = 8 * 5
    assert read_only in accepted
    assert all(bit < 8 * 4 or bit == read_only or bit >= 8 * 24 for bit in accepted)  # another type, or the padding


def test_an_array_of_an_unbelievable_shape_is_an_error() -> None:
    header = b"<f8\0" + bytes([2, 0, 0, 0]) + (1 << 61).to_bytes(8, "little") + (8).to_bytes(8, "little")

    with pytest.raises(ValueError, match="its header says an array"):
        get_codec("pickle").decode(ARRAY_TAG, header.ljust(64, b"\0"))
