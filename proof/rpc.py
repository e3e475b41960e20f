"""Queues at a server: frames nobody should send (R10), a server that is killed again and again (R26), silence (R27).

R10 throws random and nearly right bytes at a server: at the socket, before any authentication, and as frames of a
client that is let in. The server counts every unpickling by an audit hook. R26 kills the server while clients put into
a ring that is kept, and compares what they were told with what is in the ring. R27 opens connections that say nothing,
and times a good client from its first connection to its first message back.

    python proof/rpc.py            the short form
    python proof/rpc.py --long     5 000 000 frames, 10 000 kills, 5 000 connections
"""

from __future__ import annotations

import os
import random
import resource
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from row import Row, arguments

try:
    import zmq
except ImportError:  # the rows say that they were not run
    zmq = None  # type: ignore[assignment]

from sage_qd import (
    OutcomeUnknownError,
    QueueUnavailableError,
    RPCQueueDescriptor,
    SageQueueDescriptor,
    generate_keys,
    read_key_file,
)
from sage_qd import ring as rings
from sage_qd.queues.rpc import wire

SERVER = """
import sys
from sage_qd import LocalQueueDescriptor, SageQueueDescriptor, read_allow_list, read_key_file, serve

namespace, folder, port = sys.argv[1:]
opened = []
sys.addaudithook(lambda event, _: opened.append(event) if event == "pickle.find_class" else None)
serve(
    {"kept": SageQueueDescriptor("kept", namespace=namespace, codec="msgpack", auto_cleanup=False)},
    make=lambda name, maxsize: LocalQueueDescriptor(name, maxsize=maxsize),
    keys=read_key_file(folder + "/server"), clients=read_allow_list(folder + "/client.pub"), allow_pickle=True,
    port=int(port), ready=lambda server: print(server.port, flush=True),
)
print(len(opened), flush=True)
"""
RESET = struct.pack("ii", 1, 0)
PRODUCERS = 3


class Server:
    """A server process that can be killed and started again where it was."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.namespace = f"proof-rpc-{os.getpid()}"
        self.port = 0
        self.start()

    def start(self) -> None:
        """Start it and wait until it listens."""
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVER, self.namespace, self.folder, str(self.port)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())

    def kill(self) -> None:
        """End it at whatever instruction it is."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """End it cleanly; the number of times it opened a pickle."""
        self.process.terminate()
        text, _ = self.process.communicate(timeout=60)
        return int(text)

    @property
    def ring(self) -> SageQueueDescriptor:
        """The queue that outlives it."""
        return SageQueueDescriptor("kept", namespace=self.namespace, codec="msgpack", auto_cleanup=False)

    def remove_ring(self) -> None:
        """Leave nothing behind."""
        self.ring.destroy()
        (rings.directory() / self.namespace).rmdir()

    def descriptor(self, queue_id: str, **settings: Any) -> RPCQueueDescriptor:
        """How a good client finds a queue; every one has a connection of its own."""
        return RPCQueueDescriptor(
            queue_id,
            port=self.port,
            server_key=read_key_file(self.folder / "server").public,
            key_file=str(self.folder / "client"),
            enable_pooling=False,
            **settings,
        )

    def serve_a_good_client(self) -> float:
        """Seconds from a new connection to the first message back."""
        started = time.monotonic()
        with self.descriptor("good").open() as queue:
            queue.put("hello")
            assert queue.get() == "hello"
            return time.monotonic() - started


def spoiled(chance: random.Random, good: bytes) -> bytes:
    """Nearly right bytes, or random ones."""
    if chance.random() < 0.2:
        return chance.randbytes(chance.randrange(200))
    frame = bytearray(good)
    for _ in range(chance.randrange(1, 5)):
        frame[chance.randrange(len(frame))] = chance.randrange(256)
    return bytes(frame[: chance.randrange(len(frame) + 1)] if chance.random() < 0.3 else frame)


def good_frames(chance: random.Random) -> list[bytes]:
    """Frames that a client could send, pickles that would call something among them."""
    pickle = b"cos\nsystem\n(S'true'\ntR."
    entries: list[Any] = [
        wire.OpenHandle(1, "q", True, 0, "pickle", None),
        wire.Put(2, 1, [b"x", (1, pickle), (129, pickle)], 0.0),
        wire.Take(3, 1, 5, 0, 0.0, 0.0, False),
        wire.Settle(4, 1, 1, 1),
        wire.Ask(5, 1, "peek", None),
        wire.Ask(6, 1, "shutdown", True),
        wire.Wait(7, 1, True, 0.0),
        wire.Cancel(7),
        wire.CloseHandle(8, 1),
        wire.Ping(),
    ]
    hello = wire.Hello(wire.VERSION, chance.randbytes(16), False)
    return [wire.pack(wire.Requests(0, [], [hello])), *(wire.pack(wire.Requests(0, [], [each])) for each in entries)]


def fuzz_before(server: Server, chance: random.Random, count: int) -> None:
    """Bytes at the socket, as the transport's own greeting or anything else; each on a connection of its own."""
    greeting = b"\xff\x00\x00\x00\x00\x00\x00\x00\x01\x7f\x03\x01CURVE" + bytes(15) + b"\x00" + bytes(31)
    hello = b"\x04\xc8\x05HELLO\x01\x00" + bytes(72) + chance.randbytes(120)
    for _ in range(count):
        with socket.create_connection(("127.0.0.1", server.port)) as raw:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            raw.sendall(spoiled(chance, greeting) if chance.random() < 0.5 else greeting + spoiled(chance, hello))


