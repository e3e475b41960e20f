"""
``SageQueue`` as old programs know it: a queue between processes by name, bounded in bytes.

The texts of exceptions are part of the interface, because callers match them.
"""

import os
from collections.abc import Callable
from functools import partial
from time import monotonic
from types import TracebackType
from typing import Any, Final, NoReturn, Self

from sage_compat import lines, records
from sage_compat.call_sites import note
from sage_compat.errors import LegacyCallError
from sage_compat.housekeeping import (
    cleanup_invalid_queues,
    cleanup_user_queues,
    destroy_queue,
    list_all_sage_queues,
)
from sage_compat.old_behaviour import has_quirk
from sage_compat.places_of_calls import place_of_call
from sage_compat.records import Record
from sage_compat.rules import Mode, decide
from sage_compat.session import namespaced
from sage_compat.ways import Way, capacity_bytes, install_signal_handlers, path_of, polled, shadowed, used_bytes
from sage_qd import (
    BaseQueueDescriptor,
    Empty,
    Full,
    MessageTooLargeError,
    PayloadError,
    QueueNotFoundError,
    SageQueueError,
)

__all__ = [
    "DEFAULT_MAXSIZE",
    "SageQueue",
    "SageQueueRef",
    "cleanup_invalid_queues",
    "cleanup_user_queues",
    "create_queue",
    "destroy_queue",
    "list_all_sage_queues",
    "open_queue",
]

DEFAULT_MAXSIZE: Final = 1024 * 1024
_LARGE: Final = 64 * 1024


