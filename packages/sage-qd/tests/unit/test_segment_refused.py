"""What create() and attach() refuse to touch: files and folders that could be under the control of others."""

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sage_qd import errors
from sage_qd.ring import Ring, attach, create, list_segments

pytestmark = pytest.mark.timeout(60)
NewRing = Callable[..., Ring]
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of another user")


def a_symbolic_link(path: Path, target: Path) -> None:
    path.symlink_to(target)


def a_dangling_link(path: Path, target: Path) -> None:
    path.symlink_to("nowhere")


def a_hard_link(path: Path, target: Path) -> None:
    path.hardlink_to(target)


def a_folder(path: Path, target: Path) -> None:
    path.mkdir()


def a_fifo(path: Path, target: Path) -> None:
    os.mkfifo(path, 0o600)


def a_socket(path: Path, target: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


def a_copy_for_all(path: Path, target: Path) -> None:
    path.write_bytes(target.read_bytes())
    path.chmod(0o666)


def a_copy_for_the_group(path: Path, target: Path) -> None:
    path.write_bytes(target.read_bytes())
    path.chmod(0o640)


def a_copy_of_another_user(path: Path, target: Path) -> None:
    path.write_bytes(target.read_bytes())
    path.chmod(0o600)
    os.chown(path, 12345, 12345)


def a_device(path: Path, target: Path) -> None:
    os.mknod(path, 0o600 | 0o020000, os.makedev(1, 5))  # /dev/zero


STRANGE = [
    a_symbolic_link,
    a_dangling_link,
    a_hard_link,
    a_folder,
    a_fifo,
    a_socket,
    a_copy_for_all,
    a_copy_for_the_group,
]
STRANGE_BY_ROOT = [a_copy_of_another_user, a_device]


@pytest.fixture
def good(tmp_path: Path) -> Path:
    """Return the path of a ring in a file that is all right."""
    create(path=tmp_path / "good").close()
    return tmp_path / "good"


def removed(path: Path) -> None:
    path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()


@pytest.mark.parametrize(
    "make", [*STRANGE, *(pytest.param(make, marks=AS_ROOT) for make in STRANGE_BY_ROOT)], ids=lambda make: make.__name__
)
@pytest.mark.parametrize("by", ["name", "path"])
def test_attach_refuses_what_could_be_under_anothers_control(
    namespace: str, new_ring: NewRing, good: Path, make: Callable[[Path, Path], None], by: str
) -> None:
    """Without waiting (a FIFO), without following, and without changing what it found."""
    folder = Path(new_ring("neighbour").path or "").parent if by == "name" else good.parent
    target = folder / "neighbour" if by == "name" else good
    strange = folder / "strange"
    make(strange, target)
    before = os.stat(strange, follow_symlinks=False)
    where: dict[str, Any] = {"name": "strange", "namespace": namespace} if by == "name" else {"path": strange}

    with pytest.raises(errors.InsecureQueueError) as caught:
        attach(**where)

    after = os.stat(strange, follow_symlinks=False)
    assert caught.value.path == str(strange)
    assert caught.value.stat is not None
    assert (after.st_ino, after.st_size, after.st_mtime_ns) == (before.st_ino, before.st_size, before.st_mtime_ns)
    removed(strange)


@pytest.mark.parametrize("make", STRANGE, ids=lambda make: make.__name__)
def test_create_never_takes_a_name_that_something_has(
    namespace: str, new_ring: NewRing, make: Callable[[Path, Path], None]
) -> None:
    neighbour = Path(new_ring("neighbour").path or "")
    make(neighbour.parent / "strange", neighbour)

    with pytest.raises(errors.QueueExistsError):
        create("strange", namespace=namespace)

    removed(neighbour.parent / "strange")


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Move the folder of named segments to a place that the test may spoil."""
    monkeypatch.setattr("sage_qd.ring.places.SHARED_MEMORY", str(tmp_path))
    return tmp_path / f"sage-qd-{os.geteuid()}"


def open_for_all(top: Path) -> None:
    top.mkdir()
    top.chmod(0o777)


def link_to_elsewhere(top: Path) -> None:
    (top.parent / "real").mkdir()
    top.symlink_to("real")


def file_in_its_place(top: Path) -> None:
    top.touch(0o600)


def of_another_user(top: Path) -> None:
    top.mkdir(0o700)
    os.chown(top, 12345, 12345)


@pytest.mark.parametrize(
    "spoil", [open_for_all, link_to_elsewhere, file_in_its_place, pytest.param(of_another_user, marks=AS_ROOT)]
)
@pytest.mark.parametrize("act", [create, attach])
@pytest.mark.parametrize("level", ["user", "namespace"])
def test_folders_that_others_could_enter_are_refused(
    elsewhere: Path, spoil: Callable[[Path], None], act: Callable[..., Ring], level: str
) -> None:
    if level == "namespace":
        elsewhere.mkdir(0o700)
    spoil(elsewhere if level == "user" else elsewhere / "default")

    with pytest.raises(errors.InsecureQueueError):
        act("ring")


def test_without_shared_memory_the_system_says_so(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sage_qd.ring.places.SHARED_MEMORY", str(elsewhere / "missing"))

    with pytest.raises(FileNotFoundError):
        create("ring")
    with pytest.raises(errors.QueueNotFoundError):
        attach("ring")
    assert list_segments() == []


def test_a_folder_without_the_right_to_write_is_said_so(start: Callable, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    process = start(
        """
if os.geteuid() == 0:
    os.setresuid(12345, 12345, 12345)
try:
    create(path=sys.argv[2] + "/ring")
except PermissionError as error:
    say(type(error).__name__)
""",
        tmp_path,
    )

    if os.geteuid() != 0:
        tmp_path.chmod(0o555)
    assert process.hear() == "PermissionError"
    process.finish()
