"""What counts as a timeout, and that waiting ends for the right reason."""

import math
import signal
import threading
import time
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest

from sage_qd import errors
from sage_qd.ring import Ring, wait

pytestmark = pytest.mark.timeout(60)
NewRing = Callable[..., Ring]


@pytest.fixture
def full_ring(new_ring: NewRing) -> Ring:
    ring = new_ring("full", max_items=1)
    ring.put(b"x")
    return ring


WAITING_ON_EMPTY = {
    "get": lambda ring, timeout: ring.get(timeout=timeout),
    "get_into": lambda ring, timeout: ring.get_into(bytearray(8), timeout=timeout),
    "get_many": lambda ring, timeout: ring.get_many(3, timeout=timeout),
    "lease": lambda ring, timeout: ring.lease(timeout=timeout),
}
WAITING_ON_FULL = {
    "put": lambda ring, timeout: ring.put(b"y", timeout=timeout),
    "put_vectored": lambda ring, timeout: ring.put_vectored([b"y"], timeout=timeout),
    "put_many": lambda ring, timeout: ring.put_many([b"y"], timeout=timeout),
}
PASSING = [0, -0.0, -1, -math.inf, 0.001, Decimal("0.001"), Fraction(1, 1000), np.float32(0.001), np.int64(0), 1e-300]
WRONG_TYPES = ["1", b"1", True, False, [], 1j, object()]
WRONG_VALUES = [math.nan, Decimal("NaN")]
ENDLESS = [None, math.inf, 1e12, 1e300, 2**63, Decimal("Infinity")]


@pytest.mark.parametrize("timeout", PASSING, ids=repr)
@pytest.mark.parametrize("operation", WAITING_ON_EMPTY)
def test_waiting_for_an_item_ends_with_empty(ring: Ring, operation: str, timeout: float) -> None:
    with pytest.raises(errors.Empty):
        WAITING_ON_EMPTY[operation](ring, timeout)


@pytest.mark.parametrize("timeout", PASSING, ids=repr)
@pytest.mark.parametrize("operation", WAITING_ON_FULL)
def test_waiting_for_room_ends_with_full(full_ring: Ring, operation: str, timeout: float) -> None:
    with pytest.raises(errors.Full):
        WAITING_ON_FULL[operation](full_ring, timeout)
    assert full_ring.get() == b"x"


@pytest.mark.parametrize("timeout", WRONG_TYPES, ids=repr)
@pytest.mark.parametrize("operation", [*WAITING_ON_EMPTY, *WAITING_ON_FULL])
def test_what_is_no_number_is_refused(ring: Ring, full_ring: Ring, operation: str, timeout: object) -> None:
    target = ring if operation in WAITING_ON_EMPTY else full_ring

    with pytest.raises(TypeError):
        (WAITING_ON_EMPTY | WAITING_ON_FULL)[operation](target, timeout)


@pytest.mark.parametrize("timeout", WRONG_VALUES, ids=repr)
@pytest.mark.parametrize("operation", [*WAITING_ON_EMPTY, *WAITING_ON_FULL])
def test_not_a_number_is_refused(ring: Ring, full_ring: Ring, operation: str, timeout: object) -> None:
    target = ring if operation in WAITING_ON_EMPTY else full_ring

    with pytest.raises(ValueError, match="nan"):
        (WAITING_ON_EMPTY | WAITING_ON_FULL)[operation](target, timeout)


@pytest.mark.parametrize("timeout", ENDLESS, ids=repr)
@pytest.mark.parametrize("operation", WAITING_ON_EMPTY)
def test_endless_waiting_for_an_item_ends_when_one_comes(
    ring: Ring, attached: NewRing, eventually: Callable, operation: str, timeout: float
) -> None:
    other = attached()

    def put_when_somebody_sleeps() -> None:
        eventually(lambda: other.stats().get_waiters)
        other.put(b"item")

    thread = threading.Thread(target=put_when_somebody_sleeps)
    thread.start()
    answer = WAITING_ON_EMPTY[operation](ring, timeout)
    thread.join()

    assert getattr(answer, "value", answer) in (b"item", 4, [b"item"])


@pytest.mark.parametrize("timeout", ENDLESS, ids=repr)
@pytest.mark.parametrize("operation", WAITING_ON_FULL)
def test_endless_waiting_for_room_ends_when_there_is_some(
    full_ring: Ring, attached: NewRing, eventually: Callable, operation: str, timeout: float
) -> None:
    other = attached("full")

    def get_when_somebody_sleeps() -> None:
        eventually(lambda: other.stats().put_waiters)
        other.get()

    thread = threading.Thread(target=get_when_somebody_sleeps)
    thread.start()
    WAITING_ON_FULL[operation](full_ring, timeout)
    thread.join()

    assert full_ring.get() == b"y"


def test_block_false_outweighs_the_timeout(ring: Ring, full_ring: Ring) -> None:
    with pytest.raises(errors.Empty):
        ring.get(block=False, timeout=1e9)
    with pytest.raises(errors.Full):
        full_ring.put(b"y", block=False, timeout=1e9)


def test_waiting_takes_at_least_the_timeout(ring: Ring) -> None:
    begin = time.monotonic()

    with pytest.raises(errors.Empty):
        ring.get(timeout=0.12)

    assert time.monotonic() - begin >= 0.12


def test_signals_do_not_restart_the_timeout(start: Callable) -> None:
    """A signal every 20 ms, each of which ends a wait of the kernel's: the deadline stays where it was."""
    process = start("""
signal.signal(signal.SIGALRM, lambda *_: None)
signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
with create("ring", namespace=sys.argv[1]) as ring:
    try:
        ring.get(timeout=0.3)
    except errors.Empty:
        say("empty")
signal.setitimer(signal.ITIMER_REAL, 0)
""")

    assert process.hear() == "empty"
    process.finish()


def test_a_signal_handler_that_does_not_raise_does_not_end_the_wait(start: Callable, ring: Ring) -> None:
    process = start("""
signal.signal(signal.SIGUSR1, lambda *_: say("handled"))
ring = attach("ring", namespace=sys.argv[1])
say("ready")
say(ring.get().decode())
""")
    process.hear()

    for _ in range(3):
        process.signal(signal.SIGUSR1)
        assert process.hear() == "handled"
    ring.put(b"item")

    assert process.hear() == "item"
    process.finish()


def test_an_item_put_by_a_signal_handler_is_found(start: Callable) -> None:
    process = start("""
with create("ring", namespace=sys.argv[1]) as ring:
    signal.signal(signal.SIGUSR1, lambda *_: ring.put(b"from the handler"))
    say("ready")
    say(ring.get().decode())
""")
    process.hear()
    process.signal(signal.SIGUSR1)

    assert process.hear() == "from the handler"
    process.finish()


@pytest.mark.parametrize("timeout", [0, -1, 0.01, Decimal("0.01")], ids=repr)
def test_wait_on_rings_returns_nothing_when_nothing_comes(ring: Ring, timeout: float) -> None:
    assert wait([ring], timeout) == []


@pytest.mark.parametrize(("timeout", "error"), [("1", TypeError), (True, TypeError), (math.nan, ValueError)], ids=repr)
def test_wait_on_rings_refuses_what_is_no_timeout(ring: Ring, timeout: object, error: type[Exception]) -> None:
    with pytest.raises(error):
        wait([ring], timeout)
