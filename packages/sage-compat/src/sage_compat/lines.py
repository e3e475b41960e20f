"""
Lines: the way of this process to the queue behind a name, across all moves.

All handles of one name in a process share a line. It holds the queues between which the name is being moved, in order:
messages are taken from the first one and put into the last one. A queue that was sealed says so to whoever calls it;
the call is then repeated on the next one. So a call costs nothing more than on the queue itself until a move is met.
"""

import atexit
import fcntl
import logging
import os
import statistics
import threading
import warnings
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, TypeVar, cast

from sage_compat import control, health, opening, records
from sage_compat.errors import ReachWarning
from sage_compat.records import Record, attached, changing
from sage_compat.repeated import hold_over_fork
from sage_compat.rules import Decision, Mode, decide
from sage_compat.shadow import Shadow
from sage_qd import (
    BaseQueueDescriptor,
    CorruptQueueError,
    Queue,
    QueueClosedError,
    QueueMovedError,
    QueueNotFoundError,
    SageQueueError,
    ShutDown,
)
from sage_qd.queues.shm_handles import remember
from sage_qd.queues.shm_lock import holders

__all__ = ["NamedLine", "apply_modes", "line_of", "open_lines"]

_lines: Final[dict[str, "NamedLine"]] = {}
_others: Final["weakref.WeakSet[Any]"] = weakref.WeakSet()
"""Lines of queues without a shared name; each has ``apply_mode()``."""
T = TypeVar("T")

_mutex: Final = threading.RLock()
hold_over_fork(_mutex)
_log: Final = logging.getLogger("sage_compat")


