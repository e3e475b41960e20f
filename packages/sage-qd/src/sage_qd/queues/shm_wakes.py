"""
Named semaphores of multiprocessing, as hints to those who wait; a queue is right without them, only slower.

Their names follow from the queue's instance, so that whoever has the queue open can open them, and whoever removes the
queue can remove them. They are made after the queue has its name, by whoever needs them first; nothing is left of a
process that was killed in between but what the queue's last user, or cleaning, removes.
"""

import sys
from contextlib import suppress
from importlib import import_module
from typing import Any, Final, Protocol

from sage_qd.errors import BackendUnavailableError

__all__ = ["Semaphore", "opened", "remove"]

_SEMAPHORE: Final = 1  # the kind, as multiprocessing.synchronize says it
_KINDS: Final = "mri"  # messages, room, idle
_NAMED_ATTEMPTS: Final = 1000


class Semaphore(Protocol):
    """What is used of ``_multiprocessing.SemLock``."""

    def acquire(self, block: bool, timeout: float) -> bool:
        """Wait for a hint; signals are noticed."""

    def release(self) -> None:
        """Give a hint."""


def _name(instance: str, kind: str) -> str:
    """A name of 28 characters; macOS allows 31."""
    return f"/sqd-{instance[:21]}-{kind}"


def _door() -> Any:
    """The module that has semaphores; it is private, but the public one makes none that others can open by name."""
    try:
        module = import_module("_multiprocessing")
        if sys.platform != "win32" and hasattr(module, "SemLock"):
            return module
    except ImportError:
        pass  # said below, with what to do
    raise BackendUnavailableError(
        backend="shm_queue",
        missing="named POSIX semaphores",
        install="use a Python that was built with them (python -c 'import multiprocessing.synchronize' says so)",
    )


def opened(instance: str) -> list[Semaphore]:
    """Open the semaphores of a queue, making those that are not there."""
    return [_one(_name(instance, kind)) for kind in _KINDS]


def _one(name: str) -> Semaphore:
    kind = _door().SemLock
    for _ in range(_NAMED_ATTEMPTS):
        with suppress(FileNotFoundError):
            found: Semaphore = kind._rebuild(0, _SEMAPHORE, kind.SEM_VALUE_MAX, name)
            return found
        with suppress(FileExistsError):
            made: Semaphore = kind(_SEMAPHORE, 0, kind.SEM_VALUE_MAX, name, False)
            return made
    raise AssertionError(f"semaphore {name} is neither there nor not there")


def remove(instance: str) -> None:
    """Remove the semaphores of a queue that nobody uses."""
    for kind in _KINDS:
        with suppress(FileNotFoundError):
            _door().sem_unlink(_name(instance, kind))
