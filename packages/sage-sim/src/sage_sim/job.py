"""
A run as a job of the dataflow runtime: words of a text, counted by tasks that may be killed, each word exactly once.

The runtime starts and restarts its tasks itself; this kills them, looks at what the job says of itself, and compares
the result with what one process alone counts.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from random import Random
from time import monotonic
from typing import Any, cast

import psutil

from sage_qd.ring import list_segments
from sage_qd.runtime import Dispatcher, ProcessEnvironment, Result
from sage_sim.checkers import Finding, Verdict, check_leftovers, overall
from sage_sim.faults import Faults, Strike, strikes
from sage_sim.folder import RunFolder
from sage_sim.interruptions import Interruptions
from sage_sim.machine import describe_machine
from sage_sim.outcome import Ending, Gauge, Snapshot, View
from sage_sim.request import Request
from sage_sim.results import QUANTILES, ExitCode
from sage_sim.striking import Blow
from sage_sim.workloads import WordCount, WorkloadSettings
from sage_sim.workloads.words import words_of

RESTARTS_AT_MOST = 100_000
_LOOK_SECONDS = 0.1
_STEPS = ("reader", "tokeniser", "by-word", "counter")
_EDGES = (("lines", "reader", "tokeniser"), ("words", "tokeniser", "by-word"), ("keys", "by-word", "counter"))


@dataclass(frozen=True, kw_only=True)
class JobResults:
    """
    What a job showed.

    Attributes:
        fields: The form of ``results.json``.
        verdict: The worst of its checks.
        ending: How it ended.
    """

    fields: dict[str, Any]
    verdict: Verdict
    ending: Ending

    @property
    def exit_code(self) -> int:
        """As of any run."""
        return int(self.fields["exit_code"])


class JobRun:
    """
    One job, from its start to its judgement.

    Args:
        request: What was asked for; its roles are the readers, tokenisers and counters.
        folder: Where results go.
        view: Who watches.
    """

    def __init__(self, request: Request, folder: RunFolder, view: View) -> None:
        plan = request.plan()
        self._request, self._folder, self._view = request, folder, view
        self._counts = [role.count for role in plan.topology.roles]
        self._workload = WordCount(WorkloadSettings(seed=plan.seed, payload=plan.payload, text=plan.text))
        self._items = plan.items or request.scenario.items or 1
        self._blows: list[Blow] = []
        self._series: list[Snapshot] = []
        self._random = Random(f"job/{plan.seed}")

    def run(self) -> JobResults:
        """Run it, and leave no task and no queue behind."""
        machine = describe_machine()
        scenario = self._request.scenario.model_dump_json(indent=1, exclude_defaults=True)
        self._folder.scenario.write_text(scenario + "\n", encoding="utf-8")
        env = ProcessEnvironment("sage-sim", delivery="exactly_once", restarts=RESTARTS_AT_MOST)
        lines = cast(list[str], list(islice(self._workload.payloads(0, 0), self._items)))
        readers, tokenisers, counters = self._counts
        result: Result = (
            env.from_collection(lines, name="reader", parallelism=readers)
            .flatmap(_words, name="tokeniser", parallelism=tokenisers)
            .keyby(str, name="by-word")
            .count(at_end=True, name="counter", parallelism=counters)
            .collect()
        )
        begin, trouble = monotonic(), ""
        with Interruptions() as interruptions:
            dispatcher = env.submit()
            try:
                ending = self._conduct(dispatcher, begin, interruptions)
            except Exception as error:  # noqa: BLE001  (whatever ended the job is what the run tells)
                ending, trouble = Ending.FAILED, f"{type(error).__name__}: {error}"
            finally:
                dispatcher.stop()
        seconds = monotonic() - begin
        self._series.append(self._snapshot(dispatcher, seconds))
        counted = Counter(dict(result.items)) if ending is Ending.COMPLETE else None
        findings = tuple(self._findings(dispatcher, env.job, ending, counted, trouble))
        return self._judged(dispatcher, ending, trouble, seconds, findings, machine)

    def _conduct(self, dispatcher: Dispatcher, begin: float, interruptions: Interruptions) -> Ending:
        faults = self._request.faults
        pending: Iterator[Strike] = iter(()) if faults is None else strikes(faults, self._request.seed, ["task-0"])
        strike = next(pending, None)
        while not dispatcher.wait(timeout=_LOOK_SECONDS / 2):
            now = monotonic() - begin
            if interruptions.first is not None:
                return Ending.INTERRUPTED
            while strike is not None and strike.after_seconds <= now:
                self._kill(dispatcher, now)
                strike = next(pending, None)
            if not self._series or now - self._series[-1].seconds >= _LOOK_SECONDS:
                self._series.append(self._snapshot(dispatcher, now))
                self._view.show(self._series[-1])
            if now > self._request.time_limit:
                return Ending.HUNG
        return Ending.COMPLETE

    def _kill(self, dispatcher: Dispatcher, now: float) -> None:
        """Kill one of the tasks; they are children of the job's supervisor, and of nobody else."""
        try:
            tasks = psutil.Process(dispatcher.supervisor_pid).children()
            if tasks:
                victim = self._random.choice(tasks)
                victim.kill()
                self._blows.append(Blow(kind="kill", at_seconds=now, whom=f"process {victim.pid}"))
        except psutil.NoSuchProcess:
            return  # the job has just ended

    def _snapshot(self, dispatcher: Dispatcher, seconds: float) -> Snapshot:
        steps: dict[str, Counter[str]] = {step: Counter() for step in _STEPS}
        for name, figures in dispatcher.snapshot()["tasks"].items():
            step = name.rpartition("_")[0]
            if step in steps:
                steps[step].update({key: int(figures[key]) for key in ("taken", "out", "restarts")})
        return Snapshot(
            seconds=seconds,
            gauges={
                edge: Gauge(put=steps[source]["out"], taken=steps[target]["taken"], high_water=0)
                for edge, source, target in _EDGES
            },
            alive={},
            kills={step: steps[step]["restarts"] for step in _STEPS},
            blows=len(self._blows),
        )

    # -- Judgement ----------------------------------------------------------------------------------------------------

    def _findings(
        self, dispatcher: Dispatcher, job: str, ending: Ending, counted: Counter[str] | None, trouble: str
    ) -> Iterator[Finding]:
        yield self._result_finding(counted)
        if self._request.faults is not None:
            kills, restarts = len(self._blows), len(dispatcher.restarted)
            struck = Verdict.VALID if restarts else Verdict.UNKNOWN
            yield Finding(check="faults struck", verdict=struck, sentence=f"{kills:,} kill, {restarts:,} restarts")
        failed = Verdict.INVALID if ending is Ending.FAILED else Verdict.VALID
        yield Finding(check="no process failed", verdict=failed, sentence=trouble or "every task ended as it should")
        yield check_leftovers([info.path for info in list_segments() if job in info.name], _tasks_left(dispatcher))
        ended = Verdict.VALID if ending is Ending.COMPLETE else Verdict.UNKNOWN
        yield Finding(check="came to its end", verdict=ended, sentence=ending.value)

    def _result_finding(self, counted: Counter[str] | None) -> Finding:
        check = "result right"
        if counted is None:
            return Finding(
                check=check, verdict=Verdict.UNKNOWN, sentence="not compared: the job did not come to its end"
            )
        wanted = self._workload.counted_alone([self._items])
        wrong = [word for word in wanted | counted if wanted[word] != counted[word]]
        told = f"{wanted.total():,} words, {len(wanted):,} distinct, as a single process counts"
        if wrong:
            told = f"{counted.total():,} words instead of {wanted.total():,}; {len(wrong):,} words are wrong"
        return Finding(check=check, verdict=Verdict.INVALID if wrong else Verdict.VALID, sentence=told)

    def _judged(
        self,
        dispatcher: Dispatcher,
        ending: Ending,
        trouble: str,
        seconds: float,
        findings: tuple[Finding, ...],
        machine: dict[str, object],
    ) -> JobResults:
        verdict = overall(findings)
        code = {
            Ending.HUNG: ExitCode.HANG,
            Ending.INTERRUPTED: ExitCode.INTERRUPTED,
        }.get(ending) or {
            Verdict.VALID: ExitCode.PASS,
            Verdict.INVALID: ExitCode.CHECK_FAILED,
            Verdict.UNKNOWN: ExitCode.INCONCLUSIVE,
        }[verdict]
        last = self._series[-1]
        books = {edge: _books(last.gauges[edge], seconds) for edge, _, _ in _EDGES}
        counts = dict(zip(("reader", "tokeniser", "counter"), self._counts, strict=True))
        fields = {
            "version": 2,
            "verdict": verdict.value,
            "exit_code": int(code),
            "ending": ending.value,
            "command": self._request.command(),
            "folder": str(self._folder.path),
            "started": self._folder.started.isoformat(timespec="seconds"),
            "seconds": round(seconds, 3),
            "seed": self._request.seed,
            "topology": self._request.scenario.name,
            "processes": sum(self._counts) + 1,
            "queue_count": sum(name.startswith("input_") for name in dispatcher.queue_descriptors),
            "load": asdict(self._request.plan().load),
            "backlog": 0,
            "faults": _text(self._request.faults),
            "blows": [asdict(blow) for blow in self._blows],
            "puts_refused": 0,
            "machine": machine,
            "answer": {"right": verdict is Verdict.VALID, "sentence": findings[0].sentence},
            "items": books["lines"],
            "queues": [
                {"name": edge, "source": source, "target": target, "kind": "job", "spread": "shared", **books[edge]}
                for edge, source, target in _EDGES
            ],
            "roles": [
                {"name": step, "processes": counts.get(step, 1), "killed": last.kills[step], "cpu_seconds": None}
                for step in _STEPS
            ],
            "series": [
                {
                    "seconds": round(moment.seconds, 2),
                    "blows": moment.blows,
                    "queues": {name: [gauge.put, gauge.taken] for name, gauge in moment.gauges.items()},
                }
                for moment in self._series
            ],
            "findings": [{**asdict(finding), "verdict": finding.verdict.value} for finding in findings],
            "trouble": trouble,
        }
        path = Path(self._folder.path, "results.json")
        path.write_text(json.dumps(fields, indent=1) + "\n", encoding="utf-8")
        self._folder.remove_work()
        return JobResults(fields=fields, verdict=verdict, ending=ending)