class NamedLine:
    """
    The line of one name. Safe in threads; a forked child has its own presence and queues.

    Args:
        record: What the program asked for; an existing record goes before it.

    Attributes:
        full_name: The name that processes meet under.
        name: As the program gave it.
        decision: The mode, and why, when the name was opened here.
    """

    def __init__(self, record: Record) -> None:
        self.full_name = record.full_name
        self.name = record.name
        self.decision: Decision = decide(record.name)
        self.errors = 0
        self.last_error: Exception | None = None
        self.is_destroyed = False
        self._mutex = threading.RLock()
        self._queues: list[Queue[Any]] = []
        self.closed = False
        self.shadow: Shadow | None = None
        self.handles: weakref.WeakSet[Any] = weakref.WeakSet()
        self._users = _present(self.full_name)
        try:
            self._join(record)
        except BaseException:
            os.close(self._users)
            raise
        remember(cast(Any, self))
        self.apply_shadow()

    def apply_shadow(self) -> None:
        """Begin or end to copy messages, as the mode is now."""
        wanted = self.decision.mode is Mode.SHADOW and not self.closed
        with self._mutex:
            if wanted == (self.shadow is not None):
                return
            before, self.shadow = self.shadow, Shadow(self.full_name) if wanted else None
            if wanted:
                atexit.register(self.close)  # before the rings' own, which were registered earlier
        if before is not None:
            before.close()
        for handle in list(self.handles):
            handle._bind()

    def _join(self, wanted: Record) -> None:
        """
        Open the first queue behind the name, or make it.

        Only that takes the lock: who is present keeps the record from being removed, every queue in it but the last
        leads on to the next one, and those who open a name by the hundred must not hold up whoever moves it.
        """
        record = records.read(self.full_name)
        if record is not None and record.chain:
            try:
                self._queues = [attached(record.descriptors[0])]
            except (SageQueueError, OSError):
                pass  # it was drained and taken out, or is damaged: with the lock, there is no doubt
            else:
                self.keep = record.keep
                self._advance()
                return
        with changing(self.full_name):
            self._make(wanted)

    def _make(self, wanted: Record) -> None:
        """Open the first queue behind the name, or make it, with the lock."""
        record = records.read(self.full_name) or wanted
        records.pruned(record)
        if not record.chain:
            descriptor = opening.made(record, self.decision)
            record.number += 1
            record.chain = [descriptor.to_json()]
        record.save()
        self.keep = record.keep
        self._queues = [attached(record.descriptors[0])]

    @property
    def source(self) -> Queue[Any]:
        """Where messages are taken."""
        return self._queues[0]

    @property
    def sink(self) -> Queue[Any]:
        """Where messages are put."""
        return self._queues[-1]

    @property
    def queues(self) -> list[Queue[Any]]:
        """All queues of the line, oldest first."""
        return list(self._queues)

    @property
    def descriptor(self) -> BaseQueueDescriptor:
        """The queue where messages are put now, as data."""
        with self._mutex:
            while records.ended(self.sink):
                successor = self.sink.successor()
                moved = ShutDown() if successor is None else QueueMovedError(name=self.name, successor=successor)
                self._append_successor(self.sink, moved)
            return cast(BaseQueueDescriptor, self.sink.descriptor)

    def of_each(self, look: Callable[[Queue[Any]], T]) -> list[T]:
        """Look at every queue of the line, oldest first, those that others made since included."""
        with self._mutex:
            with suppress(SageQueueError):  # where the way on is damaged, the next put or get finds another, or says so
                while records.ended(self.sink) and (successor := self.sink.successor()) is not None:
                    self._append_successor(self.sink, QueueMovedError(name=self.name, successor=successor))
            return [look(queue) for queue in self._queues]

    # -- Going on ------------------------------------------------------------------------------------------------------

    def next_sink(self, met: Queue[Any], error: Exception) -> Queue[Any]:
        """
        Return where to repeat a put that met an error on a queue.

        Raises:
            Exception: The error, when it has nothing to do with a move.
        """
        with self._mutex:
            if met is self.sink:  # else another thread was faster
                self._append_successor(met, error)
            return self.sink

    def next_source(self, met: Queue[Any], error: Exception) -> Queue[Any]:
        """Return where to repeat a get that met an error on a queue; likewise."""
        with self._mutex:
            if met is self.source:
                if not isinstance(error, (QueueMovedError, ShutDown, QueueClosedError)) and not self._is_over(met):
                    raise self._counted(error)
                if len(self._queues) == 1:
                    self._append_successor(met, error)
                if self._queues[0] is met:
                    self._queues.pop(0).close()
            return self.source

    def _is_over(self, met: Queue[Any]) -> bool:
        """Whether a queue was taken out of the record: it is drained, or was left."""
        record = records.read(self.full_name)
        queue_id = cast(BaseQueueDescriptor, met.descriptor).queue_id
        return record is not None and all(each.queue_id != queue_id for each in record.descriptors)

    def _append_successor(self, met: Queue[Any], error: Exception) -> None:
        """Open what comes behind a queue; raise the error when nothing does."""
        queue = self._successor(met, error)
        if queue is None:
            raise self._counted(error)
        self._queues.append(queue)
        if met.closed:
            self._queues.remove(met)

    def _counted(self, error: Exception) -> Exception:
        """An error that a call ends with, for the health of the name."""
        if not isinstance(error, QueueClosedError):
            self.errors += 1
            self.last_error = error
        return error

    def _successor(self, met: Queue[Any], error: Exception) -> Queue[Any] | None:
        if isinstance(error, QueueMovedError):
            successor = records.named(error.successor)
            record = records.read(self.full_name)
            if record is None or successor.queue_id not in record.abandoned:
                try:
                    return attached(successor)
                except QueueNotFoundError:
                    pass  # it was moved in turn, and drained: the record knows where it went
        with changing(self.full_name):
            record = records.read(self.full_name)
            if record is None:
                return None
            for descriptor in record.behind(cast(BaseQueueDescriptor, met.descriptor)):
                with suppress(QueueNotFoundError):  # likewise, and nobody took it out of the record yet
                    return attached(descriptor)
            return None

    def refresh(self) -> None:
        """Look again, because something was decided: go on to where the name is now, or leave what cannot be moved."""
        self._advance()
        self.decision = decide(self.name)
        self.apply_shadow()
        record = records.read(self.full_name)
        if record is None:
            return
        with self._mutex:
            self._pass_damaged(record)
            if self.closed or cast(BaseQueueDescriptor, self.sink.descriptor).queue_id not in record.abandoned:
                return
            left = self.sink
            try:
                left.shutdown()  # its name is gone, its bytes are in memory here: everybody drains it and goes on
            except (SageQueueError, OSError):
                left.close()  # calls that wait there come back, and go on to the next queue
                self._append_successor(left, QueueClosedError(name=self.name))

    def _pass_damaged(self, record: Record) -> None:
        """Leave queues that a decision led past, where nothing can be taken from them."""
        while not self.closed and cast(BaseQueueDescriptor, self.source.descriptor).queue_id in record.abandoned:
            try:
                records.check_sound(self.source)
                return
            except CorruptQueueError as error:
                self.next_source(self.source, error)

    def _advance(self) -> None:
        """Leave queues that ended and are drained, as the next call would; so that they can be removed."""
        with self._mutex:
            if self.closed:
                return
            try:
                while records.ended(self.source) and not self.source.qsize():
                    successor = self.source.successor()
                    moved = ShutDown() if successor is None else QueueMovedError(name=self.name, successor=successor)
                    self.next_source(self.source, moved)
            except SageQueueError as error:
                _log.info("queue %s is not gone on with until it is called: %s", self.name, error)

    # -- Leaving -------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Leave the name; the last process that does removes its queues, unless they are to be kept."""
        with self._mutex:
            if self.closed:
                return
            self.closed = True
            shadow, self.shadow = self.shadow, None
        if shadow is not None:
            shadow.close()
        with _mutex:
            if _lines.get(self.full_name) is self:
                del _lines[self.full_name]
        with changing(self.full_name):
            for queue in self._queues:
                queue.close()
            try:
                if _is_alone(self._users):
                    if not (self.keep or self.is_destroyed):
                        destroy(self.full_name)
                    if records.read(self.full_name) is None:
                        _forget(self.full_name)
            finally:
                os.close(self._users)

    def destroy(self) -> None:
        """Remove the queue: nobody can open it any more, who has it open goes on."""
        with _mutex:
            if _lines.get(self.full_name) is self:
                del _lines[self.full_name]
        self.is_destroyed = True
        with changing(self.full_name):
            destroy(self.full_name)

    def users(self) -> int:
        """How many processes have the name open, this one included; the kernel's list may change while it is read."""
        return max(statistics.mode(holders(self._users) for _ in range(3)), 1)

    # -- Fork: called by sage_qd.queues.shm_handles --------------------------------------------------------------------

    def files_for_child(self) -> "_ChildPresence":
        """Be present for a child about to be forked, too."""
        return _ChildPresence(_present(self.full_name))

    def after_fork(self, presence: "_ChildPresence | None") -> None:
        """In the child: be present by itself."""
        self._mutex = threading.RLock()
        if presence is None:
            return
        if self.closed:
            presence.close()
            return
        os.close(self._users)
        self._users = presence.descriptor


