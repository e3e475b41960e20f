"""
The dispatcher: makes the queues of a job, then its tasks, runs them, and clears up.

Every queue exists before any task starts; tasks only attach. A job ends by itself when all sources have ended and all
that they sent has reached the ends of the graph.
"""

import atexit
import os
import shutil
import tempfile
import threading
import weakref
from contextlib import suppress
from enum import Enum
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, Protocol, cast, runtime_checkable

from sage_qd.descriptors.base import BaseQueueDescriptor
from sage_qd.descriptors.pool import QueueDescriptorPool
from sage_qd.descriptors.ray import behind_ray
from sage_qd.errors import (
    Empty,
    GraphError,
    QueueClosedError,
    QueueLostError,
    QueueNotFoundError,
    ShutDown,
)
from sage_qd.runtime.connection import Connection, load_of
from sage_qd.runtime.context import RuntimeContext
from sage_qd.runtime.counters import Counters
from sage_qd.runtime.delivery import FileSnapshots
from sage_qd.runtime.graph import ExecutionGraph, GraphNode
from sage_qd.runtime.operators import SourceOperator
from sage_qd.runtime.packets import is_stop
from sage_qd.runtime.page import job_page
from sage_qd.runtime.process_task import ProcessTask, Restarted
from sage_qd.runtime.running import LocalRunner, LocalServiceTask, ProcessRunner, Runner, ServiceTask
from sage_qd.runtime.task import BaseTask, Failure, LocalTask

if TYPE_CHECKING:
    from sage_qd.runtime.environment import Environment

__all__ = ["Dispatcher", "JobState"]

DEAD_LETTERS: Final = 10_000
SLICE_SECONDS: Final = 0.05
RATE_SECONDS: Final = 0.1
"""Rates over less time than this would say more of the moment than of the task."""
MEMORY_FOLDER: Final = "/dev/shm"


_running: "weakref.WeakSet[Dispatcher]" = weakref.WeakSet()


class JobState(Enum):
    """Where a job is in its life."""

    CREATED = "created"
    SUBMITTED = "submitted"
    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    STOPPED = "stopped"


@runtime_checkable
class HasDestroy(Protocol):
    """The descriptor of a queue that others could still find, and that can be removed."""

    def destroy(self) -> None:
        """Remove the queue, and close it here."""


