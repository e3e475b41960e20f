"""
Queues between two processes over a loopback socket, item by item: ours, a bare socket pair, and a manager's queue.

Every measurement runs a producer, a consumer and what lies between them as processes of their own, counts what arrives,
and gives messages a second from the first put to the last get. ``python benchmarks/rpc_channels.py`` prints a table.

* ``ours, pipelined``: ``line.put(item)`` of a pipeline, every message acknowledged by the server; the consumer takes
  item by item from ``stream()``, leased and acked, or with ``get_many`` where it says ``auto``. Encrypted and
  authenticated with CURVE unless it says otherwise.
* ``bare socket``: PUSH and PULL of the same socket library, no server between, nothing acknowledged.
* ``manager``: ``multiprocessing.managers`` serving a ``queue.Queue``, put and get item by item.
"""

import argparse
import multiprocessing
import queue
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.managers import BaseManager
from pathlib import Path
from typing import Any

import zmq

from sage_qd import LocalQueueDescriptor, RPCQueueDescriptor, SageQueueDescriptor, generate_keys, serve

CONTEXT = multiprocessing.get_context("spawn")
PAYLOAD = b"x" * 64
ANSWER_SECONDS = 60.0  # the longest a run may take


# -- Ours --------------------------------------------------------------------------------------------------------------


def run_server(kind: str, keys: Any, clients: Any, ready: Any) -> None:
    made = {
        "local": LocalQueueDescriptor("bench", maxsize=100_000),
        "ring": SageQueueDescriptor("bench", namespace="bench-rpc", codec="msgpack", capacity_bytes=1 << 24),
    }[kind]
    serve({"bench": made}, keys=keys, clients=clients, ready=lambda server: ready.send(server.port))


def produce_ours(descriptor: Any, count: int, start: Any, mode: str) -> None:
    with descriptor.open() as channel:
        start.wait()
        if mode == "pipelined":
            with channel.pipeline() as line:
                for _ in range(count):
                    line.put(PAYLOAD)
        else:
            for _ in range(count):
                channel.put(PAYLOAD)


def consume_ours(descriptor: Any, count: int, start: Any, result: Any, mode: str) -> None:
    with descriptor.open() as channel:
        start.wait()
        begun = time.perf_counter()
        taken = 0
        if mode == "pipelined" and channel.descriptor.ack == "lease":
            stream = channel.stream()
            for _ in stream:
                taken += 1
                if taken == count:
                    break
            stream.close()
        while taken < count:
            taken += len(channel.get_many(1024)) if mode == "pipelined" else bool(channel.get())
        result.send((taken, time.perf_counter() - begun))


@contextmanager
def served(kind: str, keys: Any = None, clients: Any = None) -> Iterator[tuple[Any, int]]:
    """A server process with a queue named ``bench``, and its port."""
    heard, ready = CONTEXT.Pipe(False)
    server = CONTEXT.Process(target=run_server, args=(kind, keys, clients, ready))
    server.start()
    ready.close()
    try:
        yield server, heard.recv()
    finally:
        server.terminate()
        server.join()


def ours(count: int, *, kind: str, encrypted: bool, mode: str = "pipelined", ack: str = "lease") -> float:
    """Messages a second through our server."""
    with tempfile.TemporaryDirectory() as folder:
        keys, client = (generate_keys(Path(folder) / name) for name in ("server", "client"))
        settings = (keys, [client.public]) if encrypted else ()
        with served(kind, *settings) as (_, port):
            where: dict[str, Any] = {"port": port, "ack": ack}
            if encrypted:
                where |= {"server_key": keys.public, "key_file": str(Path(folder) / "client")}
            return pair(produce_ours, consume_ours, RPCQueueDescriptor("bench", **where), count, mode)


