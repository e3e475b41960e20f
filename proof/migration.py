"""Row R33: a queue moved on and on, from kind to kind, while its producers and consumers are killed at random.

Four producers put numbered messages, three consumers lease and acknowledge them, all through the descriptor of the
first queue. Meanwhile another process moves the queue again and again, and is killed like everybody else; whoever is
killed is started anew. Each process keeps a log that survives it. At the end the logs must agree: every message whose
put returned was taken, none was taken twice (but for one that a killed consumer had not acknowledged, and that is
marked), and each consumer saw each producer's messages in order.
"""

from __future__ import annotations

import multiprocessing
import random
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import row
from mortals import WATCHDOG_SECONDS, Found, Log, Mortals, consumer_log, lines_of, put_numbers

from sage_qd import BaseQueueDescriptor, SageQueueDescriptor, ShutDown, clean_shared_memory, migrate
from sage_qd import ring as rings
from sage_qd.descriptors.sage import DEFAULT_NAMESPACE

PRODUCERS, CONSUMERS = 4, 3
KINDS = ("sage_queue", "shm_queue")
SECONDS = {False: 20.0, True: 600.0}
LONG_FORM = "--long" in sys.argv
BETWEEN_MOVES_SECONDS = {False: 0.15, True: 4.0}[LONG_FORM]
"""Who starts from the first descriptor goes through every move, so there may not be too many."""
PAUSE_SECONDS = 0.03
"""Mean time between two kills."""


# -- Processes --------------------------------------------------------------------------------------------------------


def produce(text: str, folder: Path, who: int) -> None:
    """Put numbers until told to stop."""
    with BaseQueueDescriptor.from_json(text).attach() as queue:
        put_numbers(queue, folder, who)


def consume(text: str, folder: Path, who: int, life: int) -> None:
    """Lease, log, acknowledge, until the queue is shut down."""
    log = Log(folder / consumer_log(who, life))
    with BaseQueueDescriptor.from_json(text).attach() as queue:
        while True:
            try:
                lease = queue.lease(timeout=WATCHDOG_SECONDS)
            except ShutDown:
                return
            log.write(*lease.value, time.monotonic(), lease.redelivered)
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


class Storm(Mortals):
    """The processes around one queue, and who moves it."""

    def __init__(self, folder: Path, kinds: list[str], seed: int) -> None:
        super().__init__(folder, seed, multiprocessing.get_context("fork"))
        self.kinds = kinds
        self.source = SageQueueDescriptor(f"jobs-{uuid.uuid4().hex[:12]}", maxsize=200)
        self.text = self.source.to_json()

    def work(self, role: str, who: int, life: int) -> tuple[Callable[..., object], tuple[Any, ...]]:
        """What a process does, and with which arguments."""
        if role == "producer":
            return produce, (self.text, self.folder, who)
        if role == "consumer":
            return consume, (self.text, self.folder, who, life)
        return move, (self.text, self.folder, self.kinds)

    def run(self, seconds: float) -> list[str]:
        """Run for a while and return what was wrong with the processes themselves."""
        queue = self.source.open()
        for role, count in (("producer", PRODUCERS), ("consumer", CONSUMERS), ("mover", 1)):
            for who in range(count):
                self.start(role, who)
        wrong = self.kill_for(seconds, PAUSE_SECONDS)
        (self.folder / "stop").touch()
        wrong += self.finish("producer") + self.finish("mover")
        queue.shutdown()
        wrong += self.finish("consumer")
        queue.close()
        return wrong


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
        found = Found.of(storm.folder)
        moves = [line for line in lines_of(storm.folder / "moves") if line[0] == "done"]
    pauses = sorted(line[3] for line in moves)
    for path in (rings.directory() / DEFAULT_NAMESPACE).glob(f"{storm.source.queue_id}*"):
        path.unlink()  # signposts, and what was killed while it left
    clean_shared_memory()
    for text in wrong:
        print(text)
    value = (
        f"{len(found.missing)} / {found.doubled} / {found.reordered} of {found.put:,} in {len(moves)} moves with "
        f"{sum(storm.kills.values())} kills; pause median {pauses[len(pauses) // 2] if pauses else 0:.0f} ms, "
        f"longest {pauses[-1] if pauses else 0:.0f} ms"
    )
    bad = len(found.missing) + found.doubled + found.reordered + found.invented
    return not proof.report(value + ("; " + "; ".join(wrong) if wrong else ""), not bad and not wrong and bool(moves))


if __name__ == "__main__":
    sys.exit(main())
