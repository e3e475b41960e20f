"""What a job leaves to nobody: its queues, and jobs that still run when their program ends."""

import atexit
import os
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Protocol, runtime_checkable

from sage_qd.descriptors.base import BaseQueueDescriptor
from sage_qd.errors import QueueClosedError, QueueLostError, QueueNotFoundError

if TYPE_CHECKING:
    from sage_qd.runtime.dispatcher import Dispatcher

__all__ = ["remove_queues", "snapshot_place", "stop_at_exit", "stopped"]

MEMORY_FOLDER: Final = "/dev/shm"

_running: "set[Dispatcher]" = set()
"""Jobs that run; a job runs on when the program holds nothing of it."""


@runtime_checkable
class HasDestroy(Protocol):
    """The descriptor of a queue that others could still find, and that can be removed."""

    def destroy(self) -> None:
        """Remove the queue, and close it here."""


def remove_queues(descriptors: Mapping[str, BaseQueueDescriptor]) -> None:
    """Close and remove queues."""
    for descriptor in descriptors.values():
        if not descriptor.is_initialized():
            continue
        if isinstance(descriptor, HasDestroy):
            with suppress(QueueClosedError, QueueNotFoundError, QueueLostError):
                descriptor.destroy()
        descriptor.close()


def snapshot_place() -> str | None:
    """A folder in memory, which takes a fraction of the time; unless the user names a place for such files."""
    is_free = "TMPDIR" not in os.environ and os.access(MEMORY_FOLDER, os.W_OK)
    return MEMORY_FOLDER if is_free else None


def stop_at_exit(dispatcher: "Dispatcher") -> None:
    """Have a job stopped when the program ends, if it still runs then."""
    _running.add(dispatcher)
    # Anew for each job: what is registered last runs first, so before others wait for their child processes.
    atexit.unregister(_stop_what_runs)
    atexit.register(_stop_what_runs)


def stopped(dispatcher: "Dispatcher") -> None:
    """Forget a job that has ended."""
    _running.discard(dispatcher)


def _stop_what_runs() -> None:
    """Stop the jobs that the program left running when it ended; a forked child that ends leaves its parent's alone."""
    for dispatcher in list(_running):
        if dispatcher.owner_pid == os.getpid():
            dispatcher.stop()