class RemoteTraceback(Exception):
    """The traceback of an error in another thread or process, as the cause of that error here."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f"\n{self.text}"


class Dispatcher:
    """
    Runs one job.

    Args:
        graph: What to run.
        env: Where and how to run it.

    Attributes:
        owner_pid: The process that made it, and stops it when it ends.
        queue_descriptors: All queues of the job by name: ``input_<node>`` for each node,
            ``<source>_to_<target>_<b>_<p>`` for each path, ``service_request_<name>`` and ``service_response_<node>``.
        tasks: By the name of their node.
    """

    def __init__(self, graph: ExecutionGraph, env: "Environment") -> None:
        self.graph = graph
        self.env = env
        self.name = env.name
        self.state = JobState.CREATED
        self.owner_pid = os.getpid()
        self.queue_descriptors: dict[str, BaseQueueDescriptor] = {}
        self.queue_creation_strategy = env.strategy(env.job)
        self.tasks: dict[str, BaseTask] = {}
        self.services: dict[str, BaseTask] = {}
        self.results: dict[str, list[Any]] = {}
        self.dead_letters: list[tuple[str, Any, str]] = []
        self._folder: str | None = None
        self._runner: Runner | None = None
        self._seen: dict[tuple[str, int], int] = {}
        self._stopped: dict[str, set[int]] = {}
        self._cleaning = threading.Lock()
        self._looked_at = monotonic()
        self._counted: dict[str, tuple[int, int]] = {}
        self._rates: dict[str, tuple[float, float]] = {}

    # -- Making -------------------------------------------------------------------------------------------------------

    @property
    def is_local(self) -> bool:
        """Whether tasks are threads of this process."""
        return self.env.platform == "local"

    def _create_task_queues(self) -> None:
        """Make the descriptor of every queue, and open each: from here on they exist."""
        strategy, lanes = self.queue_creation_strategy, self.env.lanes == "per_edge"
        is_remote = self.env.platform == "remote"
        for name, node in self.graph.nodes.items():
            if node.input_edges:
                made = strategy.create_task_input_queue(name, is_remote, maxsize=node.buffer_size)
                self.queue_descriptors[f"input_{name}"] = made
            for edge in node.input_edges:
                path = _path_name(edge.upstream_node, node, edge.path)
                self.queue_descriptors[path] = (
                    strategy.create_inter_task_queue(
                        edge.upstream_node.name, f"{name}_{edge.path}", is_remote, maxsize=node.buffer_size
                    )
                    if lanes and not node.transformation.is_result
                    else self.queue_descriptors[f"input_{name}"]
                )
        for service in self.graph.services:
            self.queue_descriptors[f"service_request_{service}"] = strategy.create_service_request_queue(
                service, is_remote
            )
        if self.graph.services:
            for name in self.graph.nodes:
                self.queue_descriptors[f"service_response_{name}"] = strategy.create_service_response_queue(
                    name, is_remote
                )
        self.queue_descriptors["dead_letters"] = strategy.create_task_input_queue(
            "dead letters", is_remote, maxsize=DEAD_LETTERS
        )
        for descriptor in self.queue_descriptors.values():
            descriptor.open()

    def submit(self) -> None:
        """
        Make queues, then tasks, then the connections between them; nothing runs yet.

        Raises:
            GraphError: A source cannot be rewound, and the job's delivery needs that.
        """
        if self.env.platform == "remote":
            ray_task().check_cluster()
        try:
            self._check_sources()
            self._create_task_queues()
            if (self.env.delivery != "at_most_once" or self.env.restarts) and self.env.platform != "remote":
                self._folder = tempfile.mkdtemp(prefix="sage-qd-job-", dir=_snapshot_place())
            running = {name: node for name, node in self.graph.nodes.items() if not node.transformation.is_result}
            counted = Counters.many(len(running) + len(self.graph.services))
            for (name, node), counters in zip(running.items(), counted, strict=False):
                self.tasks[name] = self._task(node, counters)
            for name, node in running.items():
                self._setup_node_connections_with_descriptors(name, node)
            for service, counters in zip(self.graph.services.values(), counted[len(running) :], strict=True):
                ctx = RuntimeContext(name=service.name, job=self.env.job)
                ctx.set_input_queue_descriptor(self.queue_descriptors[f"service_request_{service.name}"])
                made = self._kind(is_service=True)(ctx, _no_operator, counters)
                made.service = service.factory
                self.services[service.name] = made
        except BaseException:
            self.cleanup()
            raise
        self.state = JobState.SUBMITTED

    def _check_sources(self) -> None:
        for node in self.graph.nodes.values():
            if node.transformation.is_source and self.env.delivery != "at_most_once":
                operator = node.transformation.factory()
                if isinstance(operator, SourceOperator) and not operator.can_rewind:
                    raise GraphError(
                        node=node.transformation.name,
                        reason=f"an iterator cannot be rewound, as delivery={self.env.delivery!r} needs after a kill; "
                        "give a list, a range, a file, or a function that makes the iterator",
                    )

    def _task(self, node: GraphNode, counters: Counters) -> BaseTask:
        ctx = RuntimeContext(
            name=node.name,
            job=self.env.job,
            parallel_index=node.parallel_index,
            parallelism=node.parallelism,
            stop_signal_num=node.stop_signal_num,
            input_indices=[edge.input_index for edge in node.input_edges],
            delivery=self.env.delivery,
            on_error=node.transformation.on_error,
            batch_size=self.env.batch_size,
            linger=self.env.linger,
            overflow=self.env.overflow,
            snapshots=None if self._folder is None else FileSnapshots(f"{self._folder}/{len(self.tasks)}"),
            dead_letters=self.queue_descriptors["dead_letters"],
        )
        if node.input_edges:
            ctx.set_input_queue_descriptor(self.queue_descriptors[f"input_{node.name}"])
            if self.env.lanes == "per_edge":
                ctx.lanes = [
                    self.queue_descriptors[_path_name(edge.upstream_node, node, edge.path)] for edge in node.input_edges
                ]
        services = tuple(self.graph.services)
        ctx.set_service_names(services)
        wanted = [f"service_request_{name}" for name in services] + [f"service_response_{node.name}"] * bool(services)
        ctx.set_queue_descriptor_pool({name: self.queue_descriptors[name] for name in wanted})
        return cast(BaseTask, self._kind(is_service=False)(ctx, node.transformation.factory, counters))

    def _kind(self, is_service: bool) -> Any:
        """The class of the tasks of this platform."""
        if self.env.platform == "remote":
            return ray_task().RayTask
        if self.is_local:
            return LocalServiceTask if is_service else LocalTask
        return ServiceTask if is_service else ProcessTask

    def _setup_node_connections_with_descriptors(self, name: str, node: GraphNode) -> None:
        """Give a task its paths, each with the descriptor of the queue at its end."""
        for group, (edges, partition) in enumerate(zip(node.output_channels, node.partitions, strict=True)):
            for place, edge in enumerate(edges):
                target = edge.downstream_node
                connection = Connection(
                    broadcast_index=group,
                    parallel_index=place,
                    target_name=target.name,
                    target_handle=self.tasks.get(target.name) if self.is_local else None,
                    target_input_index=edge.input_index,
                    target_type=self.env.platform,
                    target_queue_descriptor=self.queue_descriptors[_path_name(node, target, edge.path)],
                    path=edge.path,
                )
                self.tasks[name].add_connection(connection, partition)

    # -- Running ------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start every task; returns at once."""
        if self.state is not JobState.SUBMITTED:
            raise RuntimeError(f"job {self.name!r} is {self.state.value}; submit() it first, and start it once")
        self.state = JobState.RUNNING
        for name, node in self.graph.nodes.items():
            if node.transformation.is_result:
                self.results[name] = []
                self._stopped[name] = set()
        self._runner = self._made_runner()
        self._runner.start()
        _running.add(self)
        # Anew for each job: what is registered last runs first, so before others wait for their child processes.
        atexit.unregister(_stop_what_runs)
        atexit.register(_stop_what_runs)

    def _made_runner(self) -> Runner:
        tasks: list[Any] = list(self.tasks.values())
        services: list[Any] = list(self.services.values())
        if self.is_local:
            return LocalRunner(tasks, services, self.queue_descriptors)
        if self.env.platform == "remote":
            made: Runner = ray_task().RayRunner(
                tasks, services, self.queue_descriptors, restarts=self.env.restarts, node_ids=self.env.node_ids
            )
            return made
        return ProcessRunner(
            tasks,
            services,
            self.queue_descriptors,
            restarts=self.env.restarts,
            remove=partial(_remove, self.queue_descriptors),
            folder=self._folder,
        )

    @property
    def failure(self) -> Failure | None:
        """What ended the job, if something did."""
        return None if self._runner is None else self._runner.failure

    @property
    def supervisor_pid(self) -> int | None:
        """The process that starts and watches those of the tasks; None where there is none."""
        return self._runner.supervisor_pid if isinstance(self._runner, ProcessRunner) else None

    @property
    def restarted(self) -> list[Restarted]:
        """The tasks that were started again, as it happened."""
        return [] if self._runner is None else self._runner.restarted

    def wait(self, timeout: float | None = None) -> bool:
        """
        Wait for the end of the job, and take what is collected. Call it while the job runs: what nobody collects holds
        the job up.

        Args:
            timeout: Seconds; ``None`` waits without end.

        Returns:
            Whether the job has ended.

        Raises:
            Exception: What ended the job: the first error of a task, with its traceback as the cause.
        """
        until = None if timeout is None else monotonic() + timeout
        try:
            while not self._step():
                if until is not None and monotonic() >= until:
                    return False
        except KeyboardInterrupt:
            self.stop()
            raise
        self.cleanup()
        if self.failure is not None:
            raise self.failure.error from RemoteTraceback(self.failure.trace or str(self.failure.error))
        return True

    def _step(self) -> bool:
        """Look once at everything that can have happened; whether the job is over."""
        if self.state is not JobState.RUNNING:
            return True
        runner, took = self._runner, self._collect()
        if runner is None:
            raise RuntimeError(f"job {self.name!r} runs without a runner")
        has_ended = runner.has_ended
        if not has_ended:
            runner.look(0 if took else SLICE_SECONDS)
        if runner.failure is not None:
            self._finish(JobState.FAILED)
            return True
        if has_ended and not took and all(map(self._is_collected, self.results)):
            self._finish(JobState.FINISHED)
            return True
        return False

    def _collect(self) -> bool:
        """Take what was sent to the driver; whether there was something."""
        took = False
        for name, results in self.results.items():
            queue = self.queue_descriptors[f"input_{name}"].open()
            with suppress(Empty, ShutDown):
                for message in queue.get_many(64, timeout=0):
                    took = True
                    if is_stop(message):
                        self._stopped[name].add(message.path)
                        continue
                    path, sequence, payloads, _ = message
                    if self.env.delivery == "exactly_once":
                        known = self._seen.get((name, path), 0)
                        payloads = payloads[max(known - sequence, 0) :]
                        self._seen[name, path] = max(known, sequence + len(message[2]))
                    results += payloads
        with suppress(Empty, ShutDown):
            self.dead_letters += self.queue_descriptors["dead_letters"].open().get_many(1000, timeout=0)
        return took

    def _is_collected(self, name: str) -> bool:
        return len(self._stopped[name]) >= self.graph.nodes[name].stop_signal_num

    # -- Ending -------------------------------------------------------------------------------------------------------

    def receive_stop_signal(self, name: str | None = None) -> None:
        """
        Stop one source, or all of them, as if their items had ended; the rest of the job drains and ends.

        Raises:
            KeyError: There is no such node.
            ValueError: The job runs on a Ray cluster, where stop() ends it.
        """
        sources = [node.name for node in self.graph.nodes.values() if node.transformation.is_source]
        for source in sources if name is None else [name]:
            self.receive_node_stop_signal(source)

    def receive_node_stop_signal(self, name: str) -> None:
        """
        Stop one source by the name of its node, as if its items had ended; the rest of the job drains and ends.

        Raises:
            KeyError: There is no such node.
            ValueError: The job runs on a Ray cluster, where stop() ends it.
        """
        if self.env.platform == "remote":
            raise ValueError("a source in an actor cannot be told to end; stop() ends the job")
        self.tasks[name].stop()

    def stop(self) -> None:
        """Stop the job now: what is under way is lost. Safe to call again, and from a signal handler."""
        if self.state is JobState.RUNNING:
            self._finish(JobState.STOPPED)
        self.cleanup()

    def _finish(self, state: JobState) -> None:
        """End all tasks, in the way that leads to this state."""
        self.state = state
        _running.discard(self)
        if self._runner is not None:
            self._runner.finish(state is JobState.FINISHED)
            self._collect()

    def cleanup(self) -> None:
        """Remove the queues and the snapshots; safe to call again."""
        with self._cleaning:
            if self.state is JobState.RUNNING:
                raise RuntimeError(f"job {self.name!r} is running; stop() it first")
            _remove(self.queue_descriptors)
            if self._runner is not None:
                self._runner.cleanup()
            if self._folder is not None:
                shutil.rmtree(self._folder, ignore_errors=True)
                self._folder = None

    # -- Looking ------------------------------------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """Return the state of the job and its tasks as plain data."""
        return {
            "job": self.name,
            "state": self.state.value,
            "error": None if self.failure is None else f"{type(self.failure.error).__name__}: {self.failure.error}",
            "tasks": {name: task.figures() for name, task in self.tasks.items()},
        }

    def snapshot(self) -> dict[str, Any]:
        """
        Return figures of every task, queue and edge as plain data.

        A task has what :class:`~sage_qd.runtime.counters.Counters` counts, ``rate_in`` and ``rate_out`` in packets a
        second since the last snapshot of a tenth of a second ago or more, and the ``depth`` and ``load`` of its input
        queue. An edge has the ``load`` of the queue that it leads to.
        """
        queues: dict[str, dict[str, Any]] = {}
        for name, descriptor in self.queue_descriptors.items():
            if name.startswith(("input_", "service_")) and self.state is JobState.RUNNING:
                with suppress(QueueClosedError, QueueNotFoundError):
                    queue = descriptor.open()
                    stats = queue.stats()
                    queues[name] = {
                        "depth": stats.depth,
                        "leased": stats.leased,
                        "load": load_of(queue),
                        "put_blocked_ns": stats.put_blocked_ns,
                        "get_blocked_ns": stats.get_blocked_ns,
                    }
        status = self.status()
        self._rate(status["tasks"])
        for name, figures in status["tasks"].items():
            queue_figures = queues.get(f"input_{name}", {"depth": 0, "load": 0.0})
            figures |= {"depth": queue_figures["depth"], "load": queue_figures["load"]}
        return status | {
            "queues": queues,
            "edges": [
                {
                    "source": node.name,
                    "target": edge.downstream_node.name,
                    "queue": f"input_{edge.downstream_node.name}",
                    "load": queues.get(f"input_{edge.downstream_node.name}", {"load": 0.0})["load"],
                }
                for node in self.graph.nodes.values()
                for group in node.output_channels
                for edge in group
            ],
        }

    def _rate(self, tasks: dict[str, dict[str, Any]]) -> None:
        """Add the rates of the tasks since the last look."""
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

    def write_page(self, path: str | os.PathLike[str]) -> None:
        """
        Write the job as it is now to a file: one page for the browser, complete in itself.

        Raises:
            OSError: The file cannot be written.
        """
        with open(path, "w", encoding="utf-8") as file:
            file.write(job_page(self.snapshot()))

    @property
    def pool(self) -> QueueDescriptorPool:
        """The descriptors of the job, to be handed to another process."""
        return QueueDescriptorPool(self)


