"""
Moving a queue to another kind while it is used.

:func:`migrate` makes the new queue, then seals the old one in one step that names it. From then on whoever puts is led
to the new queue; whoever takes is led there when the old one is drained, and nobody takes anything from the new one
through the old name before. So no message is carried over, none can be lost or doubled on the way, and each producer's
order is kept: what it put before the seal is taken before what it put after it. Killed before the seal, :func:`migrate`
has changed nothing; after it, everything.
"""

import re
import time
from dataclasses import dataclass
from math import inf
from typing import Any, Final

from sage_qd.descriptors.base import BaseQueueDescriptor, reaches_as_far
from sage_qd.descriptors.registry import queue_kind
from sage_qd.errors import QueueMovedError
from sage_qd.queues.base import Queue
from sage_qd.queues.waiting import deadline_of

__all__ = ["Migration", "migrate"]

LOOK_SECONDS: Final = 0.002
"""How often the old queue is looked at until it is drained; nobody else waits for this."""
_GENERATION: Final = re.compile(r"(.*)\.g([1-9][0-9]{0,8})", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Migration:
    """
    What :func:`migrate` did.

    Attributes:
        descriptor: The new queue. Descriptors of the old one lead to it as long as one of the two is open somewhere.
        moved: Messages that the old queue still held at the seal, for consumers to take from there.
        pause_ms: From the seal until the old queue was drained: how long a message put after it could wait for those
            before it. Until the call gave up, if ``stragglers`` is not 0.
        stragglers: Messages still in the old queue, or out on lease, when the call returned.
    """

    descriptor: BaseQueueDescriptor
    moved: int
    pause_ms: float
    stragglers: int


def migrate(source: BaseQueueDescriptor, to: BaseQueueDescriptor | str, *, timeout: float | None = None) -> Migration:
    """
    Move a queue to another kind, or to other settings, while producers and consumers use it.

    Those who opened it through a descriptor go over by themselves, in all threads and processes. Waits until the old
    queue is drained, which the consumers do; it is moved whether or not that happens in time. Called again after it was
    cut off, with the same ``to``, it goes on.

    Args:
        source: The queue; it must exist.
        to: The new queue, which must be empty and need not exist yet; or the name of a kind, for a queue of that kind
            with the same settings. It is named ``<queue_id>.g2`` then, and ``.g3`` when that one is moved in turn.
        timeout: Seconds to wait for the old queue to be drained.

    Raises:
        QueueNotFoundError: ``source`` does not exist.
        QueueMovedError: It was moved to another queue than ``to`` already; move that one.
        ShutDown: It was shut down.
        NotShareableError: Its kind cannot be moved, or the new one is of a kind that its users cannot reach.
        ValueError: The new queue is not empty, or is the old one, or does not reach as far as the old one.
        BackendUnavailableError: The new kind lacks something here. The old queue goes on, as in all these cases.
    """
    deadline = deadline_of(True, timeout)
    target = _successor_of(source, to) if isinstance(to, str) else to
    if (target.queue_type, target.queue_id) == (source.queue_type, source.queue_id):
        raise ValueError(f"{source.queue_id!r} cannot be moved to itself")
    if not reaches_as_far(type(target).capabilities, type(source).capabilities):
        raise ValueError(
            f"who uses {source.queue_id!r} on other hosts could not reach a {target.queue_type}; "
            "move to a kind that reaches hosts"
        )
    text = target.to_json(for_this_process=not source.can_serialize)
    with source.attach() as old, target._opened(create=True) as new:
        old.follow(None)
        old.leave_behind()  # a move that fails must not be what takes a queue away that nobody has open
        start = time.monotonic()
        moved = _remaining(old) if _is(old.successor(), target) else _sealed(old, new, target, text)
        left = _drained(old, deadline)
        new.leave_behind()  # those who follow may still be further back
        return Migration(descriptor=target, moved=moved, pause_ms=(time.monotonic() - start) * 1000, stragglers=left)


def _is(successor: str | None, target: BaseQueueDescriptor) -> bool:
    """Whether a queue was sealed for this one; the text also has the time at which a descriptor was made."""
    return successor is not None and BaseQueueDescriptor.from_json(successor) == target


def _sealed(old: Queue[Any], new: Queue[Any], target: BaseQueueDescriptor, text: str) -> int:
    """Seal the old queue; what was in it."""
    if held := new.qsize():
        raise ValueError(f"the new queue holds {held:,} messages already; move to an empty one")
    try:
        return old.seal(text)
    except QueueMovedError as error:  # somebody else was faster
        if not _is(error.successor, target):
            raise
        return _remaining(old)


def _successor_of(source: BaseQueueDescriptor, kind: str) -> BaseQueueDescriptor:
    """A queue of another kind with the next name, and with those settings that both kinds have."""
    found = _GENERATION.fullmatch(source.queue_id)
    name, generation = (found[1], int(found[2])) if found else (source.queue_id, 1)
    wanted = queue_kind(kind)
    shared = {setting.name for setting in wanted.settings}
    settings = {key: value for key, value in source.metadata.items() if key in shared}
    return wanted(queue_id=f"{name}.g{generation + 1}", **settings)


def _remaining(queue: Queue[Any]) -> int:
    stats = queue.stats()
    return stats.depth + stats.leased


def _drained(queue: Queue[Any], deadline: float) -> int:
    """Wait until nothing is left; what is left when the time runs out."""
    while (left := _remaining(queue)) and time.monotonic() < deadline:
        time.sleep(min(LOOK_SECONDS, max(deadline - time.monotonic(), 0) if deadline != inf else LOOK_SECONDS))
    return left
