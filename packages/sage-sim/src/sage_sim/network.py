"""All queues of a run, as the conductor has them: made, measured, ended, and removed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from sage_qd import (
    CorruptQueueError,
    Queue,
    QueueLostError,
    RayQueueDescriptor,
    SageQueueError,
    resolve_descriptor,
)
from sage_sim import channels, ray_cluster
from sage_sim.channels import Channel
from sage_sim.companions import Companion, Nodes, start_proxy, start_server
from sage_sim.faults import PROXY_KINDS, Faults
from sage_sim.foreign import FOREIGN, ForeignQueue
from sage_sim.meters import Layout, Meters
from sage_sim.nurse import SetupError
from sage_sim.outcome import Gauge
from sage_sim.plan import Plan
from sage_sim.promises import Home, home, needs_cluster

_MEASURED_AT_MOST = 64
"""More queues than this are not asked how long others waited for them."""


class Network:
    """
    The queues of a run.

    Args:
        run_id: Part of their names.
        plan: What the run does; `plan` has the descriptors afterwards.
        faults: Whether there has to be a proxy.
        folder: For what companions say, and for keys.
        stack: Closes everything.

    Raises:
        SetupError: One of them could not be made.
    """

    def __init__(self, run_id: str, plan: Plan, faults: Faults | None, folder: Path, stack: ExitStack) -> None:
        self._topology = plan.topology
        self.layout = Layout(plan.topology)
        self.meters = Meters(folder / "meters", create=self.layout)
        stack.callback(self.meters.close)
        self.proxy: Companion | None = None
        self._channels: list[Channel] = []
        self._high_water: dict[str, int] = {}
        self._ended: set[int] = set()
        self._waited: dict[int, tuple[int | None, int | None]] = {}
        kinds, homes = {edge.kind for edge in plan.topology.edges}, {home(edge) for edge in plan.topology.edges}
        if missing := [found for kind in sorted(kinds) if (found := channels.missing_library(kind))]:
            raise SetupError("; ".join(missing))
        is_ray = any(map(needs_cluster, plan.topology.edges))
        self.nodes = _joined_ray(plan.ray_nodes, folder, stack) if is_ray else None
        direct = way = None
        if Home.SERVER in homes:
            server, direct = start_server(folder, with_keys=plan.payload.form == "numpy")
            stack.callback(server.end)
            way = direct
            if faults is not None and faults.has(*PROXY_KINDS):
                self.proxy, way = start_proxy(folder, direct)
                stack.callback(self.proxy.end)
        ids = () if self.nodes is None else self.nodes.ids
        queues = {}
        name = ""
        try:
            for line in plan.topology.lines:
                edge, name = plan.topology.edges[line.edge], line.name
                queues[name] = channels.describe(run_id, name, edge, way, ids)
                made = channels.create(channels.describe(run_id, name, edge, direct, ids), edge)
                stack.callback(made.drop if isinstance(made, ForeignQueue) else made.close)
                self._channels.append(made)
                if self.nodes is not None and home(edge) is Home.ACTOR:
                    ray_cluster.note_ring(self.nodes.folder, cast(Any, made).instance)
                if isinstance(made, ForeignQueue):
                    made.consumers = 1 if line.target is not None else plan.topology.role(edge.target).count
        except (SageQueueError, OSError, ValueError, TypeError) as error:
            raise SetupError(f"queue {name!r} could not be made: {error}") from error
        self.plan = replace(plan, queues=queues)

    @property
    def carried(self) -> dict[str, ForeignQueue]:
        """The queues that have to come along with each process."""
        pairs = zip(self._topology.lines, self._channels, strict=True)
        return {line.name: channel for line, channel in pairs if isinstance(channel, ForeignQueue)}

    def left_behind(self) -> list[str]:
        """What our own cluster has left after its end."""
        return [str(self.nodes.folder)] if self.nodes is not None and self.nodes.folder.exists() else []

    @property
    def actors(self) -> dict[str, RayQueueDescriptor]:
        """The queues that an actor owns, by name."""
        found = {}
        for line in self._topology.lines:
            if home(self._topology.edges[line.edge]) is Home.ACTOR:
                named = resolve_descriptor(json.loads(self.plan.queues[line.name]))
                found[line.name] = cast(RayQueueDescriptor, named)
        return found

    def segments(self, run_id: str) -> dict[str, list[str]]:
        """For each queue, the files that hold its memory."""
        found: dict[str, list[str]] = {line.name: [] for line in self._topology.lines}
        for path in channels.segments_of(run_id):
            name = Path(path).name.partition(f"{run_id}.")[2]
            if name in found:
                found[name].append(path)
        return found

    # -- Measuring ----------------------------------------------------------------------------------------------------

    def gauges(self, *, ask: bool = True) -> dict[str, Gauge]:
        """
        What is known of each edge now.

        Args:
            ask: Whether the queues may be asked how long others waited: some kinds take a lock for the answer.
        """
        put = [0] * len(self._topology.edges)
        taken = [0] * len(self._topology.edges)
        cells, lines = self.meters.cells, self._topology.lines
        for (_, _, line), cell in self.layout.puts.items():
            put[lines[line].edge] += cells[cell]
        for (_, _, line), cell in self.layout.takes.items():
            taken[lines[line].edge] += cells[cell]
        found = {}
        for at, edge in enumerate(self._topology.edges):
            high = max(self._high_water.get(edge.name, 0), put[at] - taken[at])
            self._high_water[edge.name] = high
            if ask and home(edge) is Home.MEMORY and len(lines) <= _MEASURED_AT_MOST:
                self._waited[at] = self._waits(at)
            waits = self._waited.get(at, (None, None))
            found[edge.name] = Gauge(
                put=put[at], taken=taken[at], high_water=high, put_waited_ns=waits[0], get_waited_ns=waits[1]
            )
        return found

    def _waits(self, edge: int) -> tuple[int | None, int | None]:
        for_room = for_items = 0
        for line, channel in zip(self._topology.lines, self._channels, strict=True):
            if line.edge == edge:
                try:
                    stats = cast("Queue[Any]", channel).stats()
                except CorruptQueueError:
                    return None, None
                for_room += stats.put_blocked_ns
                for_items += stats.get_blocked_ns
        return for_room, for_items

    def told(self) -> list[str]:
        """For a run that hangs: each queue, with who holds or waits for what."""
        found = []
        for line, channel in zip(self._topology.lines[:_MEASURED_AT_MOST], self._channels, strict=False):
            if home(self._topology.edges[line.edge]) is not Home.MEMORY:
                continue
            stats: Any = cast("Queue[Any]", channel).stats()
            owners = ""
            if hasattr(stats, "put_lock_owner"):
                owners = f", inside put: thread {stats.put_lock_owner}, inside take: thread {stats.get_lock_owner}"
            found.append(
                f"queue {line.name}: {stats.depth} queued, {stats.leased} leased, {stats.put_waiters} waiting to put, "
                f"{stats.get_waiters} waiting to take{owners}"
            )
        return found

    # -- Ending -------------------------------------------------------------------------------------------------------

    def end(self, edge: str) -> None:
        """Say on all queues of an edge that nothing more comes: who takes from them drains them, and ends."""
        for at, (line, channel) in enumerate(zip(self._topology.lines, self._channels, strict=True)):
            if self._topology.edges[line.edge].name != edge or at in self._ended:
                continue
            try:
                channel.shutdown()
            except (CorruptQueueError, QueueLostError):
                self._ended.add(at)  # whoever takes from it will notice, too
                continue
            if not isinstance(channel, ForeignQueue) or channel.has_ended:
                self._ended.add(at)

    def replaced(self, role: str) -> None:
        """Note that a process that takes was replaced: the dead one may have taken the mark of the end with it."""
        for at, (line, channel) in enumerate(zip(self._topology.lines, self._channels, strict=True)):
            edge = self._topology.edges[line.edge]
            if edge.target == role and edge.kind in FOREIGN and isinstance(channel, ForeignQueue) and at in self._ended:
                channel.consumers += 1
                self._ended.discard(at)


def _joined_ray(count: int, folder: Path, stack: ExitStack) -> Nodes | None:
    """Join the cluster that is there, or one of so many nodes that is started for us, as all our processes will."""
    nodes = None
    try:
        if count:
            ray_cluster.prepare()
            nodes = Nodes(folder, count)
            stack.callback(nodes.end)
            stack.enter_context(_environment(RAY_ADDRESS=nodes.address))
        ray_cluster.join()
    except (OSError, RuntimeError) as error:
        raise SetupError(
            f"no Ray cluster can be joined: {error}; `ray start --head` starts one, and so does --ray-nodes"
        ) from error
    stack.callback(ray_cluster.leave)
    return nodes


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    """Set variables that our children inherit, and take them back."""
    before = {name: os.environ.get(name) for name in values}
    os.environ |= values
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
