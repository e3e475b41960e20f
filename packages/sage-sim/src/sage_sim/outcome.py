"""What a run left, before it is judged, and what can be seen of it while it goes on."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from sage_sim.history import Process
from sage_sim.striking import Blow


class Ending(Enum):
    """How a run ended."""

    COMPLETE = "complete"
    INTERRUPTED = "interrupted"
    FAILED = "a process failed"
    HUNG = "hung"
    DAMAGED = "stopped by damage that was done to a queue"


@dataclass(frozen=True, kw_only=True)
class Gauge:
    """
    What is known of the queues of one edge at one moment.

    Attributes:
        put: Messages put.
        taken: Messages settled by those who took them.
        high_water: Most of them that were seen between put and settled at once.
        put_waited_ns: How long producers waited for room, over all of them; None where the kind does not say.
        get_waited_ns: How long consumers waited for messages; likewise.
    """

    put: int
    taken: int
    high_water: int
    put_waited_ns: int | None = None
    get_waited_ns: int | None = None

    @property
    def depth(self) -> int:
        """Put, and not settled yet."""
        return max(self.put - self.taken, 0)


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """
    A moment of a run, for whoever watches.

    Attributes:
        seconds: Since the sources were let go.
        gauges: Of each edge.
        alive: Processes of each role.
        kills: Of each role, so far.
        blows: Faults so far, kills among them.
    """

    seconds: float
    gauges: dict[str, Gauge]
    alive: dict[str, int]
    kills: dict[str, int]
    blows: int = 0


class View(Protocol):
    """Who watches a run."""

    def show(self, snapshot: Snapshot) -> None:
        """Look; called about ten times a second."""

    def say(self, text: str) -> None:
        """Hear what is done now."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """
    What a run left, before it is judged.

    Attributes:
        ending: How it ended.
        signal_number: What interrupted it; 0 when nothing did.
        seconds: From the moment the sources were let go.
        begin_ns: That moment, on the monotonic clock.
        backlog: Messages that were there when the others were let go, of a load that begins with a backlog.
        processes: Everyone who took part.
        gauges: Of each edge, at the end.
        series: Of the whole run, evenly thinned.
        cpu_seconds: Of each role.
        blows: Faults that struck.
        refused: Puts that were refused for lack of room, and repeated.
        trouble: What failed processes said, or where hanging ones stand; empty when all went well.
        leftovers: Segments, descriptors and threads that were still there after the end.
    """

    ending: Ending
    signal_number: int
    seconds: float
    begin_ns: int
    backlog: int
    processes: tuple[Process, ...]
    gauges: dict[str, Gauge]
    series: tuple[Snapshot, ...]
    cpu_seconds: dict[str, float]
    blows: tuple[Blow, ...]
    refused: int
    trouble: str
    leftovers: tuple[str, ...]
