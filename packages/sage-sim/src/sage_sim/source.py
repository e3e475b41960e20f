"""A process that makes items: when the load says so, and no more than may be under way."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import count, islice
from time import monotonic_ns, sleep
from typing import TYPE_CHECKING

from sage_qd import Empty, ShutDown
from sage_sim.foreign import FOREIGN
from sage_sim.lifeline import ALL_SENT
from sage_sim.load import moments
from sage_sim.message import Message

if TYPE_CHECKING:
    from sage_sim.worker import Work

_REST_SECONDS = 0.0002
_LONGEST_REST_SECONDS = 0.005
_LOOK_SECONDS = 0.5
"""Whoever waits for something else than its queues looks that often whether one of them is gone."""


class Source:
    """
    What a source does, with or without replies that come back to it.

    Args:
        work: The process.
    """

    def __init__(self, work: Work) -> None:
        plan, assignment = work.plan, work.assignment
        self._work = work
        self._load = plan.load
        self._origin = plan.origin_of(*work.slot)
        self._limit = plan.share(self._origin)
        self._start, self._repeats = assignment.start, assignment.repeats
        self._sink = None if work.inlets is None else work.sink()
        self._asked: set[int] = set()
        outputs = plan.topology.outputs_of(work.slot[0])
        self._has_foreign_ways = any(edge.kind in FOREIGN for edge in outputs)
        """Where a put returns before its message is in the queue, nothing but its reply says that it arrived."""
        self._ends = [cells[self._origin] for cells in work.layout.ends.values()]

    def make_items(self, begin_ns: int, deadline_ns: int) -> None:
        """
        Make items until the share is made or the time is over; then take the replies that are still to come.

        Args:
            begin_ns: When the sources of the run were let go.
            deadline_ns: When to stop.
        """
        payloads = self._work.workload.payloads(self._origin, self._start)
        planned = self._planned(begin_ns)
        for sequence in count(self._start) if self._limit is None else range(self._start, self._limit):
            due_ns = next(planned)
            if (due_ns or monotonic_ns()) >= deadline_ns and not self._repeats:
                break  # an item that may be out already is made certain first
            if not self._waited(sequence, due_ns, deadline_ns):
                break
            message = Message(
                self._origin, sequence, self._repeats, 0, 0, next(payloads), due_ns=due_ns or monotonic_ns()
            )
            if self._sink is not None:
                self._asked.add(sequence)
            self._work.outlets.put(message)
            self._repeats = 0
        if self._sink is None:
            return
        while self._asked and self._has_foreign_ways:
            self._take_reply(None)
        os.write(self._work.assignment.ready, ALL_SENT)
        self._work.end_items(self._sink)

    def _planned(self, begin_ns: int) -> Iterator[int]:
        """When each item is due, from the first one of this process on; 0: whenever we come to it."""
        if self._load.mode != "open":
            return iter(int, 1)
        work = self._work
        every = moments(self._load, seed=work.plan.seed, origin=self._origin, origins=work.plan.origins)
        return (begin_ns + int(moment * 1e9) for moment in islice(every, self._start, None))

    def _waited(self, sequence: int, due_ns: int, deadline_ns: int) -> bool:
        """
        Wait until the item is due and there is room for it in the window; False when the time is over.

        When a queue is gone for good it ends after one look: only who uses a queue can notice, and who put all at once
        might be done before anybody could.
        """
        is_ruined = False
        while not is_ruined and (left := due_ns - monotonic_ns()) > 0:
            if self._sink is None:
                sleep(min(left / 1e9, _LOOK_SECONDS))
            else:
                self._take_reply(min(left / 1e9, _LOOK_SECONDS))
            is_ruined = self._is_ruined()
        if self._sink is not None:
            while not is_ruined and self._load.mode != "open" and len(self._asked) >= self._load.window:
                self._take_reply(_LOOK_SECONDS)
                is_ruined = self._is_ruined()
            return True
        rest = _REST_SECONDS
        while not is_ruined and self._load.mode == "closed" and sequence - self._ended() >= self._load.window:
            if monotonic_ns() >= deadline_ns and not self._repeats:
                return False
            is_ruined = self._is_ruined()
            sleep(_LONGEST_REST_SECONDS if is_ruined else rest)
            rest = min(rest * 2, _LONGEST_REST_SECONDS)
        return True

    def _is_ruined(self) -> bool:
        return self._work.cells[self._work.layout.ruined] > 0

    def _ended(self) -> int:
        """How many items of this source came to their end."""
        cells = self._work.cells
        return sum(cells[cell] for cell in self._ends)

    def _take_reply(self, timeout: float | None) -> None:
        assert self._work.inlets is not None
        assert self._sink is not None
        try:
            line, lease = self._work.inlets.take(timeout)
        except Empty:
            return
        except ShutDown:
            raise RuntimeError("the replies ended before the requests") from None
        self._asked.discard(self._work.end_item(self._sink, line, lease).sequence)
