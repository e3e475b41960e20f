"""What a run needs of a machine, what this machine has, and whether that is enough."""

from __future__ import annotations

import resource
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from sage_sim import channels, inside, namespaces
from sage_sim.faults import Faults
from sage_sim.nurse import SetupError
from sage_sim.plan import Plan
from sage_sim.promises import Home, home, needs_cluster
from sage_sim.request import Request
from sage_sim.topology import Topology

PROCESS_BYTES = 6 << 20
"""Memory of one process of its own, measured; the rest it shares with the nursery it was forked from."""
OPEN_QUEUE_BYTES = 16 << 10
"""And for each queue that it has open."""
HEADER_BYTES = 64 << 10
"""What a queue needs in shared memory beyond its capacity."""
RAY_HEAD_BYTES, RAY_NODE_BYTES = 320 << 20, 220 << 20
"""What a Ray cluster takes with its own processes, before there is a queue: once, and for each node; measured."""
RECORD_BYTES = 56
LINE_BYTES = 220
"""Of the history: a record of the log, and its line of JSON, for each put and take."""
CONDUCTOR_BYTES = 150 << 20
QUEUES_AT_MOST = 20_000
"""Of one run, however large the machine is."""
SPARE = 0.9
"""So much of what is free may be used."""
_DESCRIPTORS = {"sage_queue": 1, "shm_queue": 3}
_MAPS = {"sage_queue": 3, "shm_queue": 4}
_PROCESS_DESCRIPTORS, _CONDUCTOR_DESCRIPTORS_EACH, _OTHER_DESCRIPTORS = 12, 3, 64
_OTHER_MAPS = 600


@dataclass(frozen=True, kw_only=True)
class Need:
    """
    One thing that a run needs.

    Attributes:
        what: In words, with its unit.
        needed: How much.
        there: How much there is; None where nothing bounds it.
        hint: What to do when it is not enough.
    """

    what: str
    needed: int
    there: int | None
    hint: str = ""

    @property
    def is_met(self) -> bool:
        """Whether there is enough."""
        return self.there is None or self.needed <= self.there


def check_needs(request: Request, place: Path) -> None:
    """
    Make sure that a run can begin.

    Args:
        request: The run.
        place: Its folder, or what that will be made in; need not exist.

    Raises:
        SetupError: It cannot; the text says what is missing, or too much.
    """
    if lacking := [*unmet(needs_of(request, place)), *missing(request.plan(), request.faults)]:
        raise SetupError("; ".join(lacking))


def needs_of(request: Request, place: Path) -> list[Need]:
    """What a run needs, and what there is; see `check_needs`."""
    plan, faults = request.scenario.plan(request.seed), request.faults
    topology = plan.topology
    opened = _most_opened(topology)
    memory = shared_bytes(topology) + CONDUCTOR_BYTES + topology.processes * PROCESS_BYTES
    memory += sum(opened.values()) * OPEN_QUEUE_BYTES
    if plan.ray_nodes and any(map(needs_cluster, topology.edges)):
        memory += RAY_HEAD_BYTES + plan.ray_nodes * RAY_NODE_BYTES
    free = int(psutil.virtual_memory().available * SPARE)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)  # the conductor raises its soft limit to the hard one
    descriptors_each = _PROCESS_DESCRIPTORS + _widest(topology, opened, _DESCRIPTORS)
    here = topology.processes * _CONDUCTOR_DESCRIPTORS_EACH + _OTHER_DESCRIPTORS
    here += sum(_DESCRIPTORS.get(topology.edges[line.edge].kind, 1) for line in topology.lines)
    found = [
        Need(what="processes", needed=topology.processes, there=request.most_processes, hint="--max-procs raises it"),
        Need(what="queues", needed=topology.queues, there=QUEUES_AT_MOST),
        Need(what="process ids", needed=topology.processes + 8, there=_process_ids(), hint="ulimit -u"),
        Need(
            what="MiB of memory",
            needed=memory >> 20,
            there=min(free, request.most_memory_bytes or free) >> 20,
            hint="fewer processes, or smaller queues",
        ),
        Need(
            what="MiB of shared memory",
            needed=shared_bytes(topology) >> 20,
            there=None if _has_own_room(faults) else int(shutil.disk_usage("/dev/shm").free * SPARE) >> 20,
            hint="smaller queues, or a larger /dev/shm",
        ),
        Need(what="descriptors of the conductor", needed=here, there=most, hint="ulimit -Hn"),
        Need(what="descriptors of one process", needed=descriptors_each, there=most, hint="ulimit -Hn"),
        Need(
            what="maps of one process",
            needed=_OTHER_MAPS + max(_widest(topology, opened, _MAPS), len(topology.lines) * 4),
            there=int(Path("/proc/sys/vm/max_map_count").read_text()),
            hint="sysctl vm.max_map_count",
        ),
    ]
    if plan.items is not None:
        hops = plan.items * sum(plan.arrivals()) // max(plan.origins, 1) * 2 * len(topology.edges)
        found.append(
            Need(
                what="MiB of disk for the history, at most",
                needed=hops * (RECORD_BYTES + LINE_BYTES) >> 20,
                there=int(shutil.disk_usage(_existing(place)).free * SPARE) >> 20,
                hint="fewer items",
            )
        )
    return found


