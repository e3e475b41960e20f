"""Growing a ring: what is queued and leased stays, and everybody else goes on by themselves."""

import errno
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from sage_qd.ring import Ring

pytestmark = pytest.mark.timeout(60)
NewRing = Callable[..., Ring]
SMALL = 4096


@pytest.fixture
def small(new_ring: NewRing) -> Ring:
    return new_ring(capacity_bytes=SMALL, spill_threshold=SMALL)


@pytest.mark.parametrize("consumed", [0, 1, 100, 200, 255, 256, 1000])
def test_what_is_queued_survives_from_every_position(small: Ring, consumed: int) -> None:
    for _ in range(consumed):
        small.put(b"")
        small.get()
    items = [b"%d" % number * 30 for number in range(20)]
    small.put_many(items)

    small.resize(2 * SMALL)

    assert small.get_many(50) == items


def test_the_new_size_is_there_to_be_used(small: Ring) -> None:
    count = small.put_many([bytes(100)] * 1000, timeout=0)

    small.resize(4 * SMALL)

    assert small.capacity_bytes == 4 * SMALL
    assert count + small.put_many([bytes(100)] * 1000, timeout=0) == pytest.approx(4 * count, abs=4)


@pytest.mark.parametrize(("wanted", "got"), [(SMALL, SMALL), (SMALL + 1, 2 * SMALL), (5 * SMALL, 8 * SMALL)])
def test_sizes_are_rounded_up_to_a_power_of_two(small: Ring, wanted: int, got: int) -> None:
    small.resize(wanted)

    assert small.capacity_bytes == got


@pytest.mark.parametrize("wanted", [-1, 0, 1, SMALL - 1, SMALL, (1 << 34) + 1, 1 << 63, 1 << 64])
def test_a_size_that_is_no_growth_is_refused_and_changes_nothing(new_ring: NewRing, wanted: int) -> None:
    ring = new_ring(capacity_bytes=2 * SMALL)
    ring.put(b"x")

    with pytest.raises(ValueError, match="capacity"):
        ring.resize(wanted)

    assert (ring.capacity_bytes, ring.get()) == (2 * SMALL, b"x")


@pytest.mark.parametrize("wanted", ["8192", 8192.0, True, None])
def test_what_is_no_size_is_refused(small: Ring, wanted: object) -> None:
    with pytest.raises(TypeError):
        small.resize(wanted)  # type: ignore[arg-type]


def test_an_anonymous_ring_cannot_grow(new_ring: NewRing) -> None:
    ring = new_ring(anonymous=True, capacity_bytes=SMALL)

    with pytest.raises(OSError, match="posix_fallocate") as caught:
        ring.resize(2 * SMALL)

    assert caught.value.errno == errno.EPERM
    ring.put(b"x")
    assert ring.get() == b"x"


def test_leases_and_views_from_before_stay_good(small: Ring) -> None:
    small.put_many([b"a" * 100, b"b" * 100, b"c" * 100])
    first, second = small.lease(), small.lease()
    view = first.data

    small.resize(2 * SMALL)
    small.put_many([b"d" * 1000] * 5)

    assert (bytes(view), bytes(first), bytes(second)) == (b"a" * 100, b"a" * 100, b"b" * 100)
    first.nack()
    second.ack()
    assert small.get_many(9) == [b"a" * 100, b"c" * 100, *[b"d" * 1000] * 5]


def test_other_handles_notice_by_themselves(small: Ring, attached: NewRing) -> None:
    other = attached()
    other.put(b"before")

    small.resize(8 * SMALL)
    other.put(bytes(3 * SMALL))

    assert [other.get(), len(other.get())] == [b"before", 3 * SMALL]
    assert other.capacity_bytes == 8 * SMALL


def test_it_makes_room_for_whoever_waits(
    small: Ring, attached: NewRing, in_thread: Callable, eventually: Callable
) -> None:
    small.put(bytes(SMALL - 64))
    other = attached()
    answer = in_thread(lambda: other.put(bytes(1000)))
    eventually(lambda: small.stats().put_waiters)

    small.resize(2 * SMALL)

    answer()
    assert small.qsize() == 2


def test_growing_again_and_again_under_traffic_of_another_process(small: Ring, start: Callable) -> None:
    producer = start("""
ring = attach("ring", namespace=sys.argv[1])
for number in range(20_000):
    ring.put(b"%d" % number)
say("done")
""")
    taken: list[bytes] = []
    for step in range(1, 9):
        while len(taken) < step * 2000:
            taken += ring_items(small)
        small.resize(SMALL << step)
    while len(taken) < 20_000:
        taken += ring_items(small)

    assert taken == [b"%d" % number for number in range(20_000)]
    assert producer.hear() == "done"
    assert small.capacity_bytes == SMALL << 8
    producer.finish()


def ring_items(ring: Ring) -> list[bytes]:
    return ring.get_many(100, timeout=20)


def test_both_processes_grow_at_once(small: Ring, start: Callable) -> None:
    others = [
        start("""
ring = attach("ring", namespace=sys.argv[1])
say("ready")
hear()
for power in range(13, 21):
    try:
        ring.resize(1 << power)
    except ValueError:  # somebody made it larger meanwhile
        pass
    ring.put(b"x")
say("done")
""")
        for _ in range(3)
    ]
    for other in others:
        other.hear()
    for other in others:
        other.tell()

    assert [other.hear() for other in others] == ["done"] * 3
    assert (small.get_many(100), small.capacity_bytes) == ([b"x"] * 24, 1 << 20)
    for other in others:
        other.finish()


def test_no_room_in_the_file_system_leaves_the_ring_as_it_was(
    start: Callable, unshare: Callable, tmp_path: Path
) -> None:
    process = start(
        """
import subprocess
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "none", sys.argv[2]], check=True)
with create(path=sys.argv[2] + "/ring", capacity_bytes=4096) as ring:
    ring.put(b"x")
    try:
        ring.resize(1 << 20)
    except errors.QueueNoSpaceError as error:
        say(error.wanted, error.free, ring.capacity_bytes, ring.get())
    ring.resize(1 << 14)
    say(ring.capacity_bytes)
""",
        tmp_path,
        prefix=unshare("--mount"),
    )

    wanted, free, capacity, item = process.hear().split()
    assert (int(wanted), int(capacity), item) == (1 << 20, SMALL, "b'x'")
    assert 0 < int(free) < 1 << 17
    assert process.hear() == str(1 << 14)
    process.finish()


def test_a_large_ring_is_made_and_grows_while_a_timer_ticks(new_ring: NewRing) -> None:
    """On Linux's tmpfs a signal interrupts the reservation of pages."""
    ticks: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda number, _: ticks.append(number))
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    try:
        ring = new_ring(capacity_bytes=64 << 20)
        ring.resize(128 << 20)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)

    assert (ring.stats().capacity_bytes, bool(ticks)) == (128 << 20, True)
