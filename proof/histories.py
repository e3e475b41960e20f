"""Small runs of a few processes on one queue, some of them killed: is each history linearizable (R14)?

Every history has a queue of its own, and up to 200 calls. Processes put and get, with and without waiting, on a small
ring that wraps often. They note each call in shared memory before and after it, so that the note outlives a kill. A
call without an answer is one of a process that was killed in it: it may have had its effect or not. Each message is
checked byte by byte against the one that was put. At last the queue is drained, so that nothing can be lost unseen.

The checker is `sage_qd.testing.linearizable`. So that a checker that says yes to everything cannot pass, faults are
planted into every tenth history, a doubled and an invented message, and each of them must be found.
"""

from __future__ import annotations

import json
import mmap
import os
import random
import select
import shutil
import signal
import struct
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from row import Row, arguments

from sage_qd import Empty, Full, SageQueue, SageQueueDescriptor
from sage_qd import ring as rings
from sage_qd.testing.linearizable import Answer, Call, Verb, is_linearizable

NAMESPACE = f"histories-{os.getpid()}"
SHORT, LONG = 2_000, 50_000
LIMIT_SECONDS = 120
PATIENCE_SECONDS = 20
SMALL, LARGE = 4096, 8192  # bytes of a ring: little, so that it wraps, and enough for what a bound in messages allows
PLANTED_EVERY = 10
LONGEST = 400
TORN = -2

NOTE = struct.Struct("=qqqq")  # verb and answer, value, began, ended
PUT, GET = 1, 2
CALLED, DONE, REFUSED = 10, 20, 30
ANSWERS = {CALLED: Answer.UNKNOWN, DONE: Answer.DONE, REFUSED: Answer.REFUSED}


@dataclass
class Plan:
    """One history: what is drawn before it begins."""

    seed: int
    processes: int
    calls_each: int
    maxsize: int
    victims: dict[int, int]
    """Process to kill, and in or after which of its calls."""

    @classmethod
    def drawn(cls, seed: int) -> Plan:
        """Draw everything from the seed."""
        chance = random.Random(seed)
        processes = chance.randint(3, 6)
        calls_each = 180 // processes
        victims = chance.sample(range(processes), chance.choice((0, 1, 1, 2)))
        maxsize = chance.choice((0, 1, 3, 8))
        return cls(seed, processes, calls_each, maxsize, {who: chance.randrange(1, calls_each) for who in victims})

    @property
    def capacity_bytes(self) -> int:
        """Enough for `maxsize` of the longest messages, so that it is that bound which makes the queue full."""
        return SMALL if self.maxsize < 8 else LARGE


class Notes:
    """What one process notes of its calls, in memory that outlives it."""

    def __init__(self, calls: int) -> None:
        self.memory = mmap.mmap(-1, max(calls * NOTE.size, mmap.PAGESIZE))
        self.calls = calls

    def begin(self, at: int, verb: int, value: int) -> None:
        """Note a call; the verb goes last, so that a note without one was not begun."""
        NOTE.pack_into(self.memory, at * NOTE.size, 0, value, time.monotonic_ns(), 0)
        self.memory[at * NOTE.size] = verb + CALLED

    def end(self, at: int, verb: int, answer: int, value: int) -> None:
        """Note the answer; likewise."""
        ended = time.monotonic_ns()
        struct.pack_into("=q", self.memory, at * NOTE.size + 24, ended)
        if verb == GET:  # packing clears the place first: a kill in between would make the value of a put another one
            struct.pack_into("=q", self.memory, at * NOTE.size + 8, value)
        self.memory[at * NOTE.size] = verb + answer

    def begun(self) -> int:
        """How many calls were begun."""
        return next((at for at in range(self.calls) if not self.memory[at * NOTE.size]), self.calls)

    def told(self, process: int, died: float) -> list[Call]:
        """The calls; one without an answer could have had its effect until `died`."""
        calls = []
        for at in range(self.begun()):
            word, value, began, ended = NOTE.unpack_from(self.memory, at * NOTE.size)
            answer, verb = word - word % 10, (Verb.PUT, Verb.GET)[word % 10 - PUT]
            known = value if verb is Verb.PUT or answer == DONE else None
            if answer == CALLED:
                calls.append(Call(process, verb, known, began, died, Answer.UNKNOWN))
            else:
                calls.append(
                    Call(process, verb, known, began, ended, Answer.DONE if answer == DONE else Answer.REFUSED)
                )
        return calls


