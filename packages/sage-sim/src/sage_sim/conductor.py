"""Runs a plan: makes the queues, lets the crew work, strikes it, ends each queue when its producers are done."""

from __future__ import annotations

import os
import resource
import secrets
import threading
from contextlib import ExitStack
from pathlib import Path
from time import monotonic, monotonic_ns, sleep

from sage_sim import channels, inside
from sage_sim.crew import Crew
from sage_sim.faults import Faults
from sage_sim.interruptions import Interruptions
from sage_sim.namespaces import NotAllowedError, take_own_network
from sage_sim.network import Network
from sage_sim.nurse import SetupError
from sage_sim.outcome import Ending, Outcome, Snapshot, View
from sage_sim.plan import Plan
from sage_sim.promises import gives_all_back
from sage_sim.room import take_own_room
from sage_sim.striking import Striker

LOOKS_PER_SECOND = 10
SETUP_SECONDS = 60.0
SETUP_SECONDS_EACH = 0.5
"""How long a crew may take to get ready, and so much more for each of its processes."""
STALL_SECONDS = 30.0
"""A run in which nothing at all was put or taken for so long hangs."""
SERIES_AT_MOST = 600
_FAR_SECONDS = 10.0**9
_ANSWER_SECONDS = 3.0
_BUILD_SECONDS = 1.0
"""A backlog that has not grown for so long is all that fits."""
_DAMAGE_SECONDS = 10.0
"""How long processes have to notice damage, once it can be known."""
_ROOM_BYTES, _ROOM_BYTES_EACH = 1 << 24, 1 << 18


