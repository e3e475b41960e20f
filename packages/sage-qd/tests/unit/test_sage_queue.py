"""Queues on the ring: codecs and their trust, names, errors, what only this kind has."""

import gc
import os
import pickle
import threading
import uuid
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy
import pytest

from sage_qd import (
    Full,
    GeometryMismatchError,
    InvalidQueueNameError,
    MessageTooLargeError,
    NotShareableError,
    PayloadError,
    QueueExistsError,
    QueueNotFoundError,
    RoleClaimedError,
    SageQueue,
    SageQueueDescriptor,
    UntrustedPayloadError,
)
from sage_qd import ring as rings
from sage_qd.codecs.base import PICKLE_TAG
from sage_qd.queues.names import LONGEST_NAME, segment_name, text_of

NAMESPACE = f"unit-{uuid.uuid4().hex}"


@pytest.fixture(scope="module", autouse=True)
def clean_namespace() -> Iterator[None]:
    """Nothing may be left in the namespace, and the folder goes."""
    yield
    gc.collect()
    for folder in rings.directory().glob(f"*{NAMESPACE}*"):
        assert list(folder.iterdir()) == []
        folder.rmdir()


@pytest.fixture
def opened() -> Iterator[Any]:
    """Open a queue with these settings; all are closed afterwards, and nothing may be left."""
    descriptors: list[SageQueueDescriptor] = []

    def opener(**settings: Any) -> SageQueue[Any]:
        name = settings.pop("queue_id", f"q-{uuid.uuid4().hex}")
        descriptor = SageQueueDescriptor(queue_id=name, namespace=NAMESPACE, **settings)
        queue = descriptor.open()
        descriptors.append(descriptor)
        return queue

    yield opener
    for descriptor in descriptors:
        descriptor.close()
    assert rings.list_segments(NAMESPACE) == []


# -- Names ------------------------------------------------------------------------------------------------------------

NAMES = [
    ("jobs", "jobs"),
    ("input_map-2.v1", "input_map-2.v1"),
    ("_private", "e--_private"),
    ("a b", "e--a.20b"),
    ("e--x", "e--e--x"),
    ("..", "e--.2e.2e"),
    ("a/../b", "e--a.2f.2e.2e.2fb"),
    ("/" * 60, "u--" + "Ly8v" * 20),
    ("né", "u--bsOp"),
    ("队列", "w--lh9SFw"),
    ("\0", "e--.00"),
]


@pytest.mark.parametrize(("text", "name"), NAMES)
def test_any_text_has_a_segment_name_that_leads_back(text: str, name: str) -> None:
    assert segment_name(text) == name
    assert text_of(name) == text


@pytest.mark.parametrize("text", ["x" * 128, "e--" + "x" * 122, "é" * 46, "队" * 46])
def test_long_text_fits_as_long_as_a_file_name_has_room(text: str) -> None:
    assert len(segment_name(text)) <= LONGEST_NAME
    assert text_of(segment_name(text)) == text


@pytest.mark.parametrize("text", ["x" * 129, "队" * 48, "", "a\ud800"])
def test_text_that_cannot_be_a_file_name_is_refused(text: str) -> None:
    with pytest.raises(InvalidQueueNameError):
        segment_name(text)


@pytest.mark.parametrize(
    "name", ["", "-x", "e--jobs", "e--.2", "e--.GG", "u--", "u--YQ", "w--YQ", "u--_", "a b", "x" * 129]
)
def test_names_that_no_text_has_are_told(name: str) -> None:
    with pytest.raises(ValueError, match="not the name"):
        text_of(name)


def test_a_chinese_queue_lies_under_its_name(opened: Any) -> None:
    queue = opened(queue_id="任务 1")
    queue.put("你好")

    (segment,) = rings.list_segments(NAMESPACE)
    assert text_of(segment.name) == "任务 1"
    assert queue.queue_id == "任务 1"
    assert queue.get() == "你好"


