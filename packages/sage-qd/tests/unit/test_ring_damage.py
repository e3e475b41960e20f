"""Shared bytes that somebody damaged: an exception that names the place, in every process, and never a crash."""

import mmap
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sage_qd import errors
from sage_qd.ring import Ring

pytestmark = pytest.mark.timeout(60)
NewRing = Callable[..., Ring]

# Offsets of ring_layout.h; docs/reference/segment-layout.md shows them too.
TAIL, HEAD, DATA = 640, 896, 20480
RECORD_LENGTH, RECORD_SEQUENCE, RECORD_LEASE, RECORD_FLAGS = 0, 4, 8, 13


@contextmanager
def outside(path: str | Path | None) -> Iterator[mmap.mmap]:
    """Map the file as a stranger would."""
    with open(path or "", "r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        yield memory


def store(path: str | None, offset: int, value: int, size: int = 4) -> None:
    with outside(path) as memory:
        memory[offset : offset + size] = value.to_bytes(size, "little")


# -- Payload checksums ------------------------------------------------------------------------------------------------

CHECKED = {
    "get": Ring.get,
    "get_nowait": Ring.get_nowait,
    "get_into": lambda ring: ring.get_into(bytearray(100_000)),
    "get_many": lambda ring: ring.get_many(3),
    "lease": Ring.lease,
}


@pytest.fixture
def checked(new_ring: NewRing) -> Ring:
    return new_ring(checksum=True)


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 1000, 40_000])
@pytest.mark.parametrize("operation", ["get", "get_into", "get_many", "lease"])
def test_undamaged_items_pass_the_checksum(checked: Ring, operation: str, size: int) -> None:
    payload = os.urandom(size)
    room = bytearray(size)
    ways = {
        "get": checked.get,
        "get_into": lambda: bytes(room[: checked.get_into(room)]),
        "get_many": lambda: checked.get_many(1)[0],
        "lease": lambda: checked.lease().value,
    }
    checked.put_many([payload])

    assert ways[operation]() == payload


@pytest.mark.parametrize("size", [11, 40_000])
@pytest.mark.parametrize("operation", CHECKED)
def test_one_flipped_bit_costs_that_item_only(checked: Ring, operation: str, size: int) -> None:
    checked.put_many([b"?" * size, b"good"])
    with outside(checked.path) as memory:
        memory[memory.find(b"?" * size) + size // 2] ^= 1

    with pytest.raises(errors.CorruptQueueError, match="checksum"):
        CHECKED[operation](checked)

    assert (checked.get(), checked.empty(), checked.stats().is_poisoned) == (b"good", True, False)


def test_a_batch_ends_before_a_damaged_item(checked: Ring) -> None:
    checked.put_many([b"good", b"????", b"fine"])
    with outside(checked.path) as memory:
        memory[memory.find(b"????")] ^= 0x80

    assert checked.get_many(9) == [b"good"]
    with pytest.raises(errors.CorruptQueueError):
        checked.get_many(9)
    assert checked.get_many(9) == [b"fine"]


def test_without_checksums_nobody_notices(ring: Ring) -> None:
    ring.put(b"????")
    with outside(ring.path) as memory:
        memory[memory.find(b"????")] ^= 1

    assert ring.get() == b">???"


# -- Records and positions --------------------------------------------------------------------------------------------

DAMAGE = {
    "length": (DATA + RECORD_LENGTH, 1 << 30, 4),
    "length of everything": (DATA + RECORD_LENGTH, 0xFFFFFFFF, 4),
    "sequence": (DATA + RECORD_SEQUENCE, 7, 4),
    "flags": (DATA + RECORD_FLAGS, 0x80, 1),
    "lease": (DATA + RECORD_LEASE, 1, 4),
    "tail": (TAIL, 1 << 31, 4),
    "tail behind head": (TAIL, 0xFFFFFFF0, 4),
    "head": (HEAD, 1 << 31, 4),
}
TAKES = {
    "get": lambda ring: ring.get(timeout=0),
    "get_into": lambda ring: ring.get_into(bytearray(99), timeout=0),
    "get_many": lambda ring: ring.get_many(9, timeout=0),
    "peek": Ring.peek,
    "lease": lambda ring: ring.lease(timeout=0),
}


@pytest.mark.parametrize("damage", [name for name in DAMAGE if "tail" not in name])
@pytest.mark.parametrize("operation", TAKES)
def test_damage_is_named_with_its_place_and_stops_everybody(
    ring: Ring, attached: NewRing, damage: str, operation: str
) -> None:
    ring.put_many([b"a", b"b", b"c"])
    other = attached()
    offset, value, size = DAMAGE[damage]
    store(ring.path, offset, value, size)

    with pytest.raises(errors.CorruptQueueError) as caught:
        TAKES[operation](ring)

    assert caught.value.offset is not None
    assert damage.split()[0] in caught.value.field or damage == "head"
    for call in (lambda: other.put(b"x"), other.get, other.clear, other.lease):
        with pytest.raises(errors.CorruptQueueError) as again:
            call()
        assert again.value.poisoned_by == os.getpid()
    assert other.stats().is_poisoned


@pytest.mark.parametrize("damage", [name for name in DAMAGE if "tail" in name])
def test_a_damaged_tail_is_found_when_it_is_looked_at(ring: Ring, damage: str) -> None:
    offset, value, size = DAMAGE[damage]
    store(ring.path, offset, value, size)

    with pytest.raises(errors.CorruptQueueError, match="tail"):
        ring.get(timeout=0)


def test_a_damaged_head_stops_producers(new_ring: NewRing) -> None:
    ring = new_ring(max_items=1)
    ring.put(b"a")
    store(ring.path, HEAD, 1 << 30)

    with pytest.raises(errors.CorruptQueueError) as caught:
        ring.put(b"b", timeout=0)

    assert caught.value.offset == HEAD


def test_poison_wakes_whoever_waits_in_other_processes(
    new_ring: NewRing, attached: NewRing, start: Callable, eventually: Callable
) -> None:
    ring = new_ring(max_items=1)
    ring.put(b"a")
    waiter = start("""
ring = attach("ring", namespace=sys.argv[1])
say("ready")
try:
    ring.put(b"x")
except errors.CorruptQueueError as error:
    say(error.poisoned_by)
ring.close()
""")
    waiter.hear()
    eventually(lambda: ring.stats().put_waiters)
    store(ring.path, DATA + RECORD_SEQUENCE, 99)

    with pytest.raises(errors.CorruptQueueError):
        ring.get()

    assert waiter.hear() == str(os.getpid())
    waiter.finish()


def test_a_zeroed_data_region_is_damage(ring: Ring) -> None:
    ring.put_many([b"x" * 100] * 10)
    with outside(ring.path) as memory:
        memory[DATA:] = bytes(len(memory) - DATA)

    with pytest.raises(errors.CorruptQueueError, match=r"record\."):
        ring.get(timeout=0)


def test_the_offsets_used_here_are_those_of_the_layout(ring: Ring) -> None:
    ring.put(b"x")
    with outside(ring.path) as memory:
        tail, head = struct.unpack_from("<Q", memory, TAIL)[0], struct.unpack_from("<Q", memory, HEAD)[0]
        assert (tail >> 32, head) == (1, 0)
        assert struct.unpack_from("<IIIBB", memory, DATA)[:2] == (1, 0)
