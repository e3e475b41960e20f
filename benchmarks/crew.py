"""The processes of one contender in one row: forked once, told to open, run again and again, and ended with the row.

Every wait has a bound. A process that does not answer in time, dies or raises spoils its contender only: `CrewError`
carries the words for the table ("hung in run", "failed: …"), and the crew is killed by its own process ids.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from channels import FORK, Channel, End, Shape, remove_folder
from large import add_arrays
from topologies import Job, Outcome, Role, Topology, WrongResultError

ANSWER_SECONDS = 25.0  # the longest a run may take; a run is sized for a fraction of a second


class CrewError(Exception):
    """A contender cannot take part any more; the text is what its cell of the table shows."""


class Crew:
    """
    The processes of one contender.

    Args:
        kind: The contender's adapter.
        topology: What its processes do.
        shape: What queue it needs.
        folder: A folder of its own; removed by `close`.
        cores: The core of each role, or an empty sequence to leave the choice to the scheduler.

    Raises:
        CrewError: It could not be started; nothing is left behind.
    """

    def __init__(
        self, kind: type[Channel], topology: Topology, shape: Shape, folder: Path, cores: Sequence[int] = ()
    ) -> None:
        self.topology, self.shape, self.folder = topology, shape, folder
        self.channels: list[Channel] = []
        self.processes: list[Any] = []
        self.lines: list[Any] = []
        self.answers: dict[int, Any] = {}
        try:
            self._start(kind, cores)
        except CrewError:
            self.close()
            raise
        except Exception as failure:  # whatever a peer's constructor raises belongs into its cell
            self.close()
            raise CrewError(f"failed: {describe(failure)}") from failure

    def run(self, job: Job) -> dict[str, float]:
        """Run one job in all processes and return the figure."""
        self.begin(job)
        return self.finish(job)

    def begin(self, job: Job) -> None:
        """Tell all processes to start, receivers first so that a sender never finds nobody."""
        for line in reversed(self.lines):
            line.send(("run", job))

    def finish(self, job: Job) -> dict[str, float]:
        """Collect what the processes report; the figure of the topology, after its checks."""
        outcomes: list[Outcome] = [self._answer(at, "run") for at in range(len(self.lines))]
        try:
            return self.topology.figure(job, outcomes, self.shape)
        except WrongResultError as failure:
            raise CrewError(f"wrong: {failure}") from failure

    def close(self) -> None:
        """End all processes, politely and then by their ids, and remove what the queue left. Works twice."""
        for line in self.lines:
            try:
                line.send(("end", None))
            except OSError:
                continue  # this one is dead already
        limit = time.monotonic() + 2.0
        for process in self.processes:
            process.join(max(0.0, limit - time.monotonic()))
            if process.is_alive():
                os.kill(process.pid, signal.SIGKILL)
                process.join()
        for line in self.lines:
            line.close()
        for channel in self.channels:
            channel.remove()
        self.processes, self.lines, self.channels = [], [], []
        remove_folder(self.folder)

    def _start(self, kind: type[Channel], cores: Sequence[int]) -> None:
        for number in range(self.topology.channels):
            folder = self.folder / str(number)
            folder.mkdir(parents=True)
            self.channels.append(kind(folder, self.shape))
        for at, role in enumerate(self.topology.roles):
            near, far = FORK.Pipe()
            core = cores[at % len(cores)] if cores else None
            arguments = (role, self.channels, self.shape, far, core, [*self.lines, near])
            process = FORK.Process(target=live, args=arguments, daemon=False)
            process.start()
            far.close()
            self.lines.append(near)
            self.processes.append(process)
        steps = [
            (at, place, way[1]) for at, role in enumerate(self.topology.roles) for place, way in enumerate(role.opens)
        ]
        for at, place, _ in sorted(steps, key=lambda step: step[2] != kind.first):
            self.lines[at].send(("open", place))
            if kind.first == "receiver":
                self._answer(at, "open")
        if kind.first != "receiver":  # its ends look for each other, so they open at the same time
            for at, _, _ in steps:
                self._answer(at, "open")

    def _answer(self, at: int, step: str) -> Any:
        """The answer of one process; raises `CrewError` as soon as any process is dead, late or sends an error."""
        limit = time.monotonic() + ANSWER_SECONDS
        while at not in self.answers:
            for line in wait(self.lines, timeout=0.5):
                self._take(self.lines.index(line), step)
            if time.monotonic() > limit:
                raise CrewError(f"hung in {step}")
        return self.answers.pop(at)

    def _take(self, at: int, step: str) -> None:
        """Read what one process sent and keep it until it is asked for."""
        try:
            good, value = self.lines[at].recv()
        except EOFError:
            self.processes[at].join(1.0)
            raise CrewError(f"failed: a process ended with code {self.processes[at].exitcode} in {step}") from None
        if not good:
            raise CrewError(str(value))
        self.answers[at] = value


def describe(failure: BaseException) -> str:
    """One line about an exception, for a cell of the table."""
    text = str(failure).strip().splitlines()
    return f"{type(failure).__name__}: {text[0]}" if text else type(failure).__name__


def live(
    role: Role,
    channels: Sequence[Channel],
    shape: Shape,
    line: Connection,
    core: int | None,
    others: Sequence[Connection],
) -> None:
    """The life of one process: obey until told to end or until the parent is gone."""
    for other in others:
        other.close()  # the parent's sides; kept open they would hide the parent's death
    if core is not None:
        os.sched_setaffinity(0, {core})
    ends: dict[int, End] = {}
    while True:
        try:
            order, value = line.recv()
        except EOFError:
            return
        if order == "end":
            break
        try:
            line.send((True, obey(order, value, role, channels, shape, ends)))
        except WrongResultError as failure:
            line.send((False, f"wrong: {failure}"))
        except Exception as failure:  # noqa: BLE001  (each library has its own errors; the parent shows them)
            line.send((False, f"failed: {describe(failure)}"))
    for end in ends.values():
        end.close()


def obey(
    order: str, value: Any, role: Role, channels: Sequence[Channel], shape: Shape, ends: dict[int, End]
) -> Outcome:
    """Carry out one order of the parent."""
    if order == "open":
        number, side, index = role.opens[value]
        channel = channels[number]
        end = channel.both() if side == "both" else getattr(channel, side)(index)
        if end.put_array or end.get_array or end.look:
            add_arrays(end, shape)
        ends[value] = end
        return {}
    return role.work([ends[place] for place in range(len(role.opens))], value)
