"""What changed between two looks: rates, who is blocked, and which consumer holds the others up."""

import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from sage_qd.monitor.processes import label_of, sleeps
from sage_qd.monitor.rings import KIND, SeenRing, seen_rings
from sage_qd.monitor.sources import queue_states, source_kinds
from sage_qd.monitor.states import QueueState
from sage_qd.monitor.waits import Wait, WaitGraph, graph_of

__all__ = ["SCHEMA", "Sample", "Sampler", "SlowConsumer"]

SCHEMA: Final = "sage-qd.top/1"


@dataclass(frozen=True, kw_only=True, slots=True)
class SlowConsumer:
    """
    The reader that others wait for.

    Attributes:
        pid: Its process.
        label: What the process is called.
        items_behind: Messages that wait for it.
        idle_seconds: How long nothing was taken, as far as was watched; at least the age of the oldest message.
        blocked_on: What it waits for itself; None when it is at work, or its threads cannot be seen.
        certain: Whether it was seen to read: by a role, a lease or a wait. Otherwise it is the only kind of user left.
    """

    pid: int
    label: str
    items_behind: int
    idle_seconds: float
    blocked_on: str | None
    certain: bool

    def __str__(self) -> str:
        state = (
            f"blocked {self.idle_seconds:.0f} s" if self.blocked_on else f"nothing taken for {self.idle_seconds:.0f} s"
        )
        where = f" ({self.blocked_on})" if self.blocked_on else ""
        doubt = "" if self.certain else "; seen to use the queue, not yet to read it"
        return f"reader pid {self.pid}, task {self.label}, {self.items_behind:,} items behind, {state}{where}{doubt}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """
    One queue and what it did since the last look.

    Attributes:
        state: The queue.
        seconds: Since the last look; 0 with the first.
        puts_per_second: Messages put.
        gets_per_second: Messages taken.
        bytes_per_second: Bytes put; None for kinds that hold objects.
        blocked_producers: How many producers waited for room, on average.
        blocked_consumers: How many consumers waited for messages, on average.
        slow: The consumers that hold the producers up.
    """

    state: QueueState
    seconds: float
    puts_per_second: float = 0.0
    gets_per_second: float = 0.0
    bytes_per_second: float | None = None
    blocked_producers: float = 0.0
    blocked_consumers: float = 0.0
    slow: tuple[SlowConsumer, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """The queue's JSON form with the rates."""
        rates = {
            "seconds": self.seconds,
            "puts_per_second": self.puts_per_second,
            "gets_per_second": self.gets_per_second,
            "bytes_per_second": self.bytes_per_second,
            "blocked_producers": self.blocked_producers,
            "blocked_consumers": self.blocked_consumers,
        }
        return self.state.as_dict() | {"rates": rates, "slow_consumers": [asdict(each) for each in self.slow]}


@dataclass(slots=True)
class _Memory:
    """What is known of one queue from earlier looks."""

    state: QueueState
    at: float
    gets_moved_at: float
    readers: set[int] = field(default_factory=set)
    writers: set[int] = field(default_factory=set)


class Sampler:
    """
    Looks at all queues again and again; each :meth:`look` says what changed since the one before.

    Args:
        namespace: Only queues in it; None for all.
        clock: Seconds that only grow.
    """

    def __init__(self, namespace: str | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._namespace = namespace
        self._clock = clock
        self._memory: dict[tuple[object, ...], _Memory] = {}
        self.graph: WaitGraph | None = None
        """The waits of the last look; one moment of them, so some may be missing."""

    def look(self) -> list[Sample]:
        """Return a sample of each queue there is now."""
        rings = {ring.state().key: ring for ring in seen_rings(self._namespace)}
        others = [kind for kind in source_kinds() if kind != KIND]
        states = [ring.state() for ring in rings.values()] + queue_states(self._namespace, kinds=others)
        asleep, unreadable = sleeps(user for ring in rings.values() for user in ring.users)
        self.graph = graph = graph_of(rings.values(), asleep, unreadable)
        now = self._clock()
        memory = self._memory
        self._memory = {}
        samples = []
        for state in sorted(states, key=lambda state: state.key):
            key = (*state.key, state.instance)
            known = memory.get(key)
            samples.append(self._sample(state, rings.get(state.key), known, graph.waits, key, now))
        return samples

    def _sample(
        self,
        state: QueueState,
        ring: SeenRing | None,
        known: _Memory | None,
        waits: Iterable[Wait],
        key: tuple[object, ...],
        now: float,
    ) -> Sample:
        memory = known or _Memory(state, now, now)
        before, seconds = memory.state.figures, now - memory.at
        if state.figures is None or before is None or state.figures.gets != before.gets:
            memory.gets_moved_at = now
        memory.state, memory.at = state, now
        self._memory[key] = memory
        slow = () if ring is None else tuple(_slow_consumers(ring, memory, list(waits), now))
        after = state.figures
        if before is None or after is None or seconds <= 0:
            return Sample(state=state, seconds=0.0, slow=slow)
        return Sample(
            state=state,
            seconds=seconds,
            puts_per_second=(after.puts - before.puts) / seconds,
            gets_per_second=(after.gets - before.gets) / seconds,
            bytes_per_second=None
            if after.bytes_put is None or before.bytes_put is None
            else (after.bytes_put - before.bytes_put) / seconds,
            blocked_producers=(after.put_blocked_ns - before.put_blocked_ns) / (seconds * 1e9),
            blocked_consumers=(after.get_blocked_ns - before.get_blocked_ns) / (seconds * 1e9),
            slow=slow,
        )


def _slow_consumers(ring: SeenRing, memory: _Memory, waits: list[Wait], now: float) -> list[SlowConsumer]:
    """The readers of a queue in which messages wait while producers wait for room."""
    sight = ring.sight
    if sight is None:
        return []
    memory.readers |= {each.pid for each in sight.participants if each.leases or each.slot == sight.consumer_role}
    memory.writers |= {each.pid for each in sight.participants if each.slot == sight.producer_role}
    for wait in waits:
        if wait.queue == ring.name:
            (memory.readers if wait.what.startswith("get") else memory.writers).add(wait.pid)
    stats = sight.stats
    if not stats.put_waiters or not stats.depth + stats.leased:
        return []
    using = {user.pid for user in ring.users}
    certain = memory.readers & using
    idle = max(now - memory.gets_moved_at, stats.oldest_age_ns / 1e9 if stats.gets == 0 else 0.0)
    return [
        SlowConsumer(
            pid=pid,
            label=label_of(pid),
            items_behind=stats.depth + stats.leased,
            idle_seconds=idle,
            blocked_on=next((f"{wait.what} {wait.queue}" for wait in waits if wait.pid == pid), None),
            certain=pid in certain,
        )
        for pid in sorted(certain or using - memory.writers)
    ]