def _words(line: str) -> Iterator[str]:
    """Each word of a line, as often as it stands there."""
    for word, count in words_of(line).items():
        for _ in range(count):
            yield word


def _text(faults: Faults | None) -> str | None:
    return None if faults is None else str(faults)


def _tasks_left(dispatcher: Dispatcher) -> list[str]:
    pid = dispatcher.supervisor_pid
    if pid is None or not psutil.pid_exists(pid):
        return []
    try:
        return [f"task {child.pid}" for child in psutil.Process(pid).children() if child.status() != "zombie"]
    except psutil.NoSuchProcess:
        return []


def _books(gauge: Gauge, seconds: float) -> dict[str, Any]:
    """What a job says of the way between two steps: no single packet is followed, so most is known by nobody."""
    followed = ("lost", "under_way", "duplicated", "reordered", "redelivered", "unexpected", "damaged", "maybe")
    return {
        **dict.fromkeys((*followed, "maybe_arrived")),
        "confirmed": gauge.put,
        "taken": gauge.taken,
        "seconds": round(seconds, 3),
        "items_per_second": round(gauge.taken / seconds, 1) if seconds else 0.0,
        "latency_us": dict.fromkeys(QUANTILES),
        "latency_samples": 0,
        "high_water": 0,
        "put_waited_seconds": None,
        "take_waited_seconds": None,
    }
