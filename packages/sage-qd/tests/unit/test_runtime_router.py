"""The way out of a task: where packets go, in which batches, and what happens when there is no room."""

import pickle
import subprocess
import sys
import threading
import uuid
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from sage_qd import Empty, LocalQueueDescriptor, SageQueueDescriptor, ShutDown
from sage_qd.runtime import BaseRouter, Connection, Packet, StopSignal, stable_hash
from sage_qd.runtime.packets import is_stop, packed, unpacked
from sage_qd.testing import background, wait_for


@pytest.fixture
def targets() -> Iterator[list[LocalQueueDescriptor]]:
    made = [LocalQueueDescriptor(f"target-{uuid.uuid4().hex}", maxsize=100) for _ in range(3)]
    for descriptor in made:
        descriptor.open()
    yield made
    for descriptor in made:
        descriptor.close()


def router_to(targets: list[Any], partition: Any = "round_robin", **settings: Any) -> BaseRouter:
    router = BaseRouter("task", **settings)
    for place, target in enumerate(targets):
        router.add_connection(
            Connection(0, place, f"target_{place}", None, 0, target_queue_descriptor=target, path=7), partition
        )
    return router


def everything(target: Any) -> list[Any]:
    found = []
    while True:
        try:
            found.append(target.get_nowait())
        except Empty:
            return found


def payloads(target: Any) -> list[Any]:
    return [payload for message in everything(target) if not is_stop(message) for payload in unpacked(message)[2]]


def test_in_turn_goes_on_where_the_last_call_ended(targets: list[Any]) -> None:
    router = router_to(targets)

    for item in range(7):
        router.send([item], None)
    router.send([7, 8], None)
    router.flush()

    assert [payloads(target) for target in targets] == [[0, 3, 6], [1, 4, 7], [2, 5, 8]]


def test_broadcast_goes_to_all(targets: list[Any]) -> None:
    router = router_to(targets, "broadcast")
    router.send([1, 2], None)
    router.flush()

    assert [payloads(target) for target in targets] == [[1, 2]] * 3


def test_one_key_always_goes_to_one_target_and_false_keys_are_keys(targets: list[Any]) -> None:
    router = router_to(targets, "hash")
    keys = [0, "", None, "a", 1, b"", (1, "x")] * 4

    for key in keys:
        router.send([key], [key])
    router.flush()

    found = [payloads(target) for target in targets]
    assert sorted(repr(key) for items in found for key in items) == sorted(map(repr, keys))
    for key in set(keys):
        assert sum(any(each is key or each == key for each in items) for items in found) == 1


def test_a_function_chooses(targets: list[Any]) -> None:
    router = router_to(targets, lambda payload, key, count: payload % count)
    router.send([0, 1, 2, 3], None)
    router.flush()

    assert [payloads(target) for target in targets] == [[0, 3], [1], [2]]


@pytest.mark.parametrize("index", [3, -1, "0", True])
def test_a_function_that_chooses_nobody_is_told(targets: list[Any], index: Any) -> None:
    with pytest.raises(ValueError, match="a partitioner must return 0 to 2"):
        router_to(targets, lambda *_: index).send([1], None)


def test_packets_without_key_cannot_be_spread_by_key(targets: list[Any]) -> None:
    with pytest.raises(ValueError, match=r"call keyby\(\) before"):
        router_to(targets, "hash").send([1], None)


def test_equal_keys_have_equal_hashes_in_every_process() -> None:
    keys = ["", "a", "文", 0, 1, -1, 2**70, 1.5, b"x", None, ("a", 1)]
    text = f"from sage_qd.runtime import stable_hash; print([stable_hash(key) for key in {keys!r}])"
    run = [sys.executable, "-c", text]
    outputs = {subprocess.run(run, capture_output=True, text=True, check=True).stdout.strip() for _ in range(3)}

    assert outputs == {str([stable_hash(key) for key in keys])}
    assert stable_hash(1) == stable_hash(1.0) == stable_hash(True)
    with pytest.raises(TypeError, match="a key must be a number, text, bytes, None or a tuple of these, not list"):
        stable_hash([1])


