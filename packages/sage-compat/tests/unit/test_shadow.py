"""The shadow compares without being felt, and gives a verdict."""

import json
import logging
import multiprocessing
from pathlib import Path
from typing import Any

import pytest

from sage_compat import SageQueue, set_mode, shadow
from sage_compat.cli.app import run
from sage_compat.evidence import ENOUGH, Evidence, reports
from sage_qd import QueueNoSpaceError, SageQueueDescriptor
from sage_qd.testing import wait_for

FORK = multiprocessing.get_context("fork")


@pytest.fixture
def every_message(monkeypatch: pytest.MonkeyPatch) -> None:
    """Copy each message, at whatever price."""
    Path("sage-compat.toml").write_text("[shadow]\nsample = 1\nbudget = 1\n")
    monkeypatch.setattr(shadow, "WINDOW_CALLS", 1 << 40)
    set_mode("shadow")


def shadow_of(queue: SageQueue) -> Any:
    found = queue._line.shadow
    assert found is not None
    return found


def test_the_answer_is_the_old_one_and_copies_are_compared(every_message: None) -> None:
    queue = SageQueue("orders")
    for number in range(50):
        queue.put(("order", number))
        assert queue.get() == ("order", number)
    found = shadow_of(queue)
    wait_for(lambda: found.counts["drained"] == 50, "the copies were drained")

    assert queue.descriptor.queue_type == "legacy_queue"
    assert (found.counts["copied"], found.counts["same_digest"]) == (50, 50)
    assert [name for name in found.counts if name.startswith("different")] == []


def test_copies_of_several_processes_come_into_one_line(every_message: None) -> None:
    def work() -> None:
        queue = SageQueue("orders")
        for number in range(100):
            queue.put(number)

    queue = SageQueue("orders")
    children = [FORK.Process(target=work) for _ in range(3)]
    for child in children:
        child.start()
    for _ in range(300):
        queue.get(timeout=60)
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0, 0, 0]
    queue._line.close()

    (report,) = reports()
    assert (report.compared, report.differences, report.off) == (300, {}, ())


def test_a_verdict_needs_enough_messages(every_message: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["shadow"]) == 1
    queue = SageQueue("orders")
    for number in range(ENOUGH):
        queue.put(number)
        queue.get()
    shadow_of(queue).evidence.times["new_put"] = [1, 1, 1]  # how fast this machine is does not matter here
    queue._line.close()

    (report,) = reports()
    assert (report.verdict, report.reasons) == ("ready", [])
    capsys.readouterr()
    assert run(["shadow", "--json", "--html", "page.html"]) == 0
    assert json.loads(capsys.readouterr().out)["queues"][0]["verdict"] == "ready"
    assert "ready" in Path("page.html").read_text()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"digest": b"wrong"}, "differ: digest"),
        ({"number": 5}, "differ: loss"),
        ({"number": -1}, "differ: duplicate"),
    ],
)
def test_what_differs_is_found(every_message: None, change: dict[str, Any], said: str) -> None:
    queue = SageQueue("orders")
    for number in range(3):
        queue.put(number)
    found = shadow_of(queue)
    payload = b"payload"
    digest = shadow.blake2b(payload, digest_size=16).digest()
    number = 3 + change.get("number", 1)
    found._ring.put((found.evidence.producer, number, change.get("digest", digest), payload))
    wait_for(lambda: found.counts["drained"] == 4, "the copies were drained")
    queue._line.close()

    assert any(said in reason for reason in reports()[0].reasons)


def test_beyond_its_budget_it_turns_itself_off_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    Path("sage-compat.toml").write_text("[shadow]\nsample = 1\nbudget = 0.0001\n")
    monkeypatch.setattr(shadow, "WINDOW_CALLS", 8)
    set_mode("shadow")
    queue = SageQueue("orders")
    with caplog.at_level(logging.WARNING, "sage_compat"):
        for number in range(20):
            queue.put(number)

    assert not shadow_of(queue).is_on
    assert "turned itself off: copies took" in caplog.text
    assert [queue.get() for _ in range(20)] == list(range(20))
    queue._line.close()
    assert any("the budget is 0%" in reason for reason in reports()[0].reasons)


def test_a_ring_that_cannot_be_made_is_not_felt(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Any, **_: Any) -> None:
        raise QueueNoSpaceError(wanted=1, free=0)

    monkeypatch.setattr(SageQueueDescriptor, "_opened_ring", full)
    set_mode("shadow")
    queue = SageQueue("orders")
    queue.put(1)

    assert queue.get() == 1
    assert "cannot be made" in shadow_of(queue).evidence.off


def test_a_shadow_comes_and_goes_with_the_mode() -> None:
    queue = SageQueue("orders")
    assert queue._line.shadow is None
    set_mode("shadow")
    assert shadow_of(queue).is_on
    queue.put(1)
    set_mode("descriptor")
    assert queue._line.shadow is None
    queue.put(2)

    assert [queue.get(), queue.get()] == [1, 2]


def test_a_message_that_fails_fails_on_both_ways(every_message: None) -> None:
    queue = SageQueue("orders")
    with pytest.raises(ValueError, match="Failed to serialize"):
        queue.put(lambda: None)

    assert shadow_of(queue).counts["same_exception"] == 1


def test_slower_is_a_reason() -> None:
    evidence = Evidence(full_name="x", producer="1")
    evidence.time("old_put", 1000)
    evidence.time("new_put", 2000)
    evidence.counts["same_digest"] = ENOUGH
    evidence.save()

    assert reports()[0].reasons == ["a put takes 2.0 µs on the new way and 1.0 µs on the old one"]
