"""Automatic rollback: off unless asked for, and then for a reason that is told."""

import contextlib
import logging
import queue as standard
from pathlib import Path
from typing import Any

import pytest

from sage_compat import SageQueue, health, set_mode
from sage_compat.configuration import Health
from sage_compat.health import Figures, complaint
from sage_qd import CorruptQueueError
from sage_qd.testing import background, wait_for

RULES = Health(automatic_rollback=True, max_error_rate=0.01, max_blocked_share=0.5, window_seconds=1)


@pytest.mark.parametrize(
    ("now", "said"),
    [
        (Figures(calls=1000, errors=10), None),
        (Figures(calls=1000, errors=11), "11 of 1011 calls failed"),
        (Figures(errors=1), "1 of 1 calls failed"),
        (Figures(calls=10, blocked_ns=500_000_000), None),
        (Figures(calls=10, blocked_ns=600_000_000), "waited for room for 60%"),
        (Figures(calls=10, is_lost=True), "the queue is lost"),
    ],
)
def test_what_is_wrong_is_said(now: Figures, said: str | None) -> None:
    found = complaint(Figures(), now, RULES)

    assert found is None if said is None else said in str(found)


def test_only_the_last_window_counts() -> None:
    assert complaint(Figures(calls=10, errors=9), Figures(calls=20, errors=9), RULES) is None


def configured(automatic: str) -> None:
    Path("sage-compat.toml").write_text(
        f"[health]\nautomatic_rollback = {automatic}\nmax_blocked_share = 0.2\nwindow_seconds = 0.2\n"
    )
    set_mode("descriptor")


def test_producers_that_wait_too_long_bring_the_queue_back(caplog: pytest.LogCaptureFixture) -> None:
    configured("true")
    queue = SageQueue("orders", maxsize=4096)
    with contextlib.suppress(standard.Full):
        while True:
            queue.put(b"x" * 900, block=False)
    with caplog.at_level(logging.WARNING, "sage_compat"):
        waiting = background(lambda: queue.put(b"late" * 225))
        waiting.result()

    assert "queue orders is rolled back: producers waited for room" in caplog.text
    assert queue.descriptor.queue_type == "legacy_queue"
    assert [len(queue.get()) for _ in range(queue.qsize())][-1] == 900


def test_failing_calls_bring_the_queue_back(caplog: pytest.LogCaptureFixture) -> None:
    configured("true")
    queue = SageQueue("orders")
    ring: Any = queue._line.sink

    def broken(*_: Any) -> None:
        raise CorruptQueueError(field="test")

    vars(ring)["put"] = broken
    queue._bind()
    with caplog.at_level(logging.WARNING, "sage_compat"):
        with pytest.raises(CorruptQueueError):
            queue.put(1)
        wait_for(lambda: queue.descriptor.queue_type == "legacy_queue", "the queue was brought back")

    assert "calls failed" in caplog.text
    assert ring is not queue._line.sink


def test_nothing_happens_without_being_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    configured("false")
    monkeypatch.setattr(health, "_looking", [])
    queue = SageQueue("orders")

    assert health._looking == []
    assert queue.descriptor.queue_type == "sage_queue"
