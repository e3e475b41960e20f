"""
Tasks in processes of their own, and the process that starts them, watches them and starts them again.

The driver forks one *supervisor*, which forks the tasks; so operators need not be pickled, and the driver may have
threads later. The supervisor sleeps until a task has ended, the driver says stop, or the driver is gone. It dies with
nobody: when the driver is killed it ends the tasks, and removes the queues and snapshots of the job. When it is killed
itself, the kernel kills the tasks.
"""

import ctypes
import multiprocessing
import os
import pickle
import signal
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection as Pipe
from multiprocessing.connection import wait
from time import monotonic
from typing import Any, Final, Literal, NamedTuple

from sage_qd.errors import ShutDown, TaskDiedError
from sage_qd.runtime.task import BaseTask, Failure

__all__ = ["Ended", "ProcessTask", "Restarted", "Supervisor"]

GRACE_SECONDS: Final = 5.0
"""How long tasks may take to end after the job was stopped, before they are killed."""
_FORK: Final = multiprocessing.get_context("fork")
_PR_SET_PDEATHSIG: Final = 1


class Restarted(NamedTuple):
    """A task was started again."""

    task: str
    exit_code: int


class Ended(NamedTuple):
    """All tasks have ended: with nothing, or with the error that ended the job."""

    failure: Failure | None


class ProcessTask(BaseTask):
    """A task in a process of its own, which the supervisor forks."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.process: Any = None
        self.reports: Pipe | None = None

    def start_running(self) -> None:
        """Fork the process; called in the supervisor."""
        self.reports, sender = _FORK.Pipe(duplex=False)
        self.process = _FORK.Process(target=self._guarded, args=(sender, os.getpid()), name=self.name, daemon=True)
        self.process.start()
        sender.close()

    def _guarded(self, reports: Pipe, parent: int) -> None:
        die_with(parent)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver decides what Ctrl-C means
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        self.ctx = self.ctx.as_attached()
        self.input_queue_descriptor = self.ctx.get_input_queue_descriptor()
        try:
            self.run()
        except ShutDown:
            os._exit(0)
        except BaseException as error:  # noqa: BLE001  (whatever it is, the job ends with it)
            reports.send_bytes(packed(Failure(self.name, error, traceback.format_exc())))
            os._exit(1)

    def signs(self) -> "dict[Any, ProcessTask]":
        """What is ready when the process has ended, and when it reports."""
        return {self.process.sentinel: self, self.reports: self}

    def reported(self) -> Failure | None:
        """Return what the process said, or None; asked once, when it has ended or :attr:`reports` is ready."""
        if self.reports is None:
            return None
        try:
            found: Failure | None = pickle.loads(self.reports.recv_bytes()) if self.reports.poll() else None
        except (EOFError, OSError):  # it was killed before the end of its report
            found = None
        self.reports.close()
        self.reports = None
        return found

    @property
    def is_running(self) -> bool:
        """Whether the process has not ended."""
        return self.process is not None and self.process.is_alive()

    def cleanup(self) -> None:
        """Kill the process if it still runs, and wait for it."""
        if self.process is not None:
            self.process.kill()
            self.process.join()


@dataclass(kw_only=True)
class Supervisor:
    """
    The process between the driver and the tasks.

    Attributes:
        tasks: To run until their input ends.
        services: To run until the tasks have ended.
        end_queues: Shuts down every queue of the job at once, so that nobody waits on them.
        end_services: Lets the services end.
        remove: Removes queues, snapshots and board of the job; called when the driver cannot.
    """

    tasks: Sequence[ProcessTask]
    services: Sequence[ProcessTask]
    end_queues: Callable[[], None]
    end_services: Callable[[], None]
    remove: Callable[[], None]

    def start(self) -> tuple[Any, Pipe, Pipe]:
        """Fork; return the process, where its events come from, and where it takes orders."""
        events, sender = _FORK.Pipe(duplex=False)
        orders, commander = _FORK.Pipe(duplex=False)
        driver = _pidfd_of_this()
        process = _FORK.Process(
            target=self._run,
            args=(sender, orders, driver, (events, commander)),
            name="sage-qd-supervisor",
            daemon=False,
        )
        process.start()
        sender.close()
        orders.close()
        for file in driver:
            os.close(file)
        return process, events, commander

    def _run(self, events: Pipe, orders: Pipe, driver: list[int], of_driver: tuple[Pipe, Pipe]) -> None:
        for pipe in of_driver:
            pipe.close()  # or the end of the driver would go unnoticed
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.setpgid(0, 0)
        for task in (*self.services, *self.tasks):
            task.start_running()
        outcome, failure = self._watched(events, orders, driver)
        if outcome == "finished":
            self.end_services()
        else:
            self.end_queues()
        self._gather()
        if outcome == "orphaned":
            self.remove()
        else:
            _tell(events, Ended(failure))
        os._exit(0)

    def _watched(
        self, events: Pipe, orders: Pipe, driver: list[int]
    ) -> tuple[Literal["finished", "stopped", "orphaned"], Failure | None]:
        """Restart what was killed, until all is done, something failed, or the driver wants or is no more."""
        watched: dict[Any, ProcessTask] = {}
        for task in (*self.services, *self.tasks):
            watched |= task.signs()
        left = set(map(id, self.tasks))
        while left:
            for ready in wait([orders, *driver, *watched]):
                if ready in driver:
                    return "orphaned", None
                if ready is orders:
                    try:
                        orders.recv_bytes()
                    except EOFError:
                        return "orphaned", None
                    return "stopped", None
                if ready not in watched:  # the report of a task whose end was seen just now
                    continue
                task = watched.pop(ready)
                watched.pop(task.reports, None)
                failure = task.reported()  # before its end, which waits until a long one is read
                if failure is not None:
                    return "stopped", failure
                if ready != task.process.sentinel:
                    continue
                task.process.join()
                code = task.process.exitcode
                if code == 0:
                    left.discard(id(task))
                    continue
                if task.counters.restarts >= task.ctx.restarts:
                    error = TaskDiedError(task=task.name, exit_code=code, restarts=task.counters.restarts)
                    return "stopped", Failure(task.name, error, "")
                task.counters.restarts += 1
                task.start_running()
                watched |= task.signs()
                _tell(events, Restarted(task.name, code))
        return "finished", None

    def _gather(self) -> None:
        """Wait for the processes, and kill those that do not end."""
        until = monotonic() + GRACE_SECONDS
        for task in (*self.tasks, *self.services):
            if task.process is not None:
                task.process.join(max(until - monotonic(), 0.0))
                task.cleanup()


def _pidfd_of_this() -> list[int]:
    """What tells a child the end of this process, whatever others inherited from it; nothing before Linux 5.3."""
    try:
        return [os.pidfd_open(os.getpid())]
    except OSError:
        return []


def _tell(events: Pipe, event: Any) -> None:
    """Send an event, if the driver still listens: one that was interrupted twice does not."""
    with suppress(BrokenPipeError):
        events.send_bytes(packed(event))


def packed(message: Any) -> bytes:
    """Pickle a message; an error that cannot be pickled is replaced by a RuntimeError with its text."""
    try:
        data = pickle.dumps(message)
        pickle.loads(data)
    except Exception:  # noqa: BLE001  (whatever its own methods raise)
        failure: Any = message.failure if isinstance(message, Ended) else message
        plain = Failure(failure.task, RuntimeError(f"{type(failure.error).__name__}: {failure.error}"), failure.trace)
        return pickle.dumps(Ended(plain) if isinstance(message, Ended) else plain)
    return data


def die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent is gone."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it was gone already
        os._exit(1)
