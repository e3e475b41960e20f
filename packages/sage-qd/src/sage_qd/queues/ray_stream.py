"""
A connection of its own between a handle on another node and the actor: an actor call takes milliseconds, this a tenth.

A frame is its length in 8 bytes, big-endian, and a pickle. The first thing on a connection is a secret that the actor
told the handle through Ray, so nothing is unpickled for anybody who was not let in there. Requests carry numbers, and
the actor does each number once however often it is asked, so whatever goes wrong here has one cure: the request is sent
again through Ray, with its number. Nothing here imports Ray.
"""

import asyncio
import hmac
import pickle
import secrets
import socket
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from sage_qd.queues.ray_store import Answer

__all__ = ["BrokenStreamError", "Door", "Stream", "StreamServer"]

SECRET_BYTES: Final = 32
LENGTH_BYTES: Final = 8
PATIENCE_SECONDS: Final = 10.0
"""How long the actor waits for the secret of somebody who connected, and a handle for being connected."""
BUFFER_BYTES: Final = 1 << 20
"""What the actor reads ahead of one connection, and how much of a frame a handle reads at once."""

Ask: TypeAlias = Callable[[str, int, int, str, tuple[Any, ...]], Awaitable[Answer]]
"""What the actor does for a request: user, number, settled, verb and arguments; see :meth:`RayStore.call`."""


@dataclass(frozen=True)
class Door:
    """Where the actor listens, and what it wants to hear first."""

    host: str
    port: int
    secret: bytes


class BrokenStreamError(Exception):
    """The connection is of no use any more; ask through Ray."""


def _framed(content: Any) -> list[bytes]:
    data = pickle.dumps(content, pickle.HIGHEST_PROTOCOL)
    return [len(data).to_bytes(LENGTH_BYTES), data]


# -- Actor ------------------------------------------------------------------------------------------------------------


class StreamServer:
    """
    The actor's side; all of it runs in the actor's event loop.

    Args:
        ask: Does what a request asks for.
    """

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._secret = secrets.token_bytes(SECRET_BYTES)
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def listen(self, host: str) -> Door:
        """
        Begin to listen on a free port.

        Raises:
            OSError: There is no such address here.
        """
        self._server = await asyncio.start_server(self._serve, host, 0, limit=BUFFER_BYTES)
        return Door(host, self._server.sockets[0].getsockname()[1], self._secret)

    def close(self) -> None:
        """Let nobody else in."""
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                secret = await reader.readexactly(SECRET_BYTES)
            if not hmac.compare_digest(secret, self._secret):
                return
            while True:
                length = int.from_bytes(await reader.readexactly(LENGTH_BYTES))
                request = pickle.loads(await reader.readexactly(length))
                task = asyncio.ensure_future(self._answer(writer, *request))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
        except (asyncio.IncompleteReadError, ConnectionError, TimeoutError):
            return  # the handle has left, or asks through Ray
        finally:
            writer.close()

    async def _answer(
        self, writer: asyncio.StreamWriter, user: str, number: int, settled: int, verb: str, arguments: tuple[Any, ...]
    ) -> None:
        answer = await self._ask(user, number, settled, verb, arguments)
        if not writer.is_closing():  # else it waits for whoever asks again
            writer.writelines(_framed((number, answer)))


# -- Handle -----------------------------------------------------------------------------------------------------------


class Stream:
    """
    A handle's side, for all its threads.

    One of the threads that wait for answers reads, and hands the others theirs.

    Args:
        door: Of the actor.

    Raises:
        OSError: It cannot be reached.
    """

    def __init__(self, door: Door) -> None:
        self._socket = socket.create_connection((door.host, door.port), PATIENCE_SECONDS)
        self._socket.settimeout(None)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sending = threading.Lock()
        self._changed = threading.Condition()
        self._answers: dict[int, Answer] = {}
        self._somebody_reads = False
        self.broken = False
        """Whether it is of no use any more."""
        self._socket.sendall(door.secret)

    def send(self, user: str, number: int, settled: int, verb: str, arguments: tuple[Any, ...]) -> None:
        """
        Send a request.

        Raises:
            BrokenStreamError: It may or may not have arrived.
        """
        parts = _framed((user, number, settled, verb, arguments))
        with self._sending:
            try:
                self._socket.sendall(b"".join(parts))
            except OSError as error:
                self.close()
                raise BrokenStreamError from error
            except BaseException:  # half a frame may be on its way
                self.close()
                raise

    def answer(self, number: int) -> Answer:
        """
        Wait for the answer to a request.

        Raises:
            BrokenStreamError: It will not come this way.
        """
        with self._changed:
            while True:
                if number in self._answers:
                    return self._answers.pop(number)
                if self.broken:
                    raise BrokenStreamError
                if not self._somebody_reads:
                    self._somebody_reads = True
                    break
                self._changed.wait()
        try:
            while True:
                found, answer = self._read()
                if found == number:
                    return answer
                with self._changed:
                    self._answers[found] = answer
                    self._changed.notify_all()
        except (OSError, EOFError) as error:
            self.close()
            raise BrokenStreamError from error
        except BaseException:  # half a frame may be read
            self.close()
            raise
        finally:
            with self._changed:
                self._somebody_reads = False
                self._changed.notify_all()

    def _read(self) -> tuple[int, Answer]:
        length = int.from_bytes(self._received(LENGTH_BYTES))
        found: tuple[int, Answer] = pickle.loads(self._received(length))
        return found

    def _received(self, length: int) -> bytearray:
        data = bytearray(length)
        view, done = memoryview(data), 0
        while done < length:
            count = self._socket.recv_into(view[done : done + BUFFER_BYTES])
            if not count:
                raise EOFError
            done += count
        return data

    def close(self) -> None:
        """End the connection; whoever waits for an answer has to ask through Ray."""
        with self._changed:
            self.broken = True
            self._changed.notify_all()
        try:
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes whoever reads
        except OSError:
            return  # the other side was faster
        finally:
            self._socket.close()
