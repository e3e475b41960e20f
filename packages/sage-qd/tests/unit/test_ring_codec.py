"""A ring with a codec: tags, who gets which payload, and that a failing codec costs nothing but its own item."""

import pickle
import signal
from collections.abc import Callable
from typing import Any

import pytest

from sage_qd import errors
from sage_qd.ring import WRITABLE, Ring

pytestmark = pytest.mark.timeout(60)
LARGE = 300_000  # goes to a spill file


def encode(item: object) -> tuple[int, list[bytes]]:
    return 7, [pickle.dumps(item)]


def decode(tag: int, payload: Any) -> Any:
    assert tag == 7
    return pickle.loads(payload)


@pytest.fixture
def pickling(ring: Ring) -> Ring:
    ring.set_codec(encode, decode)
    return ring


ITEMS = [None, 0, "text", {"key": [1, 2]}, bytearray(b"b"), "x" * 40_000, "y" * LARGE]


@pytest.mark.parametrize("item", ITEMS, ids=lambda item: repr(item)[:12])
def test_objects_come_back_by_every_way_of_getting(pickling: Ring, item: object) -> None:
    pickling.put_many([item] * 5)

    assert pickling.peek() == item
    with pickling.lease() as lease:
        assert (lease.tag, lease.value) == (7, item)
    assert [pickling.get(), pickling.get_nowait(), *pickling.get_many(1), *pickling.get_many(9)] == [item] * 4


@pytest.mark.parametrize("size", [0, 10, 40_000, LARGE])
def test_exact_bytes_never_meet_the_codec(ring: Ring, size: int) -> None:
    def never(*_: object) -> Any:
        raise AssertionError("the codec was asked")

    ring.set_codec(never, never)
    ring.put(b"x" * size)
    ring.put_many([b"x" * size] * 3)

    with ring.lease() as lease:
        assert (lease.tag, lease.value) == (0, b"x" * size)
    assert [ring.peek(), ring.get(), *ring.get_many(1), ring.get_nowait()] == [b"x" * size] * 4


def test_a_batch_may_mix_bytes_and_objects(pickling: Ring) -> None:
    pickling.put_many([b"raw", {"a": 1}, b"", None, "x" * LARGE])

    assert pickling.get_many(4) == [b"raw", {"a": 1}, b"", None]
    assert pickling.get() == "x" * LARGE


def test_an_encoder_may_return_plain_bytes_which_get_tag_one(ring: Ring) -> None:
    ring.set_codec(lambda item: repr(item).encode(), lambda tag, payload: (tag, bytes(payload)))
    ring.put(12)
    ring.put_many([34])

    assert [ring.get(), ring.get()] == [(1, b"12"), (1, b"34")]


def test_the_plain_decoder_takes_the_place_of_the_decoder_for_tag_one(ring: Ring) -> None:
    ring.set_codec(None, lambda tag, payload: ("other", tag), plain_decoder=lambda payload: ("plain", bytes(payload)))
    ring.put_vectored([b"a"], tag=1)
    ring.put_vectored([b"b"], tag=2)
    ring.put_vectored([b"c"], tag=1)

    assert [ring.get(), *ring.get_many(2)] == [("plain", b"a"), ("other", 2), ("plain", b"c")]


@pytest.mark.parametrize("size", [10, 1024, 1025, 40_000, LARGE])
@pytest.mark.parametrize(("tag", "kind"), [(1, bytes), (WRITABLE - 1, bytes), (WRITABLE, bytearray), (255, bytearray)])
def test_tags_from_128_on_come_as_a_bytearray_of_ones_own(ring: Ring, tag: int, kind: type, size: int) -> None:
    ring.set_codec(None, lambda tag, payload: (type(payload), bytes(payload)))
    for _ in range(4):
        ring.put_vectored([b"x" * size], tag=tag)

    assert [ring.peek(), ring.get(), ring.get_many(1)[0], ring.get(timeout=1)] == [(kind, b"x" * size)] * 4


@pytest.mark.parametrize("waiting", [b"first", None], ids=["bytes first", "tagged first"])
def test_a_get_that_waited_hands_out_the_right_kind(
    ring: Ring, attached: Callable[..., Ring], eventually: Callable, in_thread: Callable, waiting: bytes | None
) -> None:
    other = attached()
    taken = in_thread(lambda: [ring.get(), ring.get()])

    eventually(lambda: other.stats().get_waiters)
    other.put_vectored([b"tagged"], tag=0 if waiting else WRITABLE)
    other.put_vectored([b"second"], tag=WRITABLE if waiting else 0)

    assert [type(item) for item in taken()] == ([bytes, bytearray] if waiting else [bytearray, bytes])


# -- Codecs that fail -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [ValueError, RecursionError, KeyboardInterrupt])
@pytest.mark.parametrize("put", [Ring.put, lambda ring, item: ring.put_many([b"ok", item])], ids=["put", "put_many"])
def test_an_encoder_that_raises_leaves_the_ring_untouched(ring: Ring, error: type, put: Callable) -> None:
    def fail(item: object) -> Any:
        raise error("no")

    ring.set_codec(fail, None)

    with pytest.raises(error):
        put(ring, object())
    assert ring.stats().puts == 0


@pytest.mark.parametrize("answer", [7, None, (1,), (300, [b"x"]), (-1, [b"x"]), (1, 7), (1, ["text"]), ("a", [b"x"])])
@pytest.mark.parametrize("put", [Ring.put, lambda ring, item: ring.put_many([b"ok", item])], ids=["put", "put_many"])
def test_an_encoder_that_answers_nonsense_leaves_the_ring_usable(ring: Ring, answer: object, put: Callable) -> None:
    ring.set_codec(lambda item: answer, None)

    with pytest.raises((TypeError, ValueError, OverflowError, IndexError)):
        put(ring, object())

    ring.put(b"next", timeout=0)
    assert ring.get_many(2) == [b"next"]


