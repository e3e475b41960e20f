"""
Producers and consumers of a queue in shared memory under real SIGKILLs: nothing acknowledged is lost, nothing doubled.

The seed of a run is printed; ``SAGE_STRESS_SEED`` repeats one, ``SAGE_STRESS_KILLS`` makes it longer. Each process says
what it did in a ledger of its own, by one write(2) for each line, so the lines of a killed process are whole.
"""

import multiprocessing
import os
import random
import signal
import time
import uuid
import zlib
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from sage_qd import Empty, SharedMemoryQueue, SharedMemoryQueueDescriptor, ShutDown
from sage_qd.queues import shm_places

pytestmark = [pytest.mark.stress, pytest.mark.timeout(120)]
SEED = int(os.environ.get("SAGE_STRESS_SEED") or random.SystemRandom().randrange(1 << 32))
KILLS = int(os.environ.get("SAGE_STRESS_KILLS") or 60)
FORK = multiprocessing.get_context("fork")
Note = Callable[[str, str], None]


def message(key: str) -> bytes:
    body = f"{key}|".encode() + b"." * (zlib.crc32(key.encode()) % 500)
    return body + b"%08x" % zlib.crc32(body)


def key_of(payload: bytes) -> str:
    """Read whose message it is; a torn one ends the process, and with it the test."""
    if zlib.crc32(payload[:-8]) != int(payload[-8:], 16):
        raise ValueError(f"a torn message: {payload!r}")
    return payload[: payload.index(b"|")].decode()


def produce(queue: SharedMemoryQueue[bytes], name: str, note: Note) -> None:
    number = 0
    while True:
        keys = [f"{name}:{number + extra}" for extra in range(1 + number % 3)]
        for key in keys:
            note("try", key)
        if len(keys) == 1:
            queue.put(message(keys[0]))
            done = 1
        else:
            done = queue.put_many(map(message, keys))  # fewer at the shutdown, and the next put says so
        for key in keys[:done]:
            note("put", key)
        number += len(keys)


def consume(queue: SharedMemoryQueue[bytes], name: str, note: Note) -> None:
    chance = random.Random(name)
    while True:
        leases = [queue.lease()]
        if chance.random() < 0.3:
            with suppress(Empty):
                leases.append(queue.lease(block=False))  # to wait with a lease in hand could be for oneself
        chance.shuffle(leases)
        for lease in leases:
            key = key_of(lease.value)
            if chance.random() < 0.2:
                lease.nack()
                continue
            note("acking", key)
            lease.ack()
            note("acked", key)


def run(
    work: Callable[[SharedMemoryQueue[bytes], str, Note], None],
    descriptor: SharedMemoryQueueDescriptor,
    name: str,
    ledger: str,
) -> None:
    lines = os.open(ledger, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with descriptor.attach() as queue:
        try:
            work(queue, name, lambda verb, key: (os.write(lines, f"{verb} {key}\n".encode()), None)[1])
        except ShutDown:
            os.write(lines, b"end of-work\n")


class Crew:
    """So many processes of one kind; who is killed is replaced under another name."""

    def __init__(
        self,
        work: Callable[[SharedMemoryQueue[bytes], str, Note], None],
        descriptor: SharedMemoryQueueDescriptor,
        folder: Path,
        size: int,
    ) -> None:
        self._work = work
        self._descriptor = descriptor
        self._folder = folder
        self._started = 0
        self.members: list[BaseProcess] = []
        for _ in range(size):
            self.hire()

    def hire(self) -> None:
        name = f"{self._work.__name__}-{self._started}"
        self._started += 1
        process = FORK.Process(target=run, args=(self._work, self._descriptor, name, str(self._folder / name)))
        process.start()
        self.members.append(process)

    def kill(self, at: int) -> None:
        process = self.members.pop(at)
        process.kill()
        process.join(60)
        assert process.exitcode == -signal.SIGKILL, "it ended by itself: an error, printed above"

    def end(self) -> None:
        for process in self.members:
            process.join(60)
            assert process.exitcode == 0


def entries(folder: Path) -> dict[str, Counter[str]]:
    """How often each verb was said of each key."""
    found: dict[str, Counter[str]] = {verb: Counter() for verb in ("try", "put", "acking", "acked", "end")}
    for path in folder.iterdir():
        for line in path.read_text().splitlines():
            verb, key = line.split()
            found[verb][key] += 1
    return found


def test_a_storm_of_kills_loses_and_doubles_nothing_acknowledged(tmp_path: Path) -> None:
    print(f"SAGE_STRESS_SEED={SEED}")
    chance = random.Random(SEED)
    descriptor = SharedMemoryQueueDescriptor(
        f"storm-{uuid.uuid4().hex}", codec="raw", maxsize=20, capacity_bytes=1 << 13
    )
    with descriptor.open() as queue:
        crews = [Crew(work, queue.descriptor, tmp_path, 3) for work in (produce, consume)]
        for _ in range(KILLS):
            time.sleep(chance.uniform(0, 0.06))
            crew = chance.choice(crews)
            crew.kill(chance.randrange(3))
            crew.hire()
        queue.shutdown()
        for crew in crews:
            crew.end()

        figures = queue.stats()
        found = entries(tmp_path)

        print(f"{figures.puts:,} put, {figures.redeliveries:,} given back, {len(found['acked']):,} acked and noted")
        assert (figures.depth, figures.leased, figures.dropped) == (0, 0, 0)
        assert figures.gets == figures.puts
        assert set(found["put"]) <= set(found["acking"]), "a message that was put was never handed out to the end"
        assert set(found["acking"]) <= set(found["try"])
        assert max(found["acked"].values()) == 1, "a message was acked twice"
        assert figures.puts == len(found["acking"]), "messages and what was acked differ in number"
        assert len(found["put"]) > KILLS
    assert not list(shm_places.folder().glob(f"{descriptor.queue_id}*"))
