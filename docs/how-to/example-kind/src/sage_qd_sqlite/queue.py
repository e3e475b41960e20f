"""
The queue in a SQLite file.

Every change is one transaction, so a process killed in the middle of one leaves no trace of it. Each handle holds the
lock of a file of its own; who finds that lock free knows that the handle's process is gone, and gives its leases back.
"""

import fcntl
import hashlib
import os
import pickle
import sqlite3
import threading
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from time import monotonic, time_ns
from typing import Any, ClassVar, NoReturn, TypeVar
from weakref import WeakValueDictionary

from sage_qd import (
    Empty,
    FencedError,
    Full,
    GeometryMismatchError,
    NotShareableError,
    PayloadError,
    Queue,
    QueueClosedError,
    QueueFigures,
    QueueNotFoundError,
    ShutDown,
)
from sage_qd.queues.waiting import check_batch, deadline_of
from sage_qd_sqlite import SQLiteQueueDescriptor

__all__ = ["SQLiteQueue"]

R = TypeVar("R")

SLICE_SECONDS = 0.02
"""How often a waiting call looks for what other processes did: SQLite wakes nobody."""
BUSY_SECONDS = 60.0
SCHEMA = """
CREATE TABLE IF NOT EXISTS messages (
    id INTEGER PRIMARY KEY AUTOINCREMENT, body BLOB NOT NULL, born_ns INTEGER NOT NULL,
    attempt INTEGER NOT NULL DEFAULT 0, holder TEXT);
CREATE TABLE IF NOT EXISTS state (
    instance TEXT NOT NULL, maxsize INTEGER NOT NULL, shut INTEGER NOT NULL DEFAULT 0, puts INTEGER NOT NULL DEFAULT 0,
    gets INTEGER NOT NULL DEFAULT 0, dropped INTEGER NOT NULL DEFAULT 0, redeliveries INTEGER NOT NULL DEFAULT 0,
    high_water INTEGER NOT NULL DEFAULT 0);
"""


class Changes:
    """Wakes the threads of this process that wait on one file; those of others look again after a slice."""

    _of_path: ClassVar[WeakValueDictionary[Path, "Changes"]] = WeakValueDictionary()

    def __init__(self) -> None:
        self.condition = threading.Condition()
        self.count = 0

    @classmethod
    def of(cls, path: Path) -> "Changes":
        made = cls()
        return cls._of_path.setdefault(path, made)

    def tell(self) -> None:
        with self.condition:
            self.count += 1
            self.condition.notify_all()

    def wait(self, seen: int, deadline: float) -> None:
        with self.condition:
            if self.count == seen:
                self.condition.wait(min(max(deadline - monotonic(), 0), SLICE_SECONDS))


