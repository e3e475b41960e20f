"""Ctrl-C, and the end of the interpreter, while a ring is being waited for: nothing lost, nothing held, no crash."""

import signal
from collections.abc import Callable

import pytest

from sage_qd.ring import Ring, list_segments

pytestmark = pytest.mark.timeout(60)

BLOCKED_ON_EMPTY = ["get()", "get_into(bytearray(9))", "get_many(3)", "lease()", "get(timeout=1e6)"]
BLOCKED_ON_FULL = ["put(b'y')", "put(b'y' * 3000)", "put(bytearray(9))", "put_many([b'y'])", "put_vectored([b'y'])"]

INTERRUPTED = """
ring = attach("ring", namespace=sys.argv[1])
say("ready")
try:
    ring.{call}
except KeyboardInterrupt:
    say("interrupted")
hear()
ring.close()
"""


def asleep(ring: Ring) -> bool:
    stats = ring.stats()
    return bool(stats.get_waiters or stats.put_waiters)


@pytest.mark.parametrize("call", BLOCKED_ON_EMPTY)
def test_ctrl_c_ends_a_blocked_get_and_the_next_item_goes_to_somebody_else(
    ring: Ring, start: Callable, eventually: Callable, call: str
) -> None:
    process = start(INTERRUPTED.format(call=call))
    process.hear()
    eventually(lambda: asleep(ring))

    process.signal(signal.SIGINT)

    assert process.hear() == "interrupted"
    ring.put(b"x", timeout=0)
    assert ring.get_nowait() == b"x"
    assert (ring.stats().put_lock_owner, ring.stats().get_lock_owner, ring.stats().leased) == (0, 0, 0)
    process.tell()
    process.finish()


@pytest.mark.parametrize("call", BLOCKED_ON_FULL)
def test_ctrl_c_ends_a_blocked_put_which_put_nothing(
    new_ring: Callable[..., Ring], start: Callable, eventually: Callable, call: str
) -> None:
    ring = new_ring(max_items=1)
    ring.put(b"x")
    process = start(INTERRUPTED.format(call=call))
    process.hear()
    eventually(lambda: asleep(ring))

    process.signal(signal.SIGINT)

    assert process.hear() == "interrupted"
    assert (ring.get_nowait(), ring.qsize(), ring.stats().puts) == (b"x", 0, 1)
    process.tell()
    process.finish()


def test_ctrl_c_ends_a_wait_on_several_rings(ring: Ring, start: Callable, eventually: Callable) -> None:
    process = start("""
with create("other", namespace=sys.argv[1]) as other, attach("ring", namespace=sys.argv[1]) as ring:
    say("ready")
    try:
        wait([other, ring])
    except KeyboardInterrupt:
        say("interrupted")
""")
    process.hear()
    eventually(lambda: asleep(ring))

    process.signal(signal.SIGINT)

    assert process.hear() == "interrupted"
    process.finish()


@pytest.mark.parametrize("call", ["put(b'y')", "get()"])
def test_ctrl_c_ends_a_wait_of_a_ring_with_single_roles(
    new_ring: Callable[..., Ring], start: Callable, eventually: Callable, call: str
) -> None:
    ring = new_ring(max_items=1, single_producer=True, single_consumer=True)
    if call.startswith("put"):  # fill it, by a producer that gives its role back
        start("with attach('ring', namespace=sys.argv[1]) as ring: ring.put(b'x')").finish()
    process = start(INTERRUPTED.format(call=call))
    process.hear()
    eventually(lambda: asleep(ring))

    process.signal(signal.SIGINT)

    assert process.hear() == "interrupted"
    process.tell()
    process.finish()


def test_ctrl_c_in_the_middle_of_traffic_loses_and_doubles_nothing(
    new_ring: Callable[..., Ring], start: Callable
) -> None:
    """Interrupts at any instruction: each ends one attempt, the figures say which number is next, and it goes on."""
    ring = new_ring(max_items=20)
    process = start("""
ring = attach("ring", namespace=sys.argv[1])
armed = False
def interrupt(*_):
    global armed
    if armed:  # not while the last one is being dealt with
        armed = False
        raise KeyboardInterrupt
signal.signal(signal.SIGINT, interrupt)
def produce():  # a frame of its own: the jump back of a loop right in the try block is not covered by it
    global number
    while number < 3000:
        ring.put(b"%d" % number)
        number += 1
say("ready")
number = interrupts = 0
while number < 3000:
    try:
        armed = True
        produce()
        armed = False
    except KeyboardInterrupt:
        interrupts += 1
        number = ring.stats().puts
say(interrupts)
hear()
ring.close()
""")
    process.hear()
    taken: list[bytes] = []
    while len(taken) < 3000:
        taken += ring.get_many(10)
        process.signal(signal.SIGINT)

    assert taken == [b"%d" % number for number in range(3000)]
    assert int(process.hear()) > 0
    process.tell()
    process.finish()


@pytest.mark.parametrize(
    "call", ["ring.get()", "ring.lease()", "full.put(b'y')", "full.put_many([b'y'])", "wait([ring])"]
)
def test_the_interpreter_ends_while_daemon_threads_wait(namespace: str, start: Callable, call: str) -> None:
    process = start(f"""
ring = create("ring", namespace=sys.argv[1])
full = create("full", namespace=sys.argv[1], max_items=1)
full.put(b"x")
def work():
    try:
        {call}
    except errors.QueueClosedError:
        hear()  # never comes back
for _ in range(3):
    threading.Thread(target=work, daemon=True).start()
while not ring.stats().get_waiters + full.stats().put_waiters:
    pass
say("waiting")
""")
    process.hear()

    assert process.end() == 0, process.errors
    assert process.errors == ""
    assert list_segments(namespace) == []


def test_the_interpreter_ends_with_leases_views_and_an_uncollected_ring(namespace: str, start: Callable) -> None:
    process = start("""
ring = create("ring", namespace=sys.argv[1])
ring.put_many([b"a", b"b", b"c"])
lease, view = ring.lease(), ring.lease().data
ring.set_codec(lambda item, keep=[ring]: b"", None)
say(bytes(view).decode())
""")

    assert process.hear() == "b"
    assert process.end() == 0, process.errors
    assert process.errors == ""
    assert list_segments(namespace) == []


def test_an_exception_ends_the_process_with_its_traceback_and_no_segment(namespace: str, start: Callable) -> None:
    process = start("""
ring = create("ring", namespace=sys.argv[1])
raise LookupError("unexpected")
""")

    assert process.end() == 1
    assert process.errors.strip().endswith("LookupError: unexpected")
    assert list_segments(namespace) == []


def test_a_killed_process_leaves_its_segment_to_be_cleaned(namespace: str, start: Callable) -> None:
    from sage_qd.ring import clean_segments

    process = start("""
ring = create("ring", namespace=sys.argv[1])
ring.put(b"x")
say("made")
hear()
""")
    process.hear()
    process.kill()

    assert [(info.name, info.in_use) for info in list_segments(namespace)] == [("ring", False)]
    assert len(clean_segments(namespace)) == 1
    assert list_segments(namespace) == []
