"""What old programs rely on, the same on the old path and on the new one: results, texts, shapes."""

import pickle
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sage_compat import SageQueue, SageQueueRef, create_queue, set_mode
from sage_compat.queue_adapter import QueueWrapper
from sage_compat.sage_queue import create_queue as create_by_name
from sage_compat.sage_queue import destroy_queue, list_all_sage_queues, open_queue
from sage_qd.testing import background

STATS = {
    "buffer_size",
    "available_read",
    "available_write",
    "readers",
    "writers",
    "ref_count",
    "total_bytes_written",
    "total_bytes_read",
    "utilization",
    "message_count",
}


@pytest.fixture(params=["legacy", "descriptor"])
def mode(request: pytest.FixtureRequest) -> str:
    chosen: str = request.param
    set_mode(chosen)
    return chosen


@pytest.fixture(params=["sage", "python"])
def any_queue(request: pytest.FixtureRequest, mode: str) -> Any:
    return create_queue(request.param, name="orders")


@pytest.fixture
def sage(mode: str) -> Iterator[SageQueue]:
    made = SageQueue("orders")
    yield made
    made.close()


@pytest.fixture
def small(mode: str) -> SageQueue:
    made = SageQueue("small", maxsize=4096)
    while True:
        try:
            made.put(b"x" * 900, block=False)
        except queue.Full:
            return made


def test_the_mode_decides_which_way_a_queue_takes(sage: SageQueue, mode: str) -> None:
    assert sage.descriptor.queue_type == {"legacy": "legacy_queue", "descriptor": "sage_queue"}[mode]


def test_messages_come_back_in_order(any_queue: Any) -> None:
    messages = [1, "two", b"three", ("four", {"five": [6]}), None]
    for message in messages:
        any_queue.put(message)

    assert any_queue.qsize() == 5
    assert [any_queue.get() for _ in messages] == messages
    assert any_queue.empty()


@pytest.mark.parametrize(
    "take", [lambda made: made.get(False), lambda made: made.get_nowait(), lambda made: made.get(timeout=0.01)]
)
def test_nothing_to_take_is_the_standard_exception(any_queue: Any, take: Callable[[Any], Any]) -> None:
    with pytest.raises(queue.Empty):
        take(any_queue)


def test_a_full_python_queue_is_the_standard_exception(mode: str) -> None:
    made = create_queue("python", maxsize=1)
    made.put(1)

    for put in (lambda: made.put(2, False), lambda: made.put_nowait(2), lambda: made.put(2, timeout=0.01)):
        with pytest.raises(queue.Full):
            put()
    assert made.get_stats() == {"size": 1, "empty": False, "full": True}
    assert (made.maxsize, made.close()) == (1, None)
    assert made.get() == 1


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda made: made.get(block=False), "Queue is empty"),
        (lambda made: made.get_nowait(), "Queue is empty"),
        (lambda made: made.get(timeout=0.01), "Get operation timed out"),
        (lambda made: made.get(timeout=0), "Get operation timed out"),
    ],
)
def test_texts_of_an_empty_queue(sage: SageQueue, call: Callable[[SageQueue], Any], text: str) -> None:
    with pytest.raises(queue.Empty) as caught:
        call(sage)

    assert str(caught.value) == text


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda made: made.put(b"x" * 900, block=False), "Queue is full"),
        (lambda made: made.put_nowait(b"x" * 900), "Queue is full"),
        (lambda made: made.put(b"x" * 900, timeout=0.01), "Put operation timed out"),
    ],
)
def test_texts_of_a_full_queue(small: SageQueue, call: Callable[[SageQueue], Any], text: str) -> None:
    with pytest.raises(queue.Full) as caught:
        call(small)

    assert str(caught.value) == text


def test_a_closed_handle_says_so_and_keeps_what_is_queued(sage: SageQueue) -> None:
    sage.put("kept")
    sage.close()
    sage.close()

    for call in (lambda: sage.put(1), sage.get, sage.get_nowait, sage.qsize, sage.empty, sage.full, sage.get_stats):
        with pytest.raises(RuntimeError, match=r"^Queue is closed$"):
            call()
    assert SageQueue("orders").get_nowait() == "kept"


def test_what_cannot_be_pickled_is_a_value_error(sage: SageQueue) -> None:
    with pytest.raises(ValueError, match=r"^Failed to serialize item: .*lambda"):
        sage.put(lambda: None)

    assert sage.empty()


@pytest.mark.parametrize("call", [lambda made: made.put(1, timeout=-1), lambda made: made.get(timeout=-1)])
def test_a_negative_timeout_is_a_value_error(sage: SageQueue, call: Callable[[SageQueue], Any]) -> None:
    with pytest.raises(ValueError, match="non-negative"):
        call(sage)


def test_destroy_removes_what_is_queued(sage: SageQueue) -> None:
    sage.put("gone")
    sage.close()
    sage.destroy()

    assert SageQueue("orders").empty()


def test_a_handle_is_a_context(mode: str) -> None:
    with SageQueue("orders") as made:
        made.put(1)

    with pytest.raises(RuntimeError, match="Queue is closed"):
        made.get()


