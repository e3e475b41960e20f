"""Row R33: a queue moved on and on, from kind to kind, while its producers and consumers are killed at random.

Four producers put numbered messages, three consumers lease and acknowledge them, all through the descriptor of the
first queue. Meanwhile another process moves the queue again and again, and is killed like everybody else; whoever is
killed is started anew. Each process keeps a log that survives it. At the end the logs must agree: every message whose
put returned was taken, none was taken twice (but for one that a killed consumer had not acknowledged, and that is
marked), and each consumer saw each producer's messages in order.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import row

from sage_qd import BaseQueueDescriptor, SageQueueDescriptor, ShutDown, clean_shared_memory, migrate
from sage_qd import ring as rings
from sage_qd.descriptors.sage import DEFAULT_NAMESPACE

PRODUCERS, CONSUMERS = 4, 3
KINDS = ("sage_queue", "shm_queue")
SECONDS = {False: 20.0, True: 600.0}
WATCHDOG_SECONDS = 120.0
LONG_FORM = "--long" in sys.argv
BETWEEN_MOVES_SECONDS = {False: 0.15, True: 4.0}[LONG_FORM]
"""Who starts from the first descriptor goes through every move, so there may not be too many."""
PAUSE_SECONDS = 0.03
"""Mean time between two kills."""


class Log:
    """Lines that are there for good once written, even when the writer is killed in the next instant."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY | os.O_CLOEXEC, 0o600)

    def write(self, *words: object) -> None:
        """Append one line, in one system call."""
        os.write(self._descriptor, (json.dumps(words) + "\n").encode())


def lines_of(path: Path) -> Iterator[list[Any]]:
    """The lines of a log; a last one that was cut off does not count."""
    if path.exists():
        for line in path.read_text().split("\n")[:-1]:
            yield json.loads(line)


# -- Processes --------------------------------------------------------------------------------------------------------


def produce(text: str, folder: Path, who: int) -> None:
    """Put numbers until told to stop; each is logged before and after."""
    path = folder / f"producer-{who}"
    number = max((line[1] for line in lines_of(path)), default=-1) + 1
    log = Log(path)
    with BaseQueueDescriptor.from_json(text).attach() as queue:
        while not (folder / "stop").exists():
            log.write("trying", number)
            queue.put([who, number])
            log.write("put", number)
            number += 1


def consume(text: str, folder: Path, who: int, life: int) -> None:
    """Lease, log, acknowledge, until the queue is shut down."""
    log = Log(folder / f"consumer-{who}-{life}")
    with BaseQueueDescriptor.from_json(text).attach() as queue:
        while True:
            try:
                lease = queue.lease(timeout=WATCHDOG_SECONDS)
            except ShutDown:
                return
            log.write(*lease.value, lease.redelivered)
            lease.ack()


def move(text: str, folder: Path, kinds: list[str]) -> None:
    """Move the queue to one kind after the other; a move that was cut off is done again."""
    log = Log(folder / "moves")
    done = [line for line in lines_of(folder / "moves") if line[0] == "done"]
    here = BaseQueueDescriptor.from_json(done[-1][1] if done else text)
    for turn in range(len(done), 1 << 30):
        if (folder / "stop").exists():
            return
        migration = migrate(here, kinds[turn % len(kinds)], timeout=WATCHDOG_SECONDS)
        here = migration.descriptor
        log.write("done", here.to_json(), migration.moved, migration.pause_ms, migration.stragglers)
        time.sleep(BETWEEN_MOVES_SECONDS)


# -- The storm --------------------------------------------------------------------------------------------------------


