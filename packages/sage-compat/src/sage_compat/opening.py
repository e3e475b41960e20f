"""Making the first queue behind a name, and what comes instead when the new way cannot be had."""

import warnings

from sage_compat.errors import ReachWarning
from sage_compat.records import Record, descriptor_for
from sage_compat.rules import Decision
from sage_qd import BackendUnavailableError, BaseQueueDescriptor, SageQueueError

__all__ = ["made"]


def made(record: Record, decision: Decision) -> BaseQueueDescriptor:
    """
    Make the next queue behind a name, on the side that the decision says.

    Where no ring can be made, the queue is one of the old path, which reaches as far; it says so.

    Raises:
        QueueNoSpaceError: There is no room for it on the old path either.
    """
    descriptor = descriptor_for(record, is_new=decision.is_new)
    try:
        _make(descriptor)
    except (SageQueueError, BackendUnavailableError, OSError) as error:
        if not decision.is_new:
            raise
        warnings.warn(
            f"queue {record.name!r} takes the old path, which reaches as far, because no ring can be made: {error}",
            ReachWarning,
            stacklevel=2,
        )
        descriptor = descriptor_for(record, is_new=False)
        _make(descriptor)
    return descriptor


def _make(descriptor: BaseQueueDescriptor) -> None:
    queue = descriptor.open(create=True)
    queue.leave_behind()
    descriptor.trim()
