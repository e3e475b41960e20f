"""
Records: which queue stands behind a name now.

A record is a small file that is replaced in one step, under a lock on its name. It lists the queues behind the name in
order: all but the last are sealed, and are drained by whoever takes before the next one is. Whoever opens the name
starts with the first. A queue that is written in the record but was never sealed to does not count, so a process that
is killed while it moves a queue leaves everything as it was, or everything moved.
"""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from sage_compat.legacy.descriptor import LegacyQueueDescriptor
from sage_compat.legacy.file_queue import FileQueue
from sage_compat.places import folder, locked_file, replace_file
from sage_qd import (
    BaseQueueDescriptor,
    CorruptQueueError,
    Queue,
    QueueNotFoundError,
    SageQueueDescriptor,
    SageQueueError,
)
from sage_qd.queues.names import segment_name

__all__ = ["NAMESPACE", "Record", "all_records", "changing", "descriptor_for", "ended", "is_in_use", "pruned", "read"]

NAMESPACE = "sage-compat"
"""Where the rings of old names lie, apart from those that programs name themselves."""
_LOOKS = 3
"""A ring's counts are read one after the other while others change them, so one look alone says little."""


@dataclass(kw_only=True)
class Record:
    """
    What is known of a name.

    Attributes:
        full_name: The name that processes meet under.
        name: As the program gave it, which rules match.
        capacity_bytes: Room that was asked for.
        max_items: Bound in messages; 0 for none.
        keep: Whether the queue outlives its last user.
        number: Of the newest queue behind the name.
        chain: JSON of the queues' descriptors, oldest first.
        abandoned: Queue ids of those that could not be moved from, with the reason.
    """

    full_name: str
    name: str
    capacity_bytes: int
    max_items: int = 0
    keep: bool = False
    number: int = 0
    chain: list[str] = field(default_factory=list)
    abandoned: dict[str, str] = field(default_factory=dict)

    @property
    def descriptors(self) -> list[BaseQueueDescriptor]:
        """The queues behind the name, oldest first."""
        return [named(text) for text in self.chain]

    def behind(self, descriptor: BaseQueueDescriptor) -> list[BaseQueueDescriptor]:
        """Those that were made after a queue, which may be no longer in the record itself."""
        return [each for each in self.descriptors if _generation(each) > _generation(descriptor)]

    @property
    def path(self) -> Path:
        """The file."""
        return folder("records") / f"{segment_name(self.full_name)}.json"

    def save(self) -> None:
        """Write it, in one step."""
        replace_file(self.path, json.dumps(asdict(self), indent=1))


def read(full_name: str) -> Record | None:
    """Return the record of a name; None when there is none."""
    return _read(folder("records") / f"{segment_name(full_name)}.json")


def _read(path: Path) -> Record | None:
    try:
        return Record(**json.loads(path.read_text("utf-8")))
    except FileNotFoundError:
        return None


def all_records() -> list[Record]:
    """Every record of this user on this host, by full name."""
    found = (_read(path) for path in sorted(folder("records").glob("*.json")) if not path.name.startswith("."))
    return [record for record in found if record is not None]


@contextmanager
def changing(full_name: str) -> Iterator[None]:
    """Let one at a time open, move or remove the queue of a name."""
    with locked_file(lock_path(full_name)):
        yield


def lock_path(full_name: str) -> Path:
    """The file whose lock lets one at a time open, move or remove the queue of a name."""
    return folder("records") / f"{segment_name(full_name)}.lock"


def users_path(full_name: str) -> Path:
    """The file whose shared lock says that somebody uses the name."""
    return folder("records") / f"{segment_name(full_name)}.users"


