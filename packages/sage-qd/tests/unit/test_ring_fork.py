"""Forked children use what they inherited; nothing of the parent's is taken away, and nothing travels by pickle."""

import os
import signal
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from sage_qd import errors
from sage_qd import ring as rings
from sage_qd.ring import Ring

pytestmark = pytest.mark.timeout(60)


def in_child(work: Callable[[], object]) -> int:
    """Run in a forked child that ends without the interpreter's own clean-up; its exit code."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:  # noqa: BLE001 - the child ends here, whatever it was
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_child_uses_the_inherited_handle_at_once(ring: Ring) -> None:
    ring.put(b"to the child")

    def work() -> None:
        ring.put(b"from " + ring.get())

    assert in_child(work) == 0
    assert ring.get() == b"from to the child"


def test_a_child_uses_an_inherited_anonymous_ring(new_ring: Callable[..., Ring]) -> None:
    ring = new_ring(anonymous=True)

    assert in_child(lambda: ring.put_many([b"a", b"b"])) == 0
    assert ring.get_many(5) == [b"a", b"b"]


@pytest.mark.parametrize("leave", [Ring.close, lambda ring: None], ids=["closes", "just ends"])
def test_a_child_that_leaves_does_not_unlink_and_leaves_the_parents_leases(ring: Ring, leave: Callable) -> None:
    ring.put_many([b"a", b"b"])
    lease = ring.lease()

    assert in_child(lambda: leave(ring)) == 0

    assert Path(ring.path or "").exists()
    assert (ring.stats().leased, ring.qsize()) == (1, 1)
    assert lease.value == b"a"
    lease.ack()
    assert ring.get() == b"b"


def test_the_child_of_a_killed_parent_is_the_last_one_and_removes_the_ring(namespace: str, start: Callable) -> None:
    """A mapping keeps the description it was made from, and that keeps the lock of a parent that could not let go."""
    parent = start("""
ring = create("ring", namespace=sys.argv[1])
if os.fork() == 0:
    hear()
    shared = ring.is_shared()
    ring.put(b"still works")
    say(shared, ring.get().decode())
    ring.close()
    say(os.path.exists(os.path.join(directory(), sys.argv[1], "ring")))
    os._exit(0)
