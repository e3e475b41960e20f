"""
The old path between processes: a queue of pickles in a mapped file, changed under a file lock.

It has the words of every kind of sage-qd, so that a queue can be moved from here to any other kind and back while it is
used. The bytes are in :mod:`sage_compat.legacy.file_layout`, the files in :mod:`sage_compat.legacy.file_files`.
"""

import os
import pickle
import secrets
from collections.abc import Callable, Iterable
from functools import partial
from math import inf
from pathlib import Path
from time import monotonic, monotonic_ns
from typing import Any, ClassVar, Final, Self, TypeVar, cast

from sage_compat.legacy.file_files import ChildFiles, Files, open_files, remove_all
from sage_compat.legacy.file_layout import LEAST_CAPACITY, RAW, SPILLED, UNIT, Circle, Record, State, record_units
from sage_qd.codecs.base import PICKLE_TAG, RAW_TAG
from sage_qd.errors import Empty, Full, NotShareableError, PayloadError, QueueClosedError, QueueMovedError, ShutDown
from sage_qd.queues.base import Capabilities, Delivery, Lease, QueueFigures, Reach
from sage_qd.queues.moving import Follower, follows
from sage_qd.queues.shm_handles import remember
from sage_qd.queues.travel import reduced
from sage_qd.queues.waiting import check_batch, deadline_of, remaining

__all__ = ["FILE_QUEUE", "FileQueue", "capacity_for"]

T = TypeVar("T")
R = TypeVar("R")

SHUT, AT_ONCE, SEALED = 1, 2, 4
SLICE_SECONDS: Final = 0.05
"""Longest sleep without a look, so that nothing depends on a hint that a killed process took along."""
FILE_QUEUE: Final = Capabilities(
    reach=Reach.PROCESSES,
    delivery=Delivery.ONCE_OR_LEASED,
    survives_crash=True,
    lease=False,
    views=False,
    joins=False,
    same_object=False,
    bounded_by_bytes=True,
    uri_scheme="legacy_queue",
    movable=True,
)


_TOO_LARGE: Final = Record(b"", 0, 0)
"""The next message is too large for the batch."""


def capacity_for(wanted_bytes: int) -> int:
    """The capacity of a queue for which so many bytes were asked: the next power of two, 4 096 at least."""
    return max(LEAST_CAPACITY, 1 << max(wanted_bytes - 1, 0).bit_length())


