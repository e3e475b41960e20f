"""What is particular to queues in shared memory: payloads, bounds by bytes, waiting, interrupts, wrong use."""

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy
import pytest

from sage_qd import (
    BaseQueueDescriptor,
    Empty,
    FencedError,
    Full,
    MessageTooLargeError,
    NotShareableError,
    PayloadError,
    QueueClosedError,
    SharedMemoryQueue,
    SharedMemoryQueueDescriptor,
    SHMQueueDescriptor,
    ShmQueueDescriptor,
    resolve_descriptor,
)
from sage_qd.queues import shm_wakes
from sage_qd.queues.shm_changes import SLICE_SECONDS
from sage_qd.testing import background, wait_for

FORK = multiprocessing.get_context("fork")


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("SAGE_QD_SHM_FOLDER", str(tmp_path))
    yield
    assert list(tmp_path.iterdir()) == [], "the test left files behind"


def opened(**settings: Any) -> SharedMemoryQueue[Any]:
    return SharedMemoryQueueDescriptor(**{"queue_id": f"queue-{uuid.uuid4().hex}"} | settings).open()


# -- Descriptor -------------------------------------------------------------------------------------------------------


def test_all_spellings_are_this_kind() -> None:
    assert SHMQueueDescriptor is ShmQueueDescriptor is SharedMemoryQueueDescriptor
    for spelling in ("shm", "shm_queue", "multiprocess_shm", "multiprocessing"):
        read = resolve_descriptor({"queue_id": "q", "queue_type": spelling})
        assert type(read) is SharedMemoryQueueDescriptor
        assert read.to_dict()["queue_type"] == "shm_queue"
    for name in ("SHMQueueDescriptor", "ShmQueueDescriptor", "SharedMemoryQueueDescriptor"):
        document = SharedMemoryQueueDescriptor("q").to_dict() | {"class_name": name}
        assert resolve_descriptor(document) == SharedMemoryQueueDescriptor("q")


def test_the_uri_says_what_is_not_usual() -> None:
    descriptor = SharedMemoryQueueDescriptor("jobs", maxsize=3, codec="json")

    assert descriptor.to_uri() == "shm:///jobs?codec=json&maxsize=3"
    assert BaseQueueDescriptor.from_uri("shm:///jobs?codec=json&maxsize=3") == descriptor
    assert SharedMemoryQueueDescriptor(5, "jobs") == SharedMemoryQueueDescriptor("jobs", maxsize=5)


# -- Messages ---------------------------------------------------------------------------------------------------------


def test_every_size_survives_the_way_round_the_ring() -> None:
    with opened(codec="raw", capacity_bytes=4096) as queue:
        for size in (*range(70), 500, 1000, 2047, 2048, 4000, 4063, 4064, *range(40)):
            body = bytes(number % 251 for number in range(size))
            queue.put(body)
            lease = queue.lease()
            assert lease.value == body
            lease.ack()


@pytest.mark.parametrize("most", [1, 3, 100])
def test_batches_of_small_and_large_messages_survive_the_way_round_the_ring(most: int) -> None:
    sizes = [*range(70), 4095, 4096, 4097, 0, 10_000, 1, 5000, 5000, 31, 32, 33]
    with opened(codec="raw", capacity_bytes=1 << 16) as queue:
        for turn in range(30):
            sent = [bytes([(turn + size) % 251]) * size for size in sizes]
            assert queue.put_many(sent) == len(sent)
            taken = []
            while not queue.empty():
                taken += queue.get_many(most)
            assert taken == sent


def test_a_batch_ends_before_the_message_that_is_too_much() -> None:
    with opened(codec="raw") as queue:
        queue.put_many([bytes(100)] * 5)

        assert [len(queue.get_many(9, most)) for most in (250, 1, 200)] == [2, 1, 2]


def test_a_message_is_as_old_as_its_time_in_the_queue() -> None:
    with opened(maxsize=1) as queue:
        queue.put(1)
        putter = background(queue.put, 2)
        wait_for(lambda: queue.stats().put_waiters == 1, "it waits")
        since = time.monotonic_ns()
        wait_for(lambda: time.monotonic_ns() - since > 20_000_000, "it waited for long")
        arrives_after = time.monotonic_ns()
        assert queue.get() == 1
        putter.result()

        assert queue.stats().oldest_age_ns <= time.monotonic_ns() - arrives_after


def test_what_cannot_fit_is_refused_at_once_and_changes_nothing() -> None:
    with opened(codec="raw", capacity_bytes=4096) as queue:
        queue.put(bytes(4064))
        for put in (lambda: queue.put(bytes(4065)), lambda: queue.put_many([b"", bytes(5000)])):
            with pytest.raises(MessageTooLargeError, match="limit is 4,064"):
                put()
        assert (queue.qsize(), queue.full()) == (1, True)


