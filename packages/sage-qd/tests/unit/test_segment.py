"""Where rings live: create, attach, both at once, list, clean; names that come and go while handles are open."""

import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sage_qd import errors, ring as rings
from sage_qd.ring import Ring, attach, attach_or_create, clean_segments, create, list_segments

pytestmark = pytest.mark.timeout(60)
NewRing = Callable[..., Ring]
VALID_NAMES = ["a", "0", "A.b_c-9", "a" * 128, "a..b", "a.", "con", "ring"]
INVALID_NAMES = [
    "", ".", "..", "../x", "a/b", "/etc/passwd", "a\\b", "a\0b", "a\nb", "a b", " a", "-a", ".a", "_a", "a~b", "a:b",
    "é", "队列", "a" * 129, "a" * 10_000, "a\u200b", "\ud800", "a%2fb",
]  # fmt: skip


# -- Names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", VALID_NAMES, ids=lambda name: name[:12])
def test_a_ring_lies_under_its_name_in_the_folder_of_user_and_namespace(
    new_ring: NewRing, namespace: str, name: str
) -> None:
    ring = new_ring(name)

    assert (ring.name, ring.namespace) == (name, namespace)
    assert ring.path == f"/dev/shm/sage-qd-{os.geteuid()}/{namespace}/{name}"
    assert Path(ring.path).is_file()


@pytest.mark.parametrize("name", INVALID_NAMES, ids=lambda name: ascii(name[:12]))
@pytest.mark.parametrize("act", [create, attach, attach_or_create])
def test_any_other_name_is_refused(namespace: str, name: str, act: Callable[..., Ring]) -> None:
    with pytest.raises(errors.InvalidQueueNameError):
        act(name, namespace=namespace)
    with pytest.raises(errors.InvalidQueueNameError):
        act("ring", namespace=name)


@pytest.mark.parametrize("name", [b"ring", 7, ("a",)])
def test_a_name_must_be_text(namespace: str, name: Any) -> None:
    with pytest.raises(TypeError, match="text"):
        create(name, namespace=namespace)


@pytest.mark.parametrize("arguments", [{}, {"name": "a", "path": "b"}, {"name": "a", "anonymous": True}])
def test_create_wants_exactly_one_place(arguments: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match="exactly one"):
        create(**arguments)


@pytest.mark.parametrize("arguments", [{}, {"name": "a", "path": "b"}, {"name": "a", "fd": 3}, {"path": "a", "fd": 3}])
def test_attach_wants_exactly_one_place(arguments: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match="exactly one"):
        attach(**arguments)


# -- Create and attach ------------------------------------------------------------------------------------------------


