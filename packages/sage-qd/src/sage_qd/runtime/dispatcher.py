"""
The dispatcher: makes the queues of a job, then its tasks, runs them, and clears up.

Every queue exists before any task starts; tasks only attach. A job ends by itself when all sources have ended and all
that they sent has reached the ends of the graph.
"""

import os
import shutil
import tempfile
import threading
from enum import Enum
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, cast

from sage_qd.descriptors.base import BaseQueueDescriptor
from sage_qd.descriptors.pool import QueueDescriptorPool
from sage_qd.descriptors.ray import behind_ray
from sage_qd.errors import GraphError
from sage_qd.runtime.board import SNAPSHOTS_PREFIX, Board
from sage_qd.runtime.clearing import remove_queues, snapshot_place, stop_at_exit, stopped
from sage_qd.runtime.collecting import Collected
from sage_qd.runtime.connection import Connection
from sage_qd.runtime.context import RuntimeContext
from sage_qd.runtime.counters import Counters
from sage_qd.runtime.delivery import FileSnapshots
from sage_qd.runtime.graph import ExecutionGraph, GraphNode, path_name
from sage_qd.runtime.looking import Publisher, Rates, make_board, queue_names, queues_seen, shown_edges
from sage_qd.runtime.operators import SourceOperator
from sage_qd.runtime.page import job_page
from sage_qd.runtime.process_task import ProcessTask, Restarted
from sage_qd.runtime.running import LocalRunner, LocalServiceTask, ProcessRunner, Runner, ServiceTask
from sage_qd.runtime.task import BaseTask, Failure, LocalTask

if TYPE_CHECKING:
    from sage_qd.runtime.environment import Environment

__all__ = ["Dispatcher", "JobState"]

DEAD_LETTERS: Final = 10_000
SLICE_SECONDS: Final = 0.05


class JobState(Enum):
    """Where a job is in its life."""

    CREATED = "created"
    SUBMITTED = "submitted"
    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    STOPPED = "stopped"


