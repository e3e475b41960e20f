"""
The way to the server of a run's RPC queues: a proxy on the loopback, which can be cut, delayed, narrowed and lossy.

``python -m sage_sim.proxy``, started by the conductor and by nobody else. It tells its port on an inherited pipe and
reads one order a line on its standard input, as JSON: ``{"cut": true, "delay_ms": 20, "bytes_per_second": 1000000}``.

Loss is what a connection sees of it: a piece that is lost comes when it was sent again, twice as late each time, and
what follows waits behind it; after some losses in a row the connection breaks. In silence nothing comes at all, and
nobody is told; connections that lost something then break when the silence ends.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from dataclasses import dataclass
from random import Random
from time import monotonic
from typing import Any

from sage_sim.lifeline import die_with

_PIECE_BYTES = 65536
_NARROW_PIECE_BYTES = 4096
_SENT_AGAIN_SECONDS = 0.05
_SENT_AGAIN_AT_MOST = 5


@dataclass(frozen=True, kw_only=True)
class Proxying:
    """What the proxy has to do; its only argument, as JSON."""

    conductor: int
    ready: int
    port: int
    """Of the server."""


class Proxy:
    """All connections, and how they are treated at the moment."""

    def __init__(self, server_port: int) -> None:
        self._server_port = server_port
        self._is_cut = False
        self._delay_seconds = 0.0
        self._bytes_per_second = 0.0
        self._free_at = 0.0
        self._loss = 0.0
        self._random = Random(0)
        self._is_silent = False
        self._robbed: set[asyncio.StreamWriter] = set()
        self._open: set[asyncio.StreamWriter] = set()

    def obey(self, order: dict[str, Any]) -> None:
        """Change how connections are treated, those that are open among them."""
        self._is_cut = bool(order.get("cut", False))
        self._delay_seconds = float(order.get("delay_ms", 0)) / 1000
        self._bytes_per_second = float(order.get("bytes_per_second", 0))
        self._free_at = monotonic()
        self._loss, self._random = float(order.get("loss", 0)), Random(int(order.get("seed", 0)))
        self._is_silent = bool(order.get("silent", False))
        for writer in self._open if self._is_cut else () if self._is_silent else self._robbed:
            writer.transport.abort()
        if not self._is_silent:
            self._robbed.clear()

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one client, until either side ends."""
        if self._is_cut:
            writer.transport.abort()
            return
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._server_port)
        both = {writer, server_writer}
        self._open |= both
        try:
            await asyncio.gather(self._pass_on(reader, server_writer), self._pass_on(server_reader, writer))
        finally:
            self._open -= both
            self._robbed -= both
            for one in both:
                one.transport.abort()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while piece := await reader.read(_NARROW_PIECE_BYTES if self._bytes_per_second else _PIECE_BYTES):
                if self._is_silent:
                    self._robbed.add(writer)
                    continue
                if self._loss and not await self._comes_through():
                    writer.transport.abort()
                    return
                if self._delay_seconds:
                    await asyncio.sleep(self._delay_seconds)
                if self._bytes_per_second:
                    await self._wait_for_share(len(piece))
                writer.write(piece)
                await writer.drain()
        except ConnectionError:
            writer.transport.abort()  # the other direction ends with it
            return
        if not writer.is_closing():
            writer.close()

    async def _comes_through(self) -> bool:
        """Wait until a piece was sent often enough to come through; False: it never did."""
        for again in range(_SENT_AGAIN_AT_MOST):
            if self._random.random() >= self._loss:
                return True
            await asyncio.sleep(_SENT_AGAIN_SECONDS * 2**again)
        return False

    async def _wait_for_share(self, size: int) -> None:
        """One stream of bytes for all connections together, as on a line."""
        now = monotonic()
        self._free_at = max(self._free_at, now) + size / self._bytes_per_second
        await asyncio.sleep(self._free_at - now)


async def serve(proxying: Proxying) -> None:
    """Proxy until the conductor closes our standard input."""
    proxy = Proxy(proxying.port)
    server = await asyncio.start_server(proxy.connected, "127.0.0.1", 0)
    orders = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    port = server.sockets[0].getsockname()[1]
    os.write(proxying.ready, json.dumps({"port": port}).encode() + b"\n")
    while line := await orders.readline():
        proxy.obey(json.loads(line))
        sys.stdout.write("done\n")
        sys.stdout.flush()
    server.close()


def main() -> None:
    """Do it until the conductor ends it, or ends."""
    proxying = Proxying(**json.loads(sys.argv[1]))
    die_with(proxying.conductor)
    asyncio.run(serve(proxying))


if __name__ == "__main__":
    main()
