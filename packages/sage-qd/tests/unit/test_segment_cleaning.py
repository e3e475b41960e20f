"""List and clean: what is shown, what is removed, and that neither disturbs whoever is at work."""

from collections.abc import Callable
from pathlib import Path

import pytest

from sage_qd.ring import Ring, attach, clean_segments, create, list_segments
from sage_qd.ring.segment import is_last

pytestmark = pytest.mark.timeout(60)
NewRing = Callable[..., Ring]


def test_list_shows_what_is_there_and_whether_it_is_used(new_ring: NewRing, namespace: str) -> None:
    new_ring("b", capacity_bytes=4096)
    new_ring("a", capacity_bytes=8192)

    listed = list_segments(namespace)

    assert [(info.name, info.namespace, info.in_use) for info in listed] == [
        ("a", namespace, True),
        ("b", namespace, True),
    ]
    assert [info.size_bytes - 20480 for info in listed] == [8192, 4096]
    assert [Path(info.path).name for info in listed] == ["a", "b"]
    assert {info.path for info in listed} <= {info.path for info in list_segments()}


def test_list_of_a_namespace_that_is_not_there_is_empty() -> None:
    assert list_segments("never-made") == []
    assert clean_segments("never-made") == []


def test_list_leaves_out_spill_files_folders_and_links(ring: Ring, namespace: str) -> None:
    folder = Path(ring.path or "").parent
    ring.put(bytes(500_000))
    (folder / "folder").mkdir()
    (folder / "link").symlink_to("ring")

    assert [info.name for info in list_segments(namespace)] == ["ring"]
    (folder / "folder").rmdir()
    (folder / "link").unlink()


def test_clean_leaves_used_segments_alone(ring: Ring, namespace: str) -> None:
    assert clean_segments(namespace) == []
    assert Path(ring.path or "").exists()


def test_clean_removes_what_killed_processes_left(namespace: str, start: Callable) -> None:
    process = start("""
ring = create("ring", namespace=sys.argv[1])
ring.put(bytes(500_000))
say(ring.path)
hear()
""")
    path = process.hear()
    assert clean_segments(namespace) == []
    process.kill()

    removed = clean_segments(namespace)

    assert removed[0] == path
    assert [name.rpartition("~")[0] for name in removed[1:]] == [path]


def test_what_killed_processes_left_can_be_attached_instead(namespace: str, start: Callable) -> None:
    process = start("""
ring = create("ring", namespace=sys.argv[1])
ring.put_many([b"a", b"b", bytes(500_000)])
lease = ring.lease()
say("made")
hear()
""")
    process.hear()
    process.kill()

    with attach("ring", namespace=namespace) as ring:
        assert ring.qsize() == 2
        assert sorted([ring.get(timeout=20), ring.get(timeout=20)]) == [b"a", b"b"]
        assert ring.get() == bytes(500_000)


def test_listing_all_the_time_keeps_no_segment_from_going_with_its_last_user(
    namespace: str, start: Callable, tmp_path: Path
) -> None:
    lister = start(
        """
say("ready")
while not os.path.exists(sys.argv[2]):
    list_segments(sys.argv[1])
""",
        tmp_path / "stop",
    )
    lister.hear()

    for _ in range(300):
        with create("ring", namespace=namespace, capacity_bytes=4096) as ring:
            path = Path(ring.path or "")
        assert not path.exists()
    (tmp_path / "stop").touch()

    lister.finish()


def test_cleaning_all_the_time_takes_no_segment_from_its_users(namespace: str, start: Callable, tmp_path: Path) -> None:
    cleaner = start(
        """
say("ready")
while not os.path.exists(sys.argv[2]):
    clean_segments(sys.argv[1])
""",
        tmp_path / "stop",
    )
    cleaner.hear()

    for number in range(200):  # the cleaner may be the last user of one for a moment, so each has a name of its own
        with create(f"ring{number}", namespace=namespace, capacity_bytes=4096, spill_threshold=100) as ring:
            ring.put(bytes(200))
            assert not ring.stats().unlinked
            with attach(f"ring{number}", namespace=namespace) as other:
                assert other.get() == bytes(200)
    (tmp_path / "stop").touch()

    cleaner.finish()


def test_files_and_folders_are_for_their_user_alone_whatever_the_umask(namespace: str, start: Callable) -> None:
    process = start("""
os.umask(0)
with create("ring", namespace=sys.argv[1]) as ring:
    ring.put(bytes(500_000))
    folder = os.path.dirname(ring.path)
    files = [os.path.join(folder, name) for name in sorted(os.listdir(folder))]
    for path in (os.path.dirname(folder), folder, *files):
        say(oct(os.stat(path).st_mode & 0o7777))
""")

    assert [process.hear() for _ in range(4)] == ["0o700", "0o700", "0o600", "0o600"]
    process.finish()


@pytest.mark.parametrize(
    ("answers", "last"),
    [
        ([True], True),
        ([False, True, False], False),  # others share it
        ([False, True, True], True),  # who looked is gone already
        ([False, False, True], True),  # who looked goes while we ask again
        ([False, False, False, True, False], False),
    ],
)
def test_the_last_one_asks_again_before_it_believes_in_others(
    monkeypatch: pytest.MonkeyPatch, answers: list[bool], last: bool
) -> None:
    """Exclusive, shared, exclusive, ...: what each try of a lock answers, and what follows from it."""
    script = iter(answers)
    monkeypatch.setattr("sage_qd.ring.segment.locked", lambda descriptor, kind: next(script))

    assert is_last(-1) is last
    assert list(script) == []


def test_processes_that_make_and_leave_queues_share_a_namespace_that_comes_and_goes(
    namespace: str, start: Callable
) -> None:
    processes = [
        start(
            """
from sage_qd import SageQueue
say("ready"), hear()
for _ in range(300):
    create(sys.argv[2], namespace=sys.argv[1], capacity_bytes=4096).close()
    queue = SageQueue.open("kept" + sys.argv[2], namespace=sys.argv[1], keep=True, capacity_bytes=4096)
    queue.unlink()
    queue.close()
""",
            name,
        )
        for name in "abc"
    ]
    for process in processes:
        process.hear()
    for process in processes:
        process.tell()

    for process in processes:
        process.finish()
