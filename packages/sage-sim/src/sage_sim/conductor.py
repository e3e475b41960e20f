"""Runs a plan: makes the queues, lets the crew work, strikes it, ends each queue when its producers are done."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from time import monotonic, monotonic_ns, sleep
from typing import Protocol

from sage_qd import SageQueue, SageQueueError
from sage_qd.ring import RingStats
from sage_sim import channels
from sage_sim.channels import Gauge
from sage_sim.crew import Crew, SetupError
from sage_sim.faults import Faults, Strike, strikes
from sage_sim.history import Process
from sage_sim.interruptions import Interruptions
from sage_sim.plan import Plan

LOOKS_PER_SECOND = 10
SETUP_SECONDS = 60.0
STALL_SECONDS = 30.0
"""A run in which nothing at all was put or taken for so long hangs."""
_FAR_SECONDS = 10.0**9
_ANSWER_SECONDS = 3.0


class Ending(Enum):
    """How a run ended."""

    COMPLETE = "complete"
    INTERRUPTED = "interrupted"
    FAILED = "a process failed"
    HUNG = "hung"


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """A moment of a run, for whoever watches."""

    seconds: float
    """Since the sources were let go."""
    gauges: dict[str, Gauge]
    """Of each queue."""
    alive: dict[str, int]
    """Processes of each role."""
    kills: dict[str, int]
    """Of each role, so far."""


class View(Protocol):
    """Who watches a run."""

    def show(self, snapshot: Snapshot) -> None:
        """Look; called about ten times a second."""


@dataclass(frozen=True, kw_only=True)
class QueueFigures:
    """What a queue counted by itself over the whole run."""

    name: str
    gauge: Gauge
    latency_ns: dict[str, int | None]
    """Put-to-take latency by quantile, of every 64th message."""
    samples: int


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a run left, before it is judged."""

    ending: Ending
    signal_number: int
    """What interrupted it; 0 when nothing did."""
    seconds: float
    processes: tuple[Process, ...]
    queues: tuple[QueueFigures, ...]
    cpu_seconds: dict[str, float]
    trouble: str
    """What failed processes said, or where hanging ones stand; empty when all went well."""
    leftovers: tuple[str, ...]
    """Segments that were still there after the end."""


QUANTILES = {"p50": 0.5, "p99": 0.99, "p999": 0.999}