def test_a_batch_has_a_size(targets: list[Any]) -> None:
    router = router_to(targets[:1], batch_size=3)

    router.send([1, 2], None)
    assert everything(targets[0]) == []
    router.send([3, 4], None)

    assert everything(targets[0]) == [(7, 0, [1, 2, 3, 4], None)]


def test_a_batch_has_a_time(targets: list[Any]) -> None:
    router = router_to(targets[:1], linger=0.001)
    router.send([1], None)
    threading.Event().wait(0.002)
    router.flush(due_only=True)
    assert len(everything(targets[0])) == 1

    patient = router_to(targets[:1], linger=1000)
    patient.send([1], None)
    patient.flush(due_only=True)
    assert everything(targets[0]) == []


def test_what_waits_is_sent_before_the_stop_signal_and_that_once(targets: list[Any]) -> None:
    router = router_to(targets[:1])
    router.send([1], [0])
    router.stop()
    router.stop()

    assert everything(targets[0]) == [(7, 0, [1], [0]), StopSignal(7, "task")]
    assert is_stop(StopSignal(7, "task"))
    assert is_stop(Packet(StopSignal(7, "task")))
    assert not is_stop(Packet(1))


def test_packets_of_a_path_are_numbered(targets: list[Any]) -> None:
    router = router_to(targets[:1], batch_size=2)
    router.send([1, 2, 3], None)
    router.send([4, 5], None)

    assert [message[1] for message in everything(targets[0])] == [0, 3]
    assert router.state() == {"sequences": [[5]], "turns": [0]}


def test_a_full_queue_makes_send_wait_and_loses_nothing() -> None:
    target = LocalQueueDescriptor(f"target-{uuid.uuid4().hex}", maxsize=1)
    router = router_to([target], batch_size=1)
    router.send([1], None)

    sending = background(router.send, [2], None)
    wait_for(lambda: target.stats().put_waiters == 1, "it waits")
    assert target.get(timeout=10)[2] == [1]
    sending.result()

    assert target.get(timeout=10)[2] == [2]
    assert router.dropped == 0
    target.close()


def test_only_drop_loses_and_it_counts() -> None:
    target = LocalQueueDescriptor(f"target-{uuid.uuid4().hex}", maxsize=1)
    router = router_to([target], batch_size=1, overflow="drop")
    router.send([1], None)
    router.send([2, 3], None)

    assert router.dropped == 2
    assert payloads(target) == [1]
    target.close()


def test_a_closed_queue_counts_as_full_and_load_is_remembered(targets: list[Any]) -> None:
    connection = Connection(0, 0, "t", None, 0, target_queue_descriptor=targets[0])
    assert connection.get_buffer_load() == 0.0
    for item in range(50):
        targets[0].put(item)
    assert connection.get_buffer_load() == 0.5
    assert connection.load_history == [0.0, 0.5]
    assert connection.load_trend > 0
    buffer = connection.get_target_buffer()
    buffer.close()

    class Closed:
        def open(self) -> Any:
            return buffer

    closed = Connection(0, 0, "t", None, 0, target_queue_descriptor=Closed())  # type: ignore[arg-type]
    assert closed.get_buffer_load() == 1.0


def test_the_load_of_a_queue_bounded_by_bytes_is_that_of_its_bytes() -> None:
    descriptor = SageQueueDescriptor(f"target-{uuid.uuid4().hex}", capacity_bytes=1 << 16)
    connection = Connection(0, 0, "t", None, 0, target_queue_descriptor=descriptor)
    try:
        descriptor.put(b"x" * 16_000)
        descriptor.put(b"x" * 16_000)

        assert 0.45 < connection.get_buffer_load() < 0.55
    finally:
        descriptor.close()