class Storm:
    """The processes, and the kills."""

    def __init__(self, folder: Path, kinds: list[str], seed: int) -> None:
        self.folder = folder
        self.kinds = kinds
        self.random = random.Random(seed)
        self.context = multiprocessing.get_context("fork")
        self.source = SageQueueDescriptor(f"jobs-{uuid.uuid4().hex[:12]}", maxsize=200)
        self.text = self.source.to_json()
        self.lives: Counter[int] = Counter()
        self.kills: Counter[str] = Counter()
        self.running: dict[tuple[str, int], BaseProcess] = {}

    def start(self, role: str, who: int) -> None:
        """Start a process, or its next life."""
        arguments: dict[str, tuple[Any, ...]] = {
            "producer": (produce, (self.text, self.folder, who)),
            "consumer": (consume, (self.text, self.folder, who, self.lives[who])),
            "mover": (move, (self.text, self.folder, self.kinds)),
        }
        target, given = arguments[role]
        self.lives[who] += role == "consumer"
        process = self.context.Process(target=target, args=given)
        process.start()
        self.running[role, who] = process

    def run(self, seconds: float) -> list[str]:
        """Run for a while and return what was wrong with the processes themselves."""
        queue = self.source.open()
        for who in range(PRODUCERS):
            self.start("producer", who)
        for who in range(CONSUMERS):
            self.start("consumer", who)
        self.start("mover", 0)
        end = time.monotonic() + seconds
        wrong: list[str] = []
        while time.monotonic() < end and not wrong:
            time.sleep(self.random.expovariate(1 / PAUSE_SECONDS))
            key = self.random.choice(list(self.running))
            wrong += self.kill(key)
        (self.folder / "stop").touch()
        wrong += self.finish("producer") + self.finish("mover")
        queue.shutdown()
        wrong += self.finish("consumer")
        queue.close()
        return wrong

    def kill(self, key: tuple[str, int]) -> list[str]:
        """Kill a process and start it anew; whoever had ended by itself has failed."""
        process = self.running[key]
        assert process.pid is not None
        if process.exitcode is None:
            os.kill(process.pid, signal.SIGKILL)
        process.join()
        if process.exitcode != -signal.SIGKILL:
            return [f"{key[0]} {key[1]} ended with {process.exitcode}"]
        self.kills[key[0]] += 1
        self.start(*key)
        return []

    def finish(self, role: str) -> list[str]:
        """Wait until all of a role ended by themselves."""
        wrong = []
        for key, process in self.running.items():
            if key[0] == role:
                process.join(WATCHDOG_SECONDS)
                if process.exitcode != 0:
                    wrong.append(f"{role} {key[1]} {'hangs' if process.exitcode is None else process.exitcode}")
                    process.kill()
                    process.join()
        return wrong

    def judge(self) -> dict[str, int]:
        """Compare the logs."""
        put: set[tuple[int, int]] = set()
        tried: set[tuple[int, int]] = set()
        for who in range(PRODUCERS):
            for word, number in lines_of(self.folder / f"producer-{who}"):
                (put if word == "put" else tried).add((who, number))
        taken: set[tuple[int, int]] = set()
        first_time: Counter[tuple[int, int]] = Counter()
        reordered = 0
        for path in sorted(self.folder.glob("consumer-*")):
            last: dict[int, int] = {}
            for who, number, redelivered in lines_of(path):
                taken.add((who, number))
                if redelivered:
                    continue
                first_time[who, number] += 1
                reordered += number <= last.get(who, -1)
                last[who] = number
        return {
            "put": len(put),
            "lost": len(put - taken),
            "invented": len(taken - tried),
            "doubled": sum(times > 1 for times in first_time.values()),
            "reordered": reordered,
        }


def main() -> int:
    """Run the storm and report the row; 1 when it failed."""
    options = row.arguments(__doc__ or "", kinds={"default": ",".join(KINDS), "help": "kinds to move to, in turn"})
    proof = row.Row.begin(
        options, "R33", "a queue moved from kind to kind under kills: lost / doubled / reordered", "0 / 0 / 0"
    )
    randomly = random.Random(options.seed)
    kinds = [randomly.choice(options.kinds.split(",")) for _ in range(97)]
    with tempfile.TemporaryDirectory() as name:
        storm = Storm(Path(name), kinds, options.seed)
        wrong = storm.run(SECONDS[options.long])
        found = storm.judge()
        moves = [line for line in lines_of(storm.folder / "moves") if line[0] == "done"]
    pauses = sorted(line[3] for line in moves)
    for path in (rings.directory() / DEFAULT_NAMESPACE).glob(f"{storm.source.queue_id}*"):
        path.unlink()  # signposts, and what was killed while it left
    clean_shared_memory()
    for text in wrong:
        print(text)
    value = (
        f"{found['lost']} / {found['doubled']} / {found['reordered']} of {found['put']:,} in {len(moves)} moves with "
        f"{sum(storm.kills.values())} kills; pause median {pauses[len(pauses) // 2] if pauses else 0:.0f} ms, "
        f"longest {pauses[-1] if pauses else 0:.0f} ms"
    )
    bad = found["lost"] + found["doubled"] + found["reordered"] + found["invented"]
    return not proof.report(value + ("; " + "; ".join(wrong) if wrong else ""), not bad and not wrong and bool(moves))


if __name__ == "__main__":
    sys.exit(main())
