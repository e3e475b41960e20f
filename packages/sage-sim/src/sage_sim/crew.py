"""The processes of a run: started, watched, killed and replaced; nobody else's process is ever touched."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import monotonic, monotonic_ns

from sage_sim.eventlog import last_operation
from sage_sim.history import Process
from sage_sim.interruptions import Interruptions
from sage_sim.plan import Plan
from sage_sim.topology import Role
from sage_sim.worker import SECONDS_TO_LEAVE, Assignment

STDERR_SHOWN_BYTES = 2000


class SetupError(Exception):
    """The run could not begin; the text says what is missing."""


@dataclass(kw_only=True)
class Slot:
    """One place in a role, and what a new process in it has to know about those before it."""

    role: Role
    index: int
    incarnations: int = 0
    start: int = 0
    repeats: int = 0
    finished: bool = False

    @property
    def name(self) -> str:
        """As in ``reader-0``."""
        return f"{self.role.name}-{self.index}"


@dataclass(kw_only=True)
class Member:
    """A process that was started and not yet reaped."""

    slot: Slot
    record: Process
    child: subprocess.Popen[bytes]
    pidfd: int

    @property
    def is_ready(self) -> bool:
        """Whether it said so."""
        return self.record.ready_ns is not None


class Crew:
    """
    All processes of one run.

    Args:
        plan: What they do.
        plan_path: Where they read it.
        folder: Where their logs and state go.
    """

    def __init__(self, plan: Plan, plan_path: Path, folder: Path) -> None:
        self._plan = plan
        self._plan_path = plan_path
        self._folder = folder
        self.slots = [Slot(role=role, index=index) for role in plan.topology.roles for index in range(role.count)]
        self.members: dict[str, Member] = {}
        """Those alive, by slot."""
        self.ended: list[Process] = []
        """Those reaped."""
        self.cpu_seconds = dict.fromkeys((role.name for role in plan.topology.roles), 0.0)
        """Of those reaped, by role: user and system time."""
        self._selector = selectors.DefaultSelector()
        self._numbers = 0
        self._deadline_ns: int | None = None

    # -- Start --------------------------------------------------------------------------------------------------------

    def start_all(self, wake: Interruptions, seconds: float) -> bool:
        """
        Start everyone, and wait until all are ready.

        Args:
            wake: What ends the wait early.
            seconds: How long they may take.

        Returns:
            Whether all are ready; False when the wait was ended early.

        Raises:
            SetupError: One of them could not start, or did not get ready.
        """
        self._selector.register(wake, selectors.EVENT_READ)
        for slot in self.slots:
            self._start(slot)
        until = monotonic() + seconds
        while not all(member.is_ready for member in self.members.values()):
            if monotonic() > until:
                late = [member.record.name for member in self.members.values() if not member.is_ready]
                raise SetupError(f"not ready after {seconds:g} seconds: {', '.join(late)}")
            for member in self.reap(self.wait(until - monotonic())):
                raise SetupError(f"{_fate(member)} before it was ready\n{self.last_words(member.record)}".rstrip())
            if wake.first is not None:
                return False
        return True

    def go(self, deadline_ns: int) -> None:
        """Let everyone work; sources stop making items at the deadline."""
        self._deadline_ns = deadline_ns
        for member in self.members.values():
            self._say_go(member)

    def respawn(self, slot: Slot) -> None:
        """Put a new process into the slot of a dead one."""
        self._start(slot)

    def _start(self, slot: Slot) -> None:
        self._numbers += 1
        name = f"{slot.name}.{slot.incarnations}"
        try:
            child, pidfd, ready = self._spawned(slot, name)
        except OSError as error:
            raise SetupError(f"{name} could not be started: {error}") from error
        member = Member(
            slot=slot,
            record=Process(number=self._numbers, name=name, role=slot.role.name, start_ns=monotonic_ns()),
            child=child,
            pidfd=pidfd,
        )
        slot.incarnations += 1
        self.members[slot.name] = member
        self._selector.register(pidfd, selectors.EVENT_READ, member)
        self._selector.register(ready, selectors.EVENT_READ, (ready, member))
        if self._deadline_ns is not None:
            self._say_go(member)

    def _spawned(self, slot: Slot, name: str) -> tuple[subprocess.Popen[bytes], int, int]:
        """Start one process; it, a descriptor that tells its end, and one on which it says that it is ready."""
        ready_read, ready_write = os.pipe2(os.O_CLOEXEC)
        with ExitStack() as on_failure:
            on_failure.callback(os.close, ready_read)
            try:
                child = self._popen(slot, name, ready_write)
            finally:
                os.close(ready_write)
            on_failure.callback(child.wait)
            on_failure.callback(child.kill)
            pidfd = os.pidfd_open(child.pid)
            on_failure.pop_all()
        return child, pidfd, ready_read

    def _popen(self, slot: Slot, name: str, ready: int) -> subprocess.Popen[bytes]:
        assignment = Assignment(
            plan=str(self._plan_path),
            folder=str(self._folder),
            role=slot.role.name,
            index=slot.index,
            incarnation=slot.incarnations,
            number=self._numbers,
            start=slot.start,
            repeats=slot.repeats,
            conductor=os.getpid(),
            ready=ready,
        )
        with self._words_of(name).open("xb") as words:
            return subprocess.Popen(
                [sys.executable, "-P", "-m", "sage_sim.worker", json.dumps(asdict(assignment))],
                stdin=subprocess.PIPE,
                stdout=words,
                stderr=words,
                pass_fds=(ready,),
                process_group=0,  # Ctrl-C at the terminal reaches us alone
            )

    def _say_go(self, member: Member) -> None:
        assert member.child.stdin is not None
        try:
            member.child.stdin.write(b"%d\n" % (self._deadline_ns or 0))
            member.child.stdin.close()
        except BrokenPipeError:
            return  # it is dead already; reap() will tell

    # -- Watch --------------------------------------------------------------------------------------------------------

    def wait(self, seconds: float) -> list[Member]:
        """Wait so long at most, and return who ended; early when anybody got ready, or on an interruption."""
        ended = []
        for key, _ in self._selector.select(max(seconds, 0)):
            if isinstance(key.data, Member):
                ended.append(key.data)
            elif key.data is not None:
                ready, member = key.data
                if os.read(ready, 1):  # nothing: it died before
                    member.record = replace(member.record, ready_ns=monotonic_ns())
                self._selector.unregister(ready)
                os.close(ready)
        return ended

    def reap(self, ended: Iterable[Member]) -> list[Member]:
        """Take note of how those processes ended, and let the kernel forget them."""
        reaped = []
        for member in ended:
            _, status, usage = os.wait4(member.child.pid, 0)
            member.child.returncode = os.waitstatus_to_exitcode(status)
            member.record = replace(member.record, exit_ns=monotonic_ns(), status=member.child.returncode)
            self._selector.unregister(member.pidfd)
            os.close(member.pidfd)
            if member.child.stdin is not None and not member.child.stdin.closed:
                member.child.stdin.close()
            del self.members[member.slot.name]
            self.ended.append(member.record)
            self.cpu_seconds[member.record.role] += usage.ru_utime + usage.ru_stime
            self._remember(member)
            reaped.append(member)
        return reaped

    def _remember(self, member: Member) -> None:
        """Find out where the next process of a source has to go on."""
        slot = member.slot
        slot.finished = member.record.status == 0
        outputs = self._plan.topology.outputs_of(slot.role.name)
        if slot.finished or self._plan.topology.input_of(slot.role.name) is not None:
            return
        last = last_operation(self.log_of(member.record), member.record.number)
        if last is None:
            return
        if last.ended and last.edge == self._plan.topology.edges.index(outputs[-1]):
            slot.start, slot.repeats = last.sequence + 1, 0
        else:
            slot.repeats = slot.repeats + 1 if last.sequence == slot.start else 1
            slot.start = last.sequence

    def is_finished(self, role: str) -> bool:
        """Whether all slots of a role came to their own end."""
        return all(slot.finished for slot in self.slots if slot.role.name == role)

    # -- End ----------------------------------------------------------------------------------------------------------

    def kill(self, member: Member) -> None:
        """Kill one with SIGKILL, on purpose."""
        member.record = replace(member.record, killed_ns=monotonic_ns())
        signal.pidfd_send_signal(member.pidfd, signal.SIGKILL)

    def ask_where(self) -> None:
        """Make everyone write its stack to its words."""
        for member in self.members.values():
            signal.pidfd_send_signal(member.pidfd, signal.SIGUSR1)

    def stop_all(self) -> None:
        """End everyone who is left: in good order if they can, and by force if not."""
        for member in self.members.values():
            member.record = replace(member.record, stopped=True)
            signal.pidfd_send_signal(member.pidfd, signal.SIGTERM)
        until = monotonic() + SECONDS_TO_LEAVE
        while self.members and monotonic() < until:
            self._reap_within(until - monotonic())
        for member in self.members.values():
            signal.pidfd_send_signal(member.pidfd, signal.SIGKILL)
        while self.members:
            self._reap_within(SECONDS_TO_LEAVE)

    def close(self) -> None:
        """Leave nothing open; everyone has been reaped."""
        for key in list(self._selector.get_map().values()):
            if isinstance(key.data, tuple):
                os.close(key.data[0])
        self._selector.close()

    def _reap_within(self, seconds: float) -> None:
        children = selectors.DefaultSelector()
        with children:
            for member in self.members.values():
                children.register(member.pidfd, selectors.EVENT_READ, member)
            self.reap([key.data for key, _ in children.select(max(seconds, 0))])

    # -- What they left -----------------------------------------------------------------------------------------------

    @property
    def records(self) -> list[Process]:
        """Everyone there ever was, in the order of their start."""
        return sorted([*self.ended, *(member.record for member in self.members.values())], key=lambda one: one.number)

    def log_of(self, record: Process) -> Path:
        """Where a process recorded its operations."""
        return self._folder / f"{record.number}.log"

    def last_words(self, record: Process) -> str:
        """The end of what a process wrote on its standard error."""
        path = self._words_of(record.name)
        return path.read_bytes()[-STDERR_SHOWN_BYTES:].decode(errors="replace") if path.exists() else ""

    def _words_of(self, name: str) -> Path:
        return self._folder / f"{name}.stderr"


def _fate(member: Member) -> str:
    status = member.record.status or 0
    return f"{member.record.name} " + (f"died of signal {-status}" if status < 0 else f"ended with exit code {status}")
