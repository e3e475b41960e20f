"""From what a run left to what is said about it: `results.json` as a value."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from enum import IntEnum
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from sage_sim import checkers
from sage_sim.accounts import Account, edge_accounts, item_account, merged
from sage_sim.checkers import Finding, Verdict
from sage_sim.eventlog import EXIT_NO_ROOM, read_log
from sage_sim.faults import Faults
from sage_sim.history import EdgeEnds, History, write_history
from sage_sim.outcome import Ending, Outcome
from sage_sim.plan import Plan
from sage_sim.promises import REDELIVERING
from sage_sim.workloads import WORKLOADS, Answer, Workload, WorkloadSettings

QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p999": 0.999, "max": 1.0}


class ExitCode(IntEnum):
    """What the program tells the shell."""

    PASS = 0
    CHECK_FAILED = 1
    USAGE = 2
    REGRESSION = 3
    INCONCLUSIVE = 4
    ENVIRONMENT = 5
    HANG = 6
    INTERRUPTED = 130


@dataclass(frozen=True, kw_only=True)
class Gates:
    """
    How fast a run has to be; None: as it comes.

    Attributes:
        lowest_rate: Items per second that have to come to their end.
        highest_p99_ms: Milliseconds that 99 % of the items may take, from the moment due to their end.
    """

    lowest_rate: float | None = None
    highest_p99_ms: float | None = None


@dataclass(frozen=True, kw_only=True)
class Results:
    """
    Everything that a run showed.

    Attributes:
        plan: What was done.
        faults: What was broken.
        outcome: How it went.
        queues: The books of each edge, over all its queues, by name.
        items: The books of the whole way.
        waits_ns: How long messages took in the queues of each edge, by quantile; None without a figure.
        latency_ns: How long items took from the moment they were due to their end; likewise.
        answer: Whether the work was done right.
        findings: What the checkers found.
        verdict: The worst of it.
        command: What repeats the run.
        folder: Where the history is.
        machine: What it ran on.
        started: When, in UTC.
    """

    plan: Plan
    faults: Faults | None
    outcome: Outcome
    queues: dict[str, Account]
    items: Account
    waits_ns: dict[str, dict[str, int | None]]
    latency_ns: dict[str, int | None]
    answer: Answer
    findings: tuple[Finding, ...]
    verdict: Verdict
    command: str
    folder: Path
    machine: dict[str, object]
    started: str

    @property
    def exit_code(self) -> int:
        """A run that hung, was interrupted, or had no room says so first; otherwise the verdict speaks."""
        if self.outcome.ending is Ending.HUNG:
            return ExitCode.HANG
        if self.outcome.ending is Ending.INTERRUPTED:
            return ExitCode.INTERRUPTED
        lacks_room = any(process.status == EXIT_NO_ROOM for process in self.outcome.processes)
        if self.verdict is Verdict.UNKNOWN and lacks_room:
            return ExitCode.ENVIRONMENT
        return {
            Verdict.VALID: ExitCode.PASS,
            Verdict.INVALID: ExitCode.CHECK_FAILED,
            Verdict.UNKNOWN: ExitCode.INCONCLUSIVE,
        }[self.verdict]

    @property
    def deaths(self) -> Counter[str]:
        """Planned kills that struck, by role."""
        return Counter(process.role for process in self.outcome.processes if process.was_killed)

    def as_dict(self) -> dict[str, Any]:
        """The form of ``results.json``."""
        plan, outcome = self.plan, self.outcome
        return {
            "version": 2,
            "verdict": self.verdict.value,
            "exit_code": int(self.exit_code),
            "ending": outcome.ending.value,
            "command": self.command,
            "folder": str(self.folder),
            "started": self.started,
            "seconds": round(outcome.seconds, 3),
            "seed": plan.seed,
            "topology": plan.topology.name,
            "processes": plan.topology.processes,
            "queue_count": plan.topology.queues,
            "load": asdict(plan.load),
            "backlog": outcome.backlog,
            "faults": None if self.faults is None else str(self.faults),
            "blows": [asdict(blow) for blow in outcome.blows],
            "puts_refused": outcome.refused,
            "machine": self.machine,
            "answer": asdict(self.answer),
            "items": {**_account_fields(self.items, outcome.ending), "latency_us": _microseconds(self.latency_ns)},
            "queues": [self._edge_fields(edge.name) for edge in plan.topology.edges],
            "roles": [
                {
                    "name": role.name,
                    "processes": role.count,
                    "killed": self.deaths[role.name],
                    "cpu_seconds": round(outcome.cpu_seconds[role.name], 3),
                }
                for role in plan.topology.roles
            ],
            "series": [
                {
                    "seconds": round(moment.seconds, 2),
                    "blows": moment.blows,
                    "queues": {name: [gauge.put, gauge.taken] for name, gauge in moment.gauges.items()},
                }
                for moment in outcome.series
            ],
            "findings": [{**asdict(finding), "verdict": finding.verdict.value} for finding in self.findings],
            "trouble": outcome.trouble,
        }

    def _edge_fields(self, name: str) -> dict[str, Any]:
        edge = next(edge for edge in self.plan.topology.edges if edge.name == name)
        gauge, account = self.outcome.gauges[name], self.queues[name]
        return {
            "name": name,
            "source": edge.source,
            "target": edge.target,
            "kind": edge.kind,
            "spread": edge.spread,
            **_account_fields(account, self.outcome.ending),
            "latency_us": _microseconds(self.waits_ns[name]),
            "latency_samples": len(account.waits_ns),
            "high_water": gauge.high_water,
            "put_waited_seconds": None if gauge.put_waited_ns is None else gauge.put_waited_ns / 1e9,
            "take_waited_seconds": None if gauge.get_waited_ns is None else gauge.get_waited_ns / 1e9,
        }

    def write(self, path: Path) -> None:
        """Write ``results.json``."""
        path.write_text(json.dumps(self.as_dict(), indent=1) + "\n", encoding="utf-8")


def _microseconds(waits_ns: dict[str, int | None]) -> dict[str, float | None]:
    return {label: None if wait is None else wait / 1000 for label, wait in waits_ns.items()}


def _account_fields(account: Account, ending: Ending) -> dict[str, Any]:
    """Its figures; what is missing is lost in a run that came to its end, and under way in others."""
    figures = {name: getattr(account, name) for name in _ACCOUNT_FIGURES}
    drained = ending is Ending.COMPLETE
    fate = {"lost": account.missing if drained else None, "under_way": 0 if drained else account.missing}
    return {**figures, **fate, "seconds": round(account.seconds, 3), "items_per_second": round(account.rate, 1)}


_ACCOUNT_FIGURES = (
    "confirmed",
    "taken",
    "duplicated",
    "reordered",
    "redelivered",
    "unexpected",
    "damaged",
    "maybe",
    "maybe_arrived",
)


def judge(
    plan: Plan,
    faults: Faults | None,
    outcome: Outcome,
    *,
    work: Path,
    folder: Path,
    command: str,
    machine: dict[str, object],
    started: str,
    gates: Gates | None = None,
) -> Results:
    """
    Run every checker over what the processes recorded, and write the history.

    Args:
        plan: What was done.
        faults: What was broken.
        outcome: How it went.
        work: Where the processes left logs and state.
        folder: The run folder; ``history.jsonl`` and ``results.json`` are written here.
        command: What repeats the run.
        machine: What it ran on.
        started: When, in UTC.
        gates: How fast it has to be.
    """
    history = history_of(plan, outcome, work)
    write_history(
        folder / "history.jsonl",
        history,
        [read_log(work / f"{one.number}.log", one.number) for one in outcome.processes],
    )
    books, items = edge_accounts(history), item_account(history)
    queues = {
        edge.name: merged(books[at] for at, line in enumerate(plan.topology.lines) if line.edge == number)
        for number, edge in enumerate(plan.topology.edges)
    }
    workload = _workload(plan)
    answer = _answer(plan, workload, outcome, items, work)
    latency_ns = dict(zip(QUANTILES, items.waits(*QUANTILES.values()), strict=True))
    findings = (
        *_checks(history, books, items, outcome),
        *_fault_checks(plan, history, faults, outcome),
        *([checkers.check_keys(history, workload.key)] if any(edge.keyed for edge in history.edges) else []),
        checkers.check_deaths(history),
        checkers.check_progress(items),
        checkers.check_leftovers(
            outcome.leftovers, [process.name for process in outcome.processes if process.status is None]
        ),
        *_speed_checks(items, latency_ns, gates),
        _result_finding(answer),
        _end_finding(outcome),
    )
    results = Results(
        plan=plan,
        faults=faults,
        outcome=outcome,
        queues=queues,
        items=items,
        waits_ns={
            name: dict(zip(QUANTILES, account.waits(*QUANTILES.values()), strict=True))
            for name, account in queues.items()
        },
        latency_ns=latency_ns,
        answer=answer,
        findings=findings,
        verdict=checkers.overall(findings),
        command=command,
        folder=folder,
        machine=machine,
        started=started,
    )
    results.write(folder / "results.json")
    return results


def _checks(history: History, books: list[Account], items: Account, outcome: Outcome) -> Iterator[Finding]:
    cuts = sum(blow.kind in REDELIVERING for blow in outcome.blows)
    if outcome.ending is not Ending.DAMAGED:  # whoever lost a queue lost what was in it
        yield checkers.check_loss(history, books, items)
    yield checkers.check_duplicates(history, books, items)
    yield checkers.check_order(history, books, items)
    yield checkers.check_unexpected(history, books, items)
    yield checkers.check_redeliveries(history, books, cuts)


def _fault_checks(plan: Plan, history: History, faults: Faults | None, outcome: Outcome) -> Iterator[Finding]:
    if faults is None:
        return
    asked = list(dict.fromkeys(fault.kind for fault in faults.each))
    yield checkers.check_faults(history, asked, [blow.kind for blow in outcome.blows], seconds=outcome.seconds)
    for queue in sorted({queue for blow in outcome.blows for queue in blow.ruined}):
        yield checkers.check_damage(history, queue, plan.topology.users_of([queue]))


def _speed_checks(items: Account, latency_ns: dict[str, int | None], gates: Gates | None) -> Iterator[Finding]:
    if gates is None or gates == Gates():
        return
    p99 = latency_ns["p99"]
    yield checkers.check_gates(
        items.rate,
        None if p99 is None else p99 / 1e6,
        lowest_rate=gates.lowest_rate,
        highest_p99_ms=gates.highest_p99_ms,
    )


def history_of(plan: Plan, outcome: Outcome, work: Path) -> History:
    """The history of a run, read from the logs of its processes."""
    logs = [partial(read_log, work / f"{one.number}.log", one.number) for one in outcome.processes]
    topology = plan.topology
    edges = []
    for line in topology.lines:
        edge = topology.edges[line.edge]
        edges.append(
            EdgeEnds(
                name=line.name,
                source=edge.source,
                target=edge.target,
                edge=edge.name,
                weight=topology.weight(edge),
                reply=edge.reply,
                keyed=edge.routing == "key" and line.target is not None,
            )
        )
    return History(
        edges=tuple(edges),
        processes=outcome.processes,
        read=lambda: chain.from_iterable(log() for log in logs),
        drained=outcome.ending is Ending.COMPLETE,
        arrivals=plan.arrivals(),
        from_ns=outcome.begin_ns + int(plan.warmup_seconds * 1e9) if plan.warmup_seconds else 0,
    )


def _workload(plan: Plan) -> Workload:
    return WORKLOADS[plan.workload](WorkloadSettings(seed=plan.seed, payload=plan.payload, text=plan.text))


def _answer(plan: Plan, workload: Workload, outcome: Outcome, items: Account, work: Path) -> Answer:
    """Let the workload compare its result, which needs a run that came to its end."""
    if outcome.ending is Ending.DAMAGED:
        return Answer(right=True, sentence="none, as a queue was damaged on purpose")
    if outcome.ending is not Ending.COMPLETE:
        return Answer(right=None, sentence="not compared: the run did not come to its own end")
    slots = [f"{role.name}-{index}" for role in plan.topology.sinks for index in range(role.count)]
    return workload.judge(work, slots, [items.produced.get(origin, 0) for origin in range(plan.origins)])


def _result_finding(answer: Answer) -> Finding:
    verdict = {True: Verdict.VALID, False: Verdict.INVALID, None: Verdict.UNKNOWN}[answer.right]
    return Finding(check="result right", verdict=verdict, sentence=answer.sentence)


def _end_finding(outcome: Outcome) -> Finding:
    """The stop completes: every process ended by itself once the sources were done."""
    as_planned = outcome.ending in (Ending.COMPLETE, Ending.DAMAGED)
    return Finding(
        check="came to its end",
        verdict=Verdict.VALID if as_planned else Verdict.UNKNOWN,
        sentence=f"{outcome.ending.value} after {outcome.seconds:.1f} seconds",
    )
