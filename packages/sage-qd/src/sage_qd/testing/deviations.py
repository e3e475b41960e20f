"""
Where queues differ from those of the standard library, test by test: the only excuses that the standard tests accept.

:mod:`sage_qd.testing.standard` runs CPython's own tests. A test that is not listed here must pass. One that is listed
must fail, with the listed exception, on the kinds that the entry names; when it passes, the entry is stale, and that
fails the run. ``docs/reference/deviations.md`` is this table.
"""

from dataclasses import dataclass
from pickle import PicklingError
from typing import Final

from sage_qd.errors import NotShareableError
from sage_qd.queues.base import Capabilities, Reach

__all__ = [
    "DEVIATIONS",
    "PROCESS_TESTS",
    "QUEUE_TESTS",
    "SIMPLE_QUEUE_TESTS",
    "SUITES_LEFT_OUT",
    "Deviation",
    "deviations_of",
]

QUEUE_TESTS: Final = "test.test_queue.QueueTest"
SIMPLE_QUEUE_TESTS: Final = "test.test_queue.BaseSimpleQueueTest"
PROCESS_TESTS: Final = "test._test_multiprocessing._TestQueue"

SUITES_LEFT_OUT: Final = {
    "test.test_queue.LifoQueueTest": "a queue of this package is first in, first out",
    "test.test_queue.PriorityQueueTest": "a queue of this package is first in, first out",
    "test.test_queue.FailingQueueTest": "it replaces _put and _get of queue.Queue, which are no part of the interface",
}
"""Tests that belong to something else, whole classes of them, each with the reason."""


@dataclass(frozen=True, kw_only=True)
class Deviation:
    """
    One test that the kinds of a capability do not pass, and why that is meant.

    Attributes:
        suite: The class that has the test.
        test: Its name.
        reason: What is different here, in a sentence.
        capability: The capability that explains it; None when it is a rule of every kind.
        values: What the capability is on the kinds that deviate.
        fails_with: What the test ends with there; None when it is not run.
        not_run: Why it is not run.
        since: The first Python whose suite has the test.
    """

    suite: str
    test: str
    reason: str
    capability: str | None = None
    values: tuple[object, ...] = ()
    fails_with: type[Exception] | tuple[type[Exception], ...] | None = AssertionError
    not_run: str = ""
    since: tuple[int, int] = (3, 11)

    def applies_to(self, capabilities: Capabilities) -> bool:
        """Whether a kind with these capabilities deviates."""
        return self.capability is None or getattr(capabilities, self.capability) in self.values


_BEYOND_THREADS: Final = (Reach.PROCESSES, Reach.HOSTS)
_NOT_ENCODED: Final = (AttributeError, TypeError, PicklingError)  # whatever the codec answers
_UNCOUNTED: Final = "the kind does not count unfinished tasks; work is settled by lease() and ack()"
_TRIES_ONCE: Final = "a timeout below zero is a deadline that has passed: the call tries once, as with zero"
_BELONGS_TO_MULTIPROCESSING: Final = "it looks at multiprocessing's own module or class, whatever queue is under test"


def _uncounted(
    test: str,
    fails_with: type[Exception] | None = NotShareableError,
    *,
    suite: str = QUEUE_TESTS,
    not_run: str = "",
    since: tuple[int, int] = (3, 13),
) -> Deviation:
    return Deviation(
        suite=suite,
        test=test,
        reason=_UNCOUNTED,
        capability="joins",
        values=(False,),
        fails_with=fails_with,
        not_run=not_run,
        since=since,
    )


_DEAD_READERS: Final = "its readers end at task_done, and the others wait for them at a barrier for ever"
_LEFT_THREAD: Final = "it ends at unfinished_tasks, and leaves a thread behind that waits for ever"

DEVIATIONS: Final = (
    Deviation(
        suite=QUEUE_TESTS, test="test_negative_timeout_raises_exception", reason=_TRIES_ONCE, fails_with=AssertionError
    ),
    Deviation(
        suite=SIMPLE_QUEUE_TESTS,
        test="test_negative_timeout_raises_exception",
        reason=_TRIES_ONCE,
        fails_with=AssertionError,
    ),
    Deviation(
        suite=QUEUE_TESTS,
        test="test_shrinking_queue",
        reason="the bound is part of what all processes agreed on when the queue was made, so maxsize cannot be set",
        capability="reach",
        values=_BEYOND_THREADS,
        fails_with=AttributeError,
    ),
    Deviation(
        suite=SIMPLE_QUEUE_TESTS,
        test="test_references",
        reason="a put copies, so it takes only what the codec takes, and not objects of a class made inside a function",
        capability="same_object",
        values=(False,),
        fails_with=_NOT_ENCODED,
    ),
    _uncounted("test_queue_join", since=(3, 11)),
    _uncounted("test_shutdown_all_methods_in_one_thread"),
    _uncounted("test_shutdown_immediate_all_methods_in_one_thread"),
    _uncounted("test_shutdown_all_methods_in_many_threads", None, not_run=_DEAD_READERS),
    _uncounted("test_shutdown_immediate_all_methods_in_many_threads", None, not_run=_DEAD_READERS),
    _uncounted("test_shutdown_join", AssertionError),
    _uncounted("test_shutdown_immediate_join", AssertionError),
    _uncounted("test_shutdown_put_join", None, not_run=_LEFT_THREAD),
    _uncounted("test_shutdown_immediate_put_join", None, not_run=_LEFT_THREAD),
    _uncounted("test_shutdown_get_task_done_join", AttributeError),
    _uncounted("test_task_done", suite=PROCESS_TESTS, since=(3, 11)),
    Deviation(
        suite=PROCESS_TESTS,
        test="test_queue_feeder_donot_stop_onexc",
        reason="put encodes before it returns, so what cannot be encoded raises there, and not in a feeder thread",
        capability="reach",
        values=_BEYOND_THREADS,
        fails_with=_NOT_ENCODED,
    ),
    Deviation(
        suite=PROCESS_TESTS,
        test="test_closed_queue_empty_exceptions",
        reason="there is no feeder thread, so neither join_thread nor cancel_join_thread; every call on a closed handle"
        " raises QueueClosedError, also on one that was never used",
        fails_with=AttributeError,
        since=(3, 13),
    ),
    Deviation(
        suite=PROCESS_TESTS,
        test="test_no_import_lock_contention",
        reason=_BELONGS_TO_MULTIPROCESSING,
        fails_with=None,
        not_run="it does not touch the queue under test",
    ),
    Deviation(
        suite=PROCESS_TESTS,
        test="test_queue_feeder_on_queue_feeder_error",
        reason=_BELONGS_TO_MULTIPROCESSING,
        fails_with=None,
        not_run="it does not touch the queue under test",
    ),
)
"""Every deviation there is."""


def deviations_of(suite: str, capabilities: Capabilities) -> dict[str, Deviation]:
    """Return the deviations of one suite on a kind with these capabilities, by test."""
    return {entry.test: entry for entry in DEVIATIONS if entry.suite == suite and entry.applies_to(capabilities)}
