"""Shared bytes that somebody damaged: an exception that names the place, in every process, and never a crash."""

import mmap
import os
import signal
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sage_qd import errors
from sage_qd.ring import Ring, attach, create

pytestmark = pytest.mark.timeout(60)
NewRing = Callable[..., Ring]

# Offsets of ring_layout.h; docs/reference/segment-layout.md shows them too.
STATE, GEOMETRY, TAIL, HEAD, CURSOR, DATA = 256, 264, 640, 896, 1160, 20480
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


# -- Files that shrink ------------------------------------------------------------------------------------------------

USES = [
    "get(timeout=0)",
    "put(b'x' * 1000, timeout=0)",
    "put(bytes(50_000), timeout=0)",
    "put_many([b'x' * 1000], timeout=0)",
    "peek()",
    "lease(timeout=0)",
    "get_many(9, timeout=0)",
    "get_into(bytearray(999), timeout=0)",
]
TRUNCATED = """
ring = create("ring", namespace=sys.argv[1])
ring.put_many([b"x" * 100] * 50)
os.truncate(ring.path, int(sys.argv[2]))
for _ in range(3):
    try:
        ring.{call}
    except errors.CorruptQueueError:
        say("corrupt")
    else:
        say("went through")
ring.close()
say("closed")
"""


@pytest.mark.parametrize("length", [0, 4096, DATA])
@pytest.mark.parametrize("call", USES)
def test_a_truncated_file_is_an_error_and_no_bus_error(start: Callable, call: str, length: int) -> None:
    """In a process of its own: a missing guard would end it by SIGBUS."""
    process = start(TRUNCATED.format(call=call), length)

    assert [process.hear() for _ in range(4)] == ["corrupt"] * 3 + ["closed"]
    process.finish()


def test_clear_of_a_file_without_its_header_is_an_error(start: Callable) -> None:
    process = start(TRUNCATED.format(call="clear()"), 0)

    assert [process.hear() for _ in range(4)] == ["corrupt"] * 3 + ["closed"]
    process.finish()


def test_views_of_a_truncated_file_read_zeros_and_do_not_crash(start: Callable) -> None:
    process = start("""
ring = create("ring", namespace=sys.argv[1])
ring.put(b"x" * 10_000)
view = ring.lease().data
os.truncate(ring.path, 0)
say(len(bytes(view)))
ring.close()
""")

    assert process.hear() == "10000"
    process.finish()


def test_the_guard_lets_bus_errors_of_others_through(start: Callable, tmp_path: Path) -> None:
    process = start("""
import mmap
ring = create(anonymous=True)
with open(sys.argv[2], "w+b") as file:
    file.truncate(8192)
    memory = mmap.mmap(file.fileno(), 8192)
    file.truncate(0)
say("about to touch")
memory[5000]
""", tmp_path / "file")

    assert process.hear() == "about to touch"
    assert process.end() == -signal.SIGBUS


# -- Files that are no rings ------------------------------------------------------------------------------------------


def header_of(tmp_path: Path) -> Path:
    path = tmp_path / "ring"
    create(path=path, capacity_bytes=4096).close()
    return path


@pytest.mark.parametrize("content", [b"", b"x", bytes(4096), bytes(20480), os.urandom(65536)], ids=len)
def test_a_file_that_is_no_ring_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    path.chmod(0o600)

    with pytest.raises(errors.CorruptQueueError):
        attach(path=path)
    assert path.read_bytes() == content


@pytest.mark.parametrize("offset", range(128))
def test_every_byte_of_the_identity_is_checked(tmp_path: Path, offset: int) -> None:
    path = header_of(tmp_path)
    with outside(path) as memory:
        memory[offset] ^= 0x10

    with pytest.raises((errors.CorruptQueueError, errors.IncompatibleQueueError)):
        attach(path=path)


@pytest.mark.parametrize(
    ("offset", "name", "value"),
    [
        (8, "layout_version", 99), (12, "byte_order", 0x04030201), (20, "page_bytes", 65536), (24, "word_bits", 32),
    ],
)
def test_another_kind_of_ring_is_incompatible_and_says_in_what(
    tmp_path: Path, offset: int, name: str, value: int
) -> None:
    path = header_of(tmp_path)
    store(str(path), offset, value)

    with pytest.raises(errors.IncompatibleQueueError) as caught:
        attach(path=path)

    assert (caught.value.field, caught.value.found) == (name, value)


@pytest.mark.parametrize("pages", [0, 1, 4, 6, 2**40 - 1])
def test_a_region_beside_its_place_is_refused(tmp_path: Path, pages: int) -> None:
    path = header_of(tmp_path)
    store(str(path), GEOMETRY, pages << 24 | 8 << 16, size=8)

    with pytest.raises(errors.CorruptQueueError, match="geometry"):
        attach(path=path)


@pytest.mark.parametrize("word", [0, 1, 2**64 - 1, *(5 << 24 | power << 16 for power in (0, 7, 9, 30, 31, 255))])
def test_a_geometry_that_leaves_the_file_is_refused(tmp_path: Path, word: int) -> None:
    path = header_of(tmp_path)
    store(str(path), GEOMETRY, word, size=8)

    with pytest.raises(errors.CorruptQueueError, match="geometry"):
        attach(path=path)


@pytest.mark.parametrize("length", [1, 128, 4096, 20479, 20480, 24575])
def test_a_file_that_is_too_short_is_refused(tmp_path: Path, length: int) -> None:
    path = header_of(tmp_path)
    os.truncate(path, length)

    with pytest.raises(errors.CorruptQueueError):
        attach(path=path)


def test_the_offsets_used_here_are_those_of_the_layout(ring: Ring) -> None:
    ring.put(b"x")
    with outside(ring.path) as memory:
        tail, head = struct.unpack_from("<Q", memory, TAIL)[0], struct.unpack_from("<Q", memory, HEAD)[0]
        assert (tail >> 32, head) == (1, 0)
        assert struct.unpack_from("<IIIBB", memory, DATA)[:2] == (1, 0)