def test_attributes_say_what_was_asked_for(mode: str) -> None:
    made = SageQueue("orders", 5000, True, "shop")

    assert (made.original_name, made.maxsize, made.namespace) == ("orders", 5000, "shop")
    assert (made.auto_cleanup, made.enable_multi_tenant) == (True, True)
    assert made.name.endswith("_shop_orders")
    assert SageQueue("bare-orders", enable_multi_tenant=False).name == "bare-orders"


def test_statistics_are_true(sage: SageQueue) -> None:
    sage.put(b"x" * 100)
    sage.put(b"y" * 100)
    sage.get()
    found = sage.get_stats()

    assert found.keys() == STATS
    assert (found["total_bytes_written"], found["total_bytes_read"], found["message_count"]) == (200, 100, 1)
    assert found["available_read"] == 16 + 112
    assert found["available_read"] + found["available_write"] == found["buffer_size"] == 1 << 20
    assert (found["readers"], found["writers"], found["ref_count"]) == (1, 1, 1)
    assert found["utilization"] == pytest.approx(128 / (1 << 20))
    sage.reset_stats()
    assert sage.get_stats()["total_bytes_written"] == 0


def test_where_it_lies(sage: SageQueue) -> None:
    found = sage.get_shared_memory_info()

    assert found.keys() == {
        "original_name",
        "namespaced_name",
        "namespace",
        "multi_tenant_enabled",
        "auto_cleanup",
        "shm_path",
    }
    with open(found["shm_path"], "rb"):
        assert found["namespaced_name"] == sage.name


def test_an_unpickled_handle_and_a_reference_are_the_same_queue(sage: SageQueue) -> None:
    copy = pickle.loads(pickle.dumps(sage))
    reference = pickle.loads(pickle.dumps(sage.get_reference()))
    copy.put(1)
    reference.get_queue().put(2)

    assert [sage.get(), sage.get()] == [1, 2]
    assert copy.name == sage.name
    assert (reference.name, reference.queue_name, reference.size, reference.maxsize) == (
        sage.name,
        sage.name,
        *[1 << 20] * 2,
    )
    assert reference.creator_pid > 0
    assert reference.auto_cleanup


def test_a_reference_by_name_makes_the_queue_only_if_it_may(mode: str) -> None:
    with pytest.raises(FileNotFoundError):
        SageQueueRef("nowhere", 4096, False).get_queue()

    SageQueueRef("somewhere", 4096, True).get_queue().put(1)
    assert SageQueue("somewhere").get() == 1


def test_the_room_is_in_bytes(mode: str) -> None:
    made = SageQueue("tiny", maxsize=100)
    made.put(b"x" * 1_000_000)  # lies beside it

    assert made.get() == b"x" * 1_000_000
    assert made.maxsize == 100


@pytest.mark.parametrize(("size", "error"), [(-1, ValueError), ("big", TypeError), (1.5, TypeError), (True, TypeError)])
def test_a_wrong_size_is_refused(mode: str, size: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="maxsize"):
        SageQueue("orders", size)


def test_put_waits_for_room_and_get_for_a_message(small: SageQueue) -> None:
    putting = background(lambda: small.put(b"late" * 200))
    assert putting.is_waiting()
    small.get()
    putting.result()
    while not small.empty():
        last = small.get()
    assert last == b"late" * 200

    taking = background(small.get)
    small.put("now")
    assert taking.result() == "now"


def test_threads_lose_nothing(any_queue: Any) -> None:
    threads = [threading.Thread(target=lambda: [any_queue.put(number) for number in range(200)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    found = [any_queue.get(timeout=60) for _ in range(800)]
    for thread in threads:
        thread.join()

    assert sorted(found) == sorted([*range(200)] * 4)


def test_helpers_by_name(mode: str, capsys: pytest.CaptureFixture[str]) -> None:
    create_by_name("h").put(1)

    assert open_queue("h").get() == 1
    assert [each["name"] for each in list_all_sage_queues()] == ["h"]
    assert "h " in capsys.readouterr().out
    destroy_queue("h")
    destroy_queue("h")
    assert list_all_sage_queues() == []


@pytest.mark.parametrize("backend", ["sage", "sage_queue", "sage_mmap_queue", None, "auto"])
def test_spellings_of_the_shared_backend(mode: str, backend: str | None) -> None:
    assert type(create_queue(backend, name="orders", maxsize=1 << 16)) is SageQueue


@pytest.mark.parametrize("backend", ["python", "python_queue"])
def test_spellings_of_the_thread_backend(mode: str, backend: str) -> None:
    assert type(create_queue(queue_type=backend, name="ignored", maxsize=3, other="ignored")) is QueueWrapper


def test_an_unknown_backend_is_told_in_the_old_words(mode: str) -> None:
    with pytest.raises(ValueError, match=r"^Unknown backend: rabbit$"):
        create_queue("rabbit")


def test_a_shared_queue_without_a_name_is_one_of_its_own(mode: str) -> None:
    first, second = create_queue("sage"), create_queue("sage", maxsize=4096)
    first.put(1)

    assert second.empty()
    assert pickle.loads(pickle.dumps(first)).get() == 1
