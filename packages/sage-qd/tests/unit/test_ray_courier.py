"""The thread that sends for handles of Ray queues what nobody waits for: nacks of dropped leases, and leaves."""

import logging
import threading
import weakref
from typing import Any

import pytest

from sage_qd import OutcomeUnknownError
from sage_qd.queues.ray_queue import later
from sage_qd.queues.ray_remote import _given_back
from sage_qd.testing.watching import PATIENCE_SECONDS

pytestmark = pytest.mark.timeout(120)


class Unreached:
    """In place of a queue whose actor does not answer."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []

    def _asked(self, *arguments: Any) -> None:
        self.asked.append(arguments)
        raise OutcomeUnknownError(request_id="user:1")


def wait_for_the_courier() -> None:
    """Return when everything so far was done."""
    done = threading.Event()
    later(done.set)
    assert done.wait(PATIENCE_SECONDS), "the courier is gone"


def test_a_nack_without_an_answer_ends_nothing_that_comes_after_it(caplog: pytest.LogCaptureFixture) -> None:
    queue: Any = Unreached()

    later(_given_back, weakref.ref(queue), 1)
    later(_given_back, weakref.ref(queue), 2)
    wait_for_the_courier()

    assert queue.asked == [("settle", 1, False), ("settle", 2, False)]
    assert not caplog.records


def test_what_fails_unforeseen_is_logged_and_ends_nothing_that_comes_after_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail() -> None:
        raise LookupError("unforeseen")

    with caplog.at_level(logging.ERROR):
        later(fail)
        wait_for_the_courier()

    (record,) = caplog.records
    assert record.exc_info is not None
    assert "unforeseen" in str(record.exc_info[1])