say("forked")
signal.pause()
""")
    assert parent.hear() == "forked"

    parent.signal(signal.SIGKILL)
    parent.process.wait()
    parent.tell()

    assert parent.hear() == "False still works"
    assert parent.hear() == "False"


def test_a_parent_that_leaves_does_not_unlink_under_the_child(namespace: str, eventually: Callable) -> None:
    ring = rings.create("ring", namespace=namespace)
    path = Path(ring.path or "")
    reader, writer = os.pipe()

    child = os.fork()
    if child == 0:
        os.close(writer)
        os.read(reader, 1)  # the parent has closed
        ring.put(b"x")
        good = ring.get() == b"x" and path.exists()
        ring.close()
        os._exit(0 if good else 1)
    ring.close()
    assert path.exists()
    os.close(writer)

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    os.close(reader)
    assert not path.exists()


def test_a_lease_of_the_parent_is_fenced_in_the_child(ring: Ring) -> None:
    ring.put(b"a")
    lease = ring.lease()

    def work() -> None:
        for settle in (lease.ack, lease.nack):
            with pytest.raises((errors.FencedError, ValueError)):
                settle()
        assert lease.settled

    assert in_child(work) == 0
    assert ring.stats().leased == 1
    lease.ack()


def test_a_lease_of_the_parent_is_dropped_without_effect_in_the_child(ring: Ring) -> None:
    ring.put(b"a")
    held = [ring.lease()]

    assert in_child(held.clear) == 0
    assert (ring.stats().leased, ring.stats().redeliveries) == (1, 0)
    held[0].ack()


def test_a_child_leases_under_its_own_name_and_its_death_gives_back_only_its_own(ring: Ring) -> None:
    ring.put_many([b"a", b"b", b"c"])
    lease = ring.lease()

    def work() -> None:
        own = ring.lease()
        assert own.value == b"b"
        os._exit(0)  # holding it

    assert in_child(work) == 0
    seen = set()
    for _ in range(2):
        with ring.lease(timeout=20) as again:
            seen.add((again.value, again.attempt))
    assert seen == {(b"b", 1), (b"c", 0)}
    assert ring.stats().leased == 1
    lease.ack()


def test_views_of_the_parent_are_readable_in_the_child(ring: Ring) -> None:
    ring.put(b"abc")
    lease = ring.lease()
    view = lease.data

    def work() -> None:
        assert bytes(view) == b"abc"
        ring.close()
        assert bytes(view) == b"abc"

    assert in_child(work) == 0
    assert bytes(view) == b"abc"


def test_a_grandchild_works_too(ring: Ring) -> None:
    def work() -> None:
        assert in_child(lambda: ring.put(b"x")) == 0

    assert in_child(work) == 0
    assert ring.get() == b"x"


def test_roles_stay_with_the_parent(new_ring: Callable[..., Ring]) -> None:
    ring = new_ring(single_producer=True)
    ring.put(b"a")

    def work() -> None:
        with pytest.raises(errors.RoleClaimedError):
            ring.put(b"b")

    assert in_child(work) == 0
    ring.put(b"c")
    assert ring.get_many(5) == [b"a", b"c"]


def test_closed_handles_stay_closed_in_the_child(ring: Ring) -> None:
    ring.close()

    def work() -> None:
        with pytest.raises(errors.QueueClosedError):
            ring.put(b"x")

    assert in_child(work) == 0


def test_many_forks_leave_no_descriptor_behind(ring: Ring) -> None:
    before = set(os.listdir("/proc/self/fd"))

    for _ in range(20):
        assert in_child(lambda: ring.put(b"x")) == 0

    assert set(os.listdir("/proc/self/fd")) <= before  # the collector may close files of earlier tests


def test_fork_while_other_threads_are_in_the_middle(namespace: str, start: Callable) -> None:
    """
    Threads of the parent put and get all the time while it forks: each child can do both, and close, and the parent's
    items come out complete. In a process of its own, because newer interpreters warn of forking with threads.
    """
    process = start("""
import warnings
warnings.simplefilter("ignore", DeprecationWarning)
busy = create("busy", namespace=sys.argv[1], capacity_bytes=1 << 16)
quiet = create("quiet", namespace=sys.argv[1])
PAYLOAD = bytes(50_000)  # copied without the GIL
stop = threading.Event()
bad = []
def produce():
    while not stop.is_set():
        try:
            busy.put(PAYLOAD, timeout=0.05)
        except errors.Full:
            pass
def consume():
    while not stop.is_set():
        try:
            if busy.get(timeout=0.05) != PAYLOAD:
                bad.append("damaged")
        except errors.Empty:
            pass
threads = [threading.Thread(target=work) for work in (produce, produce, consume, consume)]
for thread in threads:
    thread.start()
codes = []
for _ in range(30):
    child = os.fork()
    if child == 0:
        busy.get(timeout=20)
        busy.put(PAYLOAD, timeout=20)
        quiet.put(b"x")
        descriptor = busy.fileno()
        busy.close()
        try:
            os.fstat(descriptor)
        except OSError:
            os._exit(0)
        os._exit(2)
    codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
stop.set()
for thread in threads:
    thread.join()
say(set(codes), bad, quiet.qsize())
""")

    assert process.hear() == "{0} [] 30"
    process.finish()


def test_a_child_of_a_fork_in_a_waiting_process_wakes_by_itself(namespace: str, start: Callable) -> None:
    process = start("""
import warnings
warnings.simplefilter("ignore", DeprecationWarning)
ring = create("ring", namespace=sys.argv[1])
waiter = threading.Thread(target=lambda: say("parent", ring.get().decode()))
waiter.start()
while not ring.stats().get_waiters:
    pass
child = os.fork()
if child == 0:
    ring.put(b"a")
    os._exit(0)
os.waitpid(child, 0)
waiter.join()
""")

    assert process.hear() == "parent a"
    process.finish()
