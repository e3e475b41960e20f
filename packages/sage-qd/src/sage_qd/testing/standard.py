"""
CPython's own tests of queues, run against a kind of this interface.

::

    Base = standard_queue_tests(make_queue, MyQueue.capabilities)

    class TestMyQueueLikeTheStandardOne(Base):
        pass

The tests come from the ``test`` package of the running Python, so they are those of its version; making a class raises
``ImportError`` on an installation that leaves them out. What a kind may fail is listed in
:mod:`sage_qd.testing.deviations`: such a test is run, must fail as it is listed, and is reported as skipped.
"""

import functools
import multiprocessing
import multiprocessing.dummy
import queue as standard_library
import sys
import threading
import unittest
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib import import_module
from types import SimpleNamespace
from typing import Any
from unittest import mock

from sage_qd.queues.base import Capabilities, Queue, Reach
from sage_qd.testing.deviations import (
    PROCESS_TESTS,
    QUEUE_TESTS,
    SIMPLE_QUEUE_TESTS,
    Deviation,
    deviations_of,
)
from sage_qd.testing.watching import PATIENCE_SECONDS

__all__ = ["standard_multiprocessing_tests", "standard_queue_tests", "standard_simple_queue_tests"]

MakeQueue = Callable[[int], Queue[Any]]
Surroundings = Callable[[], AbstractContextManager[Any]]


def standard_queue_tests(
    make_queue: MakeQueue, capabilities: Capabilities, surroundings: Surroundings = nullcontext
) -> type[unittest.TestCase]:
    """
    Return CPython's tests of ``queue.Queue`` as a class; subclass it in a test module.

    Args:
        make_queue: Opens a new, empty queue, given ``maxsize``; the tests close it.
        capabilities: What the kind declares.
        surroundings: What has to be there while the tests of the class run, such as a server.
    """
    return _thread_tests(QUEUE_TESTS, make_queue, capabilities, surroundings)


def standard_simple_queue_tests(
    make_queue: MakeQueue, capabilities: Capabilities, surroundings: Surroundings = nullcontext
) -> type[unittest.TestCase]:
    """Return CPython's tests of ``queue.SimpleQueue``, up to 100 threads at once; see :func:`standard_queue_tests`."""
    return _thread_tests(SIMPLE_QUEUE_TESTS, make_queue, capabilities, surroundings)


def _thread_tests(
    suite: str, make_queue: MakeQueue, capabilities: Capabilities, surroundings: Surroundings
) -> type[unittest.TestCase]:
    tests = _suite(suite)

    def set_up(self: Any) -> None:
        made = _Made(self, lambda maxsize: _called_queue(make_queue(maxsize)))
        # The tests look for the standard exceptions, so that these show that ours are among them.
        exceptions = {name: getattr(standard_library, name) for name in ("Empty", "Full", "ShutDown") if _has(name)}
        self.made = made
        self.queue = SimpleNamespace(Queue=made.make, **exceptions)
        self.type2test = made.make
        tests.setUp(self)

    return _test_case(tests, suite, capabilities, surroundings, {"setUp": set_up})


def standard_multiprocessing_tests(
    make_queue: MakeQueue,
    capabilities: Capabilities,
    surroundings: Surroundings = nullcontext,
    *,
    start_method: str = "fork",
) -> type[unittest.TestCase]:
    """
    Return CPython's tests of ``multiprocessing.Queue`` as a class; subclass it on the top level of a test module.

    A kind that reaches threads only is tested with threads in place of processes, as ``multiprocessing.dummy`` is.

    Args:
        make_queue: Opens a new, empty queue, given ``maxsize``; the tests close it.
        capabilities: What the kind declares.
        surroundings: What has to be there while the tests of the class run, such as a server.
        start_method: How the processes are started; they are handed the queue as an argument.
    """
    tests = _suite(PROCESS_TESTS)
    module = sys.modules[tests.__module__]
    with_threads = capabilities.reach is Reach.THREADS
    context: Any = multiprocessing.dummy if with_threads else multiprocessing.get_context(start_method)

    def set_up(self: Any) -> None:
        made = _Made(self, make_queue)
        self.made = made
        self.Queue = self.JoinableQueue = made.make
        # Some of the tests name multiprocessing.Queue instead of the queue under test.
        words = mock.patch.object(module, "multiprocessing", _Redirected(Queue=made.make, JoinableQueue=made.make))
        self.enterContext(words)

    names = {
        "TYPE": "threads" if with_threads else "processes",
        "Process": context.Process,
        "Event": staticmethod(context.Event),
        "setUp": set_up,
    }
    return _test_case(tests, PROCESS_TESTS, capabilities, surroundings, names)