def broken(tag: int, payload: Any) -> Any:
    if bytes(payload) == b"bad":
        raise LookupError("cannot decode")
    return bytes(payload).decode()


def test_an_item_that_cannot_be_decoded_is_on_the_exception_and_the_next_one_comes(ring: Ring) -> None:
    ring.set_codec(None, broken)
    ring.put_vectored([b"bad"], tag=3)
    ring.put_vectored([b"good"], tag=3)

    with pytest.raises(errors.PayloadError) as caught:
        ring.get()

    assert (caught.value.tag, caught.value.payload) == (3, b"bad")
    assert isinstance(caught.value.__cause__, LookupError)
    assert ring.get() == "good"


def test_of_a_batch_all_other_objects_are_on_the_exception(ring: Ring) -> None:
    ring.set_codec(None, broken)
    for payload in (b"a", b"bad", b"b", b"bad", b"c"):
        ring.put_vectored([payload], tag=3)

    with pytest.raises(errors.PayloadError) as caught:
        ring.get_many(5)

    assert caught.value.payload == b"bad"
    assert [item for item in caught.value.items if isinstance(item, str)] == ["a", "b", "c"]
    assert [item.payload for item in caught.value.items if isinstance(item, errors.PayloadError)] == [b"bad"]
    assert ring.empty()


@pytest.mark.parametrize("look", [Ring.peek, lambda ring: ring.lease().value], ids=["peek", "lease"])
def test_looking_at_an_item_that_cannot_be_decoded_leaves_it(ring: Ring, look: Callable) -> None:
    ring.set_codec(None, broken)
    ring.put_vectored([b"bad"], tag=3)

    with pytest.raises(errors.PayloadError):
        look(ring)

    assert ring.qsize() == 1


def test_an_interrupted_decoder_loses_no_item(ring: Ring) -> None:
    interrupts = iter([True, False, False, False, False])

    def decoder(tag: int, payload: bytes) -> str:
        if next(interrupts):
            signal.raise_signal(signal.SIGINT)
        return payload.decode()

    ring.set_codec(None, decoder)
    for payload in (b"a", b"b", b"c"):
        ring.put_vectored([payload], tag=3)

    with pytest.raises(KeyboardInterrupt):
        ring.get_many(2)

    assert ring.qsize() == 3
    assert [ring.get(), ring.get(), ring.get()] == ["a", "b", "c"]


def test_an_encoder_may_use_the_ring_itself(ring: Ring) -> None:
    def encoder(item: str) -> bytes:
        ring.put(b"from inside")
        return item.encode()

    ring.set_codec(encoder, None)
    ring.put("outer")
    ring.put_many(["outer"])

    assert ring.get_many(4) == [b"from inside", b"outer"] * 2


def test_a_decoder_may_use_the_ring_itself(ring: Ring) -> None:
    ring.set_codec(None, lambda tag, payload: (bytes(payload), ring.qsize()))
    for _ in range(3):
        ring.put_vectored([b"x"], tag=3)

    assert [ring.get(), *ring.get_many(2)] == [(b"x", 2), (b"x", 0), (b"x", 0)]


def test_without_a_decoder_the_payload_is_handed_out_as_it_is(ring: Ring) -> None:
    ring.put_vectored([b"x"], tag=9)
    ring.put_vectored([b"y"], tag=200)

    assert [ring.get(), ring.get()] == [b"x", bytearray(b"y")]


# -- The plain way ----------------------------------------------------------------------------------------------------


def test_what_is_plain_is_asked_first_again_after_a_message_that_was_not(ring: Ring) -> None:
    """The one after a message in parts goes to the encoder at once, which says that it is plain again."""
    asked: list[object] = []

    def plain(item: object) -> bytes:
        asked.append(item)
        if item == "parts":
            raise TypeError
        return repr(item).encode()

    def full(item: object) -> tuple[int, list[bytes]]:
        return (9, [b"p", b"q"]) if item == "parts" else (5, [plain(item)])

    ring.set_codec(full, lambda tag, payload: (tag, bytes(payload)), plain_encoder=plain, plain_tag=5)
    ring.put_many([1, "parts", "parts", 2, 3])

    assert asked == [1, "parts", 2, 3]
    assert ring.get_many(9) == [(5, b"1"), (9, b"pq"), (9, b"pq"), (5, b"2"), (5, b"3")]


def test_a_message_that_nobody_can_encode_leaves_the_plain_way_open(ring: Ring) -> None:
    asked: list[object] = []

    def plain(item: object) -> bytes:
        asked.append(item)
        return bytes([int(item)])  # type: ignore[call-overload]

    def full(item: object) -> tuple[int, list[bytes]]:
        raise TypeError(f"{item!r} is none of mine")

    ring.set_codec(full, None, plain_encoder=plain, plain_tag=2)
    with pytest.raises(TypeError, match="none of mine"):
        ring.put([])
    ring.put(7)

    assert asked == [[], 7]
    with ring.lease() as lease:
        assert (lease.tag, bytes(lease.data)) == (2, b"\7")


def test_the_plain_decoder_gets_what_has_the_plain_tag(ring: Ring) -> None:
    ring.set_codec(lambda item: (9, [item]), lambda tag, payload: "full", plain_decoder=lambda _: "plain", plain_tag=4)
    for tag in (4, 9, 1):
        ring.put_vectored((b"x",), tag)

    assert [ring.get() for _ in range(3)] == ["plain", "full", "full"]
