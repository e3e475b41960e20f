"""Processes that are killed at random and started anew, and the logs that outlive them.

Producers put numbers and log each before and after; consumers log what they took, each life in a file of its own. At
the end `Found.of` compares the logs: what was lost, doubled, reordered or made up.
"""

from __future__ import annotations

import json
import os
import random
import signal
import time
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from math import inf
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

WATCHDOG_SECONDS = 120.0
REFUSED_SECONDS = 0.005
"""Until the next put after one that was refused."""


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


def put_numbers(queue: Any, folder: Path, who: int, refused: tuple[type[Exception], ...] = ()) -> None:
    """
    Put numbers until the folder says stop, from where an earlier life of this producer was killed.

    Args:
        queue: Where.
        folder: Of the logs.
        who: Which producer.
        refused: Exceptions that a put may end with: it is logged, and the next number is put.
    """
    path = folder / f"producer-{who}"
    number = max((line[1] for line in lines_of(path)), default=-1) + 1
    log = Log(path)
    while not (folder / "stop").exists():
        log.write("try", number, time.monotonic())
        try:
            queue.put([who, number])
        except refused as error:
            log.write("refused", number, type(error).__name__)
            time.sleep(REFUSED_SECONDS)
        else:
            log.write("put", number)
        number += 1


# -- Killing ----------------------------------------------------------------------------------------------------------


class Mortals(ABC):
    """
    Processes by role and number, each with its lives.

    Args:
        folder: Where logs lie.
        seed: Of who is killed, and when.
        context: How processes are started.
    """

    def __init__(self, folder: Path, seed: int, context: Any) -> None:
        self.folder = folder
        self.random = random.Random(seed)
        self.context: BaseContext = context
        self.lives: Counter[tuple[str, int]] = Counter()
        self.kills: Counter[str] = Counter()
        self.deaths: list[tuple[str, float]] = []
        """The log's name of each consumer that was killed, and when it was certainly dead."""
        self.running: dict[tuple[str, int], BaseProcess] = {}

    @abstractmethod
    def work(self, role: str, who: int, life: int) -> tuple[Callable[..., object], tuple[Any, ...]]:
        """What a process does, and with which arguments."""

    def start(self, role: str, who: int) -> None:
        """Start a process, or its next life."""
        target, arguments = self.work(role, who, self.lives[role, who])
        self.lives[role, who] += 1
        process = self.context.Process(target=target, args=arguments)  # type: ignore[attr-defined]
        process.start()
        self.running[role, who] = process

    def kill_for(self, seconds: float, pause_seconds: float, spared: Callable[[str], bool] | None = None) -> list[str]:
        """
        Kill somebody again and again; return what was wrong, at once.

        Args:
            seconds: How long.
            pause_seconds: Mean time between two kills.
            spared: Asked with the role of the chosen one: whether it lives on.
        """
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(self.random.expovariate(1 / pause_seconds))
            key = self.random.choice(list(self.running))
            if (spared is None or not spared(key[0])) and (wrong := self.kill(key)):
                return wrong
        return []

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
        if key[0] == "consumer":
            self.deaths.append((consumer_log(key[1], self.lives[key] - 1), time.monotonic()))
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


def consumer_log(who: int, life: int) -> str:
    """The log of one life of a consumer; its lines are producer, number, time, and whether the message came again."""
    return f"consumer-{who}-{life}"


# -- Judging ----------------------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class Found:
    """
    What the logs say.

    Attributes:
        put: Messages whose put returned.
        missing: Those of them that nobody took, and when each can have been taken: not before, not after.
        doubled: Messages that were taken twice, other than marked as coming again.
        reordered: Messages that a consumer took after a later one of the same producer.
        invented: Messages taken that nobody put.
    """

    put: int
    missing: dict[tuple[int, int], tuple[float, float]]
    doubled: int
    reordered: int
    invented: int

    @classmethod
    def of(cls, folder: Path) -> Found:
        """Compare the logs in a folder."""
        put: set[tuple[int, int]] = set()
        tried: dict[tuple[int, int], float] = {}
        for path in folder.glob("producer-*"):
            who = int(path.name.rpartition("-")[2])
            for word, number, *when in lines_of(path):
                if word == "put":
                    put.add((who, number))
                elif word == "try":
                    tried[who, number] = when[0]
        taken: dict[tuple[int, int], float] = {}
        times: Counter[tuple[int, int]] = Counter()
        reordered = 0
        for path in folder.glob("consumer-*"):
            last: dict[int, int] = {}
            for who, number, when, *redelivered in lines_of(path):
                taken.setdefault((who, number), when)
                if any(redelivered):
                    continue
                times[who, number] += 1
                reordered += number <= last.get(who, -1)
                last[who] = number
        taken_after = _takes_after(taken)
        return cls(
            put=len(put),
            missing={each: (tried[each], taken_after(*each)) for each in put - taken.keys()},
            doubled=sum(count > 1 for count in times.values()),
            reordered=reordered,
            invented=len(taken.keys() - tried.keys()),
        )

    def excuse(self, began: float, ended: float, most: int) -> int:
        """Take out of the missing ones those that were there between two times, so many at most; return how many."""
        there = [each for each, (first, last) in self.missing.items() if began <= last and first <= ended][:most]
        for each in there:
            del self.missing[each]
        return len(there)

    def in_hand(self, folder: Path, deaths: list[tuple[str, float]]) -> int:
        """
        How many of the missing ones killed consumers can have had in their hands, one message each.

        A consumer that is killed takes along what it was handed after the last line of its log. So each missing message
        needs a death of its own, between whose last line and end it can have been taken.
        """
        ends = [(max((line[2] for line in lines_of(folder / name)), default=0.0), dead) for name, dead in deaths]
        candidates = {
            message: [at for at, (last, dead) in enumerate(ends) if last <= latest and earliest <= dead]
            for message, (earliest, latest) in self.missing.items()
        }
        holder: dict[int, tuple[int, int]] = {}

        def matched(message: tuple[int, int], seen: set[int]) -> bool:
            for at in candidates[message]:
                if at not in seen:
                    seen.add(at)
                    if at not in holder or matched(holder[at], seen):
                        holder[at] = message
                        return True
            return False

        return sum(matched(message, set()) for message in candidates)


def _takes_after(taken: dict[tuple[int, int], float]) -> Callable[[int, int], float]:
    """
    Return what says of a message when a later one of the same producer was first known to be taken.

    The message itself was taken before that, if it was; infinity when no later one was.
    """
    numbers: dict[int, list[int]] = {}
    for who, number in sorted(taken):
        numbers.setdefault(who, []).append(number)
    firsts = {
        who: list(accumulate((taken[who, number] for number in reversed(mine)), min))[::-1]
        for who, mine in numbers.items()
    }

    def after(who: int, number: int) -> float:
        at = bisect_right(numbers.get(who, []), number)
        return firsts[who][at] if who in firsts and at < len(firsts[who]) else inf

    return after
