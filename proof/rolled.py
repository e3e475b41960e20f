"""The processes of the rollback storms: who puts, who takes, who flips the way of the queue, and what is broken.

Each process is killed at random and started anew (`mortals`). Everything goes through `SageQueue`, each life in a mode
of its own. Who flips is one function; the storms differ by it.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mortals import WATCHDOG_SECONDS, Log, Mortals, consumer_log, lines_of, put_numbers

from sage_compat import SageQueue, records, roll_forward, rollback
from sage_compat.places import folder as folder_of_compat
from sage_compat.places import replace_file
from sage_compat.rolling import Rolled
from sage_compat.ways import path_of
from sage_qd import CorruptQueueError, Empty, IncompatibleQueueError, QueueNoSpaceError, SageQueueDescriptor
from sage_qd.descriptors import migration
from sage_sim.room import SHARED_MEMORY, Filler

PRODUCERS, CONSUMERS = 4, 3
PAUSE_SECONDS = 0.15
"""Mean time between two kills."""
TURNER_SHARE = 0.2
"""How many of the kills that fall on the process that flips are done: it takes a second to start."""
NAME = "storm"
MODES = ("legacy", "descriptor", "canary:50", "shadow")
DAMAGED = (CorruptQueueError, IncompatibleQueueError)
"""What anybody may be told of a ring whose header was overwritten, until its way is flipped; and nothing else."""
_LOOK_SECONDS = 0.005
Turner = Callable[[Path, int, int], None]


# -- Who puts and takes ------------------------------------------------------------------------------------------------


def opened(mode: str) -> SageQueue:
    """The queue, in that mode; one that is damaged is tried again until somebody flips its way."""
    os.environ["SAGE_COMPAT_MODE"] = mode
    while True:
        try:
            return SageQueue(NAME, maxsize=1 << 16)
        except DAMAGED:
            time.sleep(_LOOK_SECONDS)


def produce(folder: Path, who: int, life: int) -> None:
    """Put numbers until told to stop."""
    queue = opened(MODES[(who + life) % len(MODES)])
    put_numbers(queue, folder, who, refused=DAMAGED)
    queue.close()


def consume(folder: Path, who: int, life: int) -> None:
    """Take and log until nothing comes any more after the end."""
    log, queue = Log(folder / consumer_log(who, life)), opened(MODES[(who + life + 1) % len(MODES)])
    refused = Log(folder / f"refused-{who}")
    while True:
        try:
            producer, number = queue.get(timeout=0.5)
        except Empty:
            if (folder / "drained").exists():
                return
        except DAMAGED as error:
            refused.write(type(error).__name__, str(error))
            time.sleep(_LOOK_SECONDS)
        else:
            log.write(producer, number, time.monotonic())


# -- Who flips ---------------------------------------------------------------------------------------------------------


def noted(log: Log, decide: Callable[[str], Rolled]) -> Rolled:
    """Decide, and log what it did: each flip, and each one that failed."""
    started = time.monotonic()
    done = decide(NAME)
    ended = time.monotonic()
    for each in done.flips:
        log.write("flip", each.after, (ended - started) * 1000, each.not_moved, started, ended)
    for reason in done.failed.values():
        log.write("failed", decide.__name__, reason)
    return done


def turn(folder: Path, who: int, seed: int) -> None:
    """Flip the way again and again; every fourth time the seal is refused, every eighth the control page is damaged."""
    chosen = random.Random(seed)
    real = migration._sealed
    log = Log(folder / f"flips-{who}")
    while not (folder / "stop").exists():
        time.sleep(chosen.uniform(0.02, 0.2))
        migration._sealed = no_room if chosen.random() < 0.25 else real
        if chosen.random() < 0.125:
            damage_page(chosen)
        noted(log, chosen.choice([rollback, roll_forward]))


def damage_page(chosen: random.Random) -> None:
    """Cut the control page short, write anything into it, or take it away."""
    page = folder_of_compat() / "control"
    damage = chosen.randrange(3)
    if damage == 2:
        page.unlink(missing_ok=True)
    else:
        page.write_bytes(chosen.randbytes(8 * damage))


def no_room(*_: Any) -> int:
    """Stand in for the seal where its file system is full."""
    raise QueueNoSpaceError(wanted=4096, free=0)


def turn_in_a_small_room(folder: Path, who: int, seed: int) -> None:
    """Flip the way and back, while two of three times the file system of the rings has no byte left."""
    for left in Path(SHARED_MEMORY).glob("sage-sim-filler-*"):
        left.unlink()  # of a life that was killed while it was full
    chosen, log, filler = random.Random(seed), Log(folder / f"flips-{who}"), Filler()
    for number in itertools.count():
        if (folder / "stop").exists():
            return
        time.sleep(chosen.uniform(0.02, 0.2))
        is_full = number % 3 != 0
        if is_full:
            filler.fill()
        noted(log, rollback if number % 2 else roll_forward)
        if is_full:
            log.write("full")
            time.sleep(chosen.uniform(0, 0.1))
            filler.remove()


def turn_and_damage(folder: Path, who: int, seed: int) -> None:
    """Flip to the ring and back; two of three rings get a damaged header, in use or while they are drained."""
    chosen, log = random.Random(seed), Log(folder / f"flips-{who}")
    for number in itertools.count():
        if (folder / "stop").exists():
            return
        noted(log, roll_forward)
        time.sleep(chosen.uniform(0.02, 0.2))
        if number % 3 == 0:
            damage_ring(folder, log, chosen)
            time.sleep(chosen.uniform(0, 0.1))
        noted(log, rollback)
        if number % 3 == 1:
            damage_ring(folder, log, chosen)
            time.sleep(chosen.uniform(0, 0.1))
            noted(log, rollback)
        time.sleep(chosen.uniform(0, 0.1))


# -- Damage ------------------------------------------------------------------------------------------------------------

IDENTITY, TAIL, HEAD = (0, 128), (640, 648), (896, 904)
LOCKS_AND_COUNTS = (768, 4096)
DAMAGES = ((IDENTITY,), (TAIL,), (HEAD,), (TAIL, HEAD), (IDENTITY, TAIL, LOCKS_AND_COUNTS))
"""What is overwritten with random bytes; see docs/reference/segment-layout.md."""


def damage_ring(folder: Path, log: Log, chosen: random.Random) -> None:
    """Overwrite parts of the header of the first ring behind the name; everybody is stopped meanwhile, and counted."""
    record = next((each for each in records.all_records() if each.name == NAME), None)
    rings = [each for each in record.descriptors if isinstance(each, SageQueueDescriptor)] if record else []
    if not rings:
        return
    damage = chosen.choice(DAMAGES)
    try:
        ring = records.attached(rings[0])
    except (FileNotFoundError, *DAMAGED):  # it was drained and is gone, or is damaged already
        return
    with ring, everybody_stopped(folder):
        held = ring.qsize()
        with suppress(FileNotFoundError), open(path_of(ring), "r+b", buffering=0) as file:
            for start, end in damage:
                file.seek(start)
                file.write(chosen.randbytes(end - start))
        log.write("damage", rings[0].queue_id, held, time.monotonic(), DAMAGES.index(damage))


@contextmanager
def everybody_stopped(folder: Path) -> Iterator[None]:
    """Stop who puts and takes, so that what a ring holds can be counted; a stop is certain once the kernel shows it."""
    stopped = []
    try:
        for path in folder.glob("pid-*"):
            process = int(path.read_text())
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGSTOP)
                stopped.append(process)
        while any(_state_of(process) in "RSD" for process in stopped):
            time.sleep(0.0005)
        yield
    finally:
        for process in stopped:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGCONT)


def _state_of(process: int) -> str:
    """The kernel's letter for what a process does; X when it is gone."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "X"


