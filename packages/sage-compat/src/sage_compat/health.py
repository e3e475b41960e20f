"""
Automatic rollback, for those who ask for it: ``[health] automatic_rollback = true``.

Each process looks at its own queues of the new way once in a window. Too many failed calls, too much time that
producers wait for room, or a queue that is lost bring that queue back to the old path, in all processes, with a line in
the log.
"""

import logging
import re
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from sage_compat import configuration
from sage_compat.configuration import Health
from sage_compat.legacy.file_queue import FileQueue
from sage_compat.repeated import Repeated
from sage_qd import QueueLostError, QueueStats, SageQueueError

__all__ = ["Figures", "complaint", "watch"]

_log: Final = logging.getLogger("sage_compat")
_mutex: Final = threading.Lock()
_looking: Final[list[Repeated]] = []


@dataclass(frozen=True, kw_only=True)
class Figures:
    """
    What is judged of a queue: all of them since it was made.

    Attributes:
        calls: Puts and gets that worked.
        errors: Calls of this process that failed, other than by Full or Empty.
        blocked_ns: Nanoseconds that producers waited for room.
        is_lost: Whether a call said that the queue is lost.
    """

    calls: int = 0
    errors: int = 0
    blocked_ns: int = 0
    is_lost: bool = False

    @classmethod
    def of(cls, stats: QueueStats, errors: int, last_error: Exception | None) -> "Figures":
        """Take them from the queue's counters and what calls met."""
        return cls(
            calls=stats.puts + stats.gets,
            errors=errors,
            blocked_ns=stats.put_blocked_ns,
            is_lost=isinstance(last_error, QueueLostError),
        )


def complaint(before: Figures, now: Figures, rules: Health) -> str | None:
    """Return what is wrong with a queue after one window, in words; None when nothing is."""
    if now.is_lost:
        return "the queue is lost"
    errors, calls = now.errors - before.errors, now.calls - before.calls
    if errors and errors > rules.max_error_rate * (calls + errors):
        return f"{errors} of {calls + errors} calls failed, and {rules.max_error_rate:.1%} may"
    share = (now.blocked_ns - before.blocked_ns) / (rules.window_seconds * 1e9)
    if share > rules.max_blocked_share:
        return f"producers waited for room for {share:.0%} of the time, and {rules.max_blocked_share:.0%} may be"
    return None


def watch(lines: Callable[[], Iterable[Any]]) -> None:
    """
    Look at the lines of this process from now on, if the configuration asks for it.

    Args:
        lines: Returns those that are open.
    """
    if not configuration.current().health.automatic_rollback:
        return
    with _mutex:
        if not _looking:
            seen: dict[str, Figures] = {}
            _looking.append(Repeated(partial(_look, lines, seen), "sage-compat-health"))
            _looking[0].start()


def _look(lines: Callable[[], Iterable[Any]], seen: dict[str, Figures]) -> float:
    try:
        rules = configuration.current().health
        for line in lines():
            if rules.automatic_rollback and not isinstance(line.sink, FileQueue):
                _judge(line, seen, rules)
    except Exception as error:  # noqa: BLE001  (as in the watch: a slip in a file must not end it)
        _log.error("the health of queues could not be judged: %s: %s", type(error).__name__, error)
        return Health().window_seconds
    return rules.window_seconds


def _judge(line: Any, seen: dict[str, Figures], rules: Health) -> None:
    try:
        now = Figures.of(line.sink.stats(), line.errors, line.last_error)
    except SageQueueError as error:
        now = Figures(errors=line.errors + 1, is_lost=isinstance(error, QueueLostError))
    queue_id = line.sink.descriptor.queue_id
    before = seen.get(queue_id, Figures(calls=now.calls, blocked_ns=now.blocked_ns))  # what was before us is not judged
    wrong = complaint(before, now, rules)
    seen[queue_id] = now
    if wrong is None:
        return
    from sage_compat.rolling import rollback  # which imports the lines

    _log.warning("queue %s is rolled back: %s", line.name, wrong)
    rollback(f"re:{re.escape(line.name)}$")