# -- Codecs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", ["pickle", "msgpack", "json", "raw"])
def test_the_codec_is_recorded_and_exact_bytes_need_none(opened: Any, codec: str) -> None:
    queue = opened(codec=codec)
    queue.put(b"as they are")

    with rings.attach(queue.ring.name, namespace=queue.ring.namespace) as ring:
        assert ring.codec == {"raw": 0, "pickle": 1, "msgpack": 2, "json": 3}[codec]
        assert ring.get() == b"as they are"


def test_opening_with_another_codec_is_a_mismatch_by_name(opened: Any) -> None:
    queue = opened(codec="msgpack")

    with pytest.raises(GeometryMismatchError, match="codec is 'msgpack', wanted 'pickle'"):
        SageQueueDescriptor(queue_id=queue.queue_id, namespace=NAMESPACE).open()


def test_attaching_with_another_codec_is_untrusted(opened: Any) -> None:
    queue = opened(codec="pickle")

    with pytest.raises(UntrustedPayloadError) as caught:
        SageQueueDescriptor(queue_id=queue.queue_id, namespace=NAMESPACE, codec="msgpack").attach()

    assert (caught.value.codec, caught.value.allowed) == ("pickle", ("msgpack",))


def test_a_pickle_smuggled_into_a_msgpack_queue_is_not_unpickled(opened: Any) -> None:
    queue = opened(codec="msgpack")
    queue.ring.put_vectored([pickle.dumps(Trap())], PICKLE_TAG)
    queue.put(["good"])

    with pytest.raises(PayloadError) as caught:
        queue.get()

    assert isinstance(caught.value.__cause__, UntrustedPayloadError)
    assert not Trap.sprung
    assert queue.get() == ["good"]


class Trap:
    """Its unpickling is noticed."""

    sprung: ClassVar[list[bool]] = []

    def __reduce__(self) -> Any:
        return Trap.sprung.append, (True,)


class Moody:
    """Can be pickled, but not unpickled."""

    def __reduce__(self) -> Any:
        return (int, ("no number",))


def test_a_message_that_cannot_be_decoded_loses_no_other(opened: Any) -> None:
    queue = opened()
    queue.put("before")
    queue.put(Moody())
    queue.put("after")

    assert queue.get() == "before"
    with pytest.raises(PayloadError) as caught:
        queue.get()
    assert queue.get() == "after"

    assert caught.value.payload == pickle.dumps(Moody(), 5)
    assert isinstance(caught.value.__cause__, ValueError)


def take_all(queue: SageQueue[Any]) -> tuple[list[Any], PayloadError | None]:
    """All messages, and the error that came with one of them."""
    taken, error = [], None
    while not queue.empty():
        try:
            taken += queue.get_many(10)
        except PayloadError as caught:
            taken += caught.items
            error = caught
    return taken, error


def test_a_batch_with_a_message_that_cannot_be_decoded_loses_no_other(opened: Any) -> None:
    queue = opened()
    queue.put_many(["before", Moody(), "after"])

    taken, error = take_all(queue)

    assert taken == ["before", "after"]
    assert error is not None
    assert error.payload == pickle.dumps(Moody(), 5)


def test_a_leased_message_that_cannot_be_decoded_stays_until_settled(opened: Any) -> None:
    queue = opened()
    queue.put(Moody())

    with queue.lease() as lease, pytest.raises(PayloadError):
        _ = lease.value

    assert queue.empty()


@pytest.mark.parametrize("put", ["put", "put_nowait", "put_many"])
def test_a_message_that_cannot_be_encoded_leaves_the_queue_as_it_was(opened: Any, put: str) -> None:
    queue = opened()
    queue.put("first")
    message = ["x", threading.Lock()]

    with pytest.raises(TypeError, match="lock"):
        getattr(queue, put)([1, message] if put == "put_many" else message)

    assert (queue.get(), queue.qsize()) == ("first", 0)


def test_raw_queues_take_buffers_only(opened: Any) -> None:
    queue = opened(codec="raw")
    queue.put(bytearray(b"abc"))

    assert queue.get() == b"abc"
    with pytest.raises(TypeError, match="bytes-like"):
        queue.put("text")