class SageQueue:
    """
    A queue that all processes of a session share by name.

    Safe in threads and processes. A handle can be pickled; the copy is a handle of the same queue. ``close`` keeps what
    is queued: the queue goes with the last process that used the name, or by ``destroy``.

    Args:
        name: Of the queue, in its session.
        maxsize: Room in **bytes**, rounded up to a power of two, 4 096 at least.
        auto_cleanup: Whether the queue goes with the last process that uses it.
        namespace: Share the name with all programs of this user that name this one, instead of the session.
        enable_multi_tenant: False to share the bare name with all programs of this user.

    Raises:
        LegacyCallError: The mode of the queue is ``strict``.
        ConfigurationError: A rule is wrong.
        QueueNoSpaceError: There is no room for the queue.
    """

    def __init__(
        self,
        name: str,
        maxsize: int = DEFAULT_MAXSIZE,
        auto_cleanup: bool = True,
        namespace: str | None = None,
        enable_multi_tenant: bool = True,
    ) -> None:
        note("SageQueue", None, {"name": name, "maxsize": maxsize})
        self._begin(name, maxsize, auto_cleanup, namespace, enable_multi_tenant)

    def _begin(
        self,
        name: str,
        maxsize: int = DEFAULT_MAXSIZE,
        auto_cleanup: bool = True,
        namespace: str | None = None,
        enable_multi_tenant: bool = True,
        full_name: str | None = None,
    ) -> None:
        checked_maxsize(maxsize)
        if decide(name).mode is Mode.STRICT:
            raise LegacyCallError(place_of_call(), "SageQueue(...)", f"SageQueueDescriptor(queue_id={name!r})")
        self.original_name = name
        self.namespace = namespace
        self.enable_multi_tenant = enable_multi_tenant
        self.maxsize = maxsize
        self.auto_cleanup = auto_cleanup
        alone = has_quirk("pid_in_name") or has_quirk("not_shared")
        self.name = full_name or namespaced(
            name, namespace, enable_multi_tenant=enable_multi_tenant and not alone, pid_in_name=alone
        )
        if alone:
            self.name = namespaced(name, namespace, enable_multi_tenant=True, pid_in_name=True)
        if has_quirk("signal_handlers"):
            install_signal_handlers()
        self._loses_large = has_quirk("lose_large_items")
        self._counts = [0, 0] if has_quirk("qsize_per_handle") else None
        self._polls = has_quirk("polling")
        self._closed = False
        self._baseline = (0, 0)
        self._line = lines.line_of(
            Record(full_name=self.name, name=name, capacity_bytes=maxsize or DEFAULT_MAXSIZE, keep=not auto_cleanup)
        )
        self._line.handles.add(self)
        self._bind()

    def _bind(self) -> None:
        """Call the queue's own methods from now on."""
        sink, source = self._line.sink, self._line.source
        if self._closed:
            way = Way(sink, source, _raise_closed, _raise_closed)
        elif self._loses_large or self._counts is not None or self._polls:
            way = Way(sink, source, partial(self._quirky_put, sink), partial(self._quirky_get, source))
        elif (shadow := self._line.shadow) is not None:
            way = Way(sink, source, *shadowed(shadow, sink.put, source.get))
        else:
            way = Way(sink, source, sink.put, source.get)
        self._way = way
        vars(self).update(self._calls(way))

    def _calls(self, way: "Way") -> dict[str, Callable[..., Any]]:
        """``put`` and ``get`` as functions of this object: with nothing to look up, they cost the least."""
        sink, source, queue_put, queue_get = way
        put_again, get_again = self._put_again, self._get_again

        def put(item: Any, block: bool = True, timeout: float | None = None) -> None:
            if timeout is not None:
                return self._put_in_time(item, block, timeout)
            try:
                queue_put(item, block, None)
            except Exception as error:  # noqa: BLE001  (whatever it is, it is told apart there)
                put_again(error, sink, item, block, None, None)
            return None

        def get(block: bool = True, timeout: float | None = None) -> Any:
            if timeout is not None:
                return self._get_in_time(block, timeout)
            try:
                return queue_get(block, None)
            except Exception as error:  # noqa: BLE001  (likewise)
                return get_again(error, source, block, None, None)

        return {"put": put, "get": get}

    # -- Write side ----------------------------------------------------------------------------------------------------

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """
        Append a message, waiting while the queue is full.

        Args:
            item: Whatever pickle carries.
            block: Whether to wait at all.
            timeout: Seconds to wait; None for without end.

        Raises:
            queue.Full: ``Queue is full``, or ``Put operation timed out``.
            RuntimeError: ``Queue is closed``.
            ValueError: ``Failed to serialize item: …``, or the timeout is negative.
        """
        self._calls(self._way)["put"](item, block, timeout)  # each object has its own, see _calls(); here for readers

    def _put_in_time(self, item: Any, block: bool, timeout: float) -> None:
        started = _start(timeout)
        sink, _, put, _ = self._way
        try:
            put(item, block, timeout)
        except Exception as error:  # noqa: BLE001  (whatever it is, it is told apart there)
            self._put_again(error, sink, item, block, timeout, started)

    def _put_again(
        self, error: Exception, met: Any, item: Any, block: bool, timeout: float | None, started: float | None
    ) -> None:
        """Say what the old queue would have said, or go on to the queue that this one was moved to."""
        while True:
            if isinstance(error, Full):
                raise Full("Put operation timed out" if block else "Queue is full") from None
            self._check_open(error)
            if isinstance(error, (PayloadError, MessageTooLargeError)):
                raise error
            if not isinstance(error, (SageQueueError, OSError)):
                raise ValueError(f"Failed to serialize item: {error}") from error
            self._line.next_sink(met, error)
            self._bind()
            met, _, put, _ = self._way
            try:
                return put(item, block, _left(timeout, started))
            except Exception as again:  # noqa: BLE001
                error = again

    def put_nowait(self, item: Any) -> None:
        """Append a message without waiting."""
        self.put(item, block=False)

    # -- Read side -----------------------------------------------------------------------------------------------------

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """
        Take the oldest message, waiting while there is none.

        Args:
            block: Whether to wait at all.
            timeout: Seconds to wait; None for without end.

        Raises:
            queue.Empty: ``Queue is empty``, or ``Get operation timed out``.
            RuntimeError: ``Queue is closed``.
            ValueError: The timeout is negative.
        """
        return self._calls(self._way)["get"](block, timeout)  # likewise

    def _get_in_time(self, block: bool, timeout: float) -> Any:
        started = _start(timeout)
        _, source, _, get = self._way
        try:
            return get(block, timeout)
        except Exception as error:  # noqa: BLE001  (whatever it is, it is told apart there)
            return self._get_again(error, source, block, timeout, started)

    def _get_again(self, error: Exception, met: Any, block: bool, timeout: float | None, started: float | None) -> Any:
        while True:
            if isinstance(error, Empty):
                raise Empty("Get operation timed out" if block else "Queue is empty") from None
            self._check_open(error)
            if isinstance(error, PayloadError) or not isinstance(error, (SageQueueError, OSError)):
                raise error
            self._line.next_source(met, error)
            self._bind()
            _, met, _, get = self._way
            try:
                return get(block, _left(timeout, started))
            except Exception as again:  # noqa: BLE001
                error = again

    def get_nowait(self) -> Any:
        """Take the oldest message without waiting."""
        return self.get(block=False)

    # -- Inspection ----------------------------------------------------------------------------------------------------

    def qsize(self) -> int:
        """Messages that can be taken now."""
        self._check_open()
        if self._counts is not None:
            return max(self._counts[0] - self._counts[1], 0)
        return sum(self._line.of_each(lambda queue: queue.qsize()))

    def empty(self) -> bool:
        """Whether there is nothing to take."""
        self._check_open()
        return not any(self._line.of_each(lambda queue: queue.qsize()))

    def full(self) -> bool:
        """Whether not even an empty message would fit."""
        self._check_open()
        return bool(self._line.of_each(lambda queue: queue.full())[-1])

    @property
    def descriptor(self) -> BaseQueueDescriptor:
        """The queue where messages are put, as a descriptor: for call sites that are moved to it one at a time."""
        return self._line.descriptor

    def get_stats(self) -> dict[str, Any]:
        """
        Return counters of the queue.

        Returns:
            ``buffer_size``, ``available_read`` and ``available_write`` in bytes; ``readers``, ``writers`` and
            ``ref_count`` in processes; ``total_bytes_written`` and ``total_bytes_read`` since the queue was made or
            :meth:`reset_stats` was called here; ``utilization`` from 0 to 1; ``message_count``.
        """
        self._check_open()
        written, read = self._totals()
        used = sum(self._line.of_each(used_bytes))
        room = capacity_bytes(self._line.sink)
        users = self._line.users()
        return {
            "buffer_size": room,
            "available_read": used,
            "available_write": max(room - used_bytes(self._line.sink), 0),
            "readers": users,
            "writers": users,
            "ref_count": users,
            "total_bytes_written": written - self._baseline[0],
            "total_bytes_read": read - self._baseline[1],
            "utilization": min(used / room, 1.0),
            "message_count": self.qsize(),
        }

    def _totals(self) -> tuple[int, int]:
        stats = self._line.of_each(lambda queue: queue.stats())
        return sum(each.bytes_put or 0 for each in stats), sum(each.bytes_taken or 0 for each in stats)

    def reset_stats(self) -> None:
        """Let the totals start at zero for this handle."""
        self._check_open()
        self._baseline = self._totals()

    def get_reference(self) -> "SageQueueRef":
        """Return a small value that names the queue, to be sent to other processes."""
        self._check_open()
        reference = SageQueueRef(self.name, self.maxsize, True)
        reference.auto_cleanup = self.auto_cleanup
        reference.original_name = self.original_name
        return reference

    def get_shared_memory_info(self) -> dict[str, Any]:
        """Return where the queue is: its names, and the file where messages are put."""
        return {
            "original_name": self.original_name,
            "namespaced_name": self.name,
            "namespace": self.namespace,
            "multi_tenant_enabled": self.enable_multi_tenant,
            "auto_cleanup": self.auto_cleanup,
            "shm_path": path_of(self._line.sink),
        }

    # -- Ending --------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Give up this handle; what is queued stays. Closing twice does nothing."""
        self._closed = True
        self._bind()

    def destroy(self) -> None:
        """Remove the queue with its messages: nobody can open it any more, who has it open goes on."""
        self._line.destroy()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _check_open(self, cause: Exception | None = None) -> None:
        if self._closed:
            raise RuntimeError("Queue is closed") from cause

    def __getstate__(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "original_name": self.original_name,
            "maxsize": self.maxsize,
            "auto_cleanup": self.auto_cleanup,
            "namespace": self.namespace,
            "enable_multi_tenant": self.enable_multi_tenant,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        full_name = state["name"]
        if has_quirk("pickle_doubles_name"):
            full_name = namespaced(full_name, state["namespace"], enable_multi_tenant=True)
        self._begin(
            state["original_name"],
            state["maxsize"],
            state["auto_cleanup"],
            state["namespace"],
            state["enable_multi_tenant"],
            full_name=full_name,
        )

    def __repr__(self) -> str:
        return f"<SageQueue {self.name!r}, {'closed' if self._closed else self._line.sink}>"

    # -- Old behaviour that was fixed on purpose -----------------------------------------------------------------------

    def _quirky_put(self, sink: Any, item: Any, block: bool, timeout: float | None) -> None:
        import pickle

        lost = self._loses_large and len(pickle.dumps(item)) > _LARGE
        if not lost:
            if self._polls:
                polled(lambda: sink.put(item, False), Full, block, timeout)
            else:
                sink.put(item, block, timeout)
        if self._counts is not None:
            self._counts[0] += 1

    def _quirky_get(self, source: Any, block: bool, timeout: float | None) -> Any:
        if self._polls:
            item = polled(lambda: source.get(False), Empty, block, timeout)
        else:
            item = source.get(block, timeout)
        if self._counts is not None:
            self._counts[1] += 1
        return item


def _start(timeout: float) -> float:
    if timeout < 0:
        raise ValueError("'timeout' must be a non-negative number")
    return monotonic()


def _left(timeout: float | None, started: float | None) -> float | None:
    return None if timeout is None or started is None else max(timeout - (monotonic() - started), 0)


def _raise_closed(*_: Any) -> NoReturn:
    raise RuntimeError("Queue is closed")


def checked_maxsize(maxsize: Any) -> None:
    """
    Refuse what is no size.

    Raises:
        TypeError: It is no whole number.
        ValueError: It is negative.
    """
    if isinstance(maxsize, bool) or not isinstance(maxsize, int):
        raise TypeError(f"maxsize must be a whole number of bytes, not {maxsize!r}")
    if maxsize < 0:
        raise ValueError(f"maxsize must not be negative, not {maxsize}")


class SageQueueRef:
    """
    A value that names a queue; it can be pickled.

    Args:
        name: Of the queue.
        maxsize: Room in bytes, if it has to be made.
        create_if_not_exists: Whether :meth:`get_queue` may make it.
    """

    def __init__(self, name: str, maxsize: int = DEFAULT_MAXSIZE, create_if_not_exists: bool = True) -> None:
        self.name = name
        self.size = maxsize
        self.auto_cleanup = True
        self.creator_pid = os.getpid()
        self.queue_name = name
        self.maxsize = maxsize
        self.create_if_not_exists = create_if_not_exists
        self.original_name: str | None = None
        """What the program called it; None when ``name`` is that."""

    def get_queue(self) -> SageQueue:
        """
        Return a handle of the queue.

        Raises:
            QueueNotFoundError: It does not exist, and may not be made.
        """
        full_name = namespaced(self.name, None, enable_multi_tenant=True) if self.original_name is None else self.name
        if not self.create_if_not_exists and records.read(full_name) is None:
            raise QueueNotFoundError(name=self.name)
        queue = SageQueue.__new__(SageQueue)
        queue._begin(self.original_name or self.name, self.maxsize, self.auto_cleanup, full_name=full_name)
        return queue

    def __repr__(self) -> str:
        return f"SageQueueRef(name='{self.name}', size={self.size}, creator_pid={self.creator_pid})"


# -- Helpers -----------------------------------------------------------------------------------------------------------


def create_queue(name: str, maxsize: int = 0) -> SageQueue:
    """Return a queue by name; 0 for the usual room."""
    note("create_queue", "sage", {"name": name, "maxsize": maxsize})
    queue = SageQueue.__new__(SageQueue)
    queue._begin(name, maxsize or DEFAULT_MAXSIZE)
    return queue


def open_queue(name: str) -> SageQueue:
    """Return a queue by name."""
    return create_queue(name)
