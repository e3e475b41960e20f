"""
One process of a run: ``python -m sage_sim.worker``, started by the conductor and by nobody else.

It says "ready" on an inherited pipe, waits on its standard input for the word to go, and works until its queue is shut
down or its share is made. It may be killed at any instruction: whatever must outlive it is in files before it is acked.
It never outlives the conductor.
"""

from __future__ import annotations

import ctypes
import faulthandler
import json
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from time import monotonic_ns
from types import FrameType
from typing import Any, cast

from sage_qd import SageQueue, ShutDown
from sage_sim.channels import open_queue, remove_leftovers
from sage_sim.eventlog import EXIT_NO_ROOM, EventLog, Kind, LogFullError
from sage_sim.message import REPEATS_AT_MOST, Message
from sage_sim.plan import Plan
from sage_sim.workloads import WORKLOADS, Sink, Workload, WorkloadSettings

EXIT_STOPPED = 143
"""Ended by the conductor's SIGTERM, or by its death."""
SECONDS_TO_LEAVE = 2
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """
    What one process has to do; its only argument, as JSON.

    Attributes:
        plan: File that says what the run does.
        folder: Where logs and state go.
        role: Name of its role.
        index: Which slot of the role.
        incarnation: How many processes the slot had before.
        number: Unique among all processes of the run.
        start: Of a source: the first item to make.
        repeats: Of a source: how often that item was begun before.
        conductor: Process id of the parent.
        ready: File descriptor on which to say that it is ready.
    """

    plan: str
    folder: str
    role: str
    index: int
    incarnation: int
    number: int
    start: int
    repeats: int
    conductor: int
    ready: int


def main() -> None:
    """Do the work of one slot."""
    assignment = Assignment(**json.loads(sys.argv[1]))
    try:
        die_with(assignment.conductor)
        work(assignment)
    except LogFullError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(EXIT_NO_ROOM)
    finally:
        if os.getppid() != assignment.conductor:  # it died, perhaps before anybody else had its queues open
            remove_leftovers()


def die_with(conductor: int) -> None:
    """
    End when the conductor does, however it does.

    On SIGTERM, which the kernel sends at its death, leave in good order, so that the last one out removes the queues. A
    process that cannot leave in time is ended by the alarm, whatever it is doing.
    """

    def leave(_signal: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.alarm(SECONDS_TO_LEAVE)
        sys.exit(EXIT_STOPPED)

    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the conductor, which then stops everybody
    faulthandler.register(signal.SIGUSR1, all_threads=True)  # "where are you?", answered on standard error
    library = ctypes.CDLL(None, use_errno=True)
    if library.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "the kernel does not tell us when the conductor dies")
    if os.getppid() != conductor:  # it died before we asked
        sys.exit(EXIT_STOPPED)


def work(assignment: Assignment) -> None:
    """Set up, wait for the word, work, and leave in good order."""
    folder = Path(assignment.folder)
    plan = Plan.read(Path(assignment.plan))
    topology = plan.topology
    workload = WORKLOADS[plan.workload](WorkloadSettings(seed=plan.seed, payload_bytes=plan.payload_bytes))
    source = topology.input_of(assignment.role)
    with ExitStack() as stack:
        log = EventLog(folder / f"{assignment.number}.log")
        stack.callback(log.close)
        outlets = [
            Outlet(
                stack.enter_context(open_queue(plan.queues[edge.name])),
                edge=topology.edges.index(edge),
                sender=assignment.number,
                log=log,
            )
            for edge in topology.outputs_of(assignment.role)
        ]
        if source is None:
            deadline_ns = wait_for_go(assignment.ready)
            origin = plan.origin_of(assignment.role, assignment.index)
            limit = plan.share(origin)
            make_items(workload, outlets, origin, assignment.start, assignment.repeats, limit, deadline_ns)
            return
        queue = stack.enter_context(open_queue(plan.queues[source.name]))
        edge = topology.edges.index(source)
        if outlets:
            wait_for_go(assignment.ready)
            pass_on(workload, queue, edge, outlets, log)
        else:
            sink = workload.sink(folder, f"{assignment.role}-{assignment.index}", assignment.incarnation)
            wait_for_go(assignment.ready)
            end_items(workload, queue, edge, sink, log)


def wait_for_go(ready: int) -> int:
    """Say that we are ready, wait for everybody, and return the moment at which sources stop."""
    os.write(ready, b"r")
    os.close(ready)
    word = sys.stdin.readline()
    if not word:
        sys.exit(EXIT_STOPPED)  # the conductor died
    return int(word)


class Outlet:
    """The way out into one queue: numbers what goes through, and records it."""

    def __init__(self, queue: SageQueue[object], *, edge: int, sender: int, log: EventLog) -> None:
        self._queue = queue
        self._edge = edge
        self._sender = sender
        self._log = log
        self._hop = 0

    def put(self, origin: int, sequence: int, repeats: int, payload: object) -> None:
        """Send one message, waiting for room."""
        message = Message(origin, sequence, repeats, self._sender, self._hop, payload)
        self._hop += 1
        operation = self._log.begin(Kind.PUT, self._edge, message)
        self._queue.put(tuple(message))
        self._log.end(operation)


def make_items(
    workload: Workload,
    outlets: Sequence[Outlet],
    origin: int,
    start: int,
    repeats: int,
    limit: int | None,
    deadline_ns: int,
) -> None:
    """
    Be a source: make items until the limit or the deadline.

    Args:
        workload: What to make.
        outlets: Where to.
        origin: Number of this source slot.
        start: The first item; those before it were made by processes of this slot that are dead.
        repeats: How often the first item was begun by them.
        limit: How many items the slot makes in all.
        deadline_ns: When to stop.
    """
    payloads = workload.payloads(origin, start)
    for sequence in count(start) if limit is None else range(start, limit):
        if monotonic_ns() >= deadline_ns and not repeats:
            break  # an item that may be out already is made certain first
        payload = next(payloads)
        for outlet in outlets:
            outlet.put(origin, sequence, repeats, payload)
        repeats = 0


def pass_on(workload: Workload, queue: SageQueue[object], edge: int, outlets: Sequence[Outlet], log: EventLog) -> None:
    """Stand in the middle: take, turn into something else, put, and only then ack."""
    while True:
        try:
            lease = queue.lease()
        except ShutDown:
            return
        message = Message._make(cast(tuple[Any, ...], lease.value))
        operation = log.begin(Kind.TAKE, edge, message, attempt=lease.attempt)
        repeats = min(message.repeats + lease.attempt, REPEATS_AT_MOST)
        payload = workload.transform(message.payload)
        for outlet in outlets:
            outlet.put(message.origin, message.sequence, repeats, payload)
        lease.ack()
        log.end(operation)


def end_items(workload: Workload, queue: SageQueue[object], edge: int, sink: Sink, log: EventLog) -> None:
    """Be a sink: take, keep in a safe place, and only then ack."""
    while True:
        try:
            lease = queue.lease()
        except ShutDown:
            break
        message = Message._make(cast(tuple[Any, ...], lease.value))
        damaged = not workload.intact(message)
        operation = log.begin(Kind.TAKE, edge, message, attempt=lease.attempt, damaged=damaged)
        sink.absorb(message, marked=message.marked or lease.attempt > 0)
        lease.ack()
        log.end(operation)
    sink.finish()


if __name__ == "__main__":
    main()