def message(value: int) -> bytes:
    """The bytes that stand for a value: of many lengths, and different in every byte from those of other values."""
    length = 1 + value * 7919 % LONGEST
    return b"%08d" % value + bytes((value + at) % 251 for at in range(length))


def value_of(data: bytes) -> int:
    """The value of a message; TORN when it is not whole."""
    value = int(data[:8]) if data[:8].isdigit() else TORN
    return value if value >= 0 and message(value) == data else TORN


def work(plan: Plan, process: int, queue: SageQueue[bytes], notes: Notes) -> None:
    """Do the calls of one process."""
    chance = random.Random(f"{plan.seed}-{process}")
    for at in range(plan.calls_each):
        wait = chance.random() < 0.5
        if chance.random() < 0.5:
            value = process * 1_000 + at
            data = message(value)
            notes.begin(at, PUT, value)
            try:
                queue.put(data, wait, 0.002)
            except Full:
                notes.end(at, PUT, REFUSED, value)
            else:
                notes.end(at, PUT, DONE, value)
        else:
            notes.begin(at, GET, 0)
            try:
                data = queue.get(wait, 0.002)
            except Empty:
                notes.end(at, GET, REFUSED, 0)
            else:
                notes.end(at, GET, DONE, value_of(data))
        if chance.random() < 0.3:
            os.sched_yield()