# -- The storm ---------------------------------------------------------------------------------------------------------

SIGNS = {turn_and_damage: "damage", turn_in_a_small_room: "full"}
"""The line that says that a storm was worth its name; a flip for others."""


class Storm(Mortals):
    """
    The processes around one name, and who flips its way.

    Args:
        folder: For logs.
        seed: Of all chance.
        turner: Who flips.
        spares_turner: Whether nobody kills it: others are stopped while it damages something.
    """

    def __init__(self, folder: Path, seed: int, turner: Turner = turn, *, spares_turner: bool = False) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["sage_compat.moves", "sage_qd.queues.sage_ring"])
        super().__init__(folder, seed, context)
        self._turner = turner
        self.sign = SIGNS.get(turner, "flip")
        self._share = 0.0 if spares_turner else TURNER_SHARE

    def work(self, role: str, who: int, life: int) -> tuple[Callable[..., object], tuple[Any, ...]]:
        """What a process does, and with which arguments."""
        if role == "turner":
            return self._turner, (self.folder, who, self.random.randrange(1 << 30))
        return {"producer": produce, "consumer": consume}[role], (self.folder, who, life)

    def start(self, role: str, who: int) -> None:
        """Start a process, or its next life, and say which one it is."""
        super().start(role, who)
        if role != "turner":
            replace_file(self.folder / f"pid-{role}-{who}", str(self.running[role, who].pid))

    def run(self, seconds: float) -> list[str]:
        """Run for a while and return what was wrong with the processes themselves."""
        anchor = SageQueue(NAME, maxsize=1 << 16)  # keeps the queue while everybody else is killed
        for role, count in (("producer", PRODUCERS), ("consumer", CONSUMERS), ("turner", 1)):
            for who in range(count):
                self.start(role, who)
        wrong = self.kill_for(seconds, PAUSE_SECONDS, self._is_spared)
        limit = time.monotonic() + WATCHDOG_SECONDS
        while not self.has_shown_sign() and time.monotonic() < limit:
            time.sleep(0.05)
        (self.folder / "stop").touch()
        wrong += self.finish("turner")
        noted(Log(self.folder / "flips-last"), rollback)  # a ring that is damaged still is left behind
        wrong += self.finish("producer")
        limit = time.monotonic() + WATCHDOG_SECONDS
        while anchor.qsize() and time.monotonic() < limit:
            time.sleep(0.05)
        (self.folder / "drained").touch()
        wrong += self.finish("consumer")
        wrong += [f"{anchor.qsize()} messages are left"] * bool(anchor.qsize())
        anchor.close()
        return wrong

    def has_shown_sign(self) -> bool:
        """Whether who flips got as far as it is there for."""
        return any(line[0] == self.sign for line in lines_of(self.folder / "flips-0"))

    def _is_spared(self, role: str) -> bool:
        return role == "turner" and self.random.random() >= self._share
