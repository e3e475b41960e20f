"""
The storm on queues of Python: three producers and three consumers, killed at random and replaced, until it stops.

The same loop runs on ours and on others; a queue is one `Peer`. A trial ends when nothing has been received for
`STANDSTILL_SECONDS` although six processes are alive, when a process ends with an exception, or at the limit.
"""

from __future__ import annotations

import contextlib
import importlib
import mmap
import multiprocessing
import os
import random
import signal
import struct
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import row

PRODUCERS = CONSUMERS = 3
STANDSTILL_SECONDS = 4.0
ITEM = struct.Struct("<II")
BROKEN = 3
"""Exit code of a process that met an exception."""


@dataclass(frozen=True)
class Peer:
    """One kind of queue: how to make it, and how its ends put and get an item, waiting at most a tenth of a second."""

    name: str
    make: Callable[[], Any]
    put: Callable[[Any, bytes], None]
    get: Callable[[Any], bytes]
    nothing: tuple[type[BaseException], ...]
    """Exceptions that only say Empty or Full."""


def ours() -> Peer:
    """Our ring under Python."""
    try:
        from sage_qd import Empty, Full
        from sage_qd.ring import create
    except ImportError as error:
        raise row.NotRunError(f"needs sage-qd installed: {error}") from error
    return Peer(
        "sage-qd",
        lambda: create(anonymous=True, capacity_bytes=4096),
        lambda ring, item: ring.put(item, timeout=0.1),
        lambda ring: bytes(ring.get(timeout=0.1)),
        (Empty, Full),
    )


def standard() -> Peer:
    """The standard library's queue."""
    import queue

    return Peer(
        "multiprocessing.Queue",
        lambda: multiprocessing.get_context("fork").Queue(64),
        lambda ring, item: ring.put(item, timeout=0.1),
        lambda ring: ring.get(timeout=0.1),
        (queue.Empty, queue.Full),
    )


def faster_fifo() -> Peer:
    """The C++ queue of that name."""
    import queue

    try:
        package = importlib.import_module("faster_fifo")
    except ImportError as error:
        raise row.NotRunError("needs faster-fifo") from error
    return Peer(
        "faster_fifo",
        lambda: package.Queue(max_size_bytes=4096),
        lambda ring, item: ring.put(item, timeout=0.1),
        lambda ring: ring.get(timeout=0.1),
        (queue.Empty, queue.Full),
    )


PEERS = (standard, faster_fifo, ours)


@dataclass(frozen=True)
class Trial:
    """How one trial ended."""

    kills: int
    stopped: str
    """Why it ended; empty when it reached the limit."""


def run_trial(peer: Peer, seed: int, kill_limit: int) -> Trial:
    """Kill and replace until the queue stops."""
    chance = random.Random(seed)
    received = mmap.mmap(-1, 8 * CONSUMERS)
    queue = peer.make()
    roles = [start(peer, queue, received, role) for role in range(PRODUCERS + CONSUMERS)]
    kills = 0
    try:
        stopped = await_progress(received, roles)
        while not stopped and kills < kill_limit:
            time.sleep(chance.random() * 0.004)
            role = chance.randrange(len(roles))
            os.kill(roles[role], signal.SIGKILL)
            os.waitpid(roles[role], 0)
            kills += 1
            roles[role] = start(peer, queue, received, role)
            stopped = await_progress(received, roles)
    finally:
        for process in filter(None, roles):
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
        for end in ("cancel_join_thread", "close"):
            getattr(queue, end, lambda: None)()
    return Trial(kills, stopped)


def start(peer: Peer, queue: Any, received: mmap.mmap, role: int) -> int:
    """Fork one producer or consumer; returns its process id."""
    process = os.fork()
    if process:
        return process
    try:
        work(peer, queue, received, role)
    except BaseException:  # noqa: BLE001 - whatever it is, the supervisor learns of it by the exit code
        if os.environ.get("SAGE_PROOF_VERBOSE"):
            traceback.print_exc()
    os._exit(BROKEN)


def work(peer: Peer, queue: Any, received: mmap.mmap, role: int) -> None:
    """Put or get for ever; consumers count what they received where everybody can see it."""
    number = 0
    while os.getppid() != 1:
        with contextlib.suppress(*peer.nothing):
            if role < PRODUCERS:
                peer.put(queue, ITEM.pack(role, number) * 4)
                number += 1
            else:
                peer.get(queue)
                at = 8 * (role - PRODUCERS)
                received[at : at + 8] = (int.from_bytes(received[at : at + 8], "little") + 1).to_bytes(8, "little")


def await_progress(received: mmap.mmap, roles: list[int]) -> str:
    """Wait until a consumer has received something more; says why when that does not come, and forgets who ended."""
    before, end = received[:], time.monotonic() + STANDSTILL_SECONDS
    while received[:] == before:
        for role, process in enumerate(roles):
            ended, status = os.waitpid(process, os.WNOHANG)
            if ended:
                roles[role] = 0  # waited for: the number may belong to somebody else by now
                return f"{'producer' if role < PRODUCERS else 'consumer'} ended, status {status}"
        if time.monotonic() > end:
            return f"nothing received for {STANDSTILL_SECONDS:.0f} s"
        time.sleep(0.0005)
    return ""