# -- Arrays -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 1000, 20_000, 200_000])
def test_arrays_arrive_as_own_writable_copies(opened: Any, size: int) -> None:
    queue = opened(capacity_bytes=1 << 19)
    array = numpy.arange(float(size))

    queue.put({"array": array, "name": "a"})
    array[:] = -1
    again = queue.get()["array"]
    again += 1

    numpy.testing.assert_array_equal(again, numpy.arange(size) + 1.0)


@pytest.mark.parametrize("size", [1000, 200_000])
def test_a_leased_array_is_a_read_only_view(opened: Any, size: int) -> None:
    queue = opened(capacity_bytes=1 << 19)
    queue.put(numpy.arange(float(size)))

    with queue.lease() as lease:
        view = lease.value
        assert not view.flags.writeable
        assert not view.flags.owndata
        assert view.flags.aligned
        numpy.testing.assert_array_equal(view, numpy.arange(float(size)))
        del view

    assert queue.empty()


# -- Settings ---------------------------------------------------------------------------------------------------------


def test_other_settings_are_a_mismatch(opened: Any) -> None:
    queue = opened(maxsize=3, queue_id="set")
    others = [{"maxsize": 4}, {"maxsize": 3, "checksum": True}, {"maxsize": 3, "capacity_bytes": 1 << 22}]

    for other in others:
        with pytest.raises(GeometryMismatchError, match="'set'"):
            SageQueueDescriptor(queue_id="set", namespace=NAMESPACE, **other).open()
    with pytest.raises(GeometryMismatchError, match="max_items is 3, wanted 4"):
        SageQueueDescriptor(queue_id="set", namespace=NAMESPACE, maxsize=4).attach()

    assert queue.empty()


def test_capacity_is_rounded_up_and_still_the_same_queue(opened: Any) -> None:
    queue = opened(queue_id="rounded", capacity_bytes=100_000)

    assert queue.ring.capacity_bytes == 131_072
    assert opened(queue_id="rounded", capacity_bytes=131_072).instance == queue.instance


def test_attaching_after_a_resize_works(opened: Any) -> None:
    queue = opened(queue_id="grown", capacity_bytes=1 << 16)
    queue.resize(1 << 18)

    with SageQueueDescriptor(queue_id="grown", namespace=NAMESPACE, capacity_bytes=1 << 16).attach() as other:
        assert other.ring.capacity_bytes == 1 << 18


def test_bytes_bound_the_queue_too(opened: Any) -> None:
    queue = opened(capacity_bytes=4096, spill_threshold=4000)

    put = queue.put_many([b"x" * 500] * 100, timeout=0)

    with pytest.raises(Full):
        queue.put_nowait(b"x" * 500)
    assert put == queue.qsize()
    assert 5 <= queue.qsize() <= 8


def test_large_messages_spill_and_come_back_in_order(opened: Any) -> None:
    queue = opened(capacity_bytes=1 << 16)
    messages = [b"small", b"L" * 300_000, ["o" * 100_000], b"small again", numpy.ones(50_000)]

    queue.put_many(messages)

    assert queue.stats().spills == 3
    taken: list[Any] = []
    while len(taken) < len(messages):
        taken += queue.get_many(10)
    assert taken[:4] == messages[:4]
    numpy.testing.assert_array_equal(taken[4], messages[4])


def test_a_second_single_producer_is_refused(opened: Any) -> None:
    settings = {"queue_id": "single", "single_producer": True}
    first, second = opened(**settings), opened(**settings)
    first.put(1)

    with pytest.raises(RoleClaimedError):
        second.put(2)


def test_namespaces_keep_names_apart(opened: Any) -> None:
    queue = opened(queue_id="same")
    with SageQueueDescriptor("same", namespace=f"{NAMESPACE} 另").open() as other:
        other.put(1)

        assert queue.empty()


def test_a_queue_goes_with_its_last_handle(opened: Any) -> None:
    queue = opened(queue_id="short")
    queue.put(1)
    queue.close()

    with pytest.raises(QueueNotFoundError, match="'short'"):
        SageQueueDescriptor(queue_id="short", namespace=NAMESPACE).attach()


