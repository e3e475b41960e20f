"""Hostile and damaged bytes in shared memory: always a precise exception, never a hang."""

import os
import random
import struct
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from sage_qd import (
    CorruptQueueError,
    IncompatibleQueueError,
    SageQueueError,
    SharedMemoryQueue,
    SharedMemoryQueueDescriptor,
    UntrustedPayloadError,
    clean_shared_memory,
)
from sage_qd.queues.shm_layout import DATA_START, RECORD_BYTES, State, record_bytes

STATE = struct.Struct("=20Q")
FIELDS = list(State.__slots__)
LARGE = (1 << 64) - 1


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGE_QD_SHM_FOLDER", str(tmp_path))


@pytest.fixture
def descriptor() -> Iterator[SharedMemoryQueueDescriptor]:
    descriptor = SharedMemoryQueueDescriptor(f"layout-{uuid.uuid4().hex}", codec="raw", capacity_bytes=4096)
    yield descriptor
    descriptor.close()


@pytest.fixture
def queue(descriptor: SharedMemoryQueueDescriptor) -> SharedMemoryQueue[Any]:
    queue = descriptor.open()
    queue.put_many([b"one", b"two", b"three"])
    return queue


def bytes_of(queue: SharedMemoryQueue[Any]) -> memoryview:
    """The shared memory itself."""
    return queue._segment.memory._bytes


def spoil(queue: SharedMemoryQueue[Any], **values: int) -> None:
    """Write fields of the current state."""
    place = (256, 512)[queue._segment.memory._words[16]]
    for field, value in values.items():
        struct.pack_into("=Q", bytes_of(queue), place + 8 * FIELDS.index(field), value)


def test_the_page_of_the_layout_is_right_about_places(queue: SharedMemoryQueue[Any]) -> None:
    raw = bytes_of(queue)

    assert bytes(raw[:8]) == b"SAGE shm"
    assert struct.unpack_from("=QQQQ", raw, 8) == (1, 0, 4096, 0)
    assert raw[40:56].hex() == queue.instance
    assert len(raw) == DATA_START + 4096
    assert struct.unpack_from("=QII", raw, DATA_START) == (3, 0, 0)
    assert bytes(raw[DATA_START + RECORD_BYTES :][:3]) == b"one"
    assert STATE.size == 8 * len(FIELDS) <= 256


@pytest.mark.parametrize(("size", "takes"), [(0, 32), (1, 64), (32, 64), (33, 96)])
def test_records_take_a_multiple_of_32(size: int, takes: int) -> None:
    assert record_bytes(size) == takes


@pytest.mark.parametrize(
    "values",
    [
        {"head": 32, "scan": 0},
        {"tail": 1 << 40},
        {"tail": 100},
        {"head": LARGE},
        {"scan": 1 << 20},
        {"count": 1 << 30},
        {"leased": 4},
        {"gone": LARGE},
        {"puts": LARGE},
        {"successor_bytes": 1 << 20},
    ],
)
def test_a_state_that_breaks_a_rule_is_corrupt(queue: SharedMemoryQueue[Any], values: dict[str, int]) -> None:
    spoil(queue, **values)

    for call in (queue.get_nowait, lambda: queue.put_nowait(b"x"), queue.stats, queue.peek, queue.clear, queue.lease):
        with pytest.raises(CorruptQueueError):
            call()


def test_a_current_state_that_is_none_is_corrupt(queue: SharedMemoryQueue[Any]) -> None:
    struct.pack_into("=Q", bytes_of(queue), 128, 7)

    with pytest.raises(CorruptQueueError, match="current state"):
        queue.get_nowait()


@pytest.mark.parametrize("size", [193, 5000, LARGE - 40, LARGE])
def test_a_record_that_ends_behind_the_tail_is_corrupt(queue: SharedMemoryQueue[Any], size: int) -> None:
    struct.pack_into("=Q", bytes_of(queue), DATA_START, size)

    with pytest.raises(CorruptQueueError, match="record size"):
        queue.get_nowait()


def test_a_holder_in_a_queue_where_nobody_holds_anything_is_corrupt(queue: SharedMemoryQueue[Any]) -> None:
    struct.pack_into("=Q", bytes_of(queue), DATA_START + 24, 7)

    with pytest.raises(CorruptQueueError, match="holder"):
        queue.get_nowait()


def test_a_count_of_leases_that_no_record_has_is_corrupt(queue: SharedMemoryQueue[Any]) -> None:
    spoil(queue, leased=2)

    with pytest.raises(CorruptQueueError, match="leased"):
        queue.stats()


def test_a_tag_of_another_codec_is_refused_after_the_message_left(queue: SharedMemoryQueue[Any]) -> None:
    struct.pack_into("=I", bytes_of(queue), DATA_START + 8, 1)  # a pickle, in a queue that never unpickles

    with pytest.raises(SageQueueError) as caught:
        queue.get_nowait()

    assert isinstance(caught.value.__cause__, UntrustedPayloadError)
    assert queue.get_nowait() == b"two"


def test_more_than_is_counted_is_damage(queue: SharedMemoryQueue[Any]) -> None:
    queue.put(b"a")
    queue.put(b"b")
    raw = bytes_of(queue)
    current = 256 if raw[128] == 0 else 512
    raw[current + 24 : current + 32] = bytes(8)  # the count

    with pytest.raises(CorruptQueueError, match="count is -1, wanted 'at least 0'"):
        queue.get_nowait()


def test_any_damage_of_the_header_ends_in_an_answer_or_an_exception_of_ours(
    descriptor: SharedMemoryQueueDescriptor, queue: SharedMemoryQueue[Any]
) -> None:
    raw = bytes_of(queue)
    whole = bytes(raw)
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    places = [*range(128, 144), *range(256, 416), *range(512, 672), *range(DATA_START, DATA_START + 96)]
    for _ in range(2000):
        raw[chance.choice(places)] = chance.randrange(256)
        for call in (queue.stats, queue.get_nowait, lambda: queue.put_nowait(b"x"), queue.clear, queue.shutdown):
            try:
                call()
            except SageQueueError:
                break
        raw[:] = whole


@pytest.mark.parametrize(
    ("offset", "value", "error"),
    [
        (0, b"no queue", CorruptQueueError),
        (8, struct.pack("=Q", 2), IncompatibleQueueError),
        (24, struct.pack("=Q", 8192), CorruptQueueError),
        (24, struct.pack("=Q", LARGE), CorruptQueueError),
    ],
)
def test_a_damaged_header_is_refused_at_opening(
    descriptor: SharedMemoryQueueDescriptor, offset: int, value: bytes, error: type[Exception]
) -> None:
    queue = descriptor.open()
    bytes_of(queue)[offset : offset + len(value)] = value

    with pytest.raises(error):
        descriptor.attach()

    queue.close()


@pytest.mark.parametrize("size", [0, 100, DATA_START, DATA_START + 4064])
def test_a_file_of_another_size_is_refused_and_can_be_cleaned(
    descriptor: SharedMemoryQueueDescriptor, size: int
) -> None:
    queue = descriptor.open()
    path, instance = queue._segment.path, queue.instance
    queue.close()
    os.makedirs(os.path.dirname(path), 0o700)
    with open(path, "wb") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write((b"SAGE shm" + struct.pack("=QQQ", 1, 0, 4096) + bytes(size))[:size])

    with pytest.raises(CorruptQueueError):
        descriptor.open()

    assert instance
    assert clean_shared_memory() == [path]