class _Made:
    """The queues that one test made: closed after it, when its processes are gone."""

    def __init__(self, case: unittest.TestCase, make_queue: MakeQueue) -> None:
        self._make_queue = make_queue
        self._queues: list[Queue[Any]] = []
        self._children = set(multiprocessing.active_children())
        case.addCleanup(self.end)

    def make(self, maxsize: int = 0) -> Queue[Any]:
        """Open a queue, as the constructor of the standard class does."""
        queue = self._make_queue(maxsize)
        self._queues.append(queue)
        return queue

    def end(self) -> None:
        """End the processes of the test, then close its queues, which ends threads that wait on one."""
        for child in set(multiprocessing.active_children()) - self._children:
            child.kill()
            child.join(PATIENCE_SECONDS)
        for queue in self._queues:
            queue.close()


class _Redirected:
    """The ``multiprocessing`` that the tests see: some names are others."""

    def __init__(self, **names: Any) -> None:
        vars(self).update(names)

    def __getattr__(self, name: str) -> Any:
        return getattr(multiprocessing, name)


def _suite(name: str) -> Any:
    """Return the class of tests of this name."""
    module, _, tests = name.rpartition(".")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what the standard tests import is not ours to judge
        return getattr(import_module(module), tests)


def _has(exception: str) -> bool:
    return hasattr(standard_library, exception)


def _called_queue(queue: Queue[Any]) -> Queue[Any]:
    """Have a queue be of a class called Queue: the tests look up the order to expect by that name."""
    queue.__class__ = _subclass_called_queue(type(queue))
    return queue


@functools.cache
def _subclass_called_queue(kind: type[Queue[Any]]) -> type[Queue[Any]]:
    return type("Queue", (kind,), {"__slots__": (), "__module__": kind.__module__})


def _test_case(
    tests: Any, suite: str, capabilities: Capabilities, surroundings: Surroundings, names: dict[str, Any]
) -> type[unittest.TestCase]:
    """Make the class: the standard tests, those that deviate turned round, and what is special to the suite."""

    def set_up_class(cls: Any) -> None:
        cls.enterClassContext(surroundings())

    turned = {
        test: _turned_round(getattr(tests, test), deviation)
        for test, deviation in deviations_of(suite, capabilities).items()
        if hasattr(tests, test)
    }
    plain = {"setUpClass": classmethod(set_up_class), **turned, **names}
    return type(tests.__name__.lstrip("_"), (tests, unittest.TestCase), plain)


def _turned_round(test: Callable[[Any], None], deviation: Deviation) -> Callable[[Any], None]:
    """Make a test that deviates one that fails when the original passes."""
    fails_with = deviation.fails_with
    if fails_with is None:
        return unittest.skip(f"deviates: {deviation.reason}; not run: {deviation.not_run}")(test)

    @functools.wraps(test)
    def run(self: Any) -> None:
        try:
            with _threads_ended_in_silence(self.made):
                test(self)
        except fails_with:
            self.skipTest(f"deviates: {deviation.reason}")
        self.fail(f"{deviation.test} passes on this kind: the entry in sage_qd.testing.deviations is stale")

    return run


@contextmanager
def _threads_ended_in_silence(made: _Made) -> Iterator[None]:
    """See to the end of the threads that a test started, and leave out their tracebacks: they fail as it does."""
    before = threading.excepthook, set(threading.enumerate())
    threading.excepthook = lambda _: None
    try:
        yield
    finally:
        made.end()
        for thread in set(threading.enumerate()) - before[1]:
            if not thread.daemon:  # those may be the kind's own, and stay
                thread.join(PATIENCE_SECONDS)
        threading.excepthook = before[0]
