"""The processes of a run: started, watched, killed and replaced; nobody else's process is ever touched."""

from __future__ import annotations

import base64
import os
import selectors
import signal
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic, monotonic_ns

from sage_sim.eventlog import Kind, last_operation
from sage_sim.foreign import ForeignQueue, Luggage
from sage_sim.history import Process
from sage_sim.interruptions import Interruptions
from sage_sim.lifeline import READY, SECONDS_TO_LEAVE
from sage_sim.nurse import Nursery, SetupError
from sage_sim.plan import Plan
from sage_sim.topology import Role

STDERR_SHOWN_BYTES = 2000


@dataclass(kw_only=True)
class Slot:
    """One place in a role, and what a new process in it has to know about those before it."""

    role: Role
    index: int
    incarnations: int = 0
    start: int = 0
    repeats: int = 0
    finished: bool = False
    all_sent: bool = False

    @property
    def name(self) -> str:
        """As in ``reader-0``."""
        return f"{self.role.name}-{self.index}"


@dataclass(kw_only=True)
class Child:
    """
    A child process.

    Attributes:
        pid: Its id.
        word: Descriptor on which it waits for the word to go; -1 once it was said.
    """

    pid: int
    word: int

    def close(self) -> None:
        """Say nothing more."""
        if self.word >= 0:
            os.close(self.word)
            self.word = -1


@dataclass(kw_only=True)
class Member:
    """A process that was started and not yet reaped."""

    slot: Slot
    record: Process
    child: Child
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
        carried: Queues that have to come along with each process, by name.
    """

    def __init__(
        self, plan: Plan, plan_path: Path, folder: Path, carried: Mapping[str, ForeignQueue] | None = None
    ) -> None:
        self._plan = plan
        self._nursery = Nursery(folder)
        self._carried = dict(carried or {})
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
        self._word: bytes | None = None
        self._held: frozenset[str] = frozenset()

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
            if wake.first is not None:
                return False
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

    def go(self, begin_ns: int, deadline_ns: int, held: Iterable[str] = ()) -> None:
        """
        Let everyone work.

        Args:
            begin_ns: This moment; planned loads begin with it.
            deadline_ns: When sources stop making items.
            held: Roles that wait until `release`.
        """
        self._word = b"%d %d\n" % (begin_ns, deadline_ns)
        self._held = frozenset(held)
        for member in self.members.values():
            if member.slot.role.name not in self._held:
                self._say_go(member)

    def release(self) -> None:
        """Let those work that were held."""
        held, self._held = self._held, frozenset()
        for member in self.members.values():
            if member.slot.role.name in held:
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
        if self._word is not None and slot.role.name not in self._held:
            self._say_go(member)

    def _spawned(self, slot: Slot, name: str) -> tuple[Child, int, int]:
        """Start one process; it, a descriptor that tells its end, and one on which it says that it is ready."""
        luggage = Luggage(self._carried) if self._carried else None
        order = {
            "plan": str(self._plan_path),
            "folder": str(self._folder),
            "role": slot.role.name,
            "index": slot.index,
            "incarnation": slot.incarnations,
            "number": self._numbers,
            "start": slot.start,
            "repeats": slot.repeats,
            "conductor": os.getpid(),
            "carried": "" if luggage is None else base64.b64encode(luggage.packed).decode(),
            "carried_descriptors": [] if luggage is None else luggage.descriptors,
        }
        with ExitStack() as theirs, ExitStack() as on_failure:
            words = theirs.enter_context(self._words_of(name).open("xb"))
            word_read, word_write = os.pipe2(os.O_CLOEXEC)
            theirs.callback(os.close, word_read)
            on_failure.callback(os.close, word_write)
            ready_read, ready_write = os.pipe2(os.O_CLOEXEC)
            theirs.callback(os.close, ready_write)
            on_failure.callback(os.close, ready_read)
            carried = [] if luggage is None else luggage.descriptors
            pid = self._nursery.born(order, [word_read, words.fileno(), ready_write, *carried])
            pidfd = os.pidfd_open(pid)
            on_failure.pop_all()
        return Child(pid=pid, word=word_write), pidfd, ready_read

    def _say_go(self, member: Member) -> None:
        try:
            os.write(member.child.word, self._word or b"")
        except BrokenPipeError:
            return  # it is dead already; reap() will tell
        member.child.close()

    # -- Watch --------------------------------------------------------------------------------------------------------

    def wait(self, seconds: float) -> list[Member]:
        """Wait so long at most, and return who ended; early when anybody got ready, or on an interruption."""
        ended = []
        for key, _ in self._selector.select(max(seconds, 0)):
            if isinstance(key.data, Member):
                ended.append(key.data)
            elif key.data is not None:
                self._hear(*key.data)
        return ended

    def _hear(self, told: int, member: Member) -> None:
        """Read what a process says: that it is ready, and of a source, that it has sent everything."""
        said = os.read(told, 2)
        if not said:  # it ended
            self._selector.unregister(told)
            os.close(told)
            return
        if said[:1] == READY and not member.is_ready:
            member.record = replace(member.record, ready_ns=monotonic_ns())
            said = said[1:]
        member.slot.all_sent = member.slot.all_sent or bool(said)

    def reap(self, ended: Iterable[Member]) -> list[Member]:
        """Take note of how those processes ended, and let the kernel forget them."""
        reaped = []
        for member in ended:
            _, status, usage = os.wait4(member.child.pid, 0)
            member.record = replace(member.record, exit_ns=monotonic_ns(), status=os.waitstatus_to_exitcode(status))
            self._selector.unregister(member.pidfd)
            os.close(member.pidfd)
            member.child.close()
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
        topology = self._plan.topology
        if slot.finished or not topology.is_source(slot.role.name):
            return
        last = last_operation(self.log_of(member.record), member.record.number, Kind.PUT)
        if last is None:
            return
        outputs = topology.outputs_of(slot.role.name)
        is_whole = slot.role.send == "deal" or topology.edges[topology.lines[last.edge].edge] is outputs[-1]
        if last.ended and is_whole:
            slot.start, slot.repeats = last.sequence + 1, 0
        else:
            slot.repeats = slot.repeats + 1 if last.sequence == slot.start else 1
            slot.start = last.sequence

    def is_finished(self, role: str) -> bool:
        """Whether all slots of a role came to their own end."""
        return all(slot.finished for slot in self.slots if slot.role.name == role)

    def has_sent_all(self, role: str) -> bool:
        """Whether nothing more comes from a role: all its slots finished, or they are sources that wait for replies."""
        return all(slot.finished or slot.all_sent for slot in self.slots if slot.role.name == role)

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
            for number in (signal.SIGTERM, signal.SIGCONT):
                signal.pidfd_send_signal(member.pidfd, number)
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
        self._nursery.close()

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