class RemoteTraceback(Exception):
    """The traceback of an error in another thread or process, as the cause of that error here."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


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
        self._state = JobState.CREATED
        self.owner_pid = os.getpid()
        self.queue_descriptors: dict[str, BaseQueueDescriptor] = {}
        self.queue_creation_strategy = env.strategy(env.job)
        self.tasks: dict[str, BaseTask] = {}
        self.services: dict[str, BaseTask] = {}
        ends = {node.name: node.stop_signal_num for node in graph.nodes.values() if node.transformation.is_result}
        self._collected = Collected(self.queue_descriptors, ends, env.delivery == "exactly_once")
        self._folder: str | None = None
        self._runner: Runner | None = None
        self._mutex = threading.RLock()  # a signal handler may stop the job that its own thread looks at
        self._rates = Rates()
        self._board: Board | None = None
        self._publisher: Publisher | None = None

    @property
    def state(self) -> JobState:
        """Where the job is in its life."""
        return self._state

    @state.setter
    def state(self, state: JobState) -> None:
        self._state = state
        if self._board is not None:
            self._board.state = state.value

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
                path = path_name(edge.upstream_node, node, edge.path)
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
            if any(map(self._needs_snapshots, self.graph.nodes.values())) and self.env.platform != "remote":
                self._folder = tempfile.mkdtemp(prefix=SNAPSHOTS_PREFIX, dir=snapshot_place())
            running = {name: node for name, node in self.graph.nodes.items() if not node.transformation.is_result}
            counted = self._made_counters(len(running) + len(self.graph.services))
            for (name, node), counters in zip(running.items(), counted, strict=False):
                self.tasks[name] = self._task(node, counters)
            for name, node in running.items():
                self._setup_node_connections_with_descriptors(name, node)
            for service, counters in zip(self.graph.services.values(), counted[len(running) :], strict=True):
                ctx = RuntimeContext(name=service.name, job=self.env.job, restarts=self._restarts(service.restarts))
                ctx.set_input_queue_descriptor(self.queue_descriptors[f"service_request_{service.name}"])
                made = self._kind(is_service=True)(ctx, _no_operator, counters)
                made.service = service.factory
                self.services[service.name] = made
        except BaseException:
            self.cleanup()
            raise
        self.state = JobState.SUBMITTED

    def _made_counters(self, count: int) -> list[Counters]:
        """Make the board of the job, on which its tasks count."""
        board = self._board = make_board(
            name=self.name,
            job=self.env.job,
            platform=self.env.platform,
            graph=self.graph,
            descriptors=self.queue_descriptors,
            lanes=self.env.lanes,
            snapshots=self._folder,
        )
        return [Counters(board.memory, board.block(number)) for number in range(count)]

    def _restarts(self, restarts: int | None) -> int:
        """How often a step or service that says this is started again."""
        return self.env.restarts if restarts is None else restarts

    def _needs_snapshots(self, node: GraphNode) -> bool:
        """Whether a task could start again, or is to settle its packets with its snapshots."""
        return self.env.delivery != "at_most_once" or self._restarts(node.transformation.restarts) > 0

    def _check_sources(self) -> None:
        for node in self.graph.nodes.values():
            step = node.transformation
            if step.is_source and self.env.delivery != "at_most_once" and step.restarts != 0:
                operator = step.factory()
                if isinstance(operator, SourceOperator) and not operator.can_rewind:
                    raise GraphError(
                        node=step.name,
                        reason=f"an iterator cannot be rewound, as delivery={self.env.delivery!r} needs after a kill; "
                        "give a list, a range, a file, a function that makes the iterator, or restarts=0 for it",
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
            restarts=self._restarts(node.transformation.restarts),
            batch_size=self.env.batch_size,
            linger=self.env.linger,
            overflow=self.env.overflow,
            snapshots=FileSnapshots(f"{self._folder}/{len(self.tasks)}")
            if self._folder is not None and self._needs_snapshots(node)
            else None,
            dead_letters=self.queue_descriptors["dead_letters"],
        )
        if node.input_edges:
            ctx.set_input_queue_descriptor(self.queue_descriptors[f"input_{node.name}"])
            if self.env.lanes == "per_edge":
                ctx.lanes = [
                    self.queue_descriptors[path_name(edge.upstream_node, node, edge.path)] for edge in node.input_edges
                ]
        ctx.set_service_names(tuple(self.graph.services))
        ctx.set_queue_descriptor_pool(self.queue_descriptors)
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
                    target_queue_descriptor=self.queue_descriptors[path_name(node, target, edge.path)],
                    path=edge.path,
                )
                self.tasks[name].add_connection(connection, partition)

    # -- Running ------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """
        Start every task; returns at once.

        Raises:
            GraphError: A step cannot be sent to the nodes of a cluster.
            RuntimeError: The job was not submitted, or started already.
        """
        if self.state is not JobState.SUBMITTED:
            raise RuntimeError(f"job {self.name!r} is {self.state.value}; submit() it first, and start it once")
        self.state = JobState.RUNNING
        self._runner = self._made_runner()
        try:
            self._runner.start()
        except BaseException:
            self._finish(JobState.FAILED)
            self.cleanup()
            raise
        if self._board is not None and self._board.description["published"]:
            self._publisher = Publisher(self._board, self.queue_descriptors, self._runner.refresh)
            self._publisher.start()
        stop_at_exit(self)

    def _made_runner(self) -> Runner:
        tasks: list[Any] = list(self.tasks.values())
        services: list[Any] = list(self.services.values())
        if self.is_local:
            return LocalRunner(tasks, services, self.queue_descriptors)
        if self.env.platform == "remote":
            made: Runner = ray_task().RayRunner(tasks, services, self.queue_descriptors, node_ids=self.env.node_ids)
            return made
        return ProcessRunner(
            tasks,
            services,
            self.queue_descriptors,
            remove=self._abandon,
        )

    @property
    def results(self) -> dict[str, list[Any]]:
        """What was collected, by node."""
        return self._collected.results

    @property
    def dead_letters(self) -> list[tuple[str, Any, str]]:
        """The packets that were skipped: task, packet, traceback."""
        return self._collected.dead_letters

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
            trace = self.failure.trace or str(self.failure.error)
            raise self.failure.error from RemoteTraceback(f"in task {self.failure.task!r}:\n{trace}")
        return True

    def _step(self) -> bool:
        """Look once at everything that can have happened; whether the job is over."""
        with self._mutex:  # who stops the job from another thread waits for the end of this look
            if self.state is not JobState.RUNNING:
                return True
            try:
                runner, took = self._runner, self._collected.take()
                if runner is None:
                    raise RuntimeError(f"job {self.name!r} runs without a runner")
                has_ended = runner.has_ended
                if not has_ended:
                    runner.look(0 if took else SLICE_SECONDS)
            except Exception:
                if self.state is JobState.RUNNING:
                    raise
                return True  # a signal handler stopped the job, and closed what was looked at
            if runner.failure is not None:
                self._finish(JobState.FAILED)
            elif has_ended and not took and self._collected.is_complete:
                self._finish(JobState.FINISHED)
            return self.state is not JobState.RUNNING

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
        """End all tasks, in the way that leads to this state; of several threads that would, one does."""
        with self._mutex:
            if self.state is not JobState.RUNNING:
                return
            self.state = state
            stopped(self)
            if self._runner is not None:
                self._runner.finish(state is JobState.FINISHED)
                self._collected.take()

    def cleanup(self) -> None:
        """Remove the queues and the snapshots; safe to call again."""
        with self._mutex:
            if self.state is JobState.RUNNING:
                raise RuntimeError(f"job {self.name!r} is running; stop() it first")
            if self._publisher is not None:
                self._publisher.stop()
            self._abandon()
            if self._runner is not None:
                self._runner.cleanup()

    def _abandon(self) -> None:
        """Remove everything that others could find; the supervisor does it when the driver cannot."""
        remove_queues(self.queue_descriptors)
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None
        if self._board is not None:
            self._board.remove()

    # -- Looking ------------------------------------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """Return the state of the job and its tasks as plain data."""
        if self._runner is not None and self.state is JobState.RUNNING:
            self._runner.refresh()
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
        status, lanes = self.status(), self.env.lanes
        shown = {queue for node in self.graph.nodes.values() for queue in queue_names(node, lanes)}
        looked_at = {
            name: descriptor
            for name, descriptor in self.queue_descriptors.items()
            if name in shown or name.startswith("service_")
        }
        queues = queues_seen(looked_at) if self.state is JobState.RUNNING else {}
        self._rates.add_to(status["tasks"])
        for name, figures in status["tasks"].items():
            found = [queues[queue] for queue in queue_names(self.graph.nodes[name], lanes) if queue in queues]
            figures["depth"] = sum(each["depth"] for each in found)
            figures["load"] = max((each["load"] for each in found), default=0.0)
        return status | {"queues": queues, "edges": shown_edges(self.graph, lanes, queues)}

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


def ray_task() -> Any:
    """The module of the runtime that needs Ray."""
    return behind_ray("sage_qd.runtime.ray_task", "RemoteEnvironment")


def _no_operator() -> Any:
    raise TypeError("a service has no operator")
