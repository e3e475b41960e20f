"""Single producer, single consumer: one handle at a time has the role; closing and death give it back."""

import os
import signal
from collections.abc import Callable
from typing import Any

import pytest

from sage_qd import errors
from sage_qd import ring as rings
from sage_qd.ring import Ring

pytestmark = pytest.mark.timeout(60)
NewRing = Callable[..., Ring]

CLAIMS: dict[str, tuple[str, dict[str, bool], list[Callable[[Ring], Any]]]] = {
    "producer": (
        "producer",
        {"single_producer": True},
        [lambda ring: ring.put(b"x"), lambda ring: ring.put_many([b"x"]), lambda ring: ring.put_vectored([b"x"])],
    ),
    "consumer": (
        "consumer",
        {"single_consumer": True},
        [
            Ring.get,
            Ring.peek,
            lambda ring: ring.get_many(1),
            lambda ring: ring.get_into(bytearray(9)),
            lambda ring: ring.lease().ack(),
            Ring.clear,
            lambda ring: rings.wait([ring], 0),
        ],
    ),
}
CASES = [(side, at) for side, (_, _, calls) in CLAIMS.items() for at in range(len(calls))]


@pytest.mark.parametrize(("side", "at"), CASES)
def test_a_second_handle_is_refused_and_told_who_has_the_role(
    new_ring: NewRing, attached: NewRing, side: str, at: int
) -> None:
    role, settings, calls = CLAIMS[side]
    ring = new_ring(**settings)
    other = attached()
    ring.put(b"x")
    ring.put(b"y")
    if role == "consumer":
        ring.get()

    with pytest.raises(errors.RoleClaimedError) as caught:
        calls[at](other)

    assert (caught.value.role, caught.value.pid) == (role, os.getpid())


@pytest.mark.parametrize(("side", "at"), CASES)
def test_every_operation_of_a_side_claims_its_role(new_ring: NewRing, attached: NewRing, side: str, at: int) -> None:
    _, settings, calls = CLAIMS[side]
    ring, other = new_ring(**settings), attached()
    if side == "consumer":
        ring.put(b"x")

    calls[at](other)

    with pytest.raises(errors.RoleClaimedError):
        calls[0](ring)


@pytest.mark.parametrize("side", CLAIMS)
def test_the_other_side_has_no_role(new_ring: NewRing, attached: NewRing, side: str) -> None:
    ring = new_ring(**CLAIMS[side][1])
    other = attached()

    if side == "producer":
        ring.put_many([b"a", b"b"])
        assert [ring.get(), other.get()] == [b"a", b"b"]
    else:
        ring.put(b"a")
        other.put(b"b")
        assert ring.get_many(2) == [b"a", b"b"]


@pytest.mark.parametrize("side", CLAIMS)
def test_closing_gives_the_role_back(new_ring: NewRing, attached: NewRing, side: str) -> None:
    _, settings, calls = CLAIMS[side]
    ring, other, third = new_ring(**settings), attached(), attached()
    if side == "consumer":
        third.put_many([b"x", b"y"])
    calls[0](ring)

    ring.close()

    calls[0](other)


HOLDER = """
ring = attach("ring", namespace=sys.argv[1])
if sys.argv[2] == "producer":
    ring.put(b"last words")
else:
    ring.get()
say("claimed")
hear()
"""


@pytest.mark.parametrize("side", CLAIMS)
def test_death_gives_the_role_back(new_ring: NewRing, start: Callable, side: str) -> None:
    _, settings, calls = CLAIMS[side]
    ring = new_ring(**settings)
    if side == "consumer":
        ring.put_many([b"x", b"y"])
    holder = start(HOLDER, side)
    holder.hear()
    with pytest.raises(errors.RoleClaimedError) as caught:
        calls[0](ring)
    assert caught.value.pid == holder.pid

    holder.kill()

    calls[0](ring)
    assert ring.stats().depth == (2 if side == "producer" else 0)


@pytest.mark.parametrize("side", CLAIMS)
def test_a_stopped_holder_keeps_its_role(new_ring: NewRing, start: Callable, side: str) -> None:
    _, settings, calls = CLAIMS[side]
    ring = new_ring(**settings)
    if side == "consumer":
        ring.put_many([b"x", b"y"])
    holder = start(HOLDER, side)
    holder.hear()

    holder.signal(signal.SIGSTOP)

    with pytest.raises(errors.RoleClaimedError):
        calls[0](ring)
    holder.signal(signal.SIGCONT)
    holder.tell()
    holder.finish()
    calls[0](ring)


def test_two_processes_stream_through_a_ring_with_both_roles(new_ring: NewRing, start: Callable) -> None:
    ring = new_ring(single_producer=True, single_consumer=True, capacity_bytes=4096)
    consumer = start("""
ring = attach("ring", namespace=sys.argv[1])
wrong = 0
for number in range(20_000):
    wrong += ring.get() != b"%d" % number
say(wrong)
""")

    for number in range(10_000):
        ring.put(b"%d" % number)
    ring.put_many([b"%d" % number for number in range(10_000, 20_000)])

    assert consumer.hear() == "0"
    consumer.finish()


def test_one_of_many_claimants_wins(new_ring: NewRing, start: Callable) -> None:
    ring = new_ring(single_consumer=True)
    ring.put_many([b"x"] * 100)
    claimants = [
        start("""
ring = attach("ring", namespace=sys.argv[1])
say("ready")
hear()
try:
    ring.get()
    say("mine")
except errors.RoleClaimedError:
    say("taken")
hear()
""")
        for _ in range(6)
    ]
    for process in claimants:
        process.hear()
    for process in claimants:
        process.tell()

    assert sorted(process.hear() for process in claimants) == ["mine"] + ["taken"] * 5
    for process in claimants:
        process.tell()
        process.finish()
    assert ring.get_many(200) == [b"x"] * 99


def test_resize_is_refused_with_single_roles(new_ring: NewRing) -> None:
    with pytest.raises(ValueError, match="single roles"):
        new_ring(single_producer=True).resize(1 << 21)


def test_the_modes_are_shown(new_ring: NewRing) -> None:
    one, two = new_ring("one", single_producer=True), new_ring("two", single_consumer=True, checksum=True)

    assert (one.single_producer, one.single_consumer, one.checksum) == (True, False, False)
    assert (two.single_producer, two.single_consumer, two.checksum) == (False, True, True)
