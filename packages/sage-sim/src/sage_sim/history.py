"""
The history of a run: which processes there were, and every operation of each of them.

On disk it is one JSON object a line, in the order of time: an ``edge`` line for each queue, then ``start``, ``put``,
``take``, ``ready``, ``kill`` and ``exit`` lines. Reading a file gives the same history that writing it was given.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from sage_sim.eventlog import DAMAGED, REPEATED, Kind, Operation


@dataclass(frozen=True, kw_only=True)
class Process:
    """
    One process of a run.

    Attributes:
        number: Unique in the run; a respawned process has a new one.
        name: Slot and incarnation, as in ``reader-0.2``.
        role: Its role.
        start_ns: When it was started, on the monotonic clock.
        ready_ns: When it had set up everything and could begin to work; None when it did not come so far.
        exit_ns: When its end was noticed; None when it was still there at the end of the run.
        status: Exit code, or minus the signal that ended it; None as above.
        killed_ns: When the run killed it on purpose; None when it did not.
        stopped: Whether it was told to end before its work was done.
        excused: Exit code with which it may end because of a fault that struck it; None when there is none.
    """

    number: int
    name: str
    role: str
    start_ns: int
    ready_ns: int | None = None
    exit_ns: int | None = None
    status: int | None = None
    killed_ns: int | None = None
    stopped: bool = False
    excused: int | None = None

    @property
    def was_killed(self) -> bool:
        """Whether it died of a planned kill, rather than ending in the moment before it."""
        return self.killed_ns is not None and self.status == -9

    @property
    def has_failed(self) -> bool:
        """Whether it ended otherwise than by itself with success, because of a planned fault, or on demand."""
        return self.status not in (0, None, self.excused) and not self.was_killed and not self.stopped

    @property
    def is_casualty(self) -> bool:
        """Whether it ended because of a planned fault, so that another one has to take its place."""
        return self.was_killed or (self.status is not None and self.status == self.excused)


@dataclass(frozen=True, kw_only=True)
class EdgeEnds:
    """
    One queue, with the roles at its ends.

    Attributes:
        name: Of the queue.
        source: Role that puts.
        target: Role that takes.
        edge: The edge that it belongs to; empty when it is the only queue of an edge of the same name.
        weight: How often an item that goes through it comes to an end.
        reply: Whether it leads back to the source of the item, which ends there.
        keyed: Whether the key of an item decides who takes it.
    """

    name: str
    source: str
    target: str
    edge: str = ""
    weight: int = 1
    reply: bool = False
    keyed: bool = False


@dataclass(frozen=True, kw_only=True)
class History:
    """
    What the checkers judge.

    Attributes:
        edges: The queues; an operation refers to them by index.
        processes: Everyone who took part.
        read: Gives all operations, anew each time; those of one process in the order in which they began.
        drained: Whether the run came to its own end, with nothing left under way.
        arrivals: For each origin, how often each of its items comes to an end; 1 for those not named.
        from_ns: Where figures of speed begin: what was due before is warm-up.
    """

    edges: tuple[EdgeEnds, ...]
    processes: tuple[Process, ...]
    read: Callable[[], Iterable[Operation]]
    drained: bool = True
    arrivals: tuple[int, ...] = ()
    from_ns: int = 0

    @classmethod
    def of(
        cls,
        edges: Sequence[EdgeEnds],
        processes: Sequence[Process],
        operations: Sequence[Operation],
        *,
        drained: bool = True,
        arrivals: Sequence[int] = (),
        from_ns: int = 0,
    ) -> History:
        """Make one from operations in memory."""
        return cls(
            edges=tuple(edges),
            processes=tuple(processes),
            read=lambda: operations,
            drained=drained,
            arrivals=tuple(arrivals),
            from_ns=from_ns,
        )

    @property
    def source_roles(self) -> frozenset[str]:
        """The roles that make items."""
        fed = frozenset(edge.target for edge in self.edges if not edge.reply)
        return frozenset(edge.source for edge in self.edges) - fed

    @property
    def sink_roles(self) -> frozenset[str]:
        """The roles where items end, if they do not end as replies."""
        return frozenset(edge.target for edge in self.edges) - frozenset(edge.source for edge in self.edges)

    @property
    def entries(self) -> frozenset[int]:
        """The queues into which items come from their sources."""
        sources = self.source_roles
        return frozenset(at for at, edge in enumerate(self.edges) if edge.source in sources)

    @property
    def exits(self) -> frozenset[int]:
        """The queues at whose end items end."""
        sinks = self.sink_roles
        return frozenset(at for at, edge in enumerate(self.edges) if edge.reply or edge.target in sinks)

    def arrivals_of(self, origin: int) -> int:
        """How often each item of an origin comes to an end."""
        return self.arrivals[origin] if origin < len(self.arrivals) else 1


def write_history(path: Path, history: History, logs: Iterable[Iterable[Operation]]) -> int:
    """
    Write a history as JSON lines, in the order of time.

    Args:
        path: A new file.
        history: The edges and processes.
        logs: The operations, one iterable for each process, each in its own order.

    Returns:
        How many operations were written.
    """
    names = {process.number: process.name for process in history.processes}
    edges = [edge.name for edge in history.edges]
    changes = sorted(_changes(history.processes))
    lines = (_timed_lines(log, names, edges) for log in logs)
    count = -len(changes)
    with path.open("x", encoding="utf-8") as file:
        head = {"arrivals": history.arrivals, "from_ns": history.from_ns}
        file.write(json.dumps({"event": "history", "drained": history.drained, **head}) + "\n")
        for edge in history.edges:
            fields = asdict(edge)
            file.write(
                json.dumps({"event": "edge", "edge": fields.pop("name"), "of": fields.pop("edge"), **fields}) + "\n"
            )
        for _, line in heapq.merge(changes, *lines):
            file.write(line)
            count += 1
    return count


def _timed_lines(log: Iterable[Operation], names: dict[int, str], edges: list[str]) -> Iterator[tuple[int, str]]:
    """One line for each operation; formatted by hand, as there may be millions, and nothing in it needs quoting."""
    events = {kind.value: kind.name.lower() for kind in Kind}
    for begin, end, due, sequence, hop, origin, sender, edge, attempt, flags, lane, kind, process in log:
        rest = "" if not flags else f',"repeated":{_word(flags & REPEATED)},"damaged":{_word(flags & DAMAGED)}'
        if lane:
            rest += f',"lane":{lane}'
        if due:
            rest += f',"due_ns":{due}'
        line = (
            f'{{"event":"{events[kind]}","process":"{names[process]}","edge":"{edges[edge]}","origin":{origin},'
            f'"sequence":{sequence},"sender":{sender},"hop":{hop},"attempt":{attempt},'
            f'"begin_ns":{begin},"end_ns":{end or "null"}{rest}}}\n'
        )
        yield begin, line


def _word(flag: int) -> str:
    return "true" if flag else "false"


def _changes(processes: Iterable[Process]) -> Iterator[tuple[int, str]]:
    for process in processes:
        who = {"process": process.name, "number": process.number}
        yield process.start_ns, _line({"event": "start", **who, "role": process.role, "at_ns": process.start_ns})
        if process.ready_ns is not None:
            yield process.ready_ns, _line({"event": "ready", **who, "at_ns": process.ready_ns})
        if process.killed_ns is not None:
            yield process.killed_ns, _line({"event": "kill", **who, "at_ns": process.killed_ns})
        if process.exit_ns is not None:
            how = {"status": process.status, "stopped": process.stopped, "excused": process.excused}
            yield process.exit_ns, _line({"event": "exit", **who, **how, "at_ns": process.exit_ns})


def _line(fields: dict[str, object]) -> str:
    return json.dumps(fields, separators=(",", ":")) + "\n"


def read_history(path: Path) -> History:
    """
    Read what `write_history` wrote.

    Raises:
        ValueError: A line is no event of a history; names the line.
    """
    edges: list[EdgeEnds] = []
    processes: dict[str, Process] = {}
    operations: list[Operation] = []
    places: dict[str, int] = {}
    drained, from_ns = False, 0
    arrivals: list[int] = []
    with path.open(encoding="utf-8") as file:
        for at, line in enumerate(file, 1):
            try:
                event = json.loads(line)
                kind = event["event"]
                if kind == "history":
                    drained, arrivals, from_ns = event["drained"], event["arrivals"], event["from_ns"]
                elif kind == "edge":
                    places[event["edge"]] = len(edges)
                    edges.append(_edge(event))
                elif kind in ("start", "ready", "kill", "exit"):
                    _apply(processes, kind, event)
                else:
                    operations.append(_operation(event, places, processes))
            except (ValueError, KeyError) as error:
                raise ValueError(f"{path}, line {at} is no event of a history: {line[:80]!r}") from error
    return History.of(edges, list(processes.values()), operations, drained=drained, arrivals=arrivals, from_ns=from_ns)


def _edge(event: dict[str, Any]) -> EdgeEnds:
    fields = {"name": event["edge"], "edge": event["of"]}
    return EdgeEnds(**fields, **{name: event[name] for name in ("source", "target", "weight", "reply", "keyed")})


_HOW = ("status", "stopped", "excused")


def _apply(processes: dict[str, Process], kind: str, event: dict[str, Any]) -> None:
    name, at = event["process"], event["at_ns"]
    if kind == "start":
        processes[name] = Process(number=event["number"], name=name, role=event["role"], start_ns=at)
    elif kind == "ready":
        processes[name] = replace(processes[name], ready_ns=at)
    elif kind == "kill":
        processes[name] = replace(processes[name], killed_ns=at)
    else:
        processes[name] = replace(processes[name], exit_ns=at, **{key: event[key] for key in _HOW})


def _operation(event: dict[str, Any], places: dict[str, int], processes: dict[str, Process]) -> Operation:
    return Operation(
        begin_ns=event["begin_ns"],
        end_ns=event["end_ns"] or 0,
        due_ns=event.get("due_ns", 0),
        sequence=event["sequence"],
        hop=event["hop"],
        origin=event["origin"],
        sender=event["sender"],
        edge=places[event["edge"]],
        attempt=event["attempt"],
        flags=(REPEATED if event.get("repeated") else 0) | (DAMAGED if event.get("damaged") else 0),
        lane=event.get("lane", 0),
        kind=Kind[event["event"].upper()],
        process=processes[event["process"]].number,
    )
