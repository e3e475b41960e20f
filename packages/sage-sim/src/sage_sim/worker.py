"""
One process of a run, which begins in the nursery.

It says "ready" on an inherited pipe, waits on its standard input for the word to go, and works until its queues are
shut down or its share is made. It may be killed at any instruction: whatever must outlive it is in files before it is
acked. It never outlives the conductor.
"""

from __future__ import annotations

import base64
import errno
import os
import sys
import traceback
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from time import sleep
from typing import Any, cast

from sage_qd import CorruptQueueError, QueueLostError, SageQueueError, ShutDown
from sage_sim import inside, ray_cluster
from sage_sim.channels import Channel, Taken, open_queue, remove_leftovers
from sage_sim.eventlog import EXIT_DAMAGED, EXIT_NO_ROOM, EXIT_STARVED, EventLog, Kind, LogFullError
from sage_sim.foreign import ForeignQueue, unpacked
from sage_sim.inlets import Inlets
from sage_sim.lifeline import die_with, wait_for_go
from sage_sim.message import REPEATS_AT_MOST, Message
from sage_sim.meters import Layout, Meters
from sage_sim.outlets import Outlets
from sage_sim.plan import Plan
from sage_sim.promises import needs_cluster
from sage_sim.ray_queues import PerhapsAckedError
from sage_sim.source import Source
from sage_sim.workloads import WORKLOADS, Sink, Workload, WorkloadSettings


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """
    What one process has to do.

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
        ready: File descriptor on which to say that it is ready, and that everything is sent.
        carried: Queues of other kinds that came along, packed.
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
    carried: str = ""


@cache
def loaded(path: str) -> tuple[Plan, Layout]:
    """The plan of the run in that file, and the layout of its meters; the nursery reads them once for everybody."""
    plan = Plan.read(Path(path))
    assert plan.topology.lines  # worked out here, for the same reason
    return plan, Layout(plan.topology)


def main(assignment: Assignment) -> None:
    """Do the work of one slot."""
    try:
        die_with(assignment.conductor)
        Work(assignment).run()
    except LogFullError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(EXIT_NO_ROOM)
    except (CorruptQueueError, QueueLostError) as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(EXIT_DAMAGED)
    except (MemoryError, OSError) as error:
        traceback.print_exception(error)
        is_full = getattr(error, "errno", 0) == errno.ENOSPC and not isinstance(error, SageQueueError)
        sys.exit(EXIT_NO_ROOM if is_full else EXIT_STARVED)
    finally:
        if os.getppid() != assignment.conductor:  # it died, perhaps before anybody else had its queues open
            remove_leftovers()


class Work:
    """What one process does from its start to its end."""

    def __init__(self, assignment: Assignment) -> None:
        self.assignment = assignment
        self.plan, self.layout = loaded(assignment.plan)
        plan = self.plan
        self.folder = Path(assignment.folder)
        self.slot = (assignment.role, assignment.index)
        self.workload: Workload = WORKLOADS[plan.workload](
            WorkloadSettings(seed=plan.seed, payload=plan.payload, text=plan.text)
        )
        self._carried: dict[str, ForeignQueue] = {}
        self._opened: dict[int, Channel] = {}

    def run(self) -> None:
        """Set up, wait for the word, work, and leave in good order."""
        assignment, topology = self.assignment, self.plan.topology
        if assignment.carried:
            self._carried = unpacked(base64.b64decode(assignment.carried))
        with ExitStack() as stack:
            self.log = EventLog(self.folder / f"{assignment.number}.log")
            stack.callback(self.log.close)
            meters = Meters(self.folder / "meters")
            stack.callback(meters.close)
            self.cells = meters.cells
            inside.obey(self.cells, self.layout.orders[self.slot])
            stack.callback(inside.disobey)
            if self._uses_ray():
                ray_cluster.join()
                stack.callback(ray_cluster.leave)
            self.outlets = Outlets(self, [[self._open(at, stack) for at in way] for way in self._ways()])
            lines = topology.lines_into(*self.slot)
            self.inlets = Inlets({at: self._open(at, stack) for at in lines}) if lines else None
            if topology.is_source(assignment.role):
                source = Source(self)
                begin_ns, deadline_ns = wait_for_go(assignment.ready)
                source.make_items(begin_ns, deadline_ns)
            elif topology.outputs_of(assignment.role):
                wait_for_go(assignment.ready)
                self.pass_on()
            else:
                sink = self.sink()
                wait_for_go(assignment.ready)
                self.end_items(sink)

    def _uses_ray(self) -> bool:
        edges = self.plan.topology.edges
        return any(needs_cluster(edge) and self.slot[0] in (edge.source, edge.target) for edge in edges)

    def _ways(self) -> list[list[int]]:
        return self.plan.topology.lines_from(*self.slot)

    def _open(self, line: int, stack: ExitStack) -> Channel:
        if line not in self._opened:
            named, edge = self.plan.topology.lines[line], self.plan.topology.edges[self.plan.topology.lines[line].edge]
            self._opened[line] = opened = open_queue(self.plan.queues[named.name], edge, self._carried)
            stack.callback(opened.close)
        return self._opened[line]

    def channel(self, line: int) -> Channel:
        """The queue of that index, which is open here."""
        return self._opened[line]

    def sink(self) -> Sink:
        """The state of this slot, where items end in it."""
        role, index = self.slot
        return self.workload.sink(self.folder, f"{role}-{index}", self.assignment.incarnation)

    def pass_on(self) -> None:
        """Stand in the middle: take, turn into something else, put, and only then ack."""
        assert self.inlets is not None
        transform, put = self.workload.transform, self.outlets.put
        while True:
            try:
                line, lease = self.inlets.take()
            except ShutDown:
                return
            message = Message._make(cast(tuple[Any, ...], lease.value))
            operation = self.log.begin(Kind.TAKE, line, message, attempt=lease.attempt)
            self.dawdle()
            repeats = min(message.repeats + lease.attempt, REPEATS_AT_MOST)
            put(message._replace(repeats=repeats, payload=transform(message.payload)))
            self.settle(line, lease, operation)

    def end_items(self, sink: Sink) -> None:
        """Be a sink: take, keep in a safe place, and only then ack."""
        assert self.inlets is not None
        while True:
            try:
                line, lease = self.inlets.take()
            except ShutDown:
                break
            self.end_item(sink, line, lease)
        sink.finish()

    def end_item(self, sink: Sink, line: int, lease: Taken) -> Message:
        """Keep one item in a safe place, and ack it."""
        message = Message._make(cast(tuple[Any, ...], lease.value))
        damaged = not self.workload.intact(message)
        operation = self.log.begin(Kind.TAKE, line, message, attempt=lease.attempt, damaged=damaged)
        self.dawdle()
        sink.absorb(message, marked=message.marked or lease.attempt > 0)
        if message.lane == 0:
            self.cells[self.layout.ends[self.slot][message.origin]] += 1
        self.settle(line, lease, operation)
        return message

    def dawdle(self) -> None:
        """Take our time with the message in hand, if we are told to."""
        delay_us = self.cells[self.layout.delays[self.slot]]
        if delay_us:
            sleep(delay_us / 1e6)

    def settle(self, line: int, lease: Taken, operation: int) -> None:
        """Ack what was worked off."""
        self.log.settle(operation)
        try:
            lease.ack()
        except PerhapsAckedError:
            return  # this one stays open in the history
        self.log.end(operation)
        self.cells[self.layout.takes[*self.slot, line]] += 1
