"""Leases between processes: whoever dies, ends or closes gives back what it held, in order, to whoever is there."""

import resource
import signal
from collections.abc import Callable

import pytest

from sage_qd import errors
from sage_qd import ring as rings
from sage_qd.ring import Ring

pytestmark = pytest.mark.timeout(60)
NewRing = Callable[..., Ring]

HOLDER = """
ring = attach("ring", namespace=sys.argv[1])
leases = [ring.lease() for _ in range(int(sys.argv[2]))]
say("holding")
hear()
"""


@pytest.fixture
def filled(ring: Ring) -> Ring:
    """Return a ring that holds a to e."""
    ring.put_many([b"a", b"b", b"c", b"d", b"e"])
    return ring


def test_a_killed_holder_gives_back_in_order_before_everything_younger(
    filled: Ring, start: Callable, eventually: Callable
) -> None:
    holder = start(HOLDER, 3)
    holder.hear()
    assert filled.get() == b"d"

    holder.kill()
    eventually(lambda: filled.peek() == b"a")  # deaths are looked for every 10 ms

    seen = []
    for _ in range(4):
        with filled.lease(block=False) as lease:
            seen.append((lease.value, lease.attempt))
    assert seen == [(b"a", 1), (b"b", 1), (b"c", 1), (b"e", 0)]
    assert filled.stats().redeliveries == 3


WAITS = {
    "get": (lambda ring: ring.get(timeout=20), b"a"),
    "get_into": (lambda ring: ring.get_into(bytearray(9), timeout=20), 1),
    "get_many": (lambda ring: ring.get_many(9, timeout=20), [b"a"]),
    "lease": (lambda ring: ring.lease(timeout=20).value, b"a"),
    "wait": (lambda ring: [ring.get() for ring in rings.wait([ring], timeout=20)], [b"a"]),
    "get_nowait": (lambda ring: ring.get_nowait(), b"a"),
}


@pytest.mark.parametrize("operation", WAITS)
@pytest.mark.parametrize("settings", [{}, {"single_producer": True}, {"single_consumer": True}], ids=str)
def test_every_way_of_getting_finds_what_a_dead_holder_left(
    new_ring: NewRing, start: Callable, operation: str, settings: dict
) -> None:
    ring = new_ring(**settings)
    ring.put(b"a")
    holder = start(HOLDER, 1)
    holder.hear()
    holder.kill()

    call, wanted = WAITS[operation]

    assert call(ring) == wanted


@pytest.mark.parametrize("operation", ["get", "lease", "wait"])
def test_whoever_waits_already_finds_what_a_holder_leaves_by_its_death(
    ring: Ring, attached: NewRing, start: Callable, in_thread: Callable, eventually: Callable, operation: str
) -> None:
    ring.put(b"a")
    holder = start(HOLDER, 1)
    holder.hear()
    call, wanted = WAITS[operation]
    other = attached()
    answer = in_thread(lambda: call(other))
    eventually(lambda: ring.stats().get_waiters)

    holder.kill()

    assert answer() == wanted


def test_a_holder_that_is_stopped_keeps_its_leases(filled: Ring, start: Callable) -> None:
    holder = start(HOLDER, 5)
    holder.hear()

    holder.signal(signal.SIGSTOP)

    with pytest.raises(errors.Empty):
        filled.get(timeout=0.3)
    assert filled.stats().leased == 5
    holder.signal(signal.SIGCONT)
    holder.tell()
    holder.finish()
    assert filled.qsize() == 5


def test_a_holder_that_is_a_zombie_is_dead(filled: Ring, start: Callable) -> None:
    holder = start(HOLDER, 5)
    holder.hear()

    holder.process.kill()  # and nobody waits for it

    assert filled.get(timeout=20) == b"a"


def test_a_holder_that_became_another_program_is_dead(filled: Ring, start: Callable) -> None:
    holder = start("""
ring = attach("ring", namespace=sys.argv[1])
lease = ring.lease()
say("holding")
hear()
os.execv(sys.executable, [sys.executable, "-c", "print('other program', flush=True); input()"])
""")
    holder.hear()
    holder.tell()
    assert holder.hear() == "other program"

    assert sorted(filled.get(timeout=20) for _ in range(5)) == [b"a", b"b", b"c", b"d", b"e"]
    assert filled.stats().redeliveries == 1


def test_a_holder_whose_first_thread_ended_is_alive(filled: Ring, start: Callable) -> None:
    holder = start("""
import ctypes, time
ring = attach("ring", namespace=sys.argv[1])
lease = ring.lease()
def go_on():
    while open(f"/proc/{os.getpid()}/task/{os.getpid()}/stat").read().rpartition(")")[2].split()[0] != "Z":
        time.sleep(0.001)
    say("alone")
    hear()
    lease.ack()
    ring.close()
    os._exit(0)
threading.Thread(target=go_on).start()
ctypes.CDLL(None).syscall(60, 0)  # exit(2): ends this thread only
""")
    assert holder.hear() == "alone"
    filled.clear()

    with pytest.raises(errors.Empty):
        filled.get(timeout=0.3)
    holder.tell()
    holder.finish()

    assert filled.stats().redeliveries == 0


def test_a_holder_whose_descriptors_were_all_closed_is_alive(filled: Ring, start: Callable) -> None:
    holder = start("""
ring = attach("ring", namespace=sys.argv[1])
lease = ring.lease()
os.closerange(3, 1000)
say("holding")
hear()
lease.ack()
""")
    holder.hear()
    filled.clear()

    with pytest.raises(errors.Empty):
        filled.get(timeout=0.3)
    holder.tell()
    holder.finish()
    assert filled.stats().redeliveries == 0


def test_a_holder_that_ends_without_closing_gives_back(filled: Ring, start: Callable) -> None:
    holder = start(HOLDER + "\nos._exit(0)", 2)
    holder.hear()
    holder.tell()
    holder.finish()

    assert sorted(filled.get(timeout=20) for _ in range(5)) == [b"a", b"b", b"c", b"d", b"e"]
    assert filled.stats().redeliveries == 2


def test_attempts_of_several_dead_holders_add_up(ring: Ring, start: Callable) -> None:
    ring.put(b"poison")
    for _ in range(3):
        holder = start(HOLDER, 1)
        holder.hear()
        holder.kill()

    with ring.lease(timeout=20) as lease:
        assert (lease.attempt, lease.redelivered) == (3, True)


def test_the_slots_of_dead_holders_are_used_again(ring: Ring, attached: NewRing) -> None:
    """More handles than there are slots lease and close, one after the other."""
    ring.put(b"x")

    for number in range(600):
        other = attached()
        other.lease().nack()
        other.close()
        assert ring.stats().leased == 0, number


def test_more_holders_at_once_than_slots_are_refused_by_name(ring: Ring, attached: NewRing) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    try:
        ring.put_many([b"x"] * 600)
        leases = [attached().lease() for _ in range(512)]

        with pytest.raises(errors.TooManyParticipantsError) as caught:
            ring.lease()

        assert caught.value.limit == 512
        assert (ring.stats().leased, ring.get()) == (512, b"x")
        leases[0].ack()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
