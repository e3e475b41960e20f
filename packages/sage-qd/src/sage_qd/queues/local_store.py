"""What a queue between threads holds, under one lock; :mod:`sage_qd.queues.local` is the queue on it."""

import threading
import uuid
from bisect import insort
from collections import deque
from dataclasses import dataclass, field
from math import inf
from time import monotonic_ns
from typing import Any, Final
from weakref import WeakSet

from sage_qd.queues.base import Queue, QueueFigures
from sage_qd.queues.waiting import wait_until

__all__ = ["SLICE_SECONDS", "Held", "Store"]

# While messages are out on lease, waiting consumers look again this often: a lease that the garbage collector drops
# gives its message back without being allowed to take the lock.
SLICE_SECONDS: Final = 0.05


@dataclass(order=True, slots=True)
class Held:
    """A message that was leased: its place in the order, how often it came back, and who holds it."""

    place: int
    attempt: int = field(compare=False)
    message: Any = field(compare=False)
    among: dict[int, Any] = field(compare=False)
    """What the handle that leased it holds, by place; it is in there until settled."""

    @property
    def settled(self) -> bool:
        """Whether this lease is over."""
        return self.place not in self.among


class Store:
    """
    What the handles of one queue share. Everything is read and written under ``mutex``, except ``dropped_leases``.

    ``returned`` holds messages that came back from a lease, oldest first; each is older than everything in
    ``messages``, because leases take from the front. ``taken`` counts what ever left ``messages``, and so numbers the
    places. ``ended`` says that the queue was shut down or moved: a put has to look more closely then.
    """

    def __init__(self, name: str | None, maxsize: int) -> None:
        self.name = name
        self.instance = uuid.uuid4().hex
        self.maxsize = maxsize
        self.mutex = threading.Lock()
        self.not_empty = threading.Condition(self.mutex)
        self.not_full = threading.Condition(self.mutex)
        self.all_done = threading.Condition(self.mutex)
        self.messages: deque[Any] = deque()
        self.returned: list[Held] = []
        self.dropped_leases: deque[Held] = deque()
        self.taken = 0
        self.leased = 0
        self.unfinished = 0
        self.puts = 0
        self.gets = 0
        self.high_water = 0
        self.redeliveries = 0
        self.dropped = 0
        self.waiting_producers = 0
        self.waiting_consumers = 0
        self.put_blocked_ns = 0
        self.get_blocked_ns = 0
        self.ended = False
        self.shut = False
        self.shut_immediately = False
        self.moved_to: Queue[Any] | None = None
        self.successor: str | None = None
        self.handles: WeakSet[Any] = WeakSet()

    def collect(self) -> None:
        """Take back what dropped leases left."""
        while self.dropped_leases:
            held = self.dropped_leases.popleft()
            if not held.settled:
                self.give_back(held)

    def give_back(self, held: Held) -> None:
        """Put a leased message before everything younger, or drop it when the queue ended at once meanwhile."""
        del held.among[held.place]
        self.leased -= 1
        self.redeliveries += 1
        if self.shut_immediately:
            self.finish(1)
            self.dropped += 1
            self.gets += 1
            return
        insort(self.returned, Held(held.place, held.attempt + 1, held.message, {}))
        self.not_empty.notify()

    def finish(self, count: int) -> None:
        """Count tasks as worked off."""
        self.unfinished = max(self.unfinished - count, 0)
        if not self.unfinished:
            self.all_done.notify_all()

    def depth(self) -> int:
        """Messages that could be taken now."""
        return len(self.messages) + len(self.returned)

    def has_room(self) -> bool:
        """Whether one more may be put; what is out on lease counts, so that it can always come back."""
        return not self.maxsize or self.depth() + self.leased < self.maxsize

    def append(self, message: Any) -> None:
        """Put a message; the caller has made sure of room."""
        self.messages.append(message)
        self.puts += 1
        self.unfinished += 1
        held = len(self.messages) + len(self.returned) + self.leased
        if held > self.high_water:
            self.high_water = held
        if self.waiting_consumers:
            self.not_empty.notify()

    def pop(self, among: dict[int, Any]) -> Held:
        """Take the oldest message that nobody holds, on lease."""
        if self.returned:
            held = self.returned.pop(0)
            held.among = among
        else:
            message = self.messages.popleft()
            self.taken += 1
            held = Held(self.taken, 0, message, among)
        among[held.place] = held
        self.leased += 1
        return held

    def pop_message(self) -> Any:
        """As :meth:`pop`, for a get, which frees its room at once."""
        if self.returned:
            message = self.returned.pop(0).message
        else:
            message = self.messages.popleft()
            self.taken += 1
        self.gets += 1
        if self.waiting_producers:
            self.not_full.notify()
        return message

    def wait_for_room(self, deadline: float) -> bool:
        """Wait once; False when the deadline had passed."""
        self.waiting_producers += 1
        start = monotonic_ns()
        try:
            return wait_until(self.not_full, deadline)
        finally:
            self.waiting_producers -= 1
            self.put_blocked_ns += monotonic_ns() - start

    def wait_for_message(self, deadline: float) -> bool:
        """Wait once, for a slice only while a dropped lease may give its message back; False as above."""
        self.waiting_consumers += 1
        start = monotonic_ns()
        try:
            return wait_until(self.not_empty, deadline, SLICE_SECONDS if self.leased else inf)
        finally:
            self.waiting_consumers -= 1
            self.get_blocked_ns += monotonic_ns() - start

    def figures(self) -> QueueFigures:
        """The counters, as one value. A store notes no times of its messages, so it knows no ages."""
        return QueueFigures(
            puts=self.puts,
            gets=self.gets,
            depth=self.depth(),
            leased=self.leased,
            high_water=self.high_water,
            redeliveries=self.redeliveries,
            dropped=self.dropped,
            put_blocked_ns=self.put_blocked_ns,
            get_blocked_ns=self.get_blocked_ns,
            put_waiters=self.waiting_producers,
            get_waiters=self.waiting_consumers,
            oldest_age_ns=0,
            is_shutdown=self.shut,
        )

    def drop_all(self) -> int:
        """Drop what nobody holds, and return how many."""
        count = self.depth()
        self.messages.clear()
        self.returned.clear()
        self.taken += count
        self.dropped += count
        self.gets += count
        if count:
            self.finish(count)
            self.not_full.notify_all()
        return count

    def notify_everybody(self) -> None:
        """Let everybody who waits look again."""
        for condition in (self.not_empty, self.not_full, self.all_done):
            condition.notify_all()
