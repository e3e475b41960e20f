"""Between which queues a handle works, and with which calls: plain, noted by a shadow, or as old versions were."""

import signal
import sys
import time
from collections.abc import Callable
from time import monotonic, perf_counter_ns
from typing import Any, Final, NamedTuple

from sage_compat import records
from sage_compat.legacy.file_files import file_path
from sage_compat.legacy.file_queue import FileQueue
from sage_compat.shadow import Shadow
from sage_qd import Empty
from sage_qd.queues.names import segment_name

__all__ = ["Way", "capacity_bytes", "install_signal_handlers", "path_of", "polled", "shadowed", "used_bytes"]

_POLL_SECONDS: Final = 0.001


class Way(NamedTuple):
    """Between which queues a handle works, and with which calls."""

    sink: Any
    source: Any
    put: Callable[[Any, bool, float | None], None]
    get: Callable[[bool, float | None], Any]


def shadowed(shadow: Shadow, put: Callable[..., None], get: Callable[..., Any]) -> tuple[Any, Any]:
    """The calls of the old path, beside which the shadow takes its notes."""

    def noted_put(item: Any, block: bool, timeout: float | None) -> None:
        started = perf_counter_ns()
        try:
            put(item, block, timeout)
        except Exception as error:
            shadow.put_done(item, perf_counter_ns() - started, error)
            raise
        shadow.put_done(item, perf_counter_ns() - started)

    def noted_get(block: bool, timeout: float | None) -> Any:
        started = perf_counter_ns()
        try:
            item = get(False, None)
        except Empty:
            return get(block, timeout)
        shadow.get_done(perf_counter_ns() - started)
        return item

    return noted_put, noted_get


def used_bytes(queue: Any) -> int:
    """Bytes of a queue's room that messages take now."""
    return int(queue.used_bytes() if isinstance(queue, FileQueue) else queue.stats().depth_bytes)


def capacity_bytes(queue: Any) -> int:
    """Bytes of a queue's room."""
    return int(queue.capacity_bytes if isinstance(queue, FileQueue) else queue.stats().capacity_bytes)


def path_of(queue: Any) -> str:
    """The file where a queue lies."""
    if isinstance(queue, FileQueue):
        return file_path(queue.queue_id)
    from sage_qd.ring import directory

    return str(directory() / records.NAMESPACE / segment_name(queue.queue_id))


def polled(attempt: Callable[[], Any], nothing: type[Exception], block: bool, timeout: float | None) -> Any:
    """Try again and again, as old versions waited."""
    end = None if timeout is None else monotonic() + timeout
    while True:
        try:
            return attempt()
        except nothing:
            if not block or (end is not None and monotonic() >= end):
                raise
            time.sleep(_POLL_SECONDS)


def install_signal_handlers() -> None:
    """End the program at SIGINT and SIGTERM, as the constructor of old versions did; only in the main thread."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit(0))
