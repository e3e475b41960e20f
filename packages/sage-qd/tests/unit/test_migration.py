"""Moving a queue while it is used: what its users see, and what is left when somebody is killed."""

import gc
import inspect
import itertools
import multiprocessing
import os
import signal
import sys
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sage_qd import (
    Empty,
    Full,
    LocalQueueDescriptor,
    MessageTooLargeError,
    QueueMovedError,
    QueueNotFoundError,
    SageQueueDescriptor,
    SharedMemoryQueueDescriptor,
    ShutDown,
    migrate,
)
from sage_qd import ring as rings
from sage_qd.queues.names import segment_name
from sage_qd.testing import background, wait_for

pytestmark = pytest.mark.timeout(120)
NAMESPACE = f"migration-{uuid.uuid4().hex}"
_numbers = itertools.count()


@pytest.fixture(autouse=True)
def leaves_nothing() -> Iterator[None]:
    yield
    gc.collect()
    rings.clean_segments(NAMESPACE)  # sealed queues whose successor outlived all who followed
    assert list(rings.directory().glob(NAMESPACE)) == []


def ring_queue(**settings: Any) -> SageQueueDescriptor:
    return SageQueueDescriptor(f"q{next(_numbers)}", namespace=NAMESPACE, **settings)


def local_queue(**settings: Any) -> LocalQueueDescriptor:
    return LocalQueueDescriptor(f"q{next(_numbers)}-{NAMESPACE}", **settings)


def shm_queue(**settings: Any) -> SharedMemoryQueueDescriptor:
    return SharedMemoryQueueDescriptor(f"q{next(_numbers)}-{NAMESPACE}", **settings)


PAIRS = [(ring_queue, ring_queue), (local_queue, ring_queue), (local_queue, local_queue)]


@pytest.mark.parametrize(("make_old", "make_new"), PAIRS)
def test_puts_go_to_the_new_queue_and_gets_follow_when_the_old_one_is_drained(
    make_old: Callable[..., Any], make_new: Callable[..., Any]
) -> None:
    source, target = make_old(), make_new()
    queue, other = source.open(), source.attach()
    queue.put_many([1, 2])

    migration = migrate(source, target, timeout=0)

    assert (migration.moved, migration.stragglers) == (2, 2)
    queue.put(3)
    assert target.open().qsize() == 1
    assert [other.get(), other.get(), other.get(timeout=10)] == [1, 2, 3]
    queue.put_many([4, 5])
    assert other.get_many(5) == [4, 5]
    assert (queue.qsize(), queue.empty(), other.stats().depth) == (0, True, 0)
    for each in (queue, other, target):
        each.close()


@pytest.mark.parametrize(("make_old", "make_new"), PAIRS)
def test_calls_that_wait_go_over(make_old: Callable[..., Any], make_new: Callable[..., Any]) -> None:
    source, target = make_old(maxsize=1), make_new(maxsize=1)
    queue, other = source.open(), source.attach()
    getter = background(other.get)
    wait_for(lambda: queue.stats().get_waiters > 0, "it waits")

    migrate(source, target)
    queue.put("found")

    assert getter.result() == "found"
    queue.put("one")
    putter = background(queue.put, "two")
    assert [other.get(), other.get()] == ["one", "two"]
    putter.result()
    for each in (queue, other, target):
        each.close()


def test_a_waiting_put_goes_over_with_what_is_left_of_its_timeout() -> None:
    source, target = ring_queue(maxsize=1), ring_queue(maxsize=1)
    queue = source.open()
    queue.put("full")
    putter = background(lambda: queue.put(["an object"], timeout=30))
    batch = background(lambda: source.attach().put_many([b"a", b"b"], 30))
    wait_for(lambda: queue.stats().put_waiters >= 2, "both wait")

    migrate(source, target, timeout=0)

    new = target.open()
    taken = [new.get(timeout=30) for _ in range(3)]
    putter.result()
    assert batch.result() == 2
    assert sorted(map(str, taken)) == sorted(map(str, [["an object"], b"a", b"b"]))
    new.put("full again")
    with pytest.raises(Full):
        queue.put("no room there either", timeout=0.05)
    assert queue.get() == "full"
    new.close()
    queue.close()