class Conductor:
    """
    One run.

    Args:
        plan: What to do; the descriptors of its queues are made here.
        faults: What to break; None for nothing.
        plan_path: Where to write the plan for the crew.
        folder: Where the crew leaves logs and state.
        view: Who watches.
        time_limit: Seconds after which a run that goes on is called hung.
    """

    def __init__(
        self, plan: Plan, faults: Faults | None, *, plan_path: Path, folder: Path, view: View, time_limit: float
    ) -> None:
        self._run_id = f"run-{secrets.token_hex(6)}"
        self._plan = plan
        self._faults = faults
        self._plan_path = plan_path
        self._folder = folder
        self._view = view
        self._time_limit = time_limit
        self._trouble = ""
        self._backlog = 0
        self._series: list[Snapshot] = []
        self._stride = 1
        self._looks = 0
        self._damaged_at: float | None = None

    def run(self) -> Outcome:
        """
        Do it, and leave no process, segment, descriptor or thread behind, whatever happens.

        Raises:
            SetupError: It could not begin.
        """
        channels.remove_leftovers()
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        before = self._holdings()
        with ExitStack() as stack:
            interruptions = stack.enter_context(Interruptions())
            self._take_own()
            self._network = Network(self._run_id, self._plan, self._faults, self._folder, stack)
            self._network.plan.write(self._plan_path)
            self._crew = Crew(self._network.plan, self._plan_path, self._folder, self._network.carried)
            stack.callback(self._crew.close)
            stack.callback(self._crew.stop_all)
            self._striker = self._made_striker()
            ending = Ending.INTERRUPTED
            begin_ns = monotonic_ns()
            if self._crew.start_all(interruptions, SETUP_SECONDS + SETUP_SECONDS_EACH * self._plan.topology.processes):
                begin_ns = monotonic_ns()
                ending = self._conduct(interruptions, begin_ns)
            seconds = (monotonic_ns() - begin_ns) / 1e9
            self._striker.heal()
            if ending is Ending.HUNG:
                self._trouble = self._where_everyone_is()
            self._crew.stop_all()
            gauges = self._network.gauges()
            cells = self._network.meters.cells
            refused = sum(cells[cell] for cell in self._network.layout.refused.values())
        after = self._holdings()
        return Outcome(
            ending=ending,
            signal_number=interruptions.first or 0,
            seconds=seconds,
            begin_ns=begin_ns,
            backlog=self._backlog,
            processes=tuple(self._crew.records),
            gauges=gauges,
            series=tuple(self._series),
            cpu_seconds=self._crew.cpu_seconds,
            blows=tuple(self._striker.blows),
            refused=refused,
            trouble=self._trouble,
            leftovers=(*channels.segments_of(self._run_id), *self._network.left_behind(), *sorted(after - before)),
        )

    # -- Before and after ---------------------------------------------------------------------------------------------

    def _holdings(self) -> set[str]:
        """
        The descriptors and threads of this process; what is added to them by a run was left behind by it.

        Nothing is said where the queues are of kinds that keep some.
        """
        if not gives_all_back(self._plan.topology.edges):
            return set()
        found = {f"thread {thread.name}" for thread in threading.enumerate()}
        for number in os.listdir("/proc/self/fd"):
            try:
                found.add(f"descriptor {number}: {os.readlink(f'/proc/self/fd/{number}')}")
            except FileNotFoundError:
                continue  # that of the listing itself
        return found

    def _take_own(self) -> None:
        """Have a small file system for the memory of queues, or a network, of our own, when it is to be broken."""
        if self._faults is None:
            return
        topology = self._plan.topology
        each = sum(topology.edges[line.edge].capacity_bytes + _ROOM_BYTES_EACH for line in topology.lines)
        try:
            if self._faults.has("unplug"):
                take_own_network()
            if self._faults.has("full"):
                take_own_room(_ROOM_BYTES + each)
                channels.use_own_folder()
        except NotAllowedError as error:
            raise SetupError(str(error)) from error

    def _made_striker(self) -> Striker:
        topology, damages = self._plan.topology, self._faults is not None and self._faults.has("damage")
        return Striker(
            self._faults,
            seed=self._plan.seed,
            crew=self._crew,
            meters=self._network.meters,
            layout=self._network.layout,
            proxy=self._network.proxy,
            topology=topology,
            segments=self._network.segments(self._run_id) if damages else {},
            points={role.name: inside.points_of(topology, role.name) for role in topology.roles},
            actors=self._network.actors,
            nodes=self._network.nodes,
        )

    # -- The loop -----------------------------------------------------------------------------------------------------

    def _conduct(self, interruptions: Interruptions, begin_ns: int) -> Ending:
        """Let everyone go, and follow the plan to its end."""
        duration = self._plan.duration_seconds or _FAR_SECONDS
        topology = self._plan.topology
        sources = {role.name for role in topology.sources}
        builds = self._plan.load.mode == "backlog"
        held = [role.name for role in topology.roles if role.name not in sources] if builds else []
        self._network.meters.cells[self._network.layout.begin] = begin_ns
        self._crew.go(begin_ns, begin_ns + int(duration * 1e9), held)
        stall, building = _Stall(STALL_SECONDS), _Stall(_BUILD_SECONDS) if builds else None
        look = 0.0
        while True:
            now = (monotonic_ns() - begin_ns) / 1e9
            if interruptions.first is not None:
                return Ending.INTERRUPTED
            if self._sources_finished() or now >= duration:
                self._striker.heal()
            else:
                self._striker.act(now)
            if now >= look:
                snapshot = self._look(now)
                look = now + 1 / LOOKS_PER_SECOND
                if now > self._time_limit or stall.lasts(snapshot):
                    return Ending.HUNG
                if building is not None and (self._sources_finished() or building.lasts(snapshot)):
                    self._backlog = sum(gauge.depth for gauge in snapshot.gauges.values())
                    self._crew.release()
                    building = None
            due = self._striker.due_seconds
            until = look if due is None else min(look, due)
            for member in self._crew.reap(self._crew.wait(until - (monotonic_ns() - begin_ns) / 1e9)):
                self._striker.died(member, (monotonic_ns() - begin_ns) / 1e9)
                if member.record.is_casualty and not self._striker.ruined:
                    self._crew.respawn(member.slot)
                    self._network.replaced(member.slot.role.name)
                elif member.record.has_failed:
                    self._trouble = self._crew.last_words(member.record)
                    return Ending.FAILED
            self._end_queues()
            if not self._crew.members or self._is_beyond_repair(now):
                self._look((monotonic_ns() - begin_ns) / 1e9)
                return Ending.DAMAGED if self._striker.ruined else Ending.COMPLETE

    def _is_beyond_repair(self, now: float) -> bool:
        """Whether a queue was damaged, and everybody who uses it has noticed, or has had time to."""
        ruined = self._striker.ruined
        if not ruined or not self._striker.can_be_noticed:
            return False
        if self._damaged_at is None:
            self._damaged_at = now
        users = self._plan.topology.users_of(ruined)
        return users.isdisjoint(self._crew.members) or now - self._damaged_at > _DAMAGE_SECONDS

    def _sources_finished(self) -> bool:
        return all(self._crew.has_sent_all(role.name) for role in self._plan.topology.sources)

    def _end_queues(self) -> None:
        """End each queue whose producers have all come to their end: its consumers drain it and end too."""
        if self._striker.has_stopped:
            return
        for edge in self._plan.topology.edges:
            if self._crew.has_sent_all(edge.source):
                self._network.end(edge.name)

    def _look(self, seconds: float) -> Snapshot:
        roles = [role.name for role in self._plan.topology.roles]
        alive, kills = dict.fromkeys(roles, 0), dict.fromkeys(roles, 0)
        for member in self._crew.members.values():
            alive[member.record.role] += 1
            kills[member.record.role] += member.record.killed_ns is not None
        for record in self._crew.ended:
            kills[record.role] += record.killed_ns is not None
        snapshot = Snapshot(
            seconds=seconds,
            gauges=self._network.gauges(ask=not self._striker.has_stopped),
            alive=alive,
            kills=kills,
            blows=len(self._striker.blows),
        )
        self._publish(snapshot)
        self._view.show(snapshot)
        self._looks += 1
        if not self._looks % self._stride:
            self._series.append(snapshot)
            if len(self._series) > SERIES_AT_MOST:
                del self._series[::2]
                self._stride *= 2
        return snapshot

    def _publish(self, snapshot: Snapshot) -> None:
        """Write what only we know where others can watch."""
        layout, cells = self._network.layout, self._network.meters.cells
        cells[layout.blows] = snapshot.blows
        for role, alive in snapshot.alive.items():
            cells[layout.alive[role]] = alive
            cells[layout.struck[role]] = self._striker.struck[role]
        for edge, gauge in snapshot.gauges.items():
            for cell, waited in zip(layout.waited[edge], (gauge.put_waited_ns, gauge.get_waited_ns), strict=True):
                cells[cell] = 0 if waited is None else waited + 1

    def _where_everyone_is(self) -> str:
        """For a run that hangs: each queue with who holds or waits for what, and each process with its stack."""
        lines = self._network.told()
        self._crew.ask_where()
        until = monotonic() + _ANSWER_SECONDS  # who is stopped does not answer at all
        members = self._crew.members.values()
        while monotonic() < until and not all(self._crew.last_words(member.record) for member in members):
            sleep(_ANSWER_SECONDS / 50)
        for member in members:
            lines.append(f"{member.record.name}, process {member.child.pid}:")
            lines.append(self._crew.last_words(member.record).rstrip() or "no answer")
        return "\n".join(lines)


class _Stall:
    """Notices when nothing moves any more."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._before: object = None
        self._since = monotonic()

    def lasts(self, snapshot: Snapshot) -> bool:
        """Whether puts, takes and deaths have all been the same for too long."""
        moving = [(gauge.put, gauge.taken) for gauge in snapshot.gauges.values()], snapshot.kills, snapshot.alive
        if moving != self._before:
            self._before, self._since = moving, monotonic()
        return monotonic() - self._since > self._seconds