def test_bytes_bound_the_queue_and_leases_keep_their_room() -> None:
    with opened(codec="raw", capacity_bytes=4096) as queue:
        queue.put_many([bytes(1000)] * 3)
        with queue.lease():
            assert [len(one) for one in queue.get_many(5)] == [1000, 1000]
            with pytest.raises(Full):
                queue.put_nowait(bytes(2000))  # the room behind a leased message comes back with it
        queue.put_nowait(bytes(2000))


def test_arrays_arrive_writable() -> None:
    with opened() as queue:
        queue.put(numpy.arange(1000.0))

        array = queue.get()

        array += 1
        assert array.sum() == 500500.0


@pytest.mark.parametrize("codec", ["pickle", "msgpack", "json", "raw"])
def test_each_codec_carries_its_messages(codec: str) -> None:
    with opened(codec=codec) as queue:
        message: Any = b"bytes" if codec == "raw" else {"text": "文", "numbers": [1, 2.5, None]}
        queue.put(message)
        assert queue.get() == message
        with pytest.raises((TypeError, pickle.PicklingError, AttributeError)):
            queue.put(lambda: None)
        assert queue.empty()


class Poison:
    def __reduce__(self) -> Any:
        return (int, ("no number",))


def test_a_message_that_cannot_be_decoded_is_handed_over_as_bytes_and_stops_nobody() -> None:
    with opened() as queue:
        queue.put_many([1, Poison(), 2, Poison(), 3])

        with pytest.raises(PayloadError) as caught:
            queue.get_many(5)

        first, second, third = (one for one in caught.value.items if isinstance(one, int))
        assert (first, second, third) == (1, 2, 3)
        assert isinstance(caught.value.__cause__, ValueError)
        assert b"no number" in caught.value.payload
        assert queue.empty()


def test_a_leased_message_that_cannot_be_decoded_can_be_acked() -> None:
    with opened() as queue:
        queue.put(Poison())
        lease = queue.lease()
        with pytest.raises(PayloadError):
            print(lease.value)
        lease.ack()
        assert queue.stats().gets == 1


def test_an_interrupt_while_decoding_keeps_the_message() -> None:
    with opened() as queue:
        queue.put_many(["first", "second"])
        decode = queue._codec.decode

        def interrupted(tag: int, payload: Any) -> Any:
            queue._codec.decode = decode  # type: ignore[method-assign]
            raise KeyboardInterrupt

        queue._codec.decode = interrupted  # type: ignore[method-assign]
        with pytest.raises(KeyboardInterrupt):
            queue.get()

        pid = os.fork()
        if not pid:
            os._exit(len(queue._undecoded))  # a child must not hand out what its parent will
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert [queue.get(timeout=0), queue.get(timeout=0)] == ["first", "second"]


# -- Leases -----------------------------------------------------------------------------------------------------------


def test_what_overtakes_a_leased_message_leaves_and_the_rest_keeps_its_order() -> None:
    with opened() as queue:
        queue.put_many(range(6))
        leases = [queue.lease(), queue.lease()]
        assert queue.get_many(2) == [2, 3]
        leases[1].ack()
        leases[0].nack()

        assert (queue.qsize(), queue.get_many(9)) == (3, [0, 4, 5])
        assert queue._changes.change(lambda state: (state.head == state.tail, state.gone, state.count)) == (True, 0, 0)


def test_a_lease_that_was_taken_over_is_fenced() -> None:
    with opened() as queue:
        queue.put("work")
        lease = queue.lease()
        os.unlink(queue._segment._holder_path(queue._segment.holder()))  # so others take us for dead
        assert queue.descriptor is not None
        with queue.descriptor.open(create=False) as other:
            taken = other.lease(timeout=0)
            assert taken.redelivered
            with pytest.raises(FencedError):
                lease.ack()
            taken.ack()


def test_a_message_given_back_after_the_end_at_once_is_dropped() -> None:
    with opened() as queue:
        queue.put_many([1, 2])
        lease = queue.lease()
        assert queue.shutdown(immediate=True) == 1
        lease.nack()

        stats = queue.stats()
        assert (stats.depth, stats.leased, stats.dropped, stats.gets) == (0, 0, 2, 2)
        queue.join()


# -- Waiting ----------------------------------------------------------------------------------------------------------


def test_hints_that_are_lost_cost_a_slice_only() -> None:
    """The semaphores are hints: without any of them, whoever waits finds the message."""
    with opened() as queue:
        getter = background(queue.get)
        wait_for(lambda: queue.stats().get_waiters == 1, "it waits")
        queue._changes.change(lambda state: queue._store.deregister(state, 0, was_counted=True, waited_ns=0))
        queue.put("found")

        assert getter.result() == "found"


def test_waiters_of_killed_processes_are_forgotten_as_messages_come() -> None:
    with opened() as queue:
        process = FORK.Process(target=queue.get)
        process.start()
        wait_for(lambda: queue.stats().get_waiters == 1, "it waits")
        process.kill()
        process.join(60)

        queue.put(1)

        assert queue.stats().get_waiters == 0
        assert queue.get() == 1
        with pytest.raises(Empty):
            queue.get(timeout=0.01)


