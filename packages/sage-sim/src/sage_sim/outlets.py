"""The way out: which queues a message goes to, and what is recorded about it."""

from __future__ import annotations

from time import sleep
from typing import TYPE_CHECKING

from sage_qd import QueueNoSpaceError
from sage_sim.eventlog import Kind
from sage_sim.message import REPEATS_AT_MOST
from sage_sim.ray_queues import PerhapsPutError

if TYPE_CHECKING:
    from sage_sim.channels import Channel
    from sage_sim.message import Message
    from sage_sim.topology import Edge
    from sage_sim.worker import Work

_REST_SECONDS = 0.01


class Outlets:
    """
    All queues into which one process puts.

    Args:
        work: The process.
        ways: For each edge that leaves its role, the queues, in the order of the takers.
    """

    def __init__(self, work: Work, ways: list[list[Channel]]) -> None:
        topology = work.plan.topology
        role = topology.role(work.slot[0])
        self._deals = role.send == "deal"
        self._ways: list[_Way] = []
        self._turn, lane = work.assignment.index, 0  # so that processes do not all begin with the same one
        lines = topology.lines_from(*work.slot)
        for edge, queues, indices in zip(topology.outputs_of(role.name), ways, lines, strict=True):
            outlets = [_Outlet(work, queue, line) for queue, line in zip(queues, indices, strict=True)]
            self._ways.append(_Way(work, edge, outlets, 0 if self._deals else lane))
            lane += topology.weight(edge)

    def put(self, message: Message) -> None:
        """Send an item on: to every edge, or to one of them in turn, as the role does."""
        if self._deals:
            self._turn = (self._turn + 1) % len(self._ways)
            self._ways[self._turn].put(message)
            return
        for way in self._ways:
            way.put(message)


class _Way:
    """One edge."""

    def __init__(self, work: Work, edge: Edge, outlets: list[_Outlet], lane: int) -> None:
        self._key = work.workload.key if edge.routing == "key" and len(outlets) > 1 else None
        self._replies = edge.reply
        self._outlets = outlets
        self._turn = work.assignment.index
        self._lane = lane

    def put(self, message: Message) -> None:
        if self._replies:
            at = message.origin
        elif self._key is not None:
            at = self._key(message.origin, message.sequence) % len(self._outlets)
        else:
            at = self._turn = (self._turn + 1) % len(self._outlets)
        self._outlets[at].put(message, message.lane + self._lane)


class _Outlet:
    """One queue: numbers what goes through, and records it."""

    def __init__(self, work: Work, queue: Channel, line: int) -> None:
        self._put = queue.put
        self._line = line
        self._sender = work.assignment.number
        self._log = work.log
        self._cells = work.cells
        self._cell = work.layout.puts[*work.slot, line]
        self._refused = work.layout.refused[work.slot]
        self._hop = 0

    def put(self, message: Message, lane: int) -> None:
        """Send one message, waiting for room."""
        sent = message._replace(sender=self._sender, hop=self._hop, lane=lane)
        self._hop += 1
        operation = self._log.begin(Kind.PUT, self._line, sent)
        while True:
            try:
                self._put(tuple(sent))
                break
            except QueueNoSpaceError:  # the queue is unchanged; somebody else may make room
                self._cells[self._refused] += 1
                sleep(_REST_SECONDS)
            except PerhapsPutError:  # this one stays open in the history, and a marked one follows
                self.put(message._replace(repeats=min(message.repeats + 1, REPEATS_AT_MOST)), lane)
                return
        self._log.end(operation)
        self._cells[self._cell] += 1