def is_in_use(full_name: str) -> bool:
    """Whether a living process has the name open."""
    try:
        descriptor = os.open(users_path(full_name), os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


# -- The queues in a record --------------------------------------------------------------------------------------------


@lru_cache(maxsize=64)
def named(text: str) -> BaseQueueDescriptor:
    """Return the queue of a text, to be attached to and not to be opened: every record with the text shares it."""
    return BaseQueueDescriptor.from_json(text)


def descriptor_for(record: Record, *, is_new: bool) -> BaseQueueDescriptor:
    """Return the descriptor of the next queue behind a name; the caller counts ``record.number`` up when it is one."""
    queue_id = f"{record.full_name}.g{record.number + 1}"
    common: dict[str, Any] = {"capacity_bytes": max(record.capacity_bytes, 4096), "maxsize": record.max_items}
    if is_new:
        return SageQueueDescriptor(queue_id=queue_id, namespace=NAMESPACE, **common)
    return LegacyQueueDescriptor(queue_id=queue_id, **common)


def _generation(descriptor: BaseQueueDescriptor) -> int:
    return int(descriptor.queue_id.rpartition(".g")[2])


def ended(queue: Queue[Any]) -> bool:
    """Whether a queue was sealed, or shut down instead because it could not be sealed."""
    if isinstance(queue, FileQueue):
        return queue.has_ended()  # in one step: each may wait for everybody who uses the queue
    return queue.successor() is not None or queue.is_shutdown


def check_sound(queue: Queue[Any]) -> None:
    """
    Check that what a queue holds can be taken, without taking anything.

    Raises:
        CorruptQueueError: It cannot.
    """
    for _ in range(_LOOKS):
        stats: Any = queue.stats()
        if isinstance(queue, FileQueue) or (not stats.is_poisoned and stats.depth_bytes <= stats.capacity_bytes):
            return  # a file queue was checked before it was counted
    raise CorruptQueueError(field="depth_bytes", value=stats.depth_bytes, wanted=f"at most {stats.capacity_bytes}")


def attached(descriptor: BaseQueueDescriptor) -> Queue[Any]:
    """Open one queue of a chain; it does not follow by itself, and does not go with the handle."""
    queue = descriptor.attach()
    queue.follow(None)
    queue.leave_behind()
    return queue


def pruned(record: Record, *, dry_run: bool = False) -> bool:
    """
    Bring a record up to date, with the lock; return whether it changed.

    Queues at its beginning that are gone, or ended, drained and left by everybody, are taken out and removed; queues at
    its end that nobody was sent to are, too. One that somebody has open stays: handles of descriptors find their way
    through it. With ``dry_run`` only the record in memory is changed, and no queue is removed.
    """
    before = list(record.chain)
    kept: list[str] = []
    for text in record.chain:
        descriptor = named(text)
        try:
            queue = attached(descriptor)
        except QueueNotFoundError:
            continue
        except (SageQueueError, OSError):
            kept.append(text)  # damaged: whoever uses or moves it will say so
            continue
        with queue:
            is_over = ended(queue)
            if is_over and not kept and not queue.qsize() and not queue.is_shared():
                if not dry_run:
                    remove(descriptor)
                continue
        kept.append(text)
        if not is_over:
            break
    for text in record.chain:
        if text not in kept and kept and not dry_run:
            remove(named(text))  # of a move that was cut off before the seal
    record.chain = kept
    return kept != before


def held(record: Record) -> int:
    """
    Return how many messages are behind a name.

    Raises:
        SageQueueError: A queue is damaged.
    """
    total = 0
    for descriptor in record.descriptors:
        with attached(descriptor) as queue:
            total += queue.qsize()
    return total


def remove(descriptor: BaseQueueDescriptor) -> None:
    """Remove a queue by name; who has it open goes on."""
    try:
        queue: Any = descriptor.attach()
        queue.follow(None)
    except QueueNotFoundError:
        return
    with queue:
        queue.leave_behind()  # or closing would look at what has the name by then
        with suppress(SageQueueError):  # a damaged one goes as it is
            queue.clear()  # messages in files of their own
        queue.unlink()