def started(plan: Plan, process: int, queue: SageQueue[bytes], notes: Notes, gate: int) -> int:
    """Fork a process that works once the gate is open; its id."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        os.read(gate, 1)
        work(plan, process, queue, notes)
        code = 0
    finally:
        os._exit(code)


@dataclass
class Happened:
    """One history: the calls, how many processes were killed, and what went wrong besides."""

    calls: list[Call]
    killed: int
    trouble: str


def run(plan: Plan) -> Happened:
    """Let one history happen."""
    descriptor = SageQueueDescriptor(
        f"history-{plan.seed}", namespace=NAMESPACE, maxsize=plan.maxsize, capacity_bytes=plan.capacity_bytes
    )
    with descriptor.open() as queue:
        notes = [Notes(plan.calls_each) for _ in range(plan.processes)]
        gate, opened = os.pipe()
        children = [started(plan, who, queue, notes[who], gate) for who in range(plan.processes)]
        os.write(opened, bytes(plan.processes))
        pidfds = [os.pidfd_open(child) for child in children]
        killed = kill_victims(plan, notes, children, pidfds)
        deaths, trouble = reaped(children, pidfds, plan)
        for descriptor_number in (gate, opened, *pidfds):
            os.close(descriptor_number)
        told = [call for who, note in enumerate(notes) for call in note.told(who, deaths[who])]
        if not plan.maxsize:  # room ran out by bytes, of which the checker knows nothing; the call had no effect
            told = [call for call in told if not (call.verb is Verb.PUT and call.answer is Answer.REFUSED)]
        return Happened(told + drained(queue, plan.processes), killed, trouble)


def kill_victims(plan: Plan, notes: Sequence[Notes], children: Sequence[int], pidfds: Sequence[int]) -> int:
    """Kill each victim in the call of its plan, or soon after; how many were still there."""
    killed, waiting = 0, dict(plan.victims)
    while waiting:
        for who, at in list(waiting.items()):
            if select.select([pidfds[who]], [], [], 0)[0]:
                del waiting[who]  # it was done before
            elif notes[who].memory[at * NOTE.size]:
                os.kill(children[who], signal.SIGKILL)
                killed += 1
                del waiting[who]
        os.sched_yield()
    return killed


def reaped(children: Sequence[int], pidfds: Sequence[int], plan: Plan) -> tuple[list[float], str]:
    """Wait for all; when each was dead for sure, and what went wrong."""
    deaths, trouble = [], ""
    for who, (child, pidfd) in enumerate(zip(children, pidfds, strict=True)):
        if not select.select([pidfd], [], [], PATIENCE_SECONDS)[0]:
            trouble = f"process {who} hangs"
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        deaths.append(time.monotonic_ns())
        if status and not (who in plan.victims and os.WIFSIGNALED(status)):
            trouble = trouble or f"process {who} ended with status {status}"
    return deaths, trouble


def drained(queue: SageQueue[bytes], process: int) -> list[Call]:
    """Take what is left, until the queue says that it is empty."""
    calls: list[Call] = []
    while not calls or calls[-1].answer is Answer.DONE:
        began = time.monotonic_ns()
        try:
            value, answer = value_of(queue.get_nowait()), Answer.DONE
        except Empty:
            value, answer = None, Answer.REFUSED
        calls.append(Call(process, Verb.GET, value, began, time.monotonic_ns(), answer))
    return calls


def planted(history: Sequence[Call]) -> list[list[Call]]:
    """The same history with a fault: one message twice, one that nobody put."""
    got = next((call for call in history if call.verb is Verb.GET and call.answer is Answer.DONE), None)
    if got is None:
        return []
    end = max(call.ended for call in history) + 1
    return [[*history, replace(got, value=value, began=end, ended=end + 1)] for value in (got.value, 999_999)]


def main() -> int:
    """Run R14; 1 when it failed."""
    options = arguments(__doc__ or "")
    bound = f"{LONG:,}: 0 violations" if options.long else f"{SHORT:,}, or {LIMIT_SECONDS} s: 0 violations"
    row = Row.begin(options, "R14", "histories of small runs with kills: violations of linearizability", bound)
    seeds = random.Random(options.seed)
    found: Counter[str] = Counter()
    give_up = time.monotonic() + (LIMIT_SECONDS if not options.long else float("inf"))
    while found["histories"] < (LONG if options.long else SHORT) and time.monotonic() < give_up:
        judge(Plan.drawn(seeds.randrange(2**40)), found, options.out)
    folder = Path(rings.directory(), NAMESPACE)
    left = len(list(folder.iterdir())) if folder.is_dir() else 0
    shutil.rmtree(folder, ignore_errors=True)
    value = (
        f"{found['histories']:,} histories, {found['calls']:,} calls ({found['overlapping']:,} overlap another), "
        f"{found['killed']:,} kills, {found['unknown']:,} calls without an answer: {found['violations']} violations, "
        f"{found['troubles']} hangs or failures, {found['torn']} torn, {left} files left; "
        f"planted faults found {found['planted found']}/{found['planted']}"
    )
    bad = found["violations"] + found["troubles"] + found["torn"] + left
    return 0 if row.report(value, not bad and found["planted found"] == found["planted"] > 0) else 1


def judge(plan: Plan, found: Counter[str], out: Path) -> None:
    """Let one history happen, check it, and keep it when it is bad."""
    happened = run(plan)
    history = happened.calls
    good = is_linearizable(history, plan.maxsize)
    found["histories"] += 1
    found["calls"] += len(history)
    found["overlapping"] += overlapping(history)
    found["killed"] += happened.killed
    found["unknown"] += sum(call.answer is Answer.UNKNOWN for call in history)
    found["violations"] += not good
    found["troubles"] += bool(happened.trouble)
    found["torn"] += sum(call.value == TORN for call in history)
    if not good or happened.trouble:
        keep(plan, history, happened.trouble or "not linearizable", out)
    if good and found["histories"] % PLANTED_EVERY == 0:
        for wrong in planted(history):
            found["planted"] += 1
            found["planted found"] += not is_linearizable(wrong, plan.maxsize)


def overlapping(history: Sequence[Call]) -> int:
    """How many calls began before one that had begun earlier came back."""
    count, latest_end = 0, 0.0
    for call in sorted(history, key=lambda call: call.began):
        count += call.began < latest_end
        latest_end = max(latest_end, call.ended)
    return count


def keep(plan: Plan, history: Sequence[Call], why: str, out: Path) -> None:
    """Write a bad history down, and say where."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"history-{plan.seed}.json"
    calls = [
        [call.process, call.verb.value, call.value, call.began, call.ended, call.answer.value]
        for call in sorted(history, key=lambda call: call.began)
    ]
    path.write_text(json.dumps({"why": why, "maxsize": plan.maxsize, "calls": calls}, indent=1) + "\n")
    print(f"{why}: seed {plan.seed}, {plan.processes} processes, {len(calls)} calls; see {path}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
