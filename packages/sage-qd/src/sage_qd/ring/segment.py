"""
Where rings live: create, attach, list and remove segments.

A named segment is the file ``/dev/shm/sage-qd-<uid>/<namespace>/<name>``; folders are 0700, files 0600. A file gets its
name when it is complete, so nobody attaches to a half-made one and a killed creator leaves nothing. Whoever is attached
holds a shared ``flock``, which the kernel drops with the process; who can turn it into an exclusive one is the last,
and removes the file. Whoever attaches looks again, with the lock, whether the file still has its name.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace

from sage_qd.errors import (
    CorruptQueueError,
    GeometryMismatchError,
    IncompatibleQueueError,
    InsecureQueueError,
    NotShareableError,
    QueueExistsError,
    QueueNoSpaceError,
    QueueNotFoundError,
)
from sage_qd.ring._ring import CAPACITY_MAX, ITEMS_MAX, Ring, format_segment, look, segment_mode, wait_any
from sage_qd.ring.handles import remember
from sage_qd.ring.places import (
    check_private,
    checked_name,
    drop_empty_folders,
    entries,
    in_named_folder,
    is_memory_file,
    named_folder,
    nameless_file,
    namespaces,
    opened_file,
)
from sage_qd.ring.spill import SpillFiles, free_bytes, is_unlocked, link_into_place, remove_if_there
from sage_qd.ring.stats import RingStats
from sage_qd.ring.succession import succession, successor_in

MODE_SINGLE_PRODUCER, MODE_SINGLE_CONSUMER, MODE_CHECKSUM, MODE_KEPT = 1, 2, 4, 8
SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW


@dataclass(frozen=True, slots=True)
class Settings:
    """What a ring is made with; compared when somebody attaches expecting it."""

    capacity_bytes: int
    max_items: int
    single_producer: bool
    single_consumer: bool
    checksum: bool
    codec: int
    spill_threshold: int

    @classmethod
    def found(cls, ring: Ring) -> Settings:
        """Read them from a ring."""
        return cls(
            ring.capacity_bytes,
            ring.max_items,
            ring.single_producer,
            ring.single_consumer,
            ring.checksum,
            ring.codec,
            ring.spill_threshold or 0,
        )

    @property
    def mode(self) -> int:
        """The bits in the header."""
        return (
            MODE_SINGLE_PRODUCER * self.single_producer
            | MODE_SINGLE_CONSUMER * self.single_consumer
            | MODE_CHECKSUM * self.checksum
        )

    def as_dict(self) -> dict[str, object]:
        """For messages."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class SegmentInfo:
    """One named segment, as `list_segments` found it."""

    name: str
    namespace: str
    path: str
    size_bytes: int
    in_use: bool
    kept: bool = False
    """Whether it was made to outlive its users."""


