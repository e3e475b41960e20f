"""Files that are no rings, or stop being one: refused with the reason, and never a bus error."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from sage_qd import errors
from sage_qd.ring import Ring, attach, create

pytestmark = pytest.mark.timeout(60)
NewRing = Callable[..., Ring]

GEOMETRY, DATA = 264, 20480  # offsets of ring_layout.h; docs/reference/segment-layout.md shows them too


def store(path: Path, offset: int, value: int, size: int = 4) -> None:
    """Overwrite a number in the file."""
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(value.to_bytes(size, "little"))


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
    process = start(
        """
import mmap
ring = create(anonymous=True)
with open(sys.argv[2], "w+b") as file:
    file.truncate(8192)
    memory = mmap.mmap(file.fileno(), 8192)
    file.truncate(0)
say("about to touch")
memory[5000]
""",
        tmp_path / "file",
    )

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
    store(path, offset, path.read_bytes()[offset] ^ 0x10, size=1)

    with pytest.raises((errors.CorruptQueueError, errors.IncompatibleQueueError)):
        attach(path=path)


@pytest.mark.parametrize(
    ("offset", "name", "value"),
    [
        (8, "layout_version", 99),
        (12, "byte_order", 0x04030201),
        (20, "page_bytes", 65536),
        (24, "word_bits", 32),
    ],
)
def test_another_kind_of_ring_is_incompatible_and_says_in_what(
    tmp_path: Path, offset: int, name: str, value: int
) -> None:
    path = header_of(tmp_path)
    store(path, offset, value)

    with pytest.raises(errors.IncompatibleQueueError) as caught:
        attach(path=path)

    assert (caught.value.field, caught.value.found) == (name, value)


@pytest.mark.parametrize("pages", [0, 1, 4, 6, 2**40 - 1])
def test_a_region_beside_its_place_is_refused(tmp_path: Path, pages: int) -> None:
    path = header_of(tmp_path)
    store(path, GEOMETRY, pages << 24 | 8 << 16, size=8)

    with pytest.raises(errors.CorruptQueueError, match="geometry"):
        attach(path=path)


@pytest.mark.parametrize("word", [0, 1, 2**64 - 1, *(5 << 24 | power << 16 for power in (0, 7, 9, 30, 31, 255))])
def test_a_geometry_that_leaves_the_file_is_refused(tmp_path: Path, word: int) -> None:
    path = header_of(tmp_path)
    store(path, GEOMETRY, word, size=8)

    with pytest.raises(errors.CorruptQueueError, match="geometry"):
        attach(path=path)


@pytest.mark.parametrize("length", [1, 128, 4096, 20479, 20480, 24575])
def test_a_file_that_is_too_short_is_refused(tmp_path: Path, length: int) -> None:
    path = header_of(tmp_path)
    os.truncate(path, length)

    with pytest.raises(errors.CorruptQueueError):
        attach(path=path)
