"""The connection between a handle of a Ray queue and its actor: real sockets, without Ray."""

import asyncio
import os
import pickle
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import pytest

from sage_qd.queues import ray_stream
from sage_qd.queues.ray_stream import BrokenStreamError, Door, Stream, StreamServer
from sage_qd.testing import background, wait_for

pytestmark = pytest.mark.timeout(60)


class Actor:
    """An event loop in a thread of its own, whose answers can be held back."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.held = threading.Event()
        self.held.set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self.server = StreamServer(self._answer)
        self.door: Door = self.run(self.server.listen("127.0.0.1"))

    async def _answer(self, user: str, number: int, settled: int, verb: str, arguments: tuple[Any, ...]) -> Any:
        self.asked.append((user, number, settled, verb, arguments))
        if verb == "wait":
            await asyncio.get_running_loop().run_in_executor(None, self.held.wait)
        return True, (verb, arguments)

    def run(self, work: Any) -> Any:
        found: Future[Any] = asyncio.run_coroutine_threadsafe(work, self._loop)
        return found.result()

    def close(self) -> None:
        self.held.set()
        self.run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self) -> None:
        self.server.close()
        await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}))


@pytest.fixture
def actor() -> Iterator[Actor]:
    made = Actor()
    yield made
    made.close()


@pytest.fixture
def stream(actor: Actor) -> Iterator[Stream]:
    made = Stream(actor.door)
    yield made
    made.close()


def test_requests_are_answered_whatever_their_size(actor: Actor, stream: Stream) -> None:
    large = os.urandom(3 << 20)
    stream.send("me", 1, 1, "put", (large, None))
    assert stream.answer(1) == (True, ("put", (large, None)))
    assert actor.asked == [("me", 1, 1, "put", (large, None))]


def test_answers_find_their_threads_in_any_order(actor: Actor, stream: Stream) -> None:
    actor.held.clear()
    stream.send("me", 1, 1, "wait", ())
    first = background(stream.answer, 1)
    others = []
    for number in range(2, 40):
        stream.send("me", number, 1, "qsize", (number,))
        others.append(background(stream.answer, number))
    assert [other.result() for other in others] == [(True, ("qsize", (number,))) for number in range(2, 40)]
    assert first.is_waiting()
    actor.held.set()
    assert first.result() == (True, ("wait", ()))


def test_the_end_of_the_connection_is_told_to_everybody_who_waits(actor: Actor, stream: Stream) -> None:
    actor.held.clear()
    waiting = []
    for number in range(1, 4):
        stream.send("me", number, 1, "wait", ())
        waiting.append(background(stream.answer, number))
    assert all(each.is_waiting() for each in waiting)

    stream.close()

    for each in waiting:
        with pytest.raises(BrokenStreamError):
            each.result()
    with pytest.raises(BrokenStreamError):
        stream.send("me", 9, 1, "qsize", ())
    with pytest.raises(BrokenStreamError):
        stream.answer(9)


def test_an_answer_cut_in_the_middle_breaks_the_stream() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        stream = Stream(Door("127.0.0.1", listener.getsockname()[1], bytes(32)))
        connection, _ = listener.accept()
        with connection:
            stream.send("me", 1, 1, "qsize", ())
            connection.sendall((1000).to_bytes(8) + b"not so much")
        with pytest.raises(BrokenStreamError):
            stream.answer(1)
    assert stream.broken


class Bomb:
    """Leaves a mark when it is unpickled."""

    def __reduce__(self) -> Any:
        return os.mkdir, (self.path,)

    def __init__(self, path: str) -> None:
        self.path = path


@pytest.mark.parametrize("secret", [bytes(32), b""])
def test_nothing_is_unpickled_for_a_stranger(
    actor: Actor, secret: bytes, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_stream, "PATIENCE_SECONDS", 0.2)
    stranger = Stream(replace(actor.door, secret=secret))
    frame = pickle.dumps(Bomb(str(tmp_path / "mark")))
    try:
        stranger._socket.sendall(len(frame).to_bytes(8) + frame)
    except ConnectionError:
        assert secret  # hung up on at once
    with pytest.raises(BrokenStreamError):
        stranger.answer(1)
    stranger.close()
    assert not (tmp_path / "mark").exists()
    assert actor.asked == []


def test_a_handle_that_leaves_with_requests_under_way_disturbs_nobody(actor: Actor, stream: Stream) -> None:
    actor.held.clear()
    leaver = Stream(actor.door)
    leaver.send("other", 1, 1, "wait", ())
    wait_for(lambda: bool(actor.asked), "the request arrived")
    leaver.close()
    actor.held.set()
    stream.send("me", 1, 1, "qsize", ())
    assert stream.answer(1) == (True, ("qsize", ()))


def test_a_door_that_nobody_opens_is_an_os_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(OSError, match="refused"):
        Stream(Door("127.0.0.1", port, bytes(32)))
