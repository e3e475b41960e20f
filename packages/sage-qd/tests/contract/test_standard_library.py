"""CPython's own tests of ``queue.Queue``, run against queues between threads."""

import unittest
from types import SimpleNamespace
from typing import Any

import pytest

import sage_qd

standard = pytest.importorskip("test.test_queue", reason="this Python was installed without its tests")


class Queue(sage_qd.LocalQueue[Any]):
    """The tests look up the order to expect by the name of the class."""


class TestStandardQueue(standard.QueueTest, unittest.TestCase):  # type: ignore[misc, name-defined]
    queue = SimpleNamespace(Queue=Queue, Empty=sage_qd.Empty, Full=sage_qd.Full, ShutDown=sage_qd.ShutDown)

    def test_negative_timeout_raises_exception(self) -> None:
        """The one difference: a negative timeout is no error here, but tries once, as a deadline that has passed."""
        queue = Queue(1)
        queue.put(1, timeout=-1)

        with pytest.raises(sage_qd.Full):
            queue.put(2, timeout=-1)
        assert queue.get(timeout=-1) == 1
        with pytest.raises(sage_qd.Empty):
            queue.get(timeout=-1)