class Segment:
    """The file behind one handle."""

    def __init__(self, path: str | None, *, name: str | None, namespace: str | None, identity: tuple[int, int]) -> None:
        self.path = path
        self.name = name
        self.namespace = namespace
        self._identity = identity
        self.instance = ""
        """The identity in the ring's header."""
        self.stays = False
        """Whether the last one who leaves is to leave the file as it is."""
        self.lock_is_shared = False
        """Whether this is a forked child that uses the parent's description, and so must not touch its lock."""

    def leave(self, descriptor: int) -> None:
        """Stop counting as attached; the last one removes a named segment. A file given with ``path=`` stays."""
        if self.path is None or self.lock_is_shared or not self._is_ours(descriptor):
            return
        goes = self.name is not None and not self.stays and not is_kept(descriptor)
        if (goes or self.unlinked(descriptor)) and is_last(descriptor):
            if self.unlinked(descriptor):  # asked again now that nobody else can take the name away
                remove_if_there(self._moved_path())
            elif goes:
                SpillFiles(self.path).remove_all()  # first: once the name is free, its next owner may make some
                remove_if_there(self.path)
        if self.name is None:
            return
        fcntl.flock(descriptor, fcntl.LOCK_UN)  # views may keep the descriptor open for long
        drop_empty_folders(self.path)

    def is_shared(self, descriptor: int) -> bool:
        """
        Whether anybody else is attached, as far as the kernel's list of locks tells.

        Trying for an exclusive lock would tell too, but give ours up for a moment, in which the last one could leave.
        """
        found = os.fstat(descriptor)
        ours = f" {os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino} "
        with open("/proc/locks") as locks:
            return sum(ours in line for line in locks) > 1

    def unlink(self, descriptor: int) -> None:
        """Remove the name, if it is still that of this file. Spill files go with their items."""
        if self.path is not None and not self.unlinked(descriptor):
            remove_if_there(self.path)

    def succession(self, successor: str, is_sealed: Callable[[], bool]) -> AbstractContextManager[None]:
        """Name the successor while the ring is sealed; see :mod:`sage_qd.ring.succession`."""
        return succession(self._moved_path(), successor, is_sealed)

    def successor(self) -> str:
        """The text that the ring was sealed with."""
        return successor_in(self._moved_path())

    def _moved_path(self) -> str:
        if self.path is None:
            raise NotShareableError(what="an anonymous ring", instead="drain it: others cannot be told where it went")
        return f"{self.path}~moved.{self.instance}"

    def unlinked(self, descriptor: int) -> bool:
        """Whether the name is gone, or belongs to another file by now."""
        if self.path is None:
            return False
        try:
            found = os.stat(self.path, follow_symlinks=False)
        except FileNotFoundError:
            return True
        return (found.st_dev, found.st_ino) != self._identity

    def stats(self, figures: Mapping[str, object], descriptor: int) -> RingStats:
        """The counters of the ring as one value."""
        return RingStats.of(figures, unlinked=self.unlinked(descriptor))

    def free_bytes(self) -> int | None:
        """What the file system has left."""
        return None if self.path is None else free_bytes(os.path.dirname(self.path))

    def _is_ours(self, descriptor: int) -> bool:
        try:
            found = os.fstat(descriptor)
        except OSError as error:
            if error.errno == errno.EBADF:
                return False
            raise
        return (found.st_dev, found.st_ino) == self._identity


# -- The public functions ---------------------------------------------------------------------------------------------