def _path_name(source: GraphNode, target: GraphNode, path: int) -> str:
    edge = target.input_edges[path]
    for group, edges in enumerate(source.output_channels):
        if edge in edges:
            return f"{source.name}_to_{target.name}_{group}_{edges.index(edge)}"
    raise GraphError(node=target.name, reason=f"it has no path from {source.name!r}")


def ray_task() -> Any:
    """The module of the runtime that needs Ray."""
    return behind_ray("sage_qd.runtime.ray_task", "RemoteEnvironment")


def _stop_what_runs() -> None:
    """Stop the jobs that the program left running when it ended; a forked child that ends leaves its parent's alone."""
    for dispatcher in list(_running):
        if dispatcher.owner_pid == os.getpid():
            dispatcher.stop()


def _snapshot_place() -> str | None:
    """A folder in memory, which takes a fraction of the time; unless the user names a place for such files."""
    is_free = "TMPDIR" not in os.environ and os.access(MEMORY_FOLDER, os.W_OK)
    return MEMORY_FOLDER if is_free else None


def _no_operator() -> Any:
    raise TypeError("a service has no operator")


def _remove(descriptors: dict[str, BaseQueueDescriptor]) -> None:
    """Close and remove queues."""
    for descriptor in descriptors.values():
        if not descriptor.is_initialized():
            continue
        if isinstance(descriptor, HasDestroy):
            with suppress(QueueClosedError, QueueNotFoundError, QueueLostError):
                descriptor.destroy()
        descriptor.close()