@pytest.mark.parametrize("kind", [ring_queue, local_queue, shm_queue])
def test_a_batch_that_waits_puts_its_rest_into_the_new_queue(kind: Callable[..., Any]) -> None:
    source, target = kind(maxsize=3), kind(maxsize=2)
    queue, taker = source.open(), source.attach()
    putter = background(queue.put_many, iter(range(8)))
    wait_for(taker.full, "three were put")

    migrate(source, target, timeout=0)

    assert [taker.get(timeout=60) for _ in range(8)] == list(range(8))
    assert putter.result() == 8
    assert taker.empty()
    for each in (queue, taker, target):
        each.close()


@pytest.mark.parametrize("kind", [ring_queue, local_queue, shm_queue])
def test_a_batch_that_is_ended_in_the_new_queue_tells_what_both_took(kind: Callable[..., Any]) -> None:
    source, target = kind(maxsize=3), kind(maxsize=2)
    queue, taker, new = source.open(), source.attach(), target.open()
    putter = background(queue.put_many, range(8))
    wait_for(taker.full, "three were put")
    migrate(source, target, timeout=0)
    wait_for(new.full, "two more were put")

    new.shutdown()

    assert putter.result() == 5
    assert [taker.get(timeout=60) for _ in range(5)] == list(range(5))
    for each in (target, queue, taker):  # whoever leaves while the new queue is open leaves the old one behind
        each.close()


def test_a_batch_whose_rest_is_too_large_for_the_new_queue_tells_what_was_put() -> None:
    source, target = ring_queue(maxsize=1), shm_queue(capacity_bytes=4096)
    queue = source.open()
    putter = background(queue.put_many, [b"small", bytes(10_000)])
    wait_for(queue.full, "one was put")

    migrate(source, target, timeout=0)

    assert putter.result() == 1
    with pytest.raises(MessageTooLargeError):
        queue.put_many([bytes(10_000)])
    assert queue.get() == b"small"
    for each in (queue, target):
        each.close()


def test_every_verb_works_on_a_moved_queue() -> None:
    source, target = ring_queue(maxsize=9), ring_queue(maxsize=9)
    queue = source.open()
    held = [getattr(queue, verb) for verb in ("put", "put_many", "get", "get_many", "qsize", "peek")]
    migrate(source, target)

    put, put_many, get, get_many, qsize, peek = held
    put(b"1")
    assert put_many([b"2", b"3"]) == 2
    assert (peek(), qsize(), get(), get_many(9)) == (b"1", 3, b"1", [b"2", b"3"])
    assert queue.wait_room(0)
    assert not queue.wait_message(0)
    with pytest.raises(Empty):
        queue.get_nowait()
    queue.put("x")
    with queue.view() as lease:
        assert lease.value == "x"
    queue.put("y")
    assert (queue.full(), queue.clear(), queue.stats().puts) == (False, 1, 5)
    assert source.empty()
    source.shutdown()
    with pytest.raises(ShutDown):
        queue.put("too late")
    target.close()
    source.close()


def test_an_old_name_leads_to_the_new_queue_as_long_as_that_exists() -> None:
    source, target = ring_queue(), ring_queue()
    source.open()
    migrate(source, target)
    keeper = target.open()
    source.put("over")
    source.close()

    late = source.attach()
    late.put("later")

    assert [keeper.get(timeout=0), keeper.get(timeout=0)] == ["over", "later"]
    late.close()
    keeper.close()
    with pytest.raises(QueueNotFoundError):
        target.attach()
    again = source.open()  # the seal is still there when nobody who left it could look whether the other one is
    again.put("on demand")
    assert again.get(timeout=0) == "on demand"
    again.close()


def test_a_queue_is_moved_on_and_on_and_back_to_its_first_kind() -> None:
    source = ring_queue()
    queue = source.open()
    queue.put(0)
    here = source
    for generation in range(2, 5):
        here = migrate(here, "sage_queue", timeout=0).descriptor
        assert here.queue_id == f"{source.queue_id}.g{generation}"
        queue.put(generation - 1)

    assert [queue.get(timeout=0) for _ in range(4)] == [0, 1, 2, 3]
    assert here.open().qsize() == 0
    here.close()
    queue.close()


