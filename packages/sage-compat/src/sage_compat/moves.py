"""
Moving the queue behind a name to the other way, while it is used.

The last step that counts is one: the seal of the old queue, or the shutdown that stands in for it where it cannot be
sealed, or the record where it cannot be reached at all. Whoever is killed before has changed nothing; after it,
everything. Doing it again does nothing more.
"""

from dataclasses import asdict, dataclass, field, replace
from time import monotonic
from typing import Any

from sage_compat import records
from sage_compat.legacy.descriptor import LegacyQueueDescriptor
from sage_compat.records import Record, attached, changing, check_sound, descriptor_for, ended
from sage_qd import BaseQueueDescriptor, CorruptQueueError, IncompatibleQueueError, SageQueueError, migrate

__all__ = ["Flip", "flip"]


@dataclass(frozen=True, kw_only=True)
class Flip:
    """
    What was done to one name.

    Attributes:
        full_name: The name.
        name: As the program gave it.
        before: Kind of the queue that messages were put into.
        after: Kind of the queue that they are put into now.
        moved: Messages that the old queue still held; its consumers take them before they go on.
        pause_ms: How long it took.
        not_moved: Which queue could not be moved from, or was damaged before it was drained, with the reason, and what
            is known of its messages; empty when all is well. ``more`` has further ones.
    """

    full_name: str
    name: str
    before: str
    after: str
    moved: int = 0
    pause_ms: float = 0.0
    not_moved: dict[str, Any] = field(default_factory=dict)

    @property
    def changed(self) -> bool:
        """Whether anything was done."""
        return self.before != self.after or bool(self.not_moved)

    def as_dict(self) -> dict[str, Any]:
        """The flip as a document."""
        return asdict(self)


def flip(full_name: str, *, is_new: bool, dry_run: bool = False) -> Flip | None:
    """
    Move the queue behind a name to the new way, or back to the old one; None when there is no such queue.

    Args:
        full_name: The name that processes meet under.
        is_new: Which way.
        dry_run: Change nothing; say what would be done.

    Raises:
        QueueNoSpaceError: There is no room for the new queue. Everything is as it was.
        BackendUnavailableError: No ring can be made here. Likewise.
    """
    started = monotonic()
    with changing(full_name):
        record = records.read(full_name)
        if record is None or not record.chain:
            return None
        last = record.descriptors[-1]
        passed = [] if is_new or dry_run else _led_past(record)
        changed = records.pruned(record, dry_run=dry_run) or bool(passed)
        if not record.chain:
            return _vanished(record, last, started, dry_run=dry_run) if not is_new else None
        if changed and not dry_run:
            record.save()
        current = record.descriptors[-1]
        if isinstance(current, LegacyQueueDescriptor) != is_new:
            return _told(_flip(record, current, current.queue_type, started), passed)
        target = descriptor_for(record, is_new=is_new)
        if dry_run:
            return _flip(record, current, target.queue_type, started, moved=_held(current))
        return _told(_moved(record, current, target, started), passed)


def _led_past(record: Record) -> list[dict[str, Any]]:
    """Take out queues that were moved from and are damaged since: nobody would ever come to the end of them."""
    passed = []
    for text, descriptor in zip(record.chain[:-1], record.descriptors, strict=False):
        if reason := _damage(descriptor):
            record.abandoned[descriptor.queue_id] = reason
            record.chain.remove(text)
            passed.append({"queue": descriptor.to_dict(), "reason": reason, "messages": "unknown"})
    return passed


def _damage(descriptor: BaseQueueDescriptor) -> str | None:
    """Why nobody can drain a queue that was moved from; None when there is nothing against it."""
    try:
        with attached(descriptor) as queue:
            if ended(queue):
                check_sound(queue)
    except (CorruptQueueError, IncompatibleQueueError) as error:
        return f"{type(error).__name__}: {error}"
    except (SageQueueError, OSError):
        pass  # it is gone, or there are no file descriptors left to look
    return None


def _told(flip: Flip, passed: list[dict[str, Any]]) -> Flip:
    """The flip, which says what was led past on the way."""
    first, *more = [flip.not_moved, *passed] if flip.not_moved else passed or [{}]
    return replace(flip, not_moved=first | {"more": more} if more else first)


def _moved(record: Record, current: BaseQueueDescriptor, target: BaseQueueDescriptor, started: float) -> Flip:
    record.number += 1
    record.chain.append(target.to_json())
    record.save()  # means nothing before the seal, and names the queue to whoever comes after it
    try:
        with attached(current) as queue:
            check_sound(queue)  # a seal looks at less, and would count what is not there
        done = migrate(current, to=target, timeout=0)
    except (SageQueueError, OSError, ValueError) as error:
        if not isinstance(target, LegacyQueueDescriptor):
            record.chain.pop()
            record.save()
            raise
        return _left(record, current, target, error, started)
    return _flip(record, current, target.queue_type, started, moved=done.moved)


def _left(
    record: Record, current: BaseQueueDescriptor, target: BaseQueueDescriptor, error: Exception, started: float
) -> Flip:
    """Leave a queue of the new way that cannot be sealed; raises what keeps the old path from being opened, too."""
    opened = target.open(create=True)
    opened.leave_behind()
    target.trim()
    reason = f"{type(error).__name__}: {error}"
    try:
        queue = attached(current)
        with queue:
            check_sound(queue)
            held = queue.qsize()
            queue.shutdown()
            if not queue.is_shutdown:
                raise error
    except (SageQueueError, OSError) as second:
        record.abandoned[current.queue_id] = reason
        del record.chain[-2]  # what was moved from before is drained all the same
        record.save()
        details = {"queue": current.to_dict(), "reason": reason, "messages": "unknown", "second": str(second)}
        return _flip(record, current, target.queue_type, started, not_moved=details)
    return _flip(record, current, target.queue_type, started, moved=held)


def _vanished(record: Record, last: BaseQueueDescriptor, started: float, *, dry_run: bool) -> Flip | None:
    """Lead those who still have a queue open whose files are gone to the old path; they take along what it holds."""
    if not records.is_in_use(record.full_name):
        return None
    target = descriptor_for(record, is_new=False)
    details = {"queue": last.to_dict(), "reason": "its files are gone", "messages": "with those who have it open"}
    if not dry_run:
        target.open(create=True).leave_behind()
        target.trim()
        record.number += 1
        record.abandoned[last.queue_id] = "its files are gone"
        record.chain = [target.to_json()]
        record.save()
    return _flip(record, last, target.queue_type, started, not_moved=details)


def _held(descriptor: BaseQueueDescriptor) -> int:
    try:
        with attached(descriptor) as queue:
            return queue.qsize()
    except (SageQueueError, OSError):
        return 0


def _flip(record: Record, current: BaseQueueDescriptor, after: str, started: float, **more: Any) -> Flip:
    return Flip(
        full_name=record.full_name,
        name=record.name,
        before=current.queue_type,
        after=after,
        pause_ms=round((monotonic() - started) * 1000, 3),
        **more,
    )