@follows
class FileQueue(Follower[T]):
    """
    Queue of objects between the processes of a host, in pure Python.

    Safe in threads and processes; any user may be killed at any instruction. Open one through its descriptor. It has no
    leases and no count of unfinished tasks, which the old queues did not have either.
    """

    capabilities: ClassVar[Capabilities] = FILE_QUEUE

    def __init__(self, files: Files, queue_id: str, *, keep: bool = False) -> None:
        self.queue_id = queue_id
        self._files = files
        self._circle = Circle(files.memory)
        self._stays = keep
        remember(cast(Any, self))

    @classmethod
    def open(
        cls,
        queue_id: str,
        *,
        capacity_bytes: int = 1 << 20,
        max_items: int = 0,
        create: bool = True,
        exist_ok: bool = True,
        keep: bool = False,
    ) -> Self:
        """
        Open the queue of this name, making it if it is missing and that is allowed.

        Args:
            queue_id: Any text that fits a file name.
            capacity_bytes: Room, rounded up to a power of two; one that exists keeps its own.
            max_items: Exact bound in messages; 0 for bounded by bytes alone.
            create: Whether it may be made.
            exist_ok: Whether it may exist already.
            keep: Leave it when the last handle of all processes goes.
        """
        files = open_files(queue_id, capacity_for(capacity_bytes), max_items, create=create, exist_ok=exist_ok)
        return cls(files, queue_id, keep=keep)

    # -- Write side ----------------------------------------------------------------------------------------------------

    def put(self, item: T, block: bool = True, timeout: float | None = None) -> None:
        """Append one message; see :meth:`Queue.put`."""
        self._put_payload(*_encoded(item), deadline_of(block, timeout))

    def put_nowait(self, item: T) -> None:
        """Append one message without waiting."""
        self.put(item, block=False)

    def put_many(self, items: Iterable[T], timeout: float | None = None) -> int:
        """Append many messages; see :meth:`Queue.put_many`."""
        deadline = deadline_of(True, timeout)
        self._check_open()
        queued = list(items)
        encoded = [_encoded(item) for item in queued]
        for done, (payload, flags) in enumerate(encoded):
            try:
                self._put_payload(payload, flags, deadline)
            except (Full, ShutDown):
                if done:
                    return done
                raise
            except QueueMovedError as error:
                return self._put_rest(error, done, queued[done:], deadline)
        return len(encoded)

    def _put_payload(self, payload: bytes, flags: int, deadline: float) -> None:
        spilled = None
        if len(payload) > self._circle.longest_inside:
            number = secrets.randbits(63)
            spilled, flags = self._spill_path(number), flags | SPILLED
            _write_spill(spilled, payload)
            payload = number.to_bytes(8, "little") + len(payload).to_bytes(8, "little")
        try:
            if not self._until("room", partial(self._try_put, payload, flags), deadline):
                raise Full
        except BaseException:
            if spilled is not None:
                Path(spilled).unlink(missing_ok=True)
            raise

    def _try_put(self, payload: bytes, flags: int, state: State) -> bool | None:
        if state.endings:
            raise self._ending(state)
        if not self._circle.fits(state, record_units(len(payload), state.puts)):
            return None
        units = self._circle.write(state, payload, flags)
        changed = state.with_changes(
            tail=state.tail + units * UNIT,
            puts=state.puts + 1,
            bytes_put=state.bytes_put + _size(payload, flags),
            high_water=max(state.high_water, state.depth + 1),
        )
        self._circle.store(changed)
        self._wake("message", changed, 1)
        return True

    # -- Read side -----------------------------------------------------------------------------------------------------

    def get(self, block: bool = True, timeout: float | None = None) -> T:
        """Take the oldest message; see :meth:`Queue.get`."""
        record = self._until("message", self._try_get, deadline_of(block, timeout))
        if record is None:
            raise Empty
        return self._decoded(record, taken=True)

    def get_nowait(self) -> T:
        """Take the oldest message without waiting."""
        return self.get(block=False)

    def get_many(
        self, max_items: int, max_bytes: int | None = None, timeout: float | None = None, linger: float = 0
    ) -> list[T]:
        """Take what is there; see :meth:`Queue.get_many`."""
        check_batch(max_items, max_bytes)
        until = deadline_of(True, linger)
        taken: list[T] = []
        room: float = inf  # the first is taken whatever its size
        deadline = deadline_of(True, timeout)
        while len(taken) < max_items:
            try:
                record = self._until("message", partial(self._try_get, room=room), deadline)
            except (ShutDown, QueueMovedError, QueueClosedError):
                if taken:
                    break
                raise
            if record is None or record is _TOO_LARGE:
                break
            try:
                taken.append(self._decoded(record, taken=True))
            except PayloadError as error:
                raise PayloadError(tag=error.tag, payload=error.payload, items=taken) from error.__cause__
            if max_bytes:
                room = (max_bytes if room == inf else room) - _size(record.payload, record.flags)
            deadline = until
        if not taken:
            raise Empty
        return taken

    def _try_get(self, state: State, room: float = inf) -> Record | None:
        if not state.depth:
            if state.endings:
                raise self._ending(state)
            return None
        record = self._circle.read(state)
        if _size(record.payload, record.flags) > room:
            return _TOO_LARGE
        changed = state.with_changes(
            head=state.head + record.units * UNIT,
            gets=state.gets + 1,
            bytes_taken=state.bytes_taken + _size(record.payload, record.flags),
        )
        self._circle.store(changed)
        self._wake("room", changed, 1)
        return record

    def _decoded(self, record: Record, *, taken: bool) -> T:
        payload = record.payload
        if record.flags & SPILLED:
            path = self._spill_path(int.from_bytes(payload[:8], "little"))
            payload = Path(path).read_bytes()
            if taken:
                os.unlink(path)
        if record.flags & RAW:
            return cast(T, payload)
        try:
            return cast(T, pickle.loads(payload))
        except Exception as error:
            raise PayloadError(tag=RAW_TAG if record.flags & RAW else PICKLE_TAG, payload=payload) from error

    def lease(self, block: bool = True, timeout: float | None = None) -> Lease[T]:
        """Refuse: the old queues had no leases."""
        self._changing(self._refuse_ended)
        raise NotShareableError(what=f"a lease of {self.queue_id!r}", instead="the old path has none; use get()")

    def _refuse_ended(self, state: State) -> None:
        if state.endings and not state.depth:
            raise self._ending(state)

    def peek(self) -> T:
        """Look at the oldest message; see :meth:`Queue.peek`."""

        def look(state: State) -> Record:
            if state.depth:
                return self._circle.read(state)
            raise self._ending(state) if state.endings else Empty

        return self._decoded(self._changing(look), taken=False)

    def clear(self) -> int:
        """Drop every message, and return how many."""
        return self._changing(lambda state: self._drop_all(state, 0))

    def _drop_all(self, state: State, endings: int) -> int:
        count = state.depth
        look = state
        for _ in range(count):  # messages in files of their own
            record = self._circle.read(look)
            if record.flags & SPILLED:
                Path(self._spill_path(int.from_bytes(record.payload[:8], "little"))).unlink(missing_ok=True)
            look = look.with_changes(head=look.head + record.units * UNIT, gets=look.gets + 1)
        changed = look.with_changes(dropped=state.dropped + count, endings=state.endings | endings)
        self._circle.store(changed)
        self._wake("room", changed, changed.room_waiters)
        if endings:
            self._wake("message", changed, changed.message_waiters)
        return count

    # -- Waiting -------------------------------------------------------------------------------------------------------

    def wait_message(self, timeout: float | None = None) -> bool:
        """Wait until a get has an answer; see :meth:`Queue.wait_message`."""
        ready: Callable[[State], bool | None] = lambda state: True if state.depth or state.endings else None  # noqa: E731
        return bool(self._until("message", ready, deadline_of(True, timeout)))

    def wait_room(self, timeout: float | None = None) -> bool:
        """Wait until a put has an answer; see :meth:`Queue.wait_room`."""
        ready: Callable[[State], bool | None] = (  # noqa: E731
            lambda state: True if state.endings or not self._circle.is_full(state) else None
        )
        return bool(self._until("room", ready, deadline_of(True, timeout)))

    def _until(self, kind: str, step: Callable[[State], R | None], deadline: float) -> R | None:
        """Do a step again and again until it has an answer; None when the time ran out."""
        waiters, blocked = f"{kind}_waiters", "get_blocked_ns" if kind == "message" else "put_blocked_ns"
        slept_since = 0

        def attempt(state: State) -> R | None:
            if slept_since:
                state = state.with_changes(
                    **{
                        waiters: max(getattr(state, waiters) - 1, 0),
                        blocked: getattr(state, blocked) + monotonic_ns() - slept_since,
                    }
                )
                self._circle.store(state)
            answer = step(state)
            if answer is None and deadline > monotonic():
                self._circle.store(state.with_changes(**{waiters: getattr(state, waiters) + 1}))
            return answer

        while True:
            if (answer := self._changing(attempt)) is not None:
                return answer
            left = remaining(deadline)
            if left is not None and left <= 0:
                return None
            slept_since = monotonic_ns()
            self._files.wait(kind, SLICE_SECONDS if left is None else min(left, SLICE_SECONDS))

    def _changing(self, change: Callable[[State], R]) -> R:
        """Do something with the state, with the lock."""
        return self._files.gate.run(lambda: change(self._circle.load()), inf, cast(R, None))

    def _wake(self, kind: str, state: State, count: int) -> None:
        waiters = getattr(state, f"{kind}_waiters")
        if waiters and not self._files.hint(kind, min(count, waiters)):
            self._circle.store(state.with_changes(**{f"{kind}_waiters": 0}))  # those who do live count themselves again

    # -- Inspection ----------------------------------------------------------------------------------------------------

    @property
    def maxsize(self) -> int:
        """Most messages the queue holds; 0 when bounded by bytes alone."""
        return self._circle.max_items

    @property
    def capacity_bytes(self) -> int:
        """Room in bytes."""
        return self._circle.capacity_bytes

    @property
    def instance(self) -> str:
        """32 hexadecimal digits that no other queue has, not even a later one of the same name."""
        return self._circle.instance

    @property
    def closed(self) -> bool:
        """Whether this handle was closed."""
        return self._files.gate.closed

    def qsize(self) -> int:
        """Messages that could be taken now."""
        return self._changing(lambda state: state.depth)

    def empty(self) -> bool:
        """Whether nothing can be taken now."""
        return not self.qsize()

    def full(self) -> bool:
        """Whether not even an empty message would fit."""
        return self._changing(self._circle.is_full)

    def used_bytes(self) -> int:
        """Bytes of the room that messages take now."""
        return self._changing(lambda state: state.tail - state.head)

    def stats(self) -> QueueFigures:
        """Counters since the queue was made, of all processes."""
        state = self._changing(lambda state: state)
        return QueueFigures(
            puts=state.puts,
            gets=state.gets,
            depth=state.depth,
            leased=0,
            high_water=state.high_water,
            redeliveries=0,
            dropped=state.dropped,
            put_blocked_ns=state.put_blocked_ns,
            get_blocked_ns=state.get_blocked_ns,
            put_waiters=state.room_waiters,
            get_waiters=state.message_waiters,
            oldest_age_ns=0,
            is_shutdown=bool(state.endings & SHUT),
            bytes_put=state.bytes_put,
            bytes_taken=state.bytes_taken,
        )

    # -- Ending --------------------------------------------------------------------------------------------------------

    def shutdown(self, immediate: bool = False) -> int:
        """End the queue for everybody; see :meth:`Queue.shutdown`."""

        def shut(state: State) -> int:
            if immediate:
                return self._drop_all(state, SHUT | AT_ONCE)
            self._end(state, SHUT)
            return 0

        return self._changing(shut)

    def seal(self, successor: str) -> int:
        """End this queue in favour of another one; see :meth:`Queue.seal`."""

        def seal(state: State) -> int:
            if state.endings:
                raise self._ending(state)
            self._circle.write_successor(successor)  # means nothing before the state says so
            self._end(state, SEALED)
            return state.depth

        return self._changing(seal)

    def _end(self, state: State, endings: int) -> None:
        changed = state.with_changes(endings=state.endings | endings)
        self._circle.store(changed)
        for kind in ("message", "room"):
            self._wake(kind, changed, getattr(changed, f"{kind}_waiters"))

    def successor(self) -> str | None:
        """What this queue was sealed with."""
        return self._changing(lambda state: self._circle.read_successor() if state.endings & SEALED else None)

    def has_ended(self) -> bool:
        """Whether it was sealed or shut down."""
        return self._changing(lambda state: bool(state.endings))

    def _ending(self, state: State) -> Exception:
        if state.endings & SEALED:
            return QueueMovedError(name=self.queue_id, successor=self._circle.read_successor())
        return ShutDown()

    def _spill_path(self, number: int) -> str:
        return f"{self._files.path}~{number:016x}"

    def is_shared(self) -> bool:
        """Whether anybody else has a handle of this queue."""
        return self._files.is_shared()

    def leave_behind(self) -> None:
        """Let the queue stay when this handle is closed as the last one."""
        self._stays = True
        self._leave_successor_behind()

    def unlink(self) -> None:
        """Remove the name: nobody can open the queue any more, who has it open goes on."""
        self._check_open()
        remove_all(self._files.path)

    def close(self) -> None:
        """Give up this handle; the last one of all processes removes the queue, unless it is to be kept."""
        if not self.closed:
            self._close_successor()
        self._files.gate.close(self._leave)

    def _leave(self) -> None:
        self._circle.close()
        self._files.leave(remove_if_last=not self._stays)

    def _check_open(self) -> None:
        if self.closed:
            raise QueueClosedError(name=self.queue_id)

    def __del__(self) -> None:
        if hasattr(self, "_stays"):
            self.close()

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return reduced(self)

    def __repr__(self) -> str:
        return f"<FileQueue {self.queue_id!r}, {'closed' if self.closed else f'{self.qsize()} messages'}>"

    # -- Fork: called by sage_qd.queues.shm_handles --------------------------------------------------------------------

    def files_for_child(self) -> ChildFiles | None:
        """Open the files for a child about to be forked."""
        return self._files.for_child()

    def after_fork(self, files: ChildFiles | None) -> None:
        """In the child: use them, unless another thread closed this handle at the last moment."""
        if not self.closed:
            self._files.become(files)
        elif files is not None:
            files.close()


def _encoded(item: Any) -> tuple[bytes, int]:
    """A message as bytes, and the mark of those that were bytes before."""
    return (item, RAW) if type(item) is bytes else (pickle.dumps(item, 5), 0)


def _size(payload: bytes, flags: int) -> int:
    return int.from_bytes(payload[8:16], "little") if flags & SPILLED else len(payload)


def _write_spill(path: str, payload: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(payload)
    except BaseException:
        os.unlink(path)
        raise
