"""What a job shows of itself: a snapshot for its own program, and a board for others, as ``sage-qd top --job``."""

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from time import monotonic, monotonic_ns, time_ns
from typing import Any, Final

from sage_qd.descriptors.base import BaseQueueDescriptor
from sage_qd.errors import QueueClosedError, QueueLostError, QueueNotFoundError, QueueUnavailableError
from sage_qd.runtime.board import SEEN_KINDS, Board
from sage_qd.runtime.connection import load_of
from sage_qd.runtime.graph import ExecutionGraph, GraphNode, path_name

__all__ = ["Publisher", "Rates", "make_board", "queue_names", "queues_seen", "shown_edges"]

RATE_SECONDS: Final = 0.1
"""Rates over less time than this would say more of the moment than of the task."""
ASKED_SECONDS: Final = 3.0
"""For how long somebody who asked is answered."""
PUBLISH_SECONDS: Final = 0.25


class Rates:
    """Packets a second of each task, from one look to the next."""

    def __init__(self) -> None:
        self._looked_at = monotonic()
        self._counted: dict[str, tuple[int, int]] = {}
        self._rates: dict[str, tuple[float, float]] = {}

    def add_to(self, tasks: dict[str, dict[str, Any]]) -> None:
        """Add ``rate_in`` and ``rate_out`` to the figures of each task."""
        now = monotonic()
        seconds = now - self._looked_at
        if seconds >= RATE_SECONDS:
            self._rates = {
                name: (
                    max(found["taken"] - self._counted.get(name, (0, 0))[0], 0) / seconds,
                    max(found["out"] - self._counted.get(name, (0, 0))[1], 0) / seconds,
                )
                for name, found in tasks.items()
            }
            self._counted = {name: (found["taken"], found["out"]) for name, found in tasks.items()}
            self._looked_at = now
        for name, found in tasks.items():
            found["rate_in"], found["rate_out"] = self._rates.get(name, (0.0, 0.0))


def queue_names(node: GraphNode, lanes: str) -> list[str]:
    """Return the names, in the job, of the queues from which a task takes its packets; those with packets last."""
    if not node.input_edges:
        return []
    if lanes != "per_edge" or node.transformation.is_result:
        return [f"input_{node.name}"]
    return [f"input_{node.name}", *(path_name(edge.upstream_node, node, edge.path) for edge in node.input_edges)]


def queues_seen(descriptors: Mapping[str, BaseQueueDescriptor]) -> dict[str, dict[str, Any]]:
    """Look at open queues; those that are gone by now are left out."""
    found: dict[str, dict[str, Any]] = {}
    for name, descriptor in descriptors.items():
        with suppress(QueueClosedError, QueueNotFoundError):
            queue = descriptor.open(create=False)
            stats = queue.stats()
            found[name] = {
                "depth": stats.depth,
                "leased": stats.leased,
                "load": load_of(queue),
                "put_blocked_ns": stats.put_blocked_ns,
                "get_blocked_ns": stats.get_blocked_ns,
            }
    return found


def shown_edges(graph: ExecutionGraph, lanes: str, queues: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Every edge between two tasks, with the queue that it leads to."""
    found = []
    for node in graph.nodes.values():
        for group in node.output_channels:
            for edge in group:
                target = edge.downstream_node
                names = queue_names(target, lanes)
                queue = names[0] if len(names) == 1 else path_name(node, target, edge.path)
                load = queues.get(queue, {"load": 0.0})["load"]
                found.append({"source": node.name, "target": target.name, "queue": queue, "load": load})
    return found


# -- For others -------------------------------------------------------------------------------------------------------


def make_board(
    *,
    name: str,
    job: str,
    platform: str,
    graph: ExecutionGraph,
    descriptors: Mapping[str, BaseQueueDescriptor],
    lanes: str,
    snapshots: str | None,
) -> Board:
    """
    Make the board of a job, with a block for each of its tasks, and then for each of its services.

    Raises:
        OSError: There is no room for it.
    """
    running = [node for node in graph.nodes.values() if not node.transformation.is_result]
    tasks = [{"name": node.name, "queues": queue_names(node, lanes)} for node in running]
    services = [{"name": each, "queues": [f"service_request_{each}"]} for each in graph.services]
    named = {queue for each in (*tasks, *services) for queue in each["queues"]}
    queues = {
        queue: {"kind": each.queue_type, "queue_id": each.queue_id, "namespace": getattr(each, "namespace", "")}
        for queue, each in descriptors.items()
        if queue in named
    }
    steps = {node.transformation.name: node.transformation for node in graph.nodes.values()}
    description = {
        "job": name,
        "id": job,
        "pid": os.getpid(),
        "platform": platform,
        "started_ns": time_ns(),
        "tasks": tasks,
        "services": services,
        "queues": queues,
        "steps": [
            {"name": step.name, "parallelism": step.parallelism, "inputs": [each.upstream.name for each in step.inputs]}
            for step in steps.values()
        ],
        "snapshots": snapshots,
        "published": platform == "remote" or any(each["kind"] not in SEEN_KINDS for each in queues.values()),
    }
    return Board.create(job, description, len(tasks) + len(services))


class Publisher:
    """
    Writes on the board what only the driver knows, in a thread of its own, while somebody looks.

    Args:
        board: Of the job.
        descriptors: All queues of the job.
        refresh: Brings the counters of the tasks up to date.
    """

    def __init__(
        self, board: Board, descriptors: Mapping[str, BaseQueueDescriptor], refresh: Callable[[], None]
    ) -> None:
        self._board = board
        self._refresh = refresh
        entries = [*board.description["tasks"], *board.description["services"]]
        self._queues = [[descriptors[name] for name in entry["queues"]] for entry in entries]
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sage-qd-publisher", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread, and wait for that; twice is once."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(PUBLISH_SECONDS):
            if monotonic_ns() - self._board.asked_ns < ASKED_SECONDS * 1e9:
                self._publish()

    def _publish(self) -> None:
        self._refresh()
        for number, descriptors in enumerate(self._queues):
            with suppress(QueueClosedError, QueueNotFoundError, QueueLostError, QueueUnavailableError):
                self._board.write_queue(number, *_together(descriptors))
        self._board.publish(monotonic_ns())


def _together(descriptors: Sequence[BaseQueueDescriptor]) -> tuple[int, int, float]:
    """Depth, leases and load of the queues of one task."""
    queues = [descriptor.open(create=False) for descriptor in descriptors]
    stats = [queue.stats() for queue in queues]
    load = max(map(load_of, queues), default=0.0)
    return sum(each.depth for each in stats), sum(each.leased for each in stats), load