class SQLiteQueue(Queue[Any]):
    """A handle of the queue; open one through :class:`SQLiteQueueDescriptor`."""

    capabilities = SQLiteQueueDescriptor.capabilities
    _closed = True  # until it is open

    def __init__(self, queue_id: str, *, maxsize: int, durable: bool, create: bool) -> None:
        state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
        folder = Path(os.environ.get("SAGE_QD_SQLITE") or Path(state, "sage-qd-sqlite"))
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._name = queue_id
        self._path = folder / hashlib.sha256(queue_id.encode()).hexdigest()
        self._durable = durable
        self._token = uuid.uuid4().hex
        self._pid = os.getpid()
        self._mutex = threading.RLock()
        self._changes = Changes.of(self._path)
        self._given_up: deque[int] = deque()
        with self._gate():
            if not create and not self._path.exists():
                raise QueueNotFoundError(name=queue_id)
            self._alive = _locked(self._holder_path(self._token))
            try:
                self._database = self._connected(maxsize)
            except BaseException:
                os.close(self._alive)
                raise
        self._closed = False
        self.instance = self._one("SELECT instance FROM state")
        self._maxsize = self._one("SELECT maxsize FROM state")
        if self._maxsize != maxsize:
            self.close()
            raise GeometryMismatchError(name=queue_id, wanted={"maxsize": maxsize}, found={"maxsize": self._maxsize})

    def _connected(self, maxsize: int) -> sqlite3.Connection:
        """Open the file, and make what is in it when it is new; nobody else opens or closes it meanwhile."""
        database = sqlite3.connect(self._path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        database.execute("PRAGMA journal_mode = WAL")
        database.execute(f"PRAGMA synchronous = {'FULL' if self._durable else 'OFF'}")
        database.executescript(SCHEMA)
        database.execute(
            "INSERT INTO state (instance, maxsize) SELECT ?, ? WHERE NOT EXISTS (SELECT 1 FROM state)",
            (uuid.uuid4().hex, maxsize),
        )
        return database

    # -- Write side ---------------------------------------------------------------------------------------------------

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        bodies = [pickle.dumps(item, 5)]
        self._attempt(lambda: self._append(bodies) or None, deadline_of(block, timeout), Full)

    def put_nowait(self, item: Any) -> None:
        self.put(item, False)

    def put_many(self, items: Iterable[Any], timeout: float | None = None) -> int:
        bodies = [pickle.dumps(item, 5) for item in items]
        deadline = deadline_of(True, timeout)
        self._check_open()
        done = 0
        while done < len(bodies):
            rest = bodies[done:]
            try:
                done += self._attempt(lambda rest=rest: self._append(rest) or None, deadline, Full)
            except (Full, ShutDown):
                if not done:
                    raise
                break
        return done

    def _append(self, bodies: list[bytes]) -> int:
        """Put what there is room for, and say how much that was."""
        if self._one("SELECT shut FROM state"):
            raise ShutDown("the queue was shut down")
        count = self._one("SELECT count(*) FROM messages")
        fitting = bodies[: max(self._maxsize - count, 0)] if self._maxsize else bodies
        if not fitting:
            return 0
        now = time_ns()
        self._database.executemany(
            "INSERT INTO messages (body, born_ns) VALUES (?, ?)", [(body, now) for body in fitting]
        )
        full = count + len(fitting)
        self._do("UPDATE state SET puts = puts + ?, high_water = max(high_water, ?)", len(fitting), full)
        return len(fitting)

    # -- Read side ----------------------------------------------------------------------------------------------------

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        return self._attempt(lambda: self._taken(1, 0), deadline_of(block, timeout), Empty)[0]

    def get_nowait(self) -> Any:
        return self.get(False)

    def get_many(
        self, max_items: int, max_bytes: int | None = None, timeout: float | None = None, linger: float = 0
    ) -> list[Any]:
        check_batch(max_items, max_bytes)
        collecting = deadline_of(True, linger)
        taken = self._attempt(lambda: self._taken(max_items, max_bytes or 0), deadline_of(True, timeout), Empty)
        while len(taken) < max_items and not max_bytes and monotonic() < collecting:
            try:
                taken += self._attempt(partial(self._taken, max_items - len(taken), 0), collecting, Empty)
            except (Empty, ShutDown, QueueClosedError):
                break
            except PayloadError as error:
                error.items = taken
                raise
        return taken

    def _taken(self, max_items: int, max_bytes: int) -> list[Any] | PayloadError | None:
        """Take what is there; None when there is nothing. What cannot be decoded comes alone, as its error."""
        taken: list[Any] = []
        total, last = 0, 0
        for number, body, _ in self._oldest(max_items):
            message = _decoded(body)
            if isinstance(message, PayloadError) and taken:
                break
            if isinstance(message, PayloadError):
                self._remove(number)
                return message
            total += len(message) if isinstance(message, (bytes, bytearray)) else 0
            if taken and max_bytes and total > max_bytes:
                break
            taken.append(message)
            last = number
        if taken:
            self._remove(last)
        return taken or None

    def _remove(self, last: int) -> None:
        gone = self._do("DELETE FROM messages WHERE holder IS NULL AND id <= ?", last)
        self._do("UPDATE state SET gets = gets + ?", gone)

    def lease(self, block: bool = True, timeout: float | None = None) -> "SQLiteLease":
        return self._attempt(self._leased, deadline_of(block, timeout), Empty)

    def _leased(self) -> "SQLiteLease | None":
        for number, body, attempt in self._oldest(1):
            self._do("UPDATE messages SET holder = ? WHERE id = ?", self._token, number)
            return SQLiteLease(self, number, _decoded(body), attempt)
        return None

    def peek(self) -> Any:
        found = self._attempt(lambda: self._oldest(1) or None, deadline_of(False, None), Empty)
        message = _decoded(found[0][1])
        if isinstance(message, PayloadError):
            raise message
        return message

    def _oldest(self, count: int) -> list[tuple[int, bytes, int]]:
        """The oldest messages that nobody holds; what dropped leases and dead processes held comes back first."""
        while self._given_up:
            self._settle(self._given_up.popleft(), ack=False)
        for (holder,) in self._rows("SELECT DISTINCT holder FROM messages WHERE holder IS NOT NULL"):
            if holder != self._token and not _is_locked(self._holder_path(holder)):
                self._give_back("holder = ?", holder)
        found = self._rows("SELECT id, body, attempt FROM messages WHERE holder IS NULL ORDER BY id LIMIT ?", count)
        if not found:
            self._check_more_may_come()
        return found

    def _check_more_may_come(self) -> None:
        shut = self._one("SELECT shut FROM state")
        if shut == 2 or (shut and not self._one("SELECT count(*) FROM messages")):
            raise ShutDown("the queue was shut down, and nothing is left")

    def _give_back(self, which: str, value: object) -> int:
        back = self._do(f"UPDATE messages SET holder = NULL, attempt = attempt + 1 WHERE {which}", value)
        self._do("UPDATE state SET redeliveries = redeliveries + ?", back)
        if self._one("SELECT shut FROM state") == 2:
            self._drop()
        return back

    def _settle(self, number: int, *, ack: bool) -> None:
        if self._one("SELECT count(*) FROM messages WHERE id = ? AND holder = ?", number, self._token) == 0:
            raise FencedError(pid=self._pid, epoch=number)
        if ack:
            self._do("DELETE FROM messages WHERE id = ?", number)
            self._do("UPDATE state SET gets = gets + 1")
        else:
            self._give_back("id = ?", number)

    def clear(self) -> int:
        with self._transaction():
            return self._drop()

    def _drop(self) -> int:
        gone = self._do("DELETE FROM messages WHERE holder IS NULL")
        self._do("UPDATE state SET gets = gets + ?, dropped = dropped + ?", gone, gone)
        return gone

    # -- Waiting and looking ------------------------------------------------------------------------------------------

    def wait_message(self, timeout: float | None = None) -> bool:
        return self._is_ready(lambda: bool(self._oldest(1)) or None, timeout)

    def wait_room(self, timeout: float | None = None) -> bool:
        return self._is_ready(lambda: not self._is_full() or self._one("SELECT shut FROM state") > 0 or None, timeout)

    def _is_ready(self, look: Callable[[], bool | None], timeout: float | None) -> bool:
        try:
            return self._attempt(look, deadline_of(True, timeout), Empty)
        except ShutDown:
            return True
        except Empty:
            return False

    @property
    def maxsize(self) -> int:
        return self._maxsize

    def qsize(self) -> int:
        with self._transaction():
            return self._one("SELECT count(*) FROM messages WHERE holder IS NULL")

    def empty(self) -> bool:
        return self.qsize() == 0

    def full(self) -> bool:
        with self._transaction():
            return self._is_full()

    def _is_full(self) -> bool:
        return 0 < self._maxsize <= self._one("SELECT count(*) FROM messages")

    def stats(self) -> QueueFigures:
        with self._transaction():
            names = "puts, gets, dropped, redeliveries, high_water, shut"
            puts, gets, dropped, redeliveries, high, shut = self._rows(f"SELECT {names} FROM state")[0]
            depth, born_ns = self._rows("SELECT count(*), min(born_ns) FROM messages WHERE holder IS NULL")[0]
            leased = self._one("SELECT count(*) FROM messages WHERE holder IS NOT NULL")
        return QueueFigures(
            puts=puts,
            gets=gets,
            dropped=dropped,
            redeliveries=redeliveries,
            high_water=high,
            depth=depth,
            leased=leased,
            is_shutdown=shut > 0,
            put_blocked_ns=0,
            get_blocked_ns=0,
            put_waiters=0,
            get_waiters=0,
            oldest_age_ns=max(time_ns() - born_ns, 0) if born_ns else 0,
        )

    # -- Ending -------------------------------------------------------------------------------------------------------

    def shutdown(self, immediate: bool = False) -> int:
        with self._transaction():
            before = self._one("SELECT shut FROM state")
            self._do("UPDATE state SET shut = max(shut, ?)", 2 if immediate else 1)
            return self._drop() if immediate and before < 2 else 0

    @property
    def closed(self) -> bool:
        return self._closed

    def close(self) -> None:
        with self._mutex:
            if self._closed or os.getpid() != self._pid:
                return
            with self._gate():
                with self._transaction():
                    self._give_back("holder = ?", self._token)
                self._closed = True
                self._database.close()
                os.close(self._alive)
                self._holder_path(self._token).unlink(missing_ok=True)
                self._clean_up()
        self._changes.tell()

    def _clean_up(self) -> None:
        """Forget handles that died; the last one takes the file along, unless the queue is durable."""
        others = [
            path for path in self._path.parent.glob(f"{self._path.name}.*") if path.suffix not in (".gate", ".db")
        ]
        alive = [path for path in others if _is_locked(path)]
        for path in others:
            if path not in alive:
                path.unlink(missing_ok=True)
        if not alive and not self._durable:
            for end in ("", "-wal", "-shm"):
                Path(f"{self._path}{end}").unlink(missing_ok=True)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._name!r}, {'closed' if self._closed else 'open'}>"

    def __del__(self) -> None:
        """Leave as a process does that dies: the next one who looks gives the leases back, and cleans up."""
        if not self._closed:
            self._database.close()
            os.close(self._alive)

    def __reduce__(self) -> NoReturn:
        raise NotShareableError(what=repr(self), instead="send its descriptor")

    # -- The file -----------------------------------------------------------------------------------------------------

    def _attempt(self, step: Callable[[], R | PayloadError | None], deadline: float, error: type[Exception]) -> R:
        """Try a step, each time as one transaction, until it has an answer; an error as answer is raised then."""
        while True:
            seen = self._changes.count
            with self._transaction():
                answer = step()
            if isinstance(answer, PayloadError):
                raise answer
            if answer is not None:
                return answer
            if monotonic() >= deadline:
                raise error(f"{self!r} has no answer in time")
            self._changes.wait(seen, deadline)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._mutex:
            self._check_open()
            before = self._database.total_changes
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._database.execute("ROLLBACK")
                raise
            self._database.execute("COMMIT")
            changed = self._database.total_changes != before
        if changed:
            self._changes.tell()

    def _check_open(self) -> None:
        if self._closed:
            raise QueueClosedError(name=self._name)
        if os.getpid() != self._pid:
            raise NotShareableError(what="a handle that was open before a fork", instead="open its descriptor again")

    def _rows(self, words: str, *values: object) -> list[Any]:
        return self._database.execute(words, values).fetchall()

    def _one(self, words: str, *values: object) -> Any:
        return self._rows(words, *values)[0][0]

    def _do(self, words: str, *values: object) -> int:
        return self._database.execute(words, values).rowcount

    def _holder_path(self, token: str) -> Path:
        return self._path.with_name(f"{self._path.name}.{token}")

    @contextmanager
    def _gate(self) -> Iterator[None]:
        """Let one handle at a time open or close, so that none opens what another one removes."""
        gate = os.open(self._path.with_name(f"{self._path.name}.gate"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(gate, fcntl.LOCK_EX)
            yield
        finally:
            os.close(gate)


class SQLiteLease:
    """A message on trial; see :class:`sage_qd.Lease`."""

    def __init__(self, queue: SQLiteQueue, number: int, value: Any, attempt: int) -> None:
        self._queue, self._number, self._settled = queue, number, False
        self._value = value
        self.attempt = attempt

    @property
    def value(self) -> Any:
        if isinstance(self._value, PayloadError):
            raise self._value
        return self._value

    @property
    def redelivered(self) -> bool:
        return self.attempt > 0

    @property
    def settled(self) -> bool:
        return self._settled

    def ack(self) -> None:
        self._end(ack=True)

    def nack(self) -> None:
        self._end(ack=False)

    def _end(self, *, ack: bool) -> None:
        if self._settled:
            raise ValueError("the lease is settled already")
        with self._queue._transaction():
            self._queue._settle(self._number, ack=ack)
        self._settled = True

    def __enter__(self) -> "SQLiteLease":
        return self

    def __exit__(self, kind: object, value: object, trace: object) -> None:
        if not self._settled:
            self._end(ack=kind is None)

    def __del__(self) -> None:
        if not self._settled:
            self._queue._given_up.append(self._number)  # for the next who looks: this may run in a transaction


def _decoded(body: bytes) -> Any:
    """Return the message, or the error that says why there is none."""
    try:
        return pickle.loads(body)  # the folder belongs to this user alone
    except Exception as error:  # noqa: BLE001  (whatever the message's own code raises)
        failed = PayloadError(tag=0, payload=body)
        failed.__cause__ = error
        return failed


def _locked(path: Path) -> int:
    """Hold the lock of a new file, until the descriptor is closed or the process ends."""
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return file


def _is_locked(path: Path) -> bool:
    try:
        file = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(file)
    return False
