"""Many threads on one handle, and on several handles of one ring, in one process."""

import threading
from collections import Counter
from collections.abc import Callable

import pytest

from sage_qd import errors
from sage_qd.ring import Ring

pytestmark = pytest.mark.timeout(120)
NewRing = Callable[..., Ring]
END = b"end"


def run_all(*works: Callable[[], None]) -> None:
    """Run all at once; the first exception of any is raised."""
    failures: list[BaseException] = []

    def guarded(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - raised again below
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for failure in failures:
        raise failure


def in_order(items: list[bytes], producers: int) -> bool:
    """Whether each producer's numbers come in the order they were put."""
    for producer in range(producers):
        numbers = [int(item.split(b":")[1]) for item in items if item.startswith(b"%d:" % producer)]
        if numbers != sorted(numbers):
            return False
    return True


WAYS = {
    "single items": (lambda ring, items: [ring.put(item) for item in items], lambda ring: [ring.get()]),
    "batches": (lambda ring, items: ring.put_many(items), lambda ring: ring.get_many(7)),
    "parts": (
        lambda ring, items: [ring.put_vectored([item[:2], item[2:]]) for item in items],
        lambda ring: [ring.get()],
    ),
}


def leased(ring: Ring) -> list[bytes]:
    with ring.lease() as lease:
        return [lease.value]


WAYS["leases"] = (WAYS["single items"][0], leased)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("settings", [{}, {"max_items": 3}, {"capacity_bytes": 4096}], ids=["roomy", "items", "bytes"])
def test_four_producers_and_four_consumers_on_one_handle_lose_nothing(
    new_ring: NewRing, way: str, settings: dict
) -> None:
    ring = new_ring(**settings)
    put, take = WAYS[way]
    taken: list[list[bytes]] = [[] for _ in range(4)]
    each = 300

    def produce(number: int) -> None:
        put(ring, [b"%d:%d" % (number, at) for at in range(each)])

    def consume(into: list[bytes]) -> None:
        while END not in into:
            into += take(ring)
        for surplus in [item for item in into if item == END][1:]:  # a batch may hold what is for another
            ring.put(surplus)
        into[:] = [item for item in into if item != END]

    def produce_all() -> None:
        run_all(*(lambda number=number: produce(number) for number in range(4)))
        for _ in range(4):
            ring.put(END)

    run_all(produce_all, *(lambda into=into: consume(into) for into in taken))

    everything = Counter(item for items in taken for item in items)
    assert everything == Counter(b"%d:%d" % (number, at) for number in range(4) for at in range(each))
    assert all(in_order(items, 4) for items in taken)


def test_single_roles_may_be_shared_by_the_threads_of_one_handle(new_ring: NewRing) -> None:
    ring = new_ring(single_producer=True, single_consumer=True, max_items=10)
    taken: list[bytes] = []

    run_all(
        *[lambda: [ring.put(b"x") for _ in range(500)] and None for _ in range(3)],
        *[lambda: taken.extend(ring.get() for _ in range(500)) for _ in range(3)],
    )

    assert (len(taken), ring.qsize()) == (1500, 0)


def test_handles_of_one_process_are_parties_of_their_own(ring: Ring, attached: NewRing) -> None:
    other = attached()
    ring.put_many([b"a", b"b"])

    with ring.lease() as mine, other.lease() as theirs:
        assert (mine.value, theirs.value) == (b"a", b"b")
    assert ring.stats() == other.stats()


def test_a_large_item_gets_in_among_many_small_ones(new_ring: NewRing) -> None:
    """It has no priority, but room comes by as soon as a consumer lets the ring run low (docs: fairness)."""
    ring = new_ring(capacity_bytes=4096, spill_threshold=4096)
    large = b"L" * 3000
    done = threading.Event()
    taken: list[bytes] = []

    def put_small() -> None:
        while not done.is_set():
            try:
                ring.put(b"s" * 100, timeout=0.01)
            except errors.Full:
                continue

    def take() -> None:
        while not done.is_set():
            try:
                taken.extend(ring.get_many(100, timeout=0.01))
            except errors.Empty:
                continue

    def put_large() -> None:
        try:
            for _ in range(3):
                ring.put(large)
        finally:
            done.set()

    run_all(put_small, put_small, put_small, take, put_large)
    while not ring.empty():
        taken.append(ring.get())

    assert taken.count(large) == 3


def test_other_threads_run_while_one_waits(ring: Ring, in_thread: Callable) -> None:
    answer = in_thread(ring.get)

    while ring.stats().get_blocked < 3:  # it sleeps for the third time, and this loop runs beside it
        continue
    ring.put(b"x")

    assert answer() == b"x"


def test_every_waiting_thread_gets_one_item_each(ring: Ring, in_thread: Callable, eventually: Callable) -> None:
    answers = [in_thread(ring.get) for _ in range(20)]
    eventually(lambda: ring.stats().get_waiters >= 20)

    ring.put_many([b"%d" % number for number in range(20)])

    assert sorted(int(answer()) for answer in answers) == list(range(20))
    assert ring.empty()