def test_a_forgotten_queue_counts_as_closed() -> None:
    queue = SageQueueDescriptor("forgotten", namespace=NAMESPACE).open()
    queue.put([1])

    del queue
    gc.collect()

    with pytest.raises(QueueNotFoundError):
        SageQueueDescriptor("forgotten", namespace=NAMESPACE).attach()


def test_a_kept_queue_stays_until_it_is_destroyed() -> None:
    descriptor = SageQueueDescriptor("kept/队", namespace=NAMESPACE, auto_cleanup=False)
    with descriptor.open() as queue:
        queue.put("still here")

    with descriptor.open() as queue:
        assert queue.get(timeout=0) == "still here"
    with pytest.raises(QueueExistsError, match="kept/队"):
        descriptor.create()
    descriptor.destroy()

    with pytest.raises(QueueNotFoundError):
        descriptor.open(create=False)
    assert rings.list_segments(NAMESPACE) == []


def test_a_kept_queue_of_another_codec_is_a_mismatch() -> None:
    descriptor = SageQueueDescriptor("kept", namespace=NAMESPACE, auto_cleanup=False)
    with descriptor.open():
        other = SageQueueDescriptor("kept", namespace=NAMESPACE, auto_cleanup=False, codec="json")
        with pytest.raises(GeometryMismatchError, match="codec is 'pickle', wanted 'json'"):
            other.open()
    descriptor.destroy()


def test_unlink_frees_the_name_at_once(opened: Any) -> None:
    queue = opened(queue_id="freed")
    queue.unlink()

    other = opened(queue_id="freed")

    assert other.instance != queue.instance
    queue.put(1)
    assert (queue.qsize(), other.qsize()) == (1, 0)


def test_create_makes_a_new_queue_or_none(opened: Any) -> None:
    opened(queue_id="taken")

    with pytest.raises(QueueExistsError, match="'taken'"):
        SageQueueDescriptor("taken", namespace=NAMESPACE).create()


def test_get_stats_is_a_dictionary() -> None:
    descriptor = SageQueueDescriptor("counted", namespace=NAMESPACE)
    descriptor.put(1)

    assert (descriptor.get_stats()["puts"], descriptor.get_stats()["depth"]) == (1, 1)

    descriptor.close()


# -- The object -------------------------------------------------------------------------------------------------------


def test_hot_methods_are_those_of_the_ring(opened: Any) -> None:
    queue = opened()

    for name in ("put", "get", "put_many", "get_many", "lease"):
        assert getattr(queue, name).__self__ is queue.ring


def test_methods_of_the_class_do_the_same(opened: Any) -> None:
    queue = opened(maxsize=9)

    SageQueue.put(queue, 1)
    SageQueue.put_nowait(queue, 2)
    SageQueue.put_many(queue, [3, 4])

    assert [SageQueue.peek(queue), SageQueue.get(queue), SageQueue.get_nowait(queue)] == [1, 1, 2]
    assert SageQueue.get_many(queue, 1) == [3]
    assert (SageQueue.qsize(queue), SageQueue.empty(queue), SageQueue.full(queue)) == (1, False, False)
    assert SageQueue.stats(queue).depth == 1
    SageQueue.lease(queue).nack()
    assert SageQueue.clear(queue) == 1
    assert SageQueue.shutdown(queue) == 0


def test_too_large_for_everything_is_refused_at_once(opened: Any) -> None:
    ring = rings.create(anonymous=True, capacity_bytes=4096, codec=1)
    queue: SageQueue[bytes] = SageQueue(ring)

    with pytest.raises(MessageTooLargeError), queue:
        queue.put_many([b"small", b"x" * 5000])


def test_a_queue_without_a_descriptor_cannot_travel_even_to_a_started_process() -> None:
    with SageQueue[int](rings.create(anonymous=True, codec=1)) as queue, pytest.raises(NotShareableError):
        pickle.dumps(queue)


def test_fileno_is_the_segment(opened: Any) -> None:
    queue = opened()

    assert os.fstat(queue.fileno()).st_size >= queue.ring.capacity_bytes


def test_repr_tells_name_codec_and_depth(opened: Any) -> None:
    queue = opened(queue_id="shown", codec="json")
    queue.put([1])

    assert repr(queue) == "<SageQueue 'shown', json, 1 messages>"
