"""Queues in shared memory of kind ``shm_queue``, from their files: read-only mappings, and no lock is taken."""

import os
from time import monotonic_ns
from typing import Final

from sage_qd.errors import CorruptQueueError, SageQueueError
from sage_qd.monitor.processes import flocked_files
from sage_qd.monitor.rings import text_or_name
from sage_qd.monitor.states import QueueState
from sage_qd.queues.base import QueueFigures
from sage_qd.queues.shm_layout import FREE, SEALED, SHUT, Memory, State
from sage_qd.queues.shm_places import check_private, folder

__all__ = ["KIND", "list_states"]

KIND: Final = "shm_queue"
_LOOKS: Final = 100


def list_states(namespace: str | None = None) -> list[QueueState]:
    """The states of all queues of this kind of this user; they have no namespaces, so none is in one."""
    place = folder()
    if namespace is not None:
        return []
    try:
        names = [name for name in sorted(os.listdir(place)) if "~" not in name]
    except FileNotFoundError:
        return []
    locked = flocked_files()
    seen = (_seen(str(place / name), name, locked) for name in names)
    return [state for state in seen if state is not None]


def _seen(path: str, name: str, locked: set[tuple[int, int]]) -> QueueState | None:
    """One queue; None when it went away meanwhile."""
    queue_id, in_use = text_or_name(name), None
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            check_private(file, path)
            found = os.fstat(file)
            in_use = (found.st_dev, found.st_ino) in locked
            memory = Memory(file, found.st_size, read_only=True)
        finally:
            os.close(file)
        try:
            (state, age_ns), settings, instance = _steady(memory), memory.settings, memory.instance
        finally:
            memory.close()
    except FileNotFoundError:
        return None
    except (SageQueueError, OSError) as error:
        return QueueState(kind=KIND, queue_id=queue_id, namespace="", where=path, in_use=in_use, problem=str(error))
    return QueueState(
        kind=KIND,
        queue_id=queue_id,
        namespace="",
        where=path,
        in_use=in_use,
        instance=instance,
        capacity_items=settings.maxsize or None,
        capacity_bytes=settings.capacity_bytes,
        figures=_figures(state, age_ns),
        problem="moved" if state.flags & SEALED else "shut down" if state.flags & SHUT else None,
    )


def _steady(memory: Memory) -> tuple[State, int]:
    """
    The state, and the age of the oldest message that can be taken; from between two looks that saw the same.

    Whoever changes the queue meanwhile may be halfway through either block, or have written over the message.
    """
    problem = CorruptQueueError(field="state", value="changing", wanted="two looks alike")
    for _ in range(_LOOKS):
        try:
            state = memory.load()
            age_ns = _oldest_age_ns(memory, state)
            if state == memory.load():
                return state, age_ns
        except CorruptQueueError as error:
            problem = error
    raise problem


def _oldest_age_ns(memory: Memory, state: State) -> int:
    position = state.scan
    while position < state.tail:
        record = memory.record(position, state.tail)
        if record.holder == FREE:
            return max(monotonic_ns() - record.stamp_ns, 0)
        position = record.end
    return 0


def _figures(state: State, age_ns: int) -> QueueFigures:
    return QueueFigures(
        puts=state.puts,
        gets=state.puts - state.count,
        depth=state.count - state.leased,
        leased=state.leased,
        high_water=state.high_water,
        redeliveries=state.redeliveries,
        dropped=state.dropped,
        put_blocked_ns=state.put_blocked_ns,
        get_blocked_ns=state.get_blocked_ns,
        put_waiters=state.room_waiters,
        get_waiters=state.message_waiters,
        oldest_age_ns=age_ns,
        is_shutdown=bool(state.flags & SHUT),
        bytes_put=state.bytes_put,
        bytes_taken=state.bytes_taken,
    )
