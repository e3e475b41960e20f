"""
What can be seen of a segment from outside, as one frozen value.

Whoever looks opens the file for reading, maps it read-only, and lets it go again: it holds no lock and no slot, so the
last user finds itself the last, and nothing changes when the watcher is killed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sage_qd.ring._ring import look
from sage_qd.ring.places import check_private, opened_file
from sage_qd.ring.segment import MODE_CHECKSUM, MODE_KEPT, MODE_SINGLE_CONSUMER, MODE_SINGLE_PRODUCER
from sage_qd.ring.stats import RingStats

EVENT_PLACES = {384: "get", 512: "put", 768: "put lock", 1024: "get lock"}
"""Offsets of the words that threads sleep on, and what they wait for; docs/reference/segment-layout.md has them."""


@dataclass(frozen=True, slots=True)
class Participant:
    """A handle that holds leases or a role, as it registered."""

    slot: int
    pid: int
    start_ticks: int
    """Start time of the process, which tells a reused pid; 0: the handle was closed."""
    epoch: int
    leases: int


@dataclass(frozen=True, slots=True)
class Sight:
    """One look at a segment; each figure is right by itself, two of them may be from moments apart."""

    path: str
    device: int
    inode: int
    size_bytes: int
    unlinked: bool
    stats: RingStats
    instance: str
    created_ns: int
    codec: int
    max_items: int
    spill_threshold: int
    single_producer: bool
    single_consumer: bool
    checksum: bool
    kept: bool
    pid_namespace: int
    this_boot: bool
    """Whether the locks are of this boot; otherwise nobody has attached since the last one."""
    moved: bool
    """Whether it was sealed in favour of another queue, to which its name leads."""
    damaged_at: int | None
    """Offset of the field that somebody found damaged."""
    damage_found_by: int
    resizes: int
    producer_role: int | None
    """Slot of the participant that is the single producer."""
    consumer_role: int | None
    leases_counted: bool
    """Whether the leases of all participants were counted; False when too much changed meanwhile."""
    participants: tuple[Participant, ...]


def look_at(path: str) -> Sight:
    """
    Look at the segment in a file, without taking part.

    Raises:
        QueueNotFoundError: There is no such file.
        InsecureQueueError: It is no private file of this user.
        CorruptQueueError: It is no segment, or a damaged one.
        IncompatibleQueueError: Another version made it.
    """
    descriptor = opened_file(path, path, access=os.O_RDONLY)
    try:
        check_private(descriptor, path)
        found = os.fstat(descriptor)
        return _shaped(path, found, look(descriptor))
    finally:
        os.close(descriptor)


def _shaped(path: str, found: os.stat_result, seen: Mapping[str, Any]) -> Sight:
    mode, unlinked = seen["mode"], found.st_nlink == 0
    return Sight(
        path=path,
        device=found.st_dev,
        inode=found.st_ino,
        size_bytes=found.st_size,
        unlinked=unlinked,
        stats=RingStats.of(seen["figures"], unlinked=unlinked),
        instance=seen["instance"],
        created_ns=seen["created_ns"],
        codec=seen["codec"],
        max_items=seen["max_items"],
        spill_threshold=seen["spill_threshold"],
        single_producer=bool(mode & MODE_SINGLE_PRODUCER),
        single_consumer=bool(mode & MODE_SINGLE_CONSUMER),
        checksum=bool(mode & MODE_CHECKSUM),
        kept=bool(mode & MODE_KEPT),
        pid_namespace=seen["pid_namespace"],
        this_boot=seen["this_boot"],
        moved=seen["moved"],
        damaged_at=seen["damaged_at"],
        damage_found_by=seen["damage_found_by"],
        resizes=seen["resizes"],
        producer_role=_slot(seen["producer_role"]),
        consumer_role=_slot(seen["consumer_role"]),
        leases_counted=seen["leases_counted"],
        participants=tuple(Participant(*each) for each in seen["participants"]),
    )


def _slot(role: int) -> int | None:
    """A role word names a slot plus 1."""
    return role - 1 if role else None
