"""
How the tasks of a job run: one runner for each platform, with the same four methods.

A runner starts the tasks, is asked again and again what has happened, and ends them. What it finds is in its
attributes: ``has_ended`` when all tasks have, ``failure`` when one ended the job, ``restarted`` for those that were
started again.
"""

import pickle
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final

from sage_qd.descriptors.base import BaseQueueDescriptor
from sage_qd.errors import QueueClosedError, QueueNotFoundError
from sage_qd.runtime.process_task import Ended, ProcessTask, Restarted, Supervisor
from sage_qd.runtime.services import serve
from sage_qd.runtime.task import Failure, LocalTask, users_code

__all__ = ["LocalRunner", "LocalServiceTask", "ProcessRunner", "Runner", "ServiceTask", "end_queues", "service_queues"]

JOIN_SECONDS: Final = 5.0
"""How long threads may take to end; one that does not is left behind, as a daemon."""

SLICE_SECONDS: Final = 0.05


class Runner(ABC):
    """The tasks of one job on one platform."""

    def __init__(self) -> None:
        self.has_ended = False
        self.failure: Failure | None = None
        self.restarted: list[Restarted] = []

    @abstractmethod
    def start(self) -> None:
        """Start every task; returns at once."""

    @abstractmethod
    def look(self, seconds: float) -> None:
        """See what has happened, waiting for it for at most so long."""

    @abstractmethod
    def finish(self, was_completed: bool) -> None:
        """End everything; ``was_completed`` says that only services still run."""

    def refresh(self) -> None:  # noqa: B027  (tasks on this machine count where the driver sees it)
        """Bring the counters of the tasks up to date."""

    def cleanup(self) -> None:  # noqa: B027  (a runner may have nothing to give up)
        """Give up what is open; twice is once."""


class ServiceTask(ProcessTask):
    """A service in a process of its own."""

    service: Callable[[], object]

    def run(self) -> None:
        """Serve until the queue of requests is shut down."""
        with users_code():
            service = self.service()
        serve(service, self.get_input_buffer())


class LocalServiceTask(LocalTask):
    """A service in a thread."""

    service: Callable[[], object]

    def run(self) -> None:
        """Serve until the queue of requests is shut down."""
        with users_code():
            service = self.service()
        serve(service, self.get_input_buffer())


class LocalRunner(Runner):
    """Tasks in threads of this process. What a thread does cannot be killed, so nothing is restarted."""

    def __init__(
        self,
        tasks: Sequence[LocalTask],
        services: Sequence[LocalTask],
        descriptors: dict[str, BaseQueueDescriptor],
    ) -> None:
        super().__init__()
        self._tasks = tasks
        self._services = services
        self._descriptors = descriptors

    def start(self) -> None:
        """Start the threads."""
        for task in (*self._services, *self._tasks):
            task.start_running()

    def look(self, seconds: float) -> None:
        """Wait for one thread, and see which have ended."""
        running = [task for task in self._tasks if task.is_running]
        if running:
            running[0].join(seconds)
        failures = [task.failure for task in (*self._services, *self._tasks) if task.failure is not None]
        if failures and self.failure is None:
            self.failure = failures[0]
        self.has_ended = not running

    def finish(self, was_completed: bool) -> None:
        """Shut the queues down, so that every thread ends."""
        end_queues(service_queues(self._descriptors) if was_completed else self._descriptors)
        for task in self._tasks:
            task.stop()
        for task in (*self._tasks, *self._services):
            task.join(JOIN_SECONDS)


class ProcessRunner(Runner):
    """Tasks in processes, below a supervisor."""

    def __init__(
        self,
        tasks: Sequence[ProcessTask],
        services: Sequence[ProcessTask],
        descriptors: dict[str, BaseQueueDescriptor],
        *,
        remove: Callable[[], None],
    ) -> None:
        super().__init__()
        self._supervisor = Supervisor(
            tasks=tasks,
            services=services,
            end_queues=partial(end_queues, descriptors),
            end_services=partial(end_queues, service_queues(descriptors)),
            remove=remove,
        )
        self._process: Any = None
        self._events: Any = None
        self._orders: Any = None

    def start(self) -> None:
        """Fork the supervisor."""
        self._process, self._events, self._orders = self._supervisor.start()

    @property
    def supervisor_pid(self) -> int | None:
        """The process of the supervisor."""
        pid: int | None = None if self._process is None else self._process.pid
        return pid

    def look(self, seconds: float) -> None:
        """Read what the supervisor says."""
        try:
            if not self._events.poll(seconds):
                return
            event = pickle.loads(self._events.recv_bytes())
        except EOFError:
            if not self.has_ended:
                error = RuntimeError("the supervisor of the job was killed, and all tasks with it")
                self.failure = Failure("supervisor", error, "")
            return
        if isinstance(event, Restarted):
            self.restarted.append(event)
        elif isinstance(event, Ended):
            self.has_ended, self.failure = True, event.failure

    def finish(self, was_completed: bool) -> None:
        """Order the supervisor to end everything, unless it has, and wait for it."""
        if self._process is not None:
            with suppress(OSError):
                self._orders.send_bytes(b"stop")
            while self._process.is_alive():
                self.look(SLICE_SECONDS)  # it cannot end while a pipe full of events is unread

    def cleanup(self) -> None:
        """Close the pipes."""
        for pipe in (self._events, self._orders):
            if pipe is not None:
                pipe.close()
        self._events = self._orders = None


def service_queues(descriptors: dict[str, BaseQueueDescriptor]) -> dict[str, BaseQueueDescriptor]:
    """The queues on which services wait."""
    return {name: each for name, each in descriptors.items() if name.startswith("service_request_")}


def end_queues(descriptors: dict[str, BaseQueueDescriptor]) -> None:
    """Shut queues down at once; one that is gone is down already."""
    for descriptor in descriptors.values():
        with suppress(QueueClosedError, QueueNotFoundError):
            descriptor.open(create=False).shutdown(immediate=True)
