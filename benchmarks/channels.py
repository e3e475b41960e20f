"""What the loops of every row drive: a queue in one direction, and the ends of it that a process holds.

A `Channel` is made in the parent before the processes are forked; each process then asks it for an `End`. Only an end
imports the peer's library, so a peer that is missing or broken spoils its own cells of the table and nothing else.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import multiprocessing
import os
import pickle
import shutil
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path
from typing import Any

FORK = multiprocessing.get_context("fork")
POLL_SECONDS = 10.0  # how long an opening end waits for the other one to appear


@dataclass(frozen=True)
class Shape:
    """What a row needs of a queue: room, the size of one item, and how many ends there are on each side."""

    item_bytes: int = 64
    capacity_bytes: int = 1 << 20
    senders: int = 1
    receivers: int = 1

    @property
    def items(self) -> int:
        """Room in items, for queues whose room is counted so; a power of two."""
        return 1 << max(2, (self.capacity_bytes // (self.item_bytes + 8)).bit_length() - 1)


SMALL = Shape()


@dataclass
class End:
    """One side of a channel in one process. What it cannot do is None; the loops are methods, so a peer may differ."""

    put: Any = None
    get: Any = None
    put_many: Any = None
    get_many: Any = None
    put_array: Any = None
    get_array: Any = None  # an array of the receiver's own
    look: Any = None  # look(check): calls check(array) on memory the queue still owns, then gives it back
    pickles: bool = False  # the queue turns objects into bytes itself
    close: Callable[[], object] = lambda: None
    holds: list[Any] = field(default_factory=list)  # what must live as long as the bound methods above
    arrays: list[Any] = field(default_factory=list)  # what an array row sends and expects
    resident_bytes: float = 0.0  # how much memory opening it took, where a row asks

    def send(self, items: Iterable[bytes]) -> None:
        """Put every item, one call each."""
        put = self.put
        for item in items:
            put(item)

    def receive(self, count: int, every: int) -> list[bytes]:
        """Get ``count`` items, one call each, and return every ``every``-th."""
        get, kept = self.get, []
        for _ in repeat(None, count // every):
            for _ in repeat(None, every - 1):
                get()
            kept.append(get())
        return kept

    def stop(self, mark: bytes, receivers: int) -> None:
        """Put one end mark for each receiver."""
        for _ in range(receivers):
            self.put(mark)

    def send_objects(self, values: Iterable[Any]) -> None:
        """Put every value, pickled here unless the queue does it."""
        put, dumps = self.put, pickle.dumps
        if self.pickles:
            for value in values:
                put(value)
        else:
            for value in values:
                put(dumps(value, 5))

    def receive_objects(self, count: int, every: int) -> list[Any]:
        """Get ``count`` values and return every ``every``-th."""
        if self.pickles:
            return self.receive(count, every)
        get, loads, kept = self.get, pickle.loads, []
        for _ in repeat(None, count // every):
            for _ in repeat(None, every - 1):
                loads(get())
            kept.append(loads(get()))
        return kept


class Channel(ABC):
    """
    One queue in one direction; the base of every adapter with a side for each process.

    Attributes:
        name: How the table calls it.
        distribution: What to install when it is missing; None for the standard library.
        module: What an end imports.
        first: Which side opens first.
    """

    name = ""
    distribution: str | None = None
    module: str | None = None
    first = "receiver"

    def __init__(self, folder: Path, shape: Shape) -> None:
        self.folder, self.shape = folder, shape

    @abstractmethod
    def sender(self, index: int) -> End:
        """Open the writing side in this process."""

    @abstractmethod
    def receiver(self, index: int) -> End:
        """Open the reading side in this process."""

    def both(self) -> End:
        """Open both sides in this process, as one end."""
        sides = {"receiver": self.receiver, "sender": self.sender}
        opened = {side: sides[side](0) for side in (self.first, *(set(sides) - {self.first}))}
        end, source = opened["receiver"], opened["sender"]
        end.put, end.put_many, end.put_array = source.put, source.put_many, source.put_array
        end.holds.append(source)
        close_receiver = end.close
        end.close = lambda: (close_receiver(), source.close())
        return end

    def remove(self) -> None:  # noqa: B027  (most leave nothing, and need not say so)
        """Delete, in the parent, what this queue leaves outside its folder."""

    @classmethod
    def missing(cls) -> str | None:
        """Why this peer cannot take part, or None when it can."""
        if cls.module is not None and importlib.util.find_spec(cls.module) is None:
            return "not installed"
        return None

    @classmethod
    def version(cls) -> str:
        """The installed version; Python's own for the standard library."""
        if cls.distribution is None:
            return f"Python {sys.version.split()[0]}"
        return importlib.metadata.version(cls.distribution)


class OneEnded(Channel):
    """The base of what works in one process only: a row with two of them cannot have it."""

    def sender(self, index: int) -> End:
        """Refuse: there is no side to open."""
        raise TypeError(f"{self.name} works in one process only: open it with both()")

    receiver = sender

    @abstractmethod
    def both(self) -> End:
        """Open it."""


def until(ready: Callable[[], Any], what: str) -> Any:
    """Poll until ``ready()`` is true and return that; the bound is `POLL_SECONDS`."""
    limit = time.monotonic() + POLL_SECONDS
    while time.monotonic() < limit:
        found = ready()
        if found:
            return found
        os.sched_yield()
    raise TimeoutError(f"{what} within {POLL_SECONDS} s")


@dataclass
class TryingEnd(End):
    """A sender that can only try: False means full, and it tries again after giving its core away once."""

    try_put: Any = None

    def use(self, try_put: Callable[[bytes], bool]) -> None:
        """Set how to try, and ``put`` for the loops that send one item at a time."""
        self.try_put, give_way = try_put, os.sched_yield

        def put(item: bytes) -> None:
            while not try_put(item):
                give_way()

        self.put = put

    def send(self, items: Iterable[bytes]) -> None:
        try_put, give_way = self.try_put, os.sched_yield
        for item in items:
            while not try_put(item):
                give_way()


@dataclass
class PollingEnd(End):
    """A receiver that asks until there is something; written out so that asking costs no second call."""

    try_get: Any = None

    def receive(self, count: int, every: int) -> list[bytes]:
        try_get, kept = self.try_get, []
        for _ in repeat(None, count // every):
            for _ in repeat(None, every):
                while True:
                    item = try_get()
                    if item is not None:
                        break
            kept.append(item)
        return kept


def remove_folder(folder: Path) -> None:
    """Delete a run's folder and everything the peers left in it."""
    shutil.rmtree(folder, ignore_errors=True)