@pytest.mark.parametrize("kind", [ring_queue, local_queue, shm_queue])
def test_a_long_chain_of_moves_is_gone_through_without_nesting(kind: Callable[..., Any]) -> None:
    """Once from the first descriptor in one call, and once move by move: each call then costs the same."""
    source = kind()
    queue, late, taker = source.open(), source.attach(), source.attach()
    here = source
    for generation in range(60):
        here = migrate(here, here.queue_type, timeout=0).descriptor
        queue.put(generation)
        assert taker.get(timeout=0) == generation

    depth = len(inspect.stack())
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(depth + 50)
    try:
        late.put("from the first")
        queue.put("from the last")
        assert source.qsize() == 2
        assert [taker.get(timeout=0), late.get(timeout=0)] == ["from the first", "from the last"]
        late.put_many([1, 2])
        assert source.clear() == 2
        assert source.shutdown() == 0
        with pytest.raises(ShutDown):
            late.put("too late")
    finally:
        sys.setrecursionlimit(limit)
    for each in (taker, late, queue):
        each.close()


@pytest.mark.parametrize("kind", [ring_queue, local_queue, shm_queue])
def test_looking_clearing_and_ending_reach_both_queues(kind: Callable[..., Any]) -> None:
    source = kind(maxsize=3)
    queue, looker = source.open(), source.attach()
    queue.put("old")
    target = migrate(source, source.queue_type, timeout=0).descriptor
    queue.put_many(["new", "new"])

    assert (looker.qsize(), looker.empty(), looker.stats().depth) == (1, False, 1)
    assert queue.get() == "old"
    assert (looker.qsize(), looker.empty(), looker.full(), looker.stats().depth) == (2, False, False, 2)
    with target.attach() as new:
        assert source.attach().clear() == 2
        assert (new.qsize(), looker.empty()) == (0, True)
    queue.put("dropped")
    assert looker.shutdown(immediate=True) == 1
    for each in (queue, looker):
        with pytest.raises(ShutDown):
            each.get(timeout=30)
        each.close()


def test_puts_may_be_further_on_than_takes() -> None:
    source = ring_queue()
    queue = source.open()
    queue.put(0)
    here = source
    for generation in range(1, 30):
        here = migrate(here, "sage_queue", timeout=0).descriptor
        queue.put(generation)
    late = source.attach()
    late.put("last")

    assert [late.get(timeout=0), *(queue.get(timeout=0) for _ in range(1, 30))] == list(range(30))
    assert late.get(timeout=0) == "last"
    for each in (late, queue):
        each.close()


def test_a_late_user_who_leaves_first_takes_nothing_along() -> None:
    """Nobody but the first handle, which has not followed yet, keeps the newer queues for itself."""
    source = ring_queue()
    queue = source.open()
    here = source
    for generation in range(2, 6):
        here = migrate(here, "sage_queue", timeout=0).descriptor
        with source.attach() as late:
            late.put(generation)

    assert [queue.get(timeout=0) for _ in range(2, 6)] == [2, 3, 4, 5]
    queue.close()


def test_a_move_that_cannot_be_leaves_the_queue_as_it_was() -> None:
    source, full = ring_queue(), ring_queue()
    queue = source.open()
    full.put("not empty")
    single = ring_queue(single_producer=True)
    single.open()

    with pytest.raises(ValueError, match="1 messages"):
        migrate(source, full)
    with pytest.raises(ValueError, match="itself"):
        migrate(source, source)
    with pytest.raises(QueueNotFoundError):
        migrate(ring_queue(), ring_queue())
    with pytest.raises(ValueError, match="single producer"):
        migrate(single, ring_queue())
    with pytest.raises(ValueError, match="cannot leave"):
        migrate(source, local_queue())

    queue.put("goes on")
    assert queue.get() == "goes on"
    queue.shutdown()
    with pytest.raises(ShutDown):
        migrate(source, ring_queue())
    for each in (source, full, single):
        each.close()


@pytest.mark.parametrize("kind", [ring_queue, shm_queue])
def test_a_move_that_fails_takes_no_queue_away_that_nobody_has_open(kind: Callable[..., Any]) -> None:
    source, target = kind(), kind()
    with source.open() as queue, target.open() as taken:
        queue.put("kept")
        queue.leave_behind()
        queue.close()
        taken.put("there already")

        with pytest.raises(ValueError, match="move to an empty one"):
            migrate(source, target, timeout=0)

    with source.attach() as queue:
        assert queue.get_nowait() == "kept"


