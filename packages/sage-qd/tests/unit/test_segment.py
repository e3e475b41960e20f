"""Named rings: their names, create, attach, both at once, and many who do so at the same moment."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sage_qd import errors
from sage_qd.ring import Ring, attach, attach_or_create, create, list_segments, segment

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
    before = set(os.listdir("/proc/self/fd"))

    with pytest.raises(errors.QueueExistsError) as caught:
        create("ring", namespace=namespace)

    assert caught.value.name == "ring"
    assert (ring.get(), Path(ring.path or "").exists()) == (b"x", True)
    assert set(os.listdir("/proc/self/fd")) <= before  # the collector may close files of earlier tests


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


def test_attach_looks_again_when_the_last_one_left_between_open_and_lock(
    namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ring = create("ring", namespace=namespace)
    opened_file = segment.opened_file

    def open_and_let_the_last_one_leave(where: str, shown: str) -> int:
        descriptor = opened_file(where, shown)
        ring.close()
        return descriptor

    monkeypatch.setattr(segment, "opened_file", open_and_let_the_last_one_leave)

    with pytest.raises(errors.QueueNotFoundError):
        attach("ring", namespace=namespace)
