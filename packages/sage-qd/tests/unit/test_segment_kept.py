"""Segments that were made to stay: they outlive their users, and clean spares them unless it is told otherwise."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sage_qd.ring import Ring, attach, clean_segments, create, list_segments
from sage_qd.ring.places import in_named_folder

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def kept(namespace: str) -> Iterator[Path]:
    """Yield the path of a kept segment with one message, which nobody has open."""

    def make(folder: str) -> Path:
        with create(path=os.path.join(folder, "kept"), capacity_bytes=4096) as ring:
            ring.put(b"message")
        return Path(folder, "kept")

    path = in_named_folder(namespace, make)
    yield path
    path.unlink(missing_ok=True)


def test_list_tells_kept_segments_from_others(kept: Path, ring: Ring, namespace: str) -> None:
    listed = {info.name: (info.in_use, info.kept) for info in list_segments(namespace)}

    assert listed == {"kept": (False, True), "ring": (True, False)}


def test_a_handle_knows_whether_its_ring_is_kept(kept: Path, ring: Ring, namespace: str) -> None:
    with attach(path=kept) as opened:
        assert opened.kept
    assert not ring.kept


def test_clean_spares_kept_segments(kept: Path, namespace: str) -> None:
    assert clean_segments(namespace) == []
    assert kept.exists()


def test_clean_removes_kept_segments_when_told_to(kept: Path, namespace: str) -> None:
    assert clean_segments(namespace, kept=True) == [str(kept)]
    assert not kept.exists()


def test_clean_leaves_a_kept_segment_alone_that_somebody_uses(kept: Path, namespace: str) -> None:
    with attach(path=kept):
        assert clean_segments(namespace, kept=True) == []


def test_a_user_by_name_does_not_take_a_kept_segment_along(kept: Path, namespace: str) -> None:
    with attach("kept", namespace=namespace) as ring:
        assert ring.get() == b"message"

    assert kept.exists()


def test_dry_run_names_what_clean_would_remove_and_removes_nothing(namespace: str, start: Callable) -> None:
    process = start("""
ring = create("ring", namespace=sys.argv[1])
ring.put(bytes(500_000))
say(ring.path)
hear()
""")
    path = Path(process.hear())
    process.kill()

    would = clean_segments(namespace, dry_run=True)

    assert path.exists()
    assert len(would) == 2
    assert clean_segments(namespace) == would


def test_a_segment_of_a_later_version_counts_as_kept(kept: Path, namespace: str) -> None:
    """Its bits may mean what this build cannot know."""
    with kept.open("r+b") as file:
        file.seek(8)
        file.write((99).to_bytes(4, "little"))

    assert [info.kept for info in list_segments(namespace)] == [True]
    assert clean_segments(namespace) == []


def test_a_file_that_is_no_segment_is_not_kept(namespace: str, kept: Path) -> None:
    kept.write_bytes(b"no segment")

    assert clean_segments(namespace) == [str(kept)]
