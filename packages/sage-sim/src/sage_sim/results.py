"""From what a run left to what is said about it: `results.json` as a value."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass
from enum import IntEnum
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from sage_sim import checkers
from sage_sim.accounts import Account, edge_accounts, item_account
from sage_sim.checkers import Finding, Verdict
from sage_sim.conductor import Ending, Outcome
from sage_sim.eventlog import read_log
from sage_sim.faults import Faults
from sage_sim.history import EdgeEnds, History, write_history
from sage_sim.plan import Plan
from sage_sim.workloads import WORKLOADS, Answer, WorkloadSettings


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
class Results:
    """
    Everything that a run showed.

    Attributes:
        plan: What was done.
        faults: What was broken.
        outcome: How it went.
        queues: The books of each queue, by name.
        items: The books of the whole way.
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
    answer: Answer
    findings: tuple[Finding, ...]
    verdict: Verdict
    command: str
    folder: Path
    machine: dict[str, object]
    started: str

    @property
    def exit_code(self) -> int:
        """A run that hung or was interrupted says so first; otherwise the verdict speaks."""
        if self.outcome.ending is Ending.HUNG:
            return ExitCode.HANG
        if self.outcome.ending is Ending.INTERRUPTED:
            return ExitCode.INTERRUPTED
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
        return {
            "version": 1,
            "verdict": self.verdict.value,
            "exit_code": int(self.exit_code),
            "ending": self.outcome.ending.value,
            "command": self.command,
            "folder": str(self.folder),
            "started": self.started,
            "seconds": round(self.outcome.seconds, 3),
            "seed": self.plan.seed,
            "faults": None if self.faults is None else str(self.faults),
            "machine": self.machine,
            "answer": asdict(self.answer),
            "items": _account_fields(self.items, self.outcome.ending),
            "queues": [
                {
                    "name": figures.name,
                    **_account_fields(self.queues[figures.name], self.outcome.ending),
                    "latency_us": {
                        label: None if latency is None else latency / 1000
                        for label, latency in figures.latency_ns.items()
                    },
                    "latency_samples": figures.samples,
                    "high_water": figures.gauge.high_water,
                    "put_waited_seconds": figures.gauge.put_waited_ns / 1e9,
                    "take_waited_seconds": figures.gauge.get_waited_ns / 1e9,
                }
                for figures in self.outcome.queues
            ],
            "roles": [
                {
                    "name": role.name,
                    "processes": role.count,
                    "killed": self.deaths[role.name],
                    "cpu_seconds": round(self.outcome.cpu_seconds[role.name], 3),
                }
                for role in self.plan.topology.roles
            ],
            "findings": [{**asdict(finding), "verdict": finding.verdict.value} for finding in self.findings],
            "trouble": self.outcome.trouble,
        }

    def write(self, path: Path) -> None:
        """Write ``results.json``."""
        path.write_text(json.dumps(self.as_dict(), indent=1) + "\n", encoding="utf-8")


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
    """
    history = history_of(plan, outcome, work)
    write_history(
        folder / "history.jsonl",
        history,
        [read_log(work / f"{one.number}.log", one.number) for one in outcome.processes],
    )
    books, items = edge_accounts(history), item_account(history)
    answer = _answer(plan, outcome, history, items, work)
    findings = (
        checkers.check_loss(history, books, items),
        checkers.check_duplicates(history, books, items),
        checkers.check_order(history, books, items),
        checkers.check_unexpected(history, books, items),
        checkers.check_redeliveries(history, books),
        checkers.check_deaths(history),
        *([checkers.check_faults(history)] if faults is not None else []),
        checkers.check_progress(items),
        checkers.check_leftovers(
            outcome.leftovers, [process.name for process in outcome.processes if process.status is None]
        ),
        _result_finding(answer),
        _end_finding(outcome),
    )
    results = Results(
        plan=plan,
        faults=faults,
        outcome=outcome,
        queues={edge.name: account for edge, account in zip(plan.topology.edges, books, strict=True)},
        items=items,
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


def history_of(plan: Plan, outcome: Outcome, work: Path) -> History:
    """The history of a run, read from the logs of its processes."""
    logs = [partial(read_log, work / f"{one.number}.log", one.number) for one in outcome.processes]
    return History(
        edges=tuple(EdgeEnds(name=edge.name, source=edge.source, target=edge.target) for edge in plan.topology.edges),
        processes=outcome.processes,
        read=lambda: chain.from_iterable(log() for log in logs),
        drained=outcome.ending is Ending.COMPLETE,
    )


def _answer(plan: Plan, outcome: Outcome, history: History, items: Account, work: Path) -> Answer:
    """Let the workload compare its result, which needs a run that came to its end."""
    if outcome.ending is not Ending.COMPLETE:
        return Answer(right=None, sentence="not compared: the run did not come to its own end")
    workload = WORKLOADS[plan.workload](WorkloadSettings(seed=plan.seed, payload_bytes=plan.payload_bytes))
    slots = [f"{role.name}-{index}" for role in plan.topology.sinks for index in range(role.count)]
    return workload.judge(work, slots, [items.produced.get(origin, 0) for origin in range(plan.origins)])


def _result_finding(answer: Answer) -> Finding:
    verdict = {True: Verdict.VALID, False: Verdict.INVALID, None: Verdict.UNKNOWN}[answer.right]
    return Finding(check="result right", verdict=verdict, sentence=answer.sentence)


def _end_finding(outcome: Outcome) -> Finding:
    """The stop completes: every process ended by itself once the sources were done."""
    return Finding(
        check="came to its end",
        verdict=Verdict.VALID if outcome.ending is Ending.COMPLETE else Verdict.UNKNOWN,
        sentence=f"{outcome.ending.value} after {outcome.seconds:.1f} seconds",
    )
