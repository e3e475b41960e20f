"""
Tasks as actors of a Ray cluster. Ray carries the task to its node and tells of its death; packets go through queues.

This module and :mod:`sage_qd.queues.ray_actor` are the only ones that import Ray, and neither initialises it.
"""

import pickle
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final

import ray
from ray.exceptions import ActorUnschedulableError, GetTimeoutError, RayActorError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sage_qd.descriptors.base import BaseQueueDescriptor
from sage_qd.errors import GraphError, QueueUnavailableError, ShutDown, TaskDiedError
from sage_qd.runtime.context import RuntimeContext
from sage_qd.runtime.operators import Operator
from sage_qd.runtime.process_task import Restarted, packed
from sage_qd.runtime.running import Runner, end_queues, service_queues
from sage_qd.runtime.services import serve
from sage_qd.runtime.task import BaseTask, Failure, users_code

__all__ = ["RayRunner", "RaySnapshots", "RayTask", "check_cluster"]

GRACE_SECONDS: Final = 5.0
"""How long actors may take to end after the job was stopped, before they are killed."""
FIGURES_SECONDS: Final = 5.0
"""How long an actor may take to tell its figures; then the last ones are shown."""
KILLED: Final = -9
"""The exit code of an actor that died: Ray does not tell it."""


class RayTask(BaseTask):
    """A task in an actor of its own; this is the driver's side of it."""

    service: Callable[[], object] | None = None
    node_id: str | None = None

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.actor: Any = None
        self.running: Any = None

    def start_running(self) -> None:
        """
        Make the actor, and let it run the task.

        Raises:
            GraphError: What the task works with cannot be pickled.
        """
        placed = None if self.node_id is None else NodeAffinitySchedulingStrategy(self.node_id, soft=False)
        options = {"num_cpus": 0, "max_concurrency": 2, "max_restarts": 0, "scheduling_strategy": placed}
        try:
            self.actor = ray.remote(_Worker).options(**options).remote(self.ctx, self._factory, self.service)
        except (TypeError, pickle.PicklingError) as error:
            reason = (
                f"it cannot be sent to another process, with what its functions refer to: {error.__cause__ or error}"
            )
            raise GraphError(node=self.name, reason=reason) from error
        self.running = self.actor.run.remote()

    def cleanup(self) -> None:
        """Kill the actor; twice is once."""
        if self.actor is not None:
            ray.kill(self.actor)
            self.actor = None


class _Worker:
    """The actor of one task, or of one service."""

    def __init__(
        self, ctx: RuntimeContext, factory: Callable[[], Operator], service: Callable[[], object] | None
    ) -> None:
        self._task = BaseTask(ctx, factory)
        self._service = service

    def run(self) -> bytes | None:
        """Run to the end: None, or the failure, packed."""
        try:
            if self._service is None:
                self._task.run()
            else:
                with users_code():
                    service = self._service()
                serve(service, self._task.get_input_buffer())
        except ShutDown:
            return None
        except BaseException as error:  # noqa: BLE001  (whatever it is, the job ends with it)
            return packed(Failure(self._task.name, error, traceback.format_exc()))
        return None

    def figures(self) -> dict[str, int]:
        """The counters of the task."""
        return self._task.counters.as_dict()


class _Store:
    """The actor that keeps the snapshots of a job, on the node of its driver."""

    def __init__(self) -> None:
        self._kept: dict[str, bytes] = {}

    def write(self, name: str, data: bytes) -> None:
        self._kept[name] = data

    def read(self, name: str) -> bytes | None:
        return self._kept.get(name)


class RaySnapshots:
    """The snapshots of one task in an actor: they survive the task's node."""

    def __init__(self, store: Any, name: str) -> None:
        self._store = store
        self._name = name

    def write(self, state: Any) -> None:
        """Put a snapshot in place of the one before it, in one step."""
        ray.get(self._store.write.remote(self._name, pickle.dumps(state, protocol=5)))

    def read(self) -> Any:
        """Return the snapshot, or None when there is none yet."""
        data = ray.get(self._store.read.remote(self._name))
        return None if data is None else pickle.loads(data)