def pair(produce: Callable[..., None], consume: Callable[..., None], where: Any, count: int, *more: Any) -> float:
    """Run a producer and a consumer; messages a second."""
    start = CONTEXT.Barrier(2)
    heard, result = CONTEXT.Pipe(False)
    consumer = CONTEXT.Process(target=consume, args=(where, count, start, result, *more))
    producer = CONTEXT.Process(target=produce, args=(where, count, start, *more))
    consumer.start()
    producer.start()
    result.close()
    try:
        if not heard.poll(ANSWER_SECONDS):
            raise TimeoutError(f"no result within {ANSWER_SECONDS:.0f} s")
        taken, seconds = heard.recv()
        producer.join(ANSWER_SECONDS)
    finally:
        for process in (consumer, producer):
            process.kill()  # both have ended by now, unless something went wrong
            process.join()
    assert taken == count, f"{taken:,} of {count:,} arrived"
    return count / seconds


# -- Others ------------------------------------------------------------------------------------------------------------


def produce_bare(endpoint: str, count: int, start: Any) -> None:
    with zmq.Context() as context, context.socket(zmq.PUSH) as socket:
        socket.connect(endpoint)
        start.wait()
        for _ in range(count):
            socket.send(PAYLOAD)


def consume_bare(endpoint: str, count: int, start: Any, result: Any) -> None:
    with zmq.Context() as context, context.socket(zmq.PULL) as socket:
        socket.bind(endpoint)
        start.wait()
        begun = time.perf_counter()
        for _ in range(count):
            socket.recv()
        result.send((count, time.perf_counter() - begun))


def bare(count: int) -> float:
    """Messages a second through PUSH and PULL."""
    with zmq.Context() as context, context.socket(zmq.PULL) as socket:
        port = socket.bind_to_random_port("tcp://127.0.0.1")
    return pair(produce_bare, consume_bare, f"tcp://127.0.0.1:{port}", count)


class Manager(BaseManager):
    """Serves one queue."""


shared: "queue.Queue[bytes]" = queue.Queue(100_000)
Manager.register("channel", callable=lambda: shared)


def run_manager(ready: Any) -> None:
    server = Manager(("127.0.0.1", 0), authkey=b"bench").get_server()
    ready.send(server.address)
    server.serve_forever()


def connected(address: Any) -> Any:
    multiprocessing.current_process().authkey = b"bench"
    manager = Manager(address, authkey=b"bench")
    manager.connect()
    return manager.channel()  # type: ignore[attr-defined]


def produce_managed(address: Any, count: int, start: Any) -> None:
    channel = connected(address)
    start.wait()
    for _ in range(count):
        channel.put(PAYLOAD)


def consume_managed(address: Any, count: int, start: Any, result: Any) -> None:
    channel = connected(address)
    start.wait()
    begun = time.perf_counter()
    for _ in range(count):
        channel.get()
    result.send((count, time.perf_counter() - begun))


def managed(count: int) -> float:
    """Messages a second through a manager's queue."""
    heard, ready = CONTEXT.Pipe(False)
    server = CONTEXT.Process(target=run_manager, args=(ready,))
    server.start()
    ready.close()
    try:
        return pair(produce_managed, consume_managed, heard.recv(), count)
    finally:
        server.kill()
        server.join()


def figures(scale: int = 1) -> dict[str, float]:
    """Measure everything, once, in one run."""
    return {
        "bare socket": bare(300_000 * scale),
        "ours, streamed item by item, leases, ring": ours(200_000 * scale, kind="ring", encrypted=True),
        "ours, in batches, auto, ring": ours(300_000 * scale, kind="ring", encrypted=True, ack="auto"),
        "ours, in batches, auto, memory": ours(300_000 * scale, kind="local", encrypted=True, ack="auto"),
        "ours, in batches, auto, memory, no keys": ours(300_000 * scale, kind="local", encrypted=False, ack="auto"),
        "ours, one by one, ring": ours(5_000 * scale, kind="ring", encrypted=True, mode="one by one"),
        "manager": managed(10_000 * scale),
    }


def shown(measured: dict[str, float]) -> str:
    """The table."""
    lines = [f"{'64-byte messages a second':42}{'':>12}{'x bare':>8}{'x manager':>11}"]
    for name, rate in measured.items():
        ratios = f"{rate / measured['bare socket']:8.2f}{rate / measured['manager']:11.1f}"
        lines.append(f"{name:42}{rate:12,.0f}{ratios}")
    return "\n".join(lines)


def main() -> None:
    """Print the table."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--scale", type=int, default=1)
    print(shown(figures(options.parse_args().scale)))


if __name__ == "__main__":
    main()
