"""Who waits for whom, with real processes that really wait."""

import os
import time
from collections.abc import Callable
from typing import Any

import pytest

from sage_qd import SageQueueDescriptor
from sage_qd.monitor import WaitGraph, wait_graph
from sage_qd.ring import Ring, clean_segments

pytestmark = pytest.mark.timeout(120)

FILL = """
mine, other = (attach_or_create(name, namespace=sys.argv[1], max_items=3) for name in sys.argv[2:4])
say("ready")
hear()
while True:
    mine.put(b"message")
"""


@pytest.fixture
def graph(
    namespace: str, eventually: Callable[[Callable[[], Any]], Any]
) -> Callable[[Callable[[WaitGraph], bool]], Any]:
    """Look until the graph is as described: ``graph(lambda seen: ...)``."""

    def look(wanted: Callable[[WaitGraph], bool]) -> WaitGraph:
        def seen() -> WaitGraph | None:
            found = wait_graph(namespace)
            return found if wanted(found) else None

        answer: WaitGraph = eventually(seen)
        return answer

    return look


def test_a_process_that_could_help_keeps_waits_from_being_a_cycle(
    namespace: str, new_ring: Callable[..., Ring], start: Callable, graph: Callable
) -> None:
    new_ring("left", max_items=3)
    new_ring("right", max_items=3)
    processes = [start(FILL, "left", "right"), start(FILL, "right", "left")]
    for process in processes:
        process.hear()
    for process in processes:
        process.tell()

    seen = graph(lambda seen: len(seen.waits) == 2)

    assert seen.cycles == ()
    assert all(os.getpid() in wait.resolvers for wait in seen.waits)


def test_a_dead_lock_is_marked_and_ends_with_one_of_its_processes(
    namespace: str, start: Callable, graph: Callable
) -> None:
    processes = [start(FILL, "left", "right"), start(FILL, "right", "left")]
    for process in processes:
        process.hear()
    for process in processes:
        process.tell()

    seen = graph(lambda seen: bool(seen.cycles))

    pids = tuple(sorted(process.pid for process in processes))
    assert [(cycle.pids, cycle.certain) for cycle in seen.cycles] == [(pids, True)]
    assert {(wait.pid, wait.queue, wait.what) for wait in seen.waits} == {
        (processes[0].pid, f"{namespace}/left", "put"),
        (processes[1].pid, f"{namespace}/right", "put"),
    }
    assert {wait.pid: wait.resolvers for wait in seen.waits} == {
        processes[0].pid: (processes[1].pid,),
        processes[1].pid: (processes[0].pid,),
    }
    assert seen.as_dict()["schema"] == "sage-qd.waits/1"
    processes[0].kill()
    assert graph(lambda seen: len(seen.waits) == 1).cycles == ()
    processes[1].kill()
    clean_segments(namespace)


def test_a_reader_of_an_empty_queue_waits_for_its_writers(
    namespace: str, ring: Ring, start: Callable, graph: Callable
) -> None:
    reader = start("""
ring = attach("ring", namespace=sys.argv[1])
say("ready")
ring.get()
""")
    reader.hear()

    seen = graph(lambda seen: bool(seen.waits))

    assert [(wait.pid, wait.what, wait.resolvers) for wait in seen.waits] == [(reader.pid, "get", (os.getpid(),))]
    assert str(seen.waits[0]).endswith(f"(pid {reader.pid}) waits for a message in {namespace}/ring")
    ring.put(b"message")
    reader.finish()
    assert wait_graph(namespace).waits == ()


def test_readers_do_not_wait_for_each_other(namespace: str, ring: Ring, start: Callable, graph: Callable) -> None:
    readers = [start('say("ready")\nattach("ring", namespace=sys.argv[1]).get()') for _ in range(2)]
    for reader in readers:
        reader.hear()

    seen = graph(lambda seen: len(seen.waits) == 2)

    assert {wait.resolvers for wait in seen.waits} == {(os.getpid(),)}
    ring.put_many([b"a", b"b"])
    for reader in readers:
        reader.finish()


def test_a_wait_for_several_queues_is_seen_at_each(
    namespace: str, new_ring: Callable[..., Ring], start: Callable, graph: Callable
) -> None:
    first, _ = new_ring("first"), new_ring("second")
    reader = start("""
rings = [attach(name, namespace=sys.argv[1]) for name in ("first", "second")]
say("ready")
wait(rings)
""")
    reader.hear()

    seen = graph(lambda seen: len(seen.waits) == 2)

    assert {wait.queue for wait in seen.waits} == {f"{namespace}/first", f"{namespace}/second"}
    first.put(b"message")
    reader.finish()


def test_a_single_consumer_is_the_one_that_a_producer_waits_for(
    namespace: str, new_ring: Callable[..., Ring], start: Callable, graph: Callable
) -> None:
    new_ring("ring", max_items=1, single_consumer=True)
    consumer = start("""
ring = attach("ring", namespace=sys.argv[1])
try:
    ring.get_nowait()
except errors.Empty:
    say("ready")
hear()
""")
    consumer.hear()
    producer = start('ring = attach("ring", namespace=sys.argv[1])\nsay("ready")\nwhile True: ring.put(b"x")')
    producer.hear()

    seen = graph(lambda seen: bool(seen.waits))

    assert [wait.resolvers for wait in seen.waits] == [(consumer.pid,)]


def test_a_stopped_owner_of_a_lock_is_the_one_to_wait_for(
    namespace: str, start: Callable, graph: Callable, eventually: Callable, opened: Any
) -> None:
    """A large copy is done under the lock; a process stopped again and again is caught inside sooner or later."""
    ring = opened(SageQueueDescriptor("ring", namespace=namespace, capacity_bytes=1 << 26).open()).ring
    owner = start("""
ring = attach("ring", namespace=sys.argv[1])
large = bytes(8 << 20)
say("ready")
while True:
    ring.put(large)
    ring.get()
""")
    owner.hear()

    def caught() -> bool:
        owner.signal(19)
        time.sleep(0.002)
        if ring.stats().put_lock_owner == owner.pid:
            return True
        owner.signal(18)
        return False

    eventually(caught)
    waiter = start('ring = attach("ring", namespace=sys.argv[1])\nsay("ready")\nring.put(b"x")\nsay("done")\nhear()')
    waiter.hear()

    seen = graph(lambda seen: bool(seen.waits))

    assert [(wait.pid, wait.what, wait.resolvers) for wait in seen.waits] == [(waiter.pid, "put lock", (owner.pid,))]
    owner.signal(18)
    assert waiter.hear() == "done"
    owner.kill()
    waiter.tell()
    waiter.finish()