def test_waiting_times_are_counted() -> None:
    with opened(maxsize=1) as queue:
        getter = background(queue.get)
        wait_for(lambda: queue.stats().get_waiters == 1, "it waits")
        queue.put(1)
        assert getter.result() == 1
        queue.put(2)
        putter = background(queue.put, 3)
        wait_for(lambda: queue.stats().put_waiters == 1, "it waits")
        assert queue.get() == 2
        putter.result()

        stats = queue.stats()
        assert stats.get_blocked_ns > 0
        assert stats.put_blocked_ns > 0
        assert (stats.get_waiters, stats.put_waiters) == (0, 0)


def test_an_idle_consumer_looks_once_in_a_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty times in a second, and sleeps in between, so it costs next to nothing."""
    with opened() as queue:
        loads: list[float] = []
        load = queue._store.load
        monkeypatch.setattr(queue._store, "load", lambda: (loads.append(time.monotonic()), load())[1])
        getter = background(queue.get)
        wait_for(lambda: len(loads) > 12, "it looks again")
        looks, passed = len(loads), loads[-1] - loads[0]
        queue.put("end")

        assert getter.result() == "end"
        assert looks - 2 <= passed / SLICE_SECONDS + 1  # the first two are one after the other


def test_signals_end_a_wait_and_leave_the_queue_usable() -> None:
    source = """
import os, signal, sys, threading
from sage_qd import SharedMemoryQueueDescriptor
queue = SharedMemoryQueueDescriptor("interrupted").open()
for wait in (queue.get, queue.join, queue.wait_message, queue.lease):
    if wait == queue.join:
        queue.put(1), queue.get()
    threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
    try:
        wait()
    except KeyboardInterrupt:
        print("interrupted", queue.stats().get_waiters)
queue.task_done()
queue.put(2)
print(queue.get())
"""
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=60, check=True)

    assert done.stdout.splitlines() == ["interrupted 0"] * 4 + ["2"]
    assert done.stderr == ""


def test_interrupts_at_any_moment_leave_the_lock_free() -> None:
    """Hundreds of signals whose handler raises, into puts and gets; another handle goes on all the time."""
    source = """
import signal, sys
from sage_qd import Empty, SharedMemoryQueueDescriptor
class Interrupt(Exception): pass
def handler(*_):
    if raining: raise Interrupt
raining = False
queue = SharedMemoryQueueDescriptor("rained-on").open()
other = queue.descriptor.attach()
interrupted = number = 0
signal.signal(signal.SIGALRM, handler)
while interrupted < 500:
    try:
        raining = True
        signal.setitimer(signal.ITIMER_REAL, 0.00002 + number % 50 * 1e-5, 0.01)  # again: finalizers ignore exceptions
        while True:
            number += 1
            queue.put(number)
            queue.lease().ack()
    except Interrupt:
        raining = False
        interrupted += 1
    signal.setitimer(signal.ITIMER_REAL, 0)
    other.put(0, timeout=30)
    other.clear()
queue.clear()
figures = other.stats()
assert figures.leased < 20, figures  # what an ignored exception in a finalizer kept from being given back
assert figures.puts == figures.gets + figures.depth + figures.leased, figures
print("fine")
"""
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=120, check=False)

    assert done.stdout == "fine\n", done.stderr


def test_a_stopped_holder_of_the_lock_does_not_stop_a_wait_with_a_deadline() -> None:
    with opened() as queue:
        ready = FORK.Event()
        process = FORK.Process(target=stay_inside, args=(queue, ready))
        process.start()
        assert ready.wait(60)

        with pytest.raises(Empty):
            queue.get(timeout=0.05)
        with pytest.raises(Full):
            queue.put(1, timeout=0.05)
        process.kill()
        process.join(60)

        queue.put(1)
        assert queue.get() == 1


def stay_inside(queue: SharedMemoryQueue[Any], ready: Any) -> None:
    """As a process that was stopped in the middle of a change."""

    def step(state: Any) -> None:
        ready.set()
        signal.pause()

    queue._changes.change(step)


# -- Wrong use --------------------------------------------------------------------------------------------------------


def test_a_seal_longer_than_its_place_is_refused() -> None:
    with opened() as queue:
        with pytest.raises(ValueError, match="16,384"):
            queue.seal("x" * 16_385)
        queue.put("goes on")


def test_neither_queue_nor_lease_can_be_pickled() -> None:
    with opened() as queue:
        queue.put(1)
        with queue.lease() as lease:
            for one in (queue, lease):
                with pytest.raises(NotShareableError):
                    pickle.dumps(one)


def test_closing_while_other_threads_work_ends_them_with_one_error() -> None:
    queue = opened()
    started = threading.Barrier(4)

    def work() -> None:
        started.wait()
        while True:
            queue.put(1)
            queue.get_many(2)

    threads = [background(work) for _ in range(3)]
    started.wait()
    queue.close()

    for thread in threads:
        with pytest.raises(QueueClosedError):
            thread.result()


def test_names_of_semaphores_are_short_enough_for_every_system() -> None:
    assert {len(shm_wakes._name("0" * 32, kind)) for kind in "mri"} == {28}