def test_a_second_move_to_elsewhere_is_refused_and_the_same_one_goes_on() -> None:
    source, target = ring_queue(), ring_queue()
    queue = source.open()
    queue.put(1)
    migrate(source, target, timeout=0)

    with pytest.raises(QueueMovedError) as caught:
        migrate(source, ring_queue())
    assert target.queue_id in caught.value.successor
    waiting = background(migrate, source, target)
    assert queue.get() == 1

    assert waiting.result().stragglers == 0
    queue.close()


def test_a_successor_that_a_killed_process_named_means_nothing(start: Callable[..., Any]) -> None:
    source, target = ring_queue(), ring_queue()
    queue = source.open()
    process = start(
        """
from sage_qd.ring.succession import succession
ring = attach(sys.argv[2], namespace=sys.argv[3])
with succession(sys.argv[4], "nobody", lambda: False):
    say("named")
    hear()
""",
        segment_name(source.queue_id),
        NAMESPACE,
        f"{queue.ring.path}~moved.{queue.instance}",
    )
    process.hear()
    moving = background(migrate, source, target)
    assert moving.is_waiting()
    queue.put("still here")

    process.kill()

    assert queue.get(timeout=30) == "still here"
    assert moving.result().descriptor == target
    queue.put("there")
    assert target.get(timeout=0) == "there"
    target.close()
    queue.close()


def put_numbers(descriptor: Any, producer: int, count: int) -> None:
    with descriptor.attach() as queue:
        for number in range(count):
            queue.put([producer, number])


def take_numbers(descriptor: Any, results: Any) -> None:
    with descriptor.attach() as queue:
        results.put(list(queue))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_processes_keep_order_and_lose_nothing_while_the_queue_moves(method: str) -> None:
    context: Any = multiprocessing.get_context(method)
    source = ring_queue(maxsize=50)
    results = ring_queue(capacity_bytes=1 << 22)
    queue, answers = source.open(), results.open()
    consumers = [context.Process(target=take_numbers, args=(queue.descriptor, answers.descriptor)) for _ in range(2)]
    producers = [context.Process(target=put_numbers, args=(queue.descriptor, who, 2000)) for who in range(3)]
    for process in (*consumers, *producers):
        process.start()
    here: Any = source
    for _ in range(5):
        wait_for(lambda: queue.stats().puts > 100 or not any(each.is_alive() for each in producers), "traffic")
        here = migrate(here, "sage_queue", timeout=60).descriptor
    for process in producers:
        process.join()
        assert process.exitcode == 0
    source.shutdown()

    lists = [answers.get(timeout=60) for _ in consumers]

    for process in consumers:
        process.join()
    assert sorted(message for taken in lists for message in taken) == [[w, n] for w in range(3) for n in range(2000)]
    for taken in lists:
        for who in range(3):
            numbers = [number for producer, number in taken if producer == who]
            assert numbers == sorted(numbers)
    for each in (source, results):
        each.close()


def test_a_migrator_killed_at_any_moment_leaves_all_or_nothing(start: Callable[..., Any]) -> None:
    before = after = 0
    for turn in range(40):
        source, target = ring_queue(), ring_queue()
        queue = source.open()
        queue.put("first")
        process = start(
            """
from sage_qd import BaseQueueDescriptor, migrate
source, target = map(BaseQueueDescriptor.from_json, sys.argv[2:4])
say("ready"), hear()
migrate(source, target)
""",
            source.to_json(),
            target.to_json(),
        )
        process.hear()
        process.tell()
        for _ in range(turn * 40):
            queue.qsize()  # some microseconds each
        os.kill(process.pid, signal.SIGKILL)
        process.process.wait()

        queue.put("second")
        moved = queue.ring.is_sealed()
        before, after = before + (not moved), after + moved
        assert [queue.get(timeout=30), queue.get(timeout=30)] == ["first", "second"]
        assert migrate(source, target).descriptor == target
        queue.put("third")
        assert target.get(timeout=0) == "third"
        target.close()
        queue.close()
    assert before + after == 40