class _ChildPresence:
    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def close(self) -> None:
        """In the parent: it is the child's."""
        os.close(self.descriptor)


def _present(full_name: str) -> int:
    """Be one of those who have the name open; waits only for a last one who is leaving, and takes the file along."""
    path = records.users_path(full_name)
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        if os.fstat(descriptor).st_nlink:
            return descriptor
        os.close(descriptor)


def _is_alone(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def destroy(full_name: str) -> None:
    """Remove every queue behind a name and its record, with the lock."""
    record = records.read(full_name)
    if record is not None:
        for descriptor in record.descriptors:
            records.remove(descriptor)
        record.path.unlink(missing_ok=True)


def _forget(full_name: str) -> None:
    """Remove the files that locks of a name were on, with the lock, when nobody has it open."""
    records.users_path(full_name).unlink(missing_ok=True)
    records.lock_path(full_name).unlink(missing_ok=True)


# -- Those of this process ---------------------------------------------------------------------------------------------


def line_of(record: Record) -> NamedLine:
    """Return the line of a name, opened if need be."""
    with _mutex:
        line = _lines.get(record.full_name)
        if line is None or line.closed:
            control.watch(refresh_all)  # before: what is decided from now on is met, or noticed
            line = _lines[record.full_name] = NamedLine(record)
            health.watch(open_lines)
        return line


def open_lines() -> list[NamedLine]:
    """The lines of this process."""
    with _mutex:
        return list(_lines.values())


def register(line: Any) -> None:
    """Have the mode of a queue without a shared name looked after."""
    _others.add(line)
    control.watch(refresh_all)


def refresh_all() -> None:
    """Look at everything again, because something was decided."""
    for line in open_lines():
        line.refresh()
    for other in list(_others):
        other.apply_mode()


def apply_modes() -> None:
    """Bring the queues of this process to the modes that the rules give now."""
    from sage_compat.moves import flip  # which imports this module

    for line in open_lines():
        decision = line.decision = decide(line.name)
        line.apply_shadow()
        if decision.mode is Mode.STRICT:
            continue  # it is about calls; what is open stays where it is
        try:
            flip(line.full_name, is_new=decision.is_new)
        except (SageQueueError, OSError) as error:
            warnings.warn(f"queue {line.name!r} stays on the way it takes: {error}", ReachWarning, stacklevel=3)
    for other in list(_others):
        other.apply_mode()
