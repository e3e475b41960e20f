"""Handing an open queue over as an argument of a process that is being started, by multiprocessing or multiprocess."""

import sys
from collections.abc import Callable
from typing import Any

from sage_qd.errors import NotShareableError
from sage_qd.queues.base import Descriptor, Queue

__all__ = ["reduced"]


def reduced(queue: Queue[Any]) -> tuple[Callable[[Descriptor], Any], tuple[Descriptor]]:
    """
    What ``__reduce__`` of a queue returns: only for a process that is being started, as that one opens it anew.

    Raises:
        NotShareableError: It is pickled for another purpose, or was made without a descriptor.
    """
    if queue.descriptor is None or not _is_starting_a_process():
        raise NotShareableError(
            what=f"an open {type(queue).__name__}",
            instead="send queue.descriptor and open it on the other side, "
            "or hand the queue over as an argument of the process that you start",
        )
    return _open_elsewhere, (queue.descriptor,)


def _is_starting_a_process() -> bool:
    """Whether the pickling under way is for a process that multiprocessing (or multiprocess) is starting."""
    contexts = (sys.modules.get(name) for name in ("multiprocessing.context", "multiprocess.context"))
    return any(context is not None and context.get_spawning_popen() is not None for context in contexts)


def _open_elsewhere(descriptor: Descriptor) -> Any:
    """What a started process does with a queue that was handed to it."""
    return descriptor.open(create=False)