def test_a_receiver_that_ended_costs_nothing_while_another_is_there(targets: list[Any]) -> None:
    """It had everything before the sender was started again."""
    router = router_to(targets[:2], batch_size=1)
    targets[0].shutdown(immediate=True)

    router.send([1, 2, 3, 4], None)
    router.stop()

    assert payloads(targets[1]) == [2, 4]


def test_receivers_that_all_ended_end_the_sender(targets: list[Any]) -> None:
    router = router_to(targets[:2], batch_size=1)
    for target in targets:
        target.shutdown(immediate=True)

    with pytest.raises(ShutDown):
        router.send([1, 2], None)


class Word(str):
    """Text of a class of its own, which must stay that."""


@pytest.mark.parametrize(
    "items",
    [
        ["a", "", "文"],
        [""],
        ["a\x1fb", "c"],
        ["a", 1],
        ["a", Word("b")],
        ["x" * 2000, "y"],
        ["a", "z" * 900],
        [1, 2],
    ],
)
def test_a_batch_is_what_it_was_when_it_has_travelled(items: list[Any]) -> None:
    for keys in (None, list(range(len(items))), list(items)):
        found = unpacked(pickle.loads(pickle.dumps(packed(3, 7, items, keys))))

        assert found == (3, 7, items, keys)
        assert list(map(type, found[2])) == list(map(type, items))
    _, _, payloads, alias = unpacked(pickle.loads(pickle.dumps(packed(3, 7, items, items))))
    assert alias is payloads == items


def test_short_texts_travel_as_one() -> None:
    assert packed(0, 0, ["a", "b"], None) == (0, 0, "a\x1fb", None)
    assert packed(0, 0, ["a" * 65, "b" * 65], None)[2] == ["a" * 65, "b" * 65]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_packets_that_are_their_own_keys_stay_so_among_others(targets: list[Any], count: int) -> None:
    router = router_to(targets[:count], "hash")
    own = ["a", "b", "c", "d"]
    router.send(own, own)
    router.send(["e", "f"], ["a", "b"])
    router.send(own, own)
    router.flush()

    found = [unpacked(message) for target in targets[:count] for message in everything(target)]
    pairs = [pair for _, _, payloads, keys in found for pair in zip(payloads, keys or (), strict=True)]
    assert sorted(pairs) == sorted([*zip(own, own, strict=True)] * 2 + [("e", "a"), ("f", "b")])


def test_a_key_that_is_none_is_told_by_its_kind_among_others(targets: list[Any]) -> None:
    with pytest.raises(TypeError, match="a key must be a number, text, bytes, None or a tuple of these, not list"):
        router_to(targets, "hash").send([1, 2], ["a", ["b"]])


def test_more_keys_than_are_remembered_go_where_they_went(targets: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sage_qd.runtime.router.KEYS_KEPT", 3)
    router = router_to(targets, "hash")
    for _ in range(2):
        router.send(list(range(10)), list(range(10)))
    router.flush()

    for target in targets:
        assert set(Counter(payloads(target)).values()) <= {2}


def test_a_connection_that_leads_nowhere_is_told() -> None:
    with pytest.raises(ValueError, match="no queue descriptor and no task"):
        Connection(0, 0, "t", None, 0).get_target_buffer()


def test_connections_are_described(targets: list[Any]) -> None:
    router = router_to(targets[:1], "broadcast")
    router.send([1], None)
    router.flush()

    assert router.get_connections_info() == [
        {
            "broadcast_index": 0,
            "parallel_index": 0,
            "target": "target_0",
            "input_index": 0,
            "partition": "broadcast",
            "load": 0.01,
            "sent": 1,
        }
    ]


def test_a_stopped_job_ends_a_send_that_waits() -> None:
    target = LocalQueueDescriptor(f"target-{uuid.uuid4().hex}", maxsize=1)
    router = router_to([target], batch_size=1)
    router.send([1], None)

    sending = background(router.send, [2], None)
    target.shutdown(immediate=True)
    with pytest.raises(ShutDown):
        sending.result()
    target.close()
