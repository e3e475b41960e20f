"""Clean this host: the queues of all kinds that nobody uses, except those whose name still leads somewhere."""

import os

from sage_qd.descriptors import BaseQueueDescriptor
from sage_qd.errors import SageQueueError
from sage_qd.monitor import portable, rings
from sage_qd.queues.names import segment_name
from sage_qd.queues.shm_places import memory_path
from sage_qd.queues.shm_segment import clean_shared_memory
from sage_qd.ring import clean_segments

__all__ = ["clean_host"]


def clean_host(namespace: str | None = None, *, kept: bool = False, dry_run: bool = False) -> list[str]:
    """
    Remove the queues of this user on this host that nobody uses, and what is left of large messages.

    A queue that was moved stays while its successor exists, because its name leads there; also when the successor is
    of a kind that cannot be seen from here.

    Args:
        namespace: Only this one; queues of kind ``shm_queue`` are in none.
        kept: Also those that were made to stay, and those that were moved.
        dry_run: Remove nothing; return what would be.

    Returns:
        The paths of the files that are gone, or would be.

    Raises:
        InsecureQueueError: A folder of queues could be under somebody else's control.
    """
    removed: dict[str, None] = {}

    def leads_on(successor: str) -> bool:
        path = _path_of(successor)
        return path is None or (path not in removed and os.path.lexists(path))

    folder = None if namespace is None else segment_name(namespace)
    before = -1
    while before != len(removed):  # of a chain of moves the last one goes first
        before = len(removed)
        asked = None if kept else leads_on
        removed |= dict.fromkeys(clean_segments(folder, kept=kept, dry_run=dry_run, leads_on=asked))
        if folder is None:
            removed |= dict.fromkeys(clean_shared_memory(dry_run=dry_run, leads_on=asked))
    return list(removed)


def _path_of(successor: str) -> str | None:
    """The file of a queue on this host; None for one that has none."""
    try:
        descriptor = BaseQueueDescriptor.from_json(successor)
    except SageQueueError:
        return None
    if descriptor.queue_type == rings.KIND:
        return str(rings.where_named(descriptor.queue_id, descriptor.metadata["namespace"]))
    return memory_path(descriptor.queue_id) if descriptor.queue_type == portable.KIND else None