def test_create_says_that_the_name_is_taken_and_leaves_the_other_alone(ring: Ring, namespace: str) -> None:
    ring.put(b"x")
    before = sorted(os.listdir("/proc/self/fd"))

    with pytest.raises(errors.QueueExistsError) as caught:
        create("ring", namespace=namespace)

    assert caught.value.name == "ring"
    assert (ring.get(), Path(ring.path or "").exists()) == (b"x", True)
    assert sorted(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("where", ["name", "namespace", "path"])
def test_attach_says_that_there_is_nothing(namespace: str, tmp_path: Path, where: str) -> None:
    arguments: dict[str, Any] = {
        "name": {"name": "ring", "namespace": namespace},
        "namespace": {"name": "ring", "namespace": "never-made"},
        "path": {"path": tmp_path / "ring"},
    }[where]

    with pytest.raises(errors.QueueNotFoundError):
        attach(**arguments)


def test_two_namespaces_do_not_meet(new_ring: NewRing, namespace: str, opened: Callable) -> None:
    ring = new_ring()
    other = opened(create("ring", namespace=f"{namespace}-b"))
    ring.put(b"a")
    other.put(b"b")

    assert (ring.get(), other.get()) == (b"a", b"b")


SETTINGS = {
    "capacity_bytes": 8192, "max_items": 77, "single_producer": True, "single_consumer": True, "checksum": True,
    "codec": 4_000_000_000,
}  # fmt: skip


def test_whoever_attaches_finds_the_settings_of_the_creator(new_ring: NewRing, attached: NewRing) -> None:
    ring, other = new_ring(**SETTINGS), attached()

    assert {key: getattr(other, key) for key in SETTINGS} == SETTINGS
    assert (other.instance, other.created_ns) == (ring.instance, ring.created_ns)
    assert re.fullmatch("[0-9a-f]{32}", ring.instance)


def test_every_ring_has_an_instance_of_its_own(new_ring: NewRing) -> None:
    first = new_ring()
    seen = first.instance
    first.close()

    assert new_ring().instance != seen


@pytest.mark.parametrize("field", SETTINGS)
def test_attach_or_create_names_each_field_that_differs(new_ring: NewRing, namespace: str, field: str) -> None:
    ring = new_ring()
    wanted = {field: SETTINGS[field]}

    with pytest.raises(errors.GeometryMismatchError) as caught:
        attach_or_create("ring", namespace=namespace, **wanted)

    differing = {key for key in caught.value.wanted if caught.value.wanted[key] != caught.value.found[key]}
    assert differing == {field}
    assert (caught.value.wanted[field], caught.value.found[field]) == (SETTINGS[field], getattr(ring, field))


def test_attach_or_create_makes_it_or_opens_it(namespace: str, opened: Callable) -> None:
    first = opened(attach_or_create("ring", namespace=namespace, capacity_bytes=5000))
    second = opened(attach_or_create("ring", namespace=namespace, capacity_bytes=8192))
    first.put(b"x")

    assert second.get() == b"x"


RACE = """
say("ready")
hear()
for round in range(30):
    try:
        ring = {call}
    except errors.QueueExistsError:
        say("exists")
    else:
        say(ring.instance)
    hear()
    if "ring" in globals():
        ring.close()
        del ring
    say("closed")
    hear()
"""


def rounds(processes: list[Any]) -> Any:
    for process in processes:
        assert process.hear() == "ready"
        process.tell()
    for _ in range(30):
        yield [process.hear() for process in processes]
        for process in processes:
            process.tell()
        for process in processes:
            assert process.hear() == "closed"
        for process in processes:
            process.tell()
    for process in processes:
        process.finish()


def test_of_several_creators_exactly_one_wins(start: Callable, namespace: str) -> None:
    processes = [start(RACE.format(call='create("ring", namespace=sys.argv[1])')) for _ in range(4)]

    for answers in rounds(processes):
        assert answers.count("exists") == 3
    assert list_segments(namespace) == []


def test_all_who_attach_or_create_at_once_meet_in_one_ring(start: Callable, namespace: str) -> None:
    processes = [start(RACE.format(call='attach_or_create("ring", namespace=sys.argv[1])')) for _ in range(4)]

    for answers in rounds(processes):
        assert len(set(answers)) == 1
    assert list_segments(namespace) == []


def test_attaching_while_the_last_one_leaves_never_opens_a_file_without_a_name(start: Callable, namespace: str) -> None:
    """Processes open and close the same name all the time: whoever has it open can be met under it."""
    processes = [
        start("""
for _ in range(300):
    with attach_or_create("ring", namespace=sys.argv[1], capacity_bytes=4096) as ring:
        assert not ring.stats().unlinked
        with attach("ring", namespace=sys.argv[1]) as other:
            assert other.instance == ring.instance
""")
        for _ in range(4)
    ]

    for process in processes:
        process.finish()
    assert list_segments(namespace) == []


# -- Anonymous rings and rings in files -------------------------------------------------------------------------------


def test_an_anonymous_ring_has_no_name_and_is_sealed(new_ring: NewRing) -> None:
    import fcntl

    ring = new_ring(anonymous=True)

    assert (ring.name, ring.namespace, ring.path) == (None, None, None)
    seals = fcntl.fcntl(ring.fileno(), fcntl.F_GET_SEALS)
    assert seals & fcntl.F_SEAL_SHRINK
    assert seals & fcntl.F_SEAL_GROW
    with pytest.raises(PermissionError):
        os.ftruncate(ring.fileno(), 0)


def test_attach_by_descriptor_leaves_the_descriptor_to_its_owner(new_ring: NewRing) -> None:
    ring = new_ring(anonymous=True)
    descriptor = os.dup(ring.fileno())

    with attach(fd=descriptor) as other:
        other.put(b"x")
    os.fstat(descriptor)
    os.close(descriptor)

    assert ring.get() == b"x"


def test_an_anonymous_ring_travels_as_a_descriptor_to_another_process(new_ring: NewRing) -> None:
    import array
    import socket
    import subprocess
    import sys

    ring = new_ring(anonymous=True)
    ours, theirs = socket.socketpair()
    source = """
import array, socket, sys
from sage_qd.ring import attach
channel = socket.socket(fileno=int(sys.argv[1]))
room = array.array("i", [0])
_, parts, _, _ = channel.recvmsg(1, socket.CMSG_SPACE(4))
room.frombytes(parts[0][2][:4]); room.pop(0)
with attach(fd=room[0]) as ring:
    ring.put(b"hello " + ring.get())
"""
    process = subprocess.Popen([sys.executable, "-c", source, str(theirs.fileno())], pass_fds=[theirs.fileno()])
    ring.put(b"there")

    ours.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [ring.fileno()]))])

    assert process.wait() == 0
    assert ring.get() == b"hello there"
    ours.close()
    theirs.close()