def fuzz_after(server: Server, chance: random.Random, count: int) -> None:
    """Frames of a client whose key is on the list; it says hello again and again, for the server ends its session."""
    key = read_key_file(server.folder / "client")
    with zmq.Context() as context, context.socket(zmq.DEALER) as raw:
        raw.linger = 0
        raw.curve_serverkey = read_key_file(server.folder / "server").public.encode()
        raw.curve_publickey, raw.curve_secretkey = key.public.encode(), key.secret.encode()
        raw.connect(f"tcp://127.0.0.1:{server.port}")
        frames = good_frames(chance)
        for number in range(count):
            if number % 5 == 0:
                raw.send(frames[0])
                raw.send(frames[1])
            frame = chance.choice(frames)
            raw.send(frame if chance.random() < 0.2 else spoiled(chance, frame))
            while raw.poll(0):
                raw.recv()
        raw.send(frames[0])  # whatever its answer is, everything before was looked at when it comes
        while raw.poll(2_000):
            raw.recv()


def prove_r10(options: Any, folder: Path) -> bool:
    """Fuzzed frames: server deaths, unpickles."""
    count = 5_000_000 if options.long else 200_000
    row = Row.begin(
        options,
        "R10",
        "fuzzed RPC frames before and after authentication: server deaths / unpickles",
        f">= {count:,} frames: 0/0",
    )
    chance = random.Random(options.seed)
    server = Server(folder)
    fuzz_before(server, chance, count // 2)
    fuzz_after(server, chance, count // 2)
    died = server.process.poll() is not None
    served = not died and server.serve_a_good_client() > 0
    opened = -1 if died else server.stop()
    server.remove_ring()
    value = f"{count:,} frames: {int(died)}/{'?' if opened < 0 else opened}; a good client afterwards: {served}"
    return row.report(value, not died and served and opened == 0)


class Producer(threading.Thread):
    """Puts numbered messages and notes what it was told about each."""

    def __init__(self, server: Server, name: int) -> None:
        super().__init__()
        self.told: dict[tuple[int, int], str] = {}
        self.acknowledged = 0
        self._name = name
        self._queue = server.descriptor("kept", connection_timeout=60.0).open()
        self.stopping = False

    def run(self) -> None:
        """Put until told to stop."""
        number = 0
        while not self.stopping:
            number += 1
            try:
                self._queue.put([self._name, number])
            except OutcomeUnknownError:
                self.told[self._name, number] = "unknown"
            except QueueUnavailableError:
                self.told[self._name, number] = "not put"
            else:
                self.told[self._name, number] = "put"
                self.acknowledged += 1
        self._queue.close()


def prove_r26(options: Any, folder: Path) -> bool:
    """Server kills: acknowledged messages lost, messages doubled."""
    kills = 10_000 if options.long else 200
    row = Row.begin(
        options, "R26", "RPC server killed while clients put: acknowledged lost / doubled", f">= {kills:,} kills: 0/0"
    )
    chance = random.Random(options.seed)
    server = Server(folder)
    found: Counter[tuple[int, int]] = Counter()
    with server.ring.open() as local:
        producers = [Producer(server, name) for name in range(PRODUCERS)]
        for producer in producers:
            producer.start()
        for _ in range(kills):
            before = sum(producer.acknowledged for producer in producers)
            give_up = time.monotonic() + 60
            while sum(producer.acknowledged for producer in producers) == before and time.monotonic() < give_up:
                time.sleep(0.001)
            time.sleep(chance.random() * 0.02)
            server.kill()
            while local.qsize():
                found.update((name, number) for name, number in local.get_many(1000))
            server.start()
        for producer in producers:
            producer.stopping = True
        for producer in producers:
            producer.join(120)
        server.stop()
        while local.qsize():
            found.update((name, number) for name, number in local.get_many(1000))
    server.remove_ring()
    told = {key: what for producer in producers for key, what in producer.told.items()}
    lost = sum(1 for key, what in told.items() if what == "put" and not found[key])
    doubled = sum(1 for count in found.values() if count > 1)
    ghosts = sum(1 for key in found if told.get(key) not in ("put", "unknown"))
    unknown = sum(1 for what in told.values() if what == "unknown")
    hangs = sum(1 for producer in producers if producer.is_alive())
    value = (
        f"{kills:,} kills, {len(told) - unknown:,} acknowledged, {unknown:,} reported as unknown: "
        f"{lost}/{doubled}; ghosts {ghosts}, hangs {hangs}"
    )
    return row.report(value, not (lost or doubled or ghosts or hangs))


def prove_r27(options: Any, folder: Path) -> bool:
    """Silent connections: time to serve a good client."""
    count = 5_000 if options.long else 500
    row = Row.begin(
        options, "R27", f"{count:,} silent connections: slowest of 20 good clients, connect to answer", "<= 100 ms"
    )
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + 200
    if hard != resource.RLIM_INFINITY and hard < wanted:
        return row.not_run(f"needs {wanted:,} open files and the limit is {hard:,}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    server = Server(folder)
    server.serve_a_good_client()
    silent = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(count)]
    times = sorted(server.serve_a_good_client() for _ in range(20))
    for each in silent:
        each.close()
    server.stop()
    server.remove_ring()
    return row.report(f"{times[-1] * 1000:.0f} ms (median {times[10] * 1000:.0f} ms)", times[-1] <= 0.1)


def main() -> int:
    """Run the rows; 1 when one failed."""
    options = arguments(__doc__ or "", only={"choices": ["R10", "R26", "R27"], "help": "one row alone"})
    rows = {"R10": prove_r10, "R26": prove_r26, "R27": prove_r27}
    if zmq is None:
        for name in rows:
            Row.begin(options, name, "", "").not_run("needs pip install 'sage-qd[rpc]'")
        return 0
    passed = []
    for name, prove in rows.items():
        if options.only in (None, name):
            with tempfile.TemporaryDirectory() as folder:
                generate_keys(Path(folder) / "server")
                generate_keys(Path(folder) / "client")
                passed.append(prove(options, Path(folder)))
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
