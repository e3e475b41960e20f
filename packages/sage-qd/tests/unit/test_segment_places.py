"""Rings without a name, rings in files, and names that go while handles are open."""

import array
import fcntl
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sage_qd import errors
from sage_qd.ring import Ring, attach, create

pytestmark = pytest.mark.timeout(60)
NewRing = Callable[..., Ring]


# -- Anonymous rings and rings in files -------------------------------------------------------------------------------


def test_an_anonymous_ring_has_no_name_and_is_sealed(new_ring: NewRing) -> None:
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

    with pytest.raises(OSError, match=r"sealed|regular file|Bad file descriptor|No such file|lets others in"):
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