class RayRunner(Runner):
    """
    Tasks in actors.

    Args:
        tasks: To run until their input ends.
        services: To run until the tasks have ended.
        descriptors: All queues of the job.
        node_ids: On which nodes tasks are placed, in turn; none for where Ray likes.
    """

    def __init__(
        self,
        tasks: Sequence[RayTask],
        services: Sequence[RayTask],
        descriptors: dict[str, BaseQueueDescriptor],
        *,
        node_ids: Sequence[str],
    ) -> None:
        super().__init__()
        self._tasks = tasks
        self._services = services
        self._descriptors = descriptors
        self._node_ids = node_ids
        self._store: Any = None
        self._left: dict[Any, RayTask] = {}

    def start(self) -> None:
        """Make the actors."""
        if any(_needs_snapshots(task) for task in self._tasks):
            here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
            self._store = ray.remote(_Store).options(num_cpus=0, scheduling_strategy=here).remote()
        for place, task in enumerate((*self._services, *self._tasks)):
            if self._node_ids:
                task.node_id = self._node_ids[place % len(self._node_ids)]
            if _needs_snapshots(task):
                task.ctx.snapshots = RaySnapshots(self._store, task.name)
            task.start_running()
        self._left = {task.running: task for task in self._tasks}

    def look(self, seconds: float) -> None:
        """See which actors have ended."""
        services = {service.running: service for service in self._services}
        ready, _ = ray.wait([*self._left, *services], num_returns=1, timeout=seconds)
        for running in ready:
            task = self._left.pop(running, None) or services[running]
            try:
                found = ray.get(running)
            except RayActorError as error:
                if error.actor_init_failed:
                    self.failure = Failure(task.name, error, str(error))  # it would fail again
                else:
                    self._restart(task)
                continue
            except ActorUnschedulableError as error:
                self.failure = Failure(task.name, error, str(error))
                continue
            if found is not None:
                self.failure = pickle.loads(found)
        self.has_ended = not self._left

    def refresh(self) -> None:
        """Ask all actors at once; the last figures stay of those that do not answer, or are no more."""
        actors = {task: task.actor for task in self._tasks}
        asked = {task: actor.figures.remote() for task, actor in actors.items() if actor is not None}
        if asked:
            ray.wait(list(asked.values()), num_returns=len(asked), timeout=FIGURES_SECONDS)
        for task, answer in asked.items():
            with suppress(RayActorError, GetTimeoutError):
                task.counters.take(ray.get(answer, timeout=0))

    def _restart(self, task: RayTask) -> None:
        if task.counters.restarts >= task.ctx.restarts:
            error = TaskDiedError(task=task.name, exit_code=KILLED, restarts=task.counters.restarts)
            self.failure = Failure(task.name, error, "")
            return
        task.counters.restarts += 1
        if self._node_ids:
            alive = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
            if task.node_id not in alive:
                task.node_id = None
        task.cleanup()  # one that is only out of reach would go on taking packets
        task.start_running()
        if task.service is None:
            self._left[task.running] = task
        self.restarted.append(Restarted(task.name, KILLED))

    def finish(self, was_completed: bool) -> None:
        """Shut the queues down, give the actors a while to end, and kill them."""
        end_queues(service_queues(self._descriptors) if was_completed else self._descriptors)
        running = [task.running for task in (*self._tasks, *self._services) if task.running is not None]
        if running:
            ray.wait(running, num_returns=len(running), timeout=GRACE_SECONDS)
        self.refresh()
        for task in (*self._tasks, *self._services):
            task.cleanup()
        if self._store is not None:
            ray.kill(self._store)
            self._store = None


def _needs_snapshots(task: RayTask) -> bool:
    return task.service is None and (task.ctx.restarts > 0 or task.ctx.delivery != "at_most_once")


def check_cluster() -> None:
    """Say so where this process is in no cluster."""
    if not ray.is_initialized():
        raise QueueUnavailableError(
            endpoint="the Ray cluster", reason="Ray is not initialised here; call ray.init() before submit()"
        )