class Conductor:
    """
    One run.

    Args:
        plan: What to do; the descriptors of its queues are made here.
        faults: What to break; None for nothing.
        plan_path: Where to write the plan for the crew.
        folder: Where the crew leaves logs and state.
        view: Who watches.
        time_limit: Seconds after which a run that goes on is called hung.
    """

    def __init__(
        self, plan: Plan, faults: Faults | None, *, plan_path: Path, folder: Path, view: View, time_limit: float
    ) -> None:
        self._run_id = f"run-{secrets.token_hex(6)}"
        self._plan = replace(
            plan, queues={edge.name: channels.describe(self._run_id, edge) for edge in plan.topology.edges}
        )
        self._faults = faults
        self._plan_path = plan_path
        self._folder = folder
        self._view = view
        self._time_limit = time_limit
        self._queues: dict[str, SageQueue[object]] = {}
        self._trouble = ""

    def run(self) -> Outcome:
        """
        Do it, and leave no process and no segment behind, whatever happens.

        Raises:
            SetupError: It could not begin.
        """
        channels.remove_leftovers()
        self._plan.write(self._plan_path)
        with ExitStack() as stack:
            interruptions = stack.enter_context(Interruptions())
            try:
                for name, descriptor in self._plan.queues.items():
                    self._queues[name] = stack.enter_context(channels.create(descriptor))
            except (SageQueueError, OSError) as error:
                raise SetupError(f"queue {name!r} could not be made: {error}") from error
            self._crew = Crew(self._plan, self._plan_path, self._folder)
            stack.callback(self._crew.close)
            stack.callback(self._crew.stop_all)
            ending = Ending.INTERRUPTED
            begin = monotonic()
            if self._crew.start_all(interruptions, SETUP_SECONDS):
                begin = monotonic()
                ending = self._conduct(interruptions, begin)
            seconds = monotonic() - begin
            if ending is Ending.HUNG:
                self._trouble = self._where_everyone_is()
            self._crew.stop_all()
            queues = tuple(_figures(name, queue.stats()) for name, queue in self._queues.items())
        return Outcome(
            ending=ending,
            signal_number=interruptions.first or 0,
            seconds=seconds,
            processes=tuple(self._crew.records),
            queues=queues,
            cpu_seconds=self._crew.cpu_seconds,
            trouble=self._trouble,
            leftovers=tuple(channels.segments_of(self._run_id)),
        )

    # -- The loop -----------------------------------------------------------------------------------------------------

    def _conduct(self, interruptions: Interruptions, begin: float) -> Ending:
        """Let everyone go, and follow the plan to its end."""
        duration = self._plan.duration_seconds or _FAR_SECONDS
        self._crew.go(monotonic_ns() + int(duration * 1e9))
        pending = self._plan_of_strikes()
        strike = next(pending, None)
        stall = _Stall()
        look = begin
        while True:
            now = monotonic()
            if interruptions.first is not None:
                return Ending.INTERRUPTED
            striking = strike is not None and now - begin < duration and not self._sources_finished()
            if striking and strike is not None and now - begin >= strike.after_seconds:
                self._strike(strike)
                strike = next(pending, None)
                continue
            if now >= look:
                snapshot = self._snapshot(now - begin)
                self._view.show(snapshot)
                look = now + 1 / LOOKS_PER_SECOND
                if now - begin > self._time_limit or stall.lasts(snapshot, now):
                    return Ending.HUNG
            until = min(look, begin + strike.after_seconds) if striking and strike is not None else look
            for member in self._crew.reap(self._crew.wait(until - monotonic())):
                if member.record.was_killed:
                    self._crew.respawn(member.slot)
                elif member.record.status != 0:
                    self._trouble = self._crew.last_words(member.record)
                    return Ending.FAILED
            self._end_queues()
            if not self._crew.members:
                self._view.show(self._snapshot(monotonic() - begin))
                return Ending.COMPLETE

    def _plan_of_strikes(self) -> Iterator[Strike]:
        if self._faults is None:
            return iter(())
        return strikes(self._faults, self._plan.seed, [slot.name for slot in self._crew.slots])

    def _strike(self, strike: Strike) -> None:
        """
        Kill whoever works in that slot now.

        A process that is dying already is not hit twice, and one that is still starting is spared: otherwise, where
        starting takes long, a plan with many strikes would keep the run from its end.
        """
        member = self._crew.members.get(strike.slot)
        if member is not None and member.is_ready and member.record.killed_ns is None:
            self._crew.kill(member)

    def _sources_finished(self) -> bool:
        return all(self._crew.is_finished(role.name) for role in self._plan.topology.sources)

    def _end_queues(self) -> None:
        """Shut down each queue whose producers have all come to their end: its consumers drain it and end too."""
        for edge in self._plan.topology.edges:
            queue = self._queues[edge.name]
            if self._crew.is_finished(edge.source) and not queue.stats().is_shutdown:
                queue.shutdown()

    def _snapshot(self, seconds: float) -> Snapshot:
        roles = [role.name for role in self._plan.topology.roles]
        records = self._crew.records
        return Snapshot(
            seconds=seconds,
            gauges={name: Gauge.of(queue.stats()) for name, queue in self._queues.items()},
            alive={role: sum(member.record.role == role for member in self._crew.members.values()) for role in roles},
            kills={role: sum(one.role == role and one.killed_ns is not None for one in records) for role in roles},
        )

    def _where_everyone_is(self) -> str:
        """For a run that hangs: each queue with who holds or waits for what, and each process with its stack."""
        lines = []
        for name, queue in self._queues.items():
            stats = queue.stats()
            lines.append(
                f"queue {name}: {stats.depth} queued, {stats.leased} leased, {stats.put_waiters} waiting to put, "
                f"{stats.get_waiters} waiting to take, inside put: thread {stats.put_lock_owner}, "
                f"inside take: thread {stats.get_lock_owner}"
            )
        self._crew.ask_where()
        until = monotonic() + _ANSWER_SECONDS  # who is stopped does not answer at all
        members = self._crew.members.values()
        while monotonic() < until and not all(self._crew.last_words(member.record) for member in members):
            sleep(_ANSWER_SECONDS / 50)
        for member in members:
            lines.append(f"{member.record.name}, process {member.child.pid}:")
            lines.append(self._crew.last_words(member.record).rstrip() or "no answer")
        return "\n".join(lines)


class _Stall:
    """Notices when nothing moves any more."""

    def __init__(self) -> None:
        self._before: object = None
        self._since = monotonic()

    def lasts(self, snapshot: Snapshot, now: float) -> bool:
        """Whether puts, takes and deaths have all been the same for too long."""
        moving = [(gauge.put, gauge.taken) for gauge in snapshot.gauges.values()], snapshot.kills, snapshot.alive
        if moving != self._before:
            self._before, self._since = moving, now
        return now - self._since > STALL_SECONDS


def _figures(name: str, stats: RingStats) -> QueueFigures:
    return QueueFigures(
        name=name,
        gauge=Gauge.of(stats),
        latency_ns={label: stats.latency_ns(quantile) for label, quantile in QUANTILES.items()},
        samples=stats.samples,
    )