def missing(plan: Plan, faults: Faults | None) -> list[str]:
    """What has to be installed or allowed before the run can begin; in sentences."""
    kinds = sorted({edge.kind for edge in plan.topology.edges})
    found = [text for kind in kinds if (text := channels.missing_library(kind)) is not None]
    if faults is not None and faults.has("full", "unplug") and not namespaces.are_allowed():
        found += [
            f"the fault {kind!r} needs {what} of its own: run as root, or where user namespaces are allowed"
            for kind, what in (("full", "a mount"), ("unplug", "a network"))
            if faults.has(kind)
        ]
    if faults is not None and faults.has("kill-inside") and not inside.points():
        found.append(
            "the fault 'kill-inside' needs a build of sage-qd with fault points: "
            "SAGE_QD_POINTS=1 pip install ./packages/sage-qd"
        )
    return found


def unmet(needs: Sequence[Need]) -> list[str]:
    """What there is not enough of; in sentences."""
    return [
        f"needs {need.needed:,} {need.what}, and there are {need.there:,}" + (f" ({need.hint})" if need.hint else "")
        for need in needs
        if not need.is_met
    ]


def shared_bytes(topology: Topology) -> int:
    """Bytes that the queues of a run take in shared memory."""
    edges = topology.edges
    return sum(
        edges[line.edge].capacity_bytes + HEADER_BYTES
        for line in topology.lines
        if home(edges[line.edge]) is Home.MEMORY or edges[line.edge].kind == "faster_fifo"
    )


def _most_opened(topology: Topology) -> dict[str, int]:
    """For each role, how many queues all its processes have open together."""
    counts: dict[str, int] = {role.name: 0 for role in topology.roles}
    for line in topology.lines:
        edge = topology.edges[line.edge]
        counts[edge.source] += 1 if line.source is not None else topology.role(edge.source).count
        counts[edge.target] += 1 if line.target is not None else topology.role(edge.target).count
    return counts


def _widest(topology: Topology, opened: dict[str, int], cost: dict[str, int]) -> int:
    """What the process with most queues needs for them."""
    highest = max((cost.get(edge.kind, 1) for edge in topology.edges), default=1)
    return max(-(-opened[role.name] // role.count) for role in topology.roles) * highest


def _process_ids() -> int | None:
    soft, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    bounds = [int(Path("/proc/sys/kernel/pid_max").read_text())] + ([soft] if soft > 0 else [])
    pids = Path("/sys/fs/cgroup/pids.max")
    if pids.exists() and (text := pids.read_text().strip()).isdigit():
        bounds.append(int(text))
    return min(bounds) - len(psutil.pids())


def _existing(place: Path) -> Path:
    """It, or the nearest folder around it that is there."""
    return next(path for path in (place.absolute(), *place.absolute().parents) if path.exists())


def _has_own_room(faults: Faults | None) -> bool:
    return faults is not None and faults.has("full")