@pytest.mark.parametrize("kind", ["unsealed", "pipe", "closed", "file of others"])
def test_attach_by_descriptor_refuses_what_is_no_private_ring(tmp_path: Path, kind: str) -> None:
    if kind == "unsealed":
        descriptor = os.memfd_create("x")
        os.ftruncate(descriptor, 65536)
    elif kind == "pipe":
        descriptor, _ = os.pipe()
    elif kind == "closed":
        descriptor = os.memfd_create("x")
        os.close(descriptor)
    else:
        descriptor = os.open(tmp_path / "file", os.O_CREAT | os.O_RDWR)
        os.fchmod(descriptor, 0o666)

    with pytest.raises(OSError):  # InsecureQueueError is one
        attach(fd=descriptor)


def test_a_ring_in_a_file_outlives_its_handles(new_ring: NewRing, tmp_path: Path, opened: Callable) -> None:
    path = tmp_path / "ring"
    ring = new_ring(path=path)
    ring.put(b"x")
    ring.close()

    assert path.exists()
    assert opened(attach(path=path)).get() == b"x"
    assert opened(attach(path=str(path))).path == str(path)


def test_a_ring_in_a_file_is_never_made_over_another_file(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_bytes(b"precious")

    with pytest.raises(errors.QueueExistsError):
        create(path=path)

    assert path.read_bytes() == b"precious"


# -- Names that come and go -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["unlink()", "rm"])
def test_an_unlinked_ring_works_on_for_those_who_have_it(ring: Ring, attached: NewRing, how: str) -> None:
    other = attached()
    ring.unlink() if how == "unlink()" else os.unlink(ring.path or "")

    ring.put(b"x")

    assert (other.get(), other.stats().unlinked, ring.stats().unlinked) == (b"x", True, True)
    with pytest.raises(errors.QueueNotFoundError):
        attached()
    ring.unlink()


def test_a_name_can_be_used_again_at_once_and_the_two_do_not_meet(
    ring: Ring, new_ring: NewRing, attached: NewRing
) -> None:
    ring.put(b"old")
    ring.unlink()
    successor = new_ring()
    successor.put(b"new")

    assert (ring.get(), attached().get(), ring.stats().unlinked) == (b"old", b"new", True)
    ring.unlink()
    ring.close()
    assert Path(successor.path or "").exists()


def test_a_process_that_ends_does_not_unlink_what_others_use(ring: Ring, start: Callable) -> None:
    start('attach("ring", namespace=sys.argv[1]).put(b"x")').finish()

    assert Path(ring.path or "").exists()
    assert ring.get() == b"x"


def test_the_resource_tracker_of_multiprocessing_is_not_involved(start: Callable) -> None:
    process = start("""
from multiprocessing import resource_tracker
with create("ring", namespace=sys.argv[1]) as ring:
    ring.put(bytes(500_000))
    say(resource_tracker._resource_tracker._fd)
""")

    assert process.hear() == "None"
    process.finish()
    assert process.errors == ""


# -- List and clean ---------------------------------------------------------------------------------------------------


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


def test_listing_all_the_time_keeps_no_segment_from_going_with_its_last_user(namespace: str, start: Callable) -> None:
    lister = start("""
say("ready")
while not os.path.exists(os.path.join(directory(), sys.argv[1], "stop")):
    list_segments(sys.argv[1])
""")
    folder = Path(rings.directory(), namespace)
    create("ring", namespace=namespace).close()
    lister.hear()

    for _ in range(300):
        with create("ring", namespace=namespace, capacity_bytes=4096) as ring:
            path = Path(ring.path or "")
        assert not path.exists()
    (folder / "stop").touch()

    lister.finish()
    (folder / "stop").unlink()


def test_cleaning_all_the_time_takes_no_segment_from_its_users(namespace: str, start: Callable) -> None:
    cleaner = start("""
say("ready")
while not os.path.exists(os.path.join(directory(), sys.argv[1], "stop")):
    clean_segments(sys.argv[1])
""")
    cleaner.hear()

    for number in range(200):  # the cleaner may be the last user of one for a moment, so each has a name of its own
        with create(f"ring{number}", namespace=namespace, capacity_bytes=4096, spill_threshold=100) as ring:
            ring.put(bytes(200))
            assert not ring.stats().unlinked
            with attach(f"ring{number}", namespace=namespace) as other:
                assert other.get() == bytes(200)
    (Path(rings.directory(), namespace) / "stop").touch()

    cleaner.finish()
    (Path(rings.directory(), namespace) / "stop").unlink()


def test_files_and_folders_are_for_their_user_alone_whatever_the_umask(namespace: str, start: Callable) -> None:
    process = start("""
os.umask(0)
with create("ring", namespace=sys.argv[1]) as ring:
    ring.put(bytes(500_000))
    folder = os.path.dirname(ring.path)
    for path in (os.path.dirname(folder), folder, *(os.path.join(folder, name) for name in sorted(os.listdir(folder)))):
        say(oct(os.stat(path).st_mode & 0o7777))
""")

    assert [process.hear() for _ in range(4)] == ["0o700", "0o700", "0o600", "0o600"]
    process.finish()
    assert stat.S_IMODE(Path(rings.directory()).stat().st_mode) == 0o700