def create(
    name: str | None = None,
    *,
    namespace: str = "default",
    path: str | os.PathLike[str] | None = None,
    anonymous: bool = False,
    capacity_bytes: int = 1 << 20,
    max_items: int = 0,
    single_producer: bool = False,
    single_consumer: bool = False,
    checksum: bool = False,
    spill_threshold: int | None = None,
    codec: int = 0,
    start: tuple[int, int] = (0, 0),
) -> Ring:
    """
    Make a new ring; exactly one of ``name``, ``path`` and ``anonymous`` says where.

    Args:
        name: In the folder of this user and ``namespace``; removed when the last handle of any process is closed or
            gone.
        namespace: Folder of the name; the same rules.
        path: A file of its own, that outlives all processes until it is removed; `clean_segments` spares it too.
        anonymous: No name at all; it travels by inheritance (fork) or as a file descriptor. Cannot grow or spill.
        capacity_bytes: Size of the data region, 1 to 16 GiB; rounded up to a power of two, at least 4 096.
        max_items: Exact bound in items; 0 or less means bounded by bytes alone.
        single_producer: Only one handle at a time may put, which makes it cheaper; a second one gets
            `RoleClaimedError`.
        single_consumer: The same for get.
        checksum: Give each payload a CRC-32C, verified by get.
        spill_threshold: Payloads above this many bytes go to a file beside the ring; None for a quarter of the
            capacity.
        codec: A number for the layer above, kept in the header.
        start: Where positions and item counters start; for tests of their wrap.

    Raises:
        QueueExistsError: The name is taken.
        QueueNoSpaceError: The space cannot be reserved; nothing is left behind.
        InvalidQueueNameError: The name breaks a rule.
        InsecureQueueError: The folder could be under someone else's control.
        OSError: What the system says about descriptors, limits or missing folders.
    """
    settings = checked_settings(
        capacity_bytes, max_items, single_producer, single_consumer, checksum, spill_threshold, codec
    )
    if (name is not None) + (path is not None) + bool(anonymous) != 1:
        raise TypeError("give exactly one of name, path and anonymous=True")
    threshold = spill_threshold or 0
    if anonymous:
        descriptor = os.memfd_create("sage-qd", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        return _formatted(descriptor, settings, threshold, start, None, name=None, namespace=None)
    if name is None:
        where = os.path.abspath(os.fspath(path))  # type: ignore[arg-type]  # exactly one is given, see above
        descriptor = nameless_file(os.path.dirname(where))
        return _formatted(descriptor, settings, threshold, start, where, name=None, namespace=None)
    checked_name(name)

    def make(folder: str) -> Ring:
        where = os.path.join(folder, name)
        return _formatted(nameless_file(folder), settings, threshold, start, where, name=name, namespace=namespace)

    return in_named_folder(namespace, make)


def attach(
    name: str | None = None,
    *,
    namespace: str = "default",
    path: str | os.PathLike[str] | None = None,
    fd: int | None = None,
) -> Ring:
    """
    Open a ring that exists: by name, by path, or through a descriptor (which stays yours): of an anonymous one, or
    of one whose name may be gone by now.

    Raises:
        QueueNotFoundError: There is none.
        InsecureQueueError: The file is not a private file of this user.
        CorruptQueueError: It is no ring, or a damaged one.
        IncompatibleQueueError: It was made by another version, or on another kind of machine.
        NamespaceMismatchError: It was made in another PID namespace, so the deaths of its users cannot be noticed.
    """
    if (name is not None) + (path is not None) + (fd is not None) != 1:
        raise TypeError("give exactly one of name, path and fd")
    if fd is not None:
        return _attached_descriptor(fd)
    if name is not None:
        where = os.path.join(named_folder(namespace, make=False), checked_name(name))
    else:
        where = os.path.abspath(os.fspath(path))  # type: ignore[arg-type]  # exactly one is given, see above
    shown = name if name is not None else where
    while True:
        descriptor = opened_file(where, shown)
        try:
            check_private(descriptor, where)
            fcntl.flock(descriptor, fcntl.LOCK_SH)  # waits only for a last one who is leaving
            if os.fstat(descriptor).st_nlink == 0:
                os.close(descriptor)
                continue  # it left and took the file along: whoever has the name now is the one to open
            return _adopted(descriptor, where, name=name, namespace=namespace if name is not None else None)
        except BaseException:
            os.close(descriptor)
            raise


def attach_or_create(
    name: str,
    *,
    namespace: str = "default",
    capacity_bytes: int = 1 << 20,
    max_items: int = 0,
    single_producer: bool = False,
    single_consumer: bool = False,
    checksum: bool = False,
    spill_threshold: int | None = None,
    codec: int = 0,
) -> Ring:
    """
    Open the ring of that name, or make it; free of races between any number of processes.

    Raises:
        GeometryMismatchError: It exists with other settings; both are listed.
    """
    wanted = checked_settings(
        capacity_bytes, max_items, single_producer, single_consumer, checksum, spill_threshold, codec
    )
    while True:
        try:
            ring = attach(name, namespace=namespace)
        except QueueNotFoundError:
            try:
                return create(
                    name,
                    namespace=namespace,
                    capacity_bytes=capacity_bytes,
                    max_items=max_items,
                    single_producer=single_producer,
                    single_consumer=single_consumer,
                    checksum=checksum,
                    spill_threshold=spill_threshold,
                    codec=codec,
                )
            except QueueExistsError:
                continue
        found = Settings.found(ring)
        if spill_threshold is None:  # whatever follows from the capacity there
            wanted = replace(wanted, spill_threshold=found.spill_threshold)
        if found != wanted:
            ring.close()
            raise GeometryMismatchError(name=name, wanted=wanted.as_dict(), found=found.as_dict())
        return ring


def wait(rings: Sequence[Ring], timeout: float | None = None) -> list[Ring]:
    """
    Wait until a get on at least one of the rings has an answer (an item, or `ShutDown`), and return those.

    One system call watches all of them; needs Linux 5.16. Somebody else may be faster, so follow it with
    ``get_nowait``.

    Args:
        rings: 1 to 128 open rings.
        timeout: Seconds; ``None`` waits without end. The list is empty when nothing came.
    """
    return wait_any(list(rings), timeout)


def is_last(descriptor: int) -> bool:
    """
    Turn our shared lock into an exclusive one, if nobody else is attached; we end without a lock otherwise.

    Failing does not prove that somebody is: who lists segments has each of them locked for a moment. Whoever gives
    up here holds nothing any more, so of several who leave at once the last one to ask succeeds.
    """
    for _ in range(20):
        if locked(descriptor, fcntl.LOCK_EX):
            return True
        if locked(descriptor, fcntl.LOCK_SH):  # nobody has it alone, now: others share it, or they left this moment
            return locked(descriptor, fcntl.LOCK_EX)
        os.sched_yield()
    return False


def is_kept(descriptor: int) -> bool:
    """Whether the segment was made to outlive its users; one that another version made may have been."""
    try:
        return bool(segment_mode(descriptor) & MODE_KEPT)
    except IncompatibleQueueError:
        return True
    except CorruptQueueError:
        return False


def locked(descriptor: int, kind: int) -> bool:
    """Try to lock without waiting."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def list_segments(namespace: str | None = None) -> list[SegmentInfo]:
    """All named segments of this user, or those of one namespace, sorted."""
    found = []
    for folder in namespaces(namespace):
        for entry in sorted(entries(folder), key=lambda entry: entry.name):
            if "~" in entry.name or not entry.is_file(follow_symlinks=False):
                continue
            in_use = not is_unlocked(entry.path)
            try:
                size, kept = entry.stat(follow_symlinks=False).st_size, _is_kept_file(entry.path)
            except FileNotFoundError:
                continue  # its last user left while we looked
            found.append(SegmentInfo(entry.name, folder.name, entry.path, size, in_use, kept))
    return found


def clean_segments(
    namespace: str | None = None,
    *,
    kept: bool = False,
    dry_run: bool = False,
    leads_on: Callable[[str], bool] | None = None,
) -> list[str]:
    """
    Remove the segments that nobody is attached to, and spill files that nobody refers to; return their paths.

    Items in a segment whose users were all killed go with it: attach first if they matter.

    Args:
        namespace: Only look there; None looks everywhere.
        kept: Also remove what was made to outlive its users, and has none now.
        dry_run: Remove nothing; return what would be.
        leads_on: Asked with the text that names the successor of a ring that was moved; if it says yes, the ring is
            spared, because its name still leads there. None spares none.
    """
    removed = []
    for info in list_segments(namespace):
        spills = SpillFiles(info.path)
        if not info.in_use:
            removed += _removed_unless_used(info.path, spills, kept=kept, dry_run=dry_run, leads_on=leads_on)
        elif candidates := spills.unlocked():
            with suppress(QueueNotFoundError), attach(info.name, namespace=info.namespace) as ring:
                if not ring.single_consumer:  # that one's records cannot be walked while it is at work
                    removed += spills.remove_orphans(candidates, ring.spilled_ids(), dry_run=dry_run)
    for folder in namespaces(namespace):
        names = {entry.name for entry in entries(folder)}
        for name in sorted(names):
            if "~" in name and name.partition("~")[0] not in names and is_unlocked(str(folder / name)):
                if not dry_run:
                    remove_if_there(str(folder / name))
                removed.append(str(folder / name))
        if not dry_run:
            drop_empty_folders(str(folder / "any"))
    return removed


def _removed_unless_used(
    path: str, spills: SpillFiles, *, kept: bool, dry_run: bool, leads_on: Callable[[str], bool] | None
) -> list[str]:
    """Remove a segment and its spill files, with the lock: whoever attaches at this moment waits, and looks again."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return []
    try:
        if not locked(descriptor, fcntl.LOCK_EX) or os.fstat(descriptor).st_nlink == 0:
            return []
        if not kept and is_kept(descriptor):
            return []
        if leads_on is not None and (successor := _successor_of(path, descriptor)) is not None and leads_on(successor):
            return []
        removed = [path, *spills.listed()]
        if not dry_run:
            spills.remove_all()
            remove_if_there(path)
        return removed
    finally:
        os.close(descriptor)


def _successor_of(path: str, descriptor: int) -> str | None:
    """What a ring was sealed with; None when it was not, or nobody can say any more."""
    try:
        seen = look(descriptor)
        return successor_in(f"{path}~moved.{seen['instance']}") if seen["moved"] else None
    except (CorruptQueueError, IncompatibleQueueError, InsecureQueueError):
        return None


def _is_kept_file(path: str) -> bool:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        return is_kept(descriptor)
    finally:
        os.close(descriptor)


# -- Arguments --------------------------------------------------------------------------------------------------------


def checked_number(what: str, value: object, low: int, high: int) -> int:
    """Refuse everything but an integer in its range, before any system call."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{what} must be an integer, not {value!r}")
    if not low <= value <= high:
        raise ValueError(f"{what} must be from {low:,} to {high:,}, not {value:,}")
    return value


def checked_settings(
    capacity_bytes: int,
    max_items: int,
    single_producer: bool,
    single_consumer: bool,
    checksum: bool,
    spill_threshold: int | None,
    codec: int,
) -> Settings:
    """Check the arguments of create(), and round the capacity as the ring will."""
    checked_number("capacity_bytes", capacity_bytes, 1, CAPACITY_MAX)
    checked_number("max_items", max_items, -(1 << 63), ITEMS_MAX)
    checked_number("codec", codec, 0, (1 << 32) - 1)
    if spill_threshold is not None:
        checked_number("spill_threshold", spill_threshold, 1, CAPACITY_MAX)
    rounded = max(4096, os.sysconf("SC_PAGESIZE"), 1 << (capacity_bytes - 1).bit_length())
    longest = rounded - 32  # as Ring.max_message_bytes
    threshold = min(spill_threshold or longest // 4, longest)
    return Settings(
        rounded, max(max_items, 0), bool(single_producer), bool(single_consumer), bool(checksum), codec, threshold
    )


# -- From a file to a handle ------------------------------------------------------------------------------------------


def _formatted(
    descriptor: int,
    settings: Settings,
    threshold: int,
    start: tuple[int, int],
    where: str | None,
    *,
    name: str | None,
    namespace: str | None,
) -> Ring:
    """Make the empty file a ring, attach to it, and only then give it its name."""
    try:
        try:
            format_segment(
                descriptor,
                capacity_bytes=settings.capacity_bytes,
                max_items=settings.max_items,
                spill_threshold=threshold,
                mode=settings.mode | MODE_KEPT * (where is not None and name is None),
                codec=settings.codec,
                start_units=start[0],
                start_items=start[1],
            )
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            free = None if where is None else free_bytes(os.path.dirname(where))
            raise QueueNoSpaceError(wanted=settings.capacity_bytes, free=free) from error
        if where is None:
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, SEALS | fcntl.F_SEAL_SEAL)
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        ring = _adopted(descriptor, where, name=name, namespace=namespace)
    except BaseException:
        os.close(descriptor)
        raise
    if where is not None:
        try:
            link_into_place(descriptor, where)
        except BaseException as error:
            ring.close()
            if isinstance(error, FileExistsError):
                raise QueueExistsError(name=name if name is not None else where) from error
            raise
    return ring


def _attached_descriptor(fd: int) -> Ring:
    descriptor = os.open(f"/proc/self/fd/{fd}", os.O_RDWR | os.O_CLOEXEC)  # a description of our own, for the flock
    try:
        if os.fstat(descriptor).st_nlink == 0 and is_memory_file(descriptor):
            if fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) & SEALS != SEALS:
                raise InsecureQueueError(path=f"descriptor {fd}", reason="it is not sealed: it could shrink under us")
        else:
            check_private(descriptor, f"descriptor {fd}")
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        return _adopted(descriptor, None, name=None, namespace=None)
    except BaseException:
        os.close(descriptor)
        raise


def _adopted(descriptor: int, where: str | None, *, name: str | None, namespace: str | None) -> Ring:
    """Map the file, check it, and remember the handle for fork and exit."""
    found = os.fstat(descriptor)
    segment = Segment(where, name=name, namespace=namespace, identity=(found.st_dev, found.st_ino))
    if found.st_size == 0:
        raise CorruptQueueError(field="file size", value=0, wanted="a segment")
    ring = Ring._from_fd(descriptor, segment, None if where is None else SpillFiles(where))
    segment.instance = ring.instance
    remember(ring)
    return ring
