"""The old path by itself: room, kills, sealing, large messages."""

import mmap
import multiprocessing
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sage_compat.legacy import file_files, file_layout
from sage_compat.legacy.descriptor import LegacyQueueDescriptor
from sage_compat.legacy.file_files import clean_file_queues, list_file_queues
from sage_compat.legacy.file_queue import FileQueue
from sage_compat.legacy.thread_queue import ThreadQueue
from sage_compat.places import folder
from sage_qd import Empty, Full, PayloadError, QueueMovedError, SageQueueDescriptor, migrate, resolve_descriptor
from sage_qd.testing import background

FORK = multiprocessing.get_context("fork")
MOST_STORES = 40


@pytest.mark.parametrize("seed", range(12))
def test_it_is_full_at_the_same_message_as_the_ring(queue_id: str, seed: int) -> None:
    chosen = random.Random(seed)
    settings = {"capacity_bytes": chosen.choice([10, 4096, 5000, 16384]), "maxsize": chosen.choice([0, 0, 7])}

    def answer(queue: Any, action: float, item: object) -> object:
        try:
            if action < 0.55:
                return queue.put(item, False)
            if action < 0.9:
                return queue.get(False)
        except (Empty, Full) as error:
            return type(error)
        return queue.qsize(), queue.empty(), queue.full()

    with (
        LegacyQueueDescriptor(queue_id=queue_id, **settings).open() as old,
        SageQueueDescriptor(queue_id=queue_id, **settings).open() as new,
    ):
        for _ in range(400):
            action = chosen.random()
            item = chosen.choice([b"x" * chosen.randrange(6000), chosen.randrange(10**9), "t" * chosen.randrange(5000)])
            assert answer(old, action, item) == answer(new, action, item)


def act_and_die(descriptor: LegacyQueueDescriptor, action: str, stores: int) -> None:
    queue = descriptor.attach()
    circle: Any = queue._circle
    left = stores

    class Watched(mmap.mmap):
        """The mapping, which kills this process before its n-th store."""

        def __setitem__(self, at: Any, value: Any) -> None:
            nonlocal left
            left -= 1
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)
            super().__setitem__(at, value)

    circle._map = Watched(queue._files.memory, len(circle._map))
    {"put": lambda: queue.put("third"), "get": queue.get, "clear": queue.clear, "seal": lambda: queue.seal("{}")}[
        action
    ]()
    os._exit(0)


@pytest.mark.parametrize("action", ["put", "get", "clear", "seal"])
def test_whoever_is_killed_before_any_store_leaves_the_queue_as_before_or_as_after(queue_id: str, action: str) -> None:
    outcomes = set()
    for stores in range(1, MOST_STORES):
        descriptor = LegacyQueueDescriptor(queue_id=f"{queue_id}-{stores}")
        with descriptor.open() as queue:
            queue.follow(None)
            queue.put("first")
            queue.put("second")
            process = FORK.Process(target=act_and_die, args=(descriptor, action, stores))
            process.start()
            process.join()
            left = []
            sealed = queue.successor() is not None
            while queue.qsize():
                left.append(queue.get())
            outcomes.add((tuple(left), sealed))
            if process.exitcode == 0:
                break
    else:
        pytest.fail("it never came to its end")
    after = {
        "put": (("first", "second", "third"), False),
        "get": (("second",), False),
        "clear": ((), False),
        "seal": (("first", "second"), True),
    }[action]
    assert outcomes == {(("first", "second"), False), after}


def test_a_message_beyond_a_quarter_of_the_room_lies_beside_it_until_it_is_taken(queue_id: str) -> None:
    with LegacyQueueDescriptor(queue_id=queue_id, capacity_bytes=4096).open() as queue:
        before = set(os.listdir(Path(queue._files.path).parent))
        queue.put(b"x" * 1_000_000)
        assert len(set(os.listdir(Path(queue._files.path).parent)) - before) == 1

        assert queue.get() == b"x" * 1_000_000
        assert set(os.listdir(Path(queue._files.path).parent)) == before


def test_a_message_that_finds_no_room_leaves_no_file(queue_id: str) -> None:
    with LegacyQueueDescriptor(queue_id=queue_id, maxsize=1, capacity_bytes=4096).open() as queue:
        queue.put(1)
        before = set(os.listdir(Path(queue._files.path).parent))

        with pytest.raises(Full):
            queue.put(b"x" * 100_000, timeout=0.01)

        assert set(os.listdir(Path(queue._files.path).parent)) == before


def test_it_works_where_no_ring_can_be_imported(queue_id: str) -> None:
    program = (
        "import sys; sys.modules['sage_qd.ring._ring'] = None\n"
        "from sage_compat.legacy.file_queue import FileQueue\n"
        f"queue = FileQueue.open({queue_id!r}); queue.put(('a', 1)); assert queue.get() == ('a', 1); queue.close()\n"
        "assert not [name for name in sys.modules if name.startswith('sage_qd.ring.')][1:], 'the ring was loaded'\n"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


def test_the_last_one_removes_it_and_whoever_is_killed_does_not(queue_id: str) -> None:
    descriptor = LegacyQueueDescriptor(queue_id=queue_id)
    first, second = descriptor.open(), descriptor.attach()
    first.close()
    assert list_file_queues() == [queue_id]

    second.close()
    assert list_file_queues() == []

    FORK.Process(
        target=lambda: (LegacyQueueDescriptor(queue_id=queue_id).open().put(1), os.kill(os.getpid(), 9))
    ).start()
    while not list_file_queues():
        pass
    for child in multiprocessing.active_children():
        child.join()
    assert clean_file_queues() == [queue_id]


def test_a_message_that_cannot_be_read_is_taken_out_and_told(queue_id: str) -> None:
    with LegacyQueueDescriptor(queue_id=queue_id).open() as queue:
        queue._put_payload(b"no pickle", 0, 0)
        queue.put("next")

        with pytest.raises(PayloadError) as caught:
            queue.get()

        assert caught.value.payload == b"no pickle"
        assert queue.get() == "next"


def test_it_moves_to_the_ring_and_back_under_its_users(queue_id: str) -> None:
    old = LegacyQueueDescriptor(queue_id=queue_id)
    ring = SageQueueDescriptor(queue_id=queue_id)
    with old.open() as queue:
        queue.put(1)
        migrate(old, to=ring, timeout=0)
        queue.put(2)
        migrate(ring, to=LegacyQueueDescriptor(queue_id=f"{queue_id}.g3"), timeout=0)
        queue.put(3)

        assert [queue.get(), queue.get(), queue.get()] == [1, 2, 3]


def test_other_programs_find_the_kind_without_importing_sage_compat() -> None:
    assert resolve_descriptor(LegacyQueueDescriptor(queue_id="x").to_dict()) == LegacyQueueDescriptor(queue_id="x")


def test_a_damaged_file_is_told_as_damage(queue_id: str) -> None:
    with LegacyQueueDescriptor(queue_id=queue_id).open() as queue:
        queue._circle._map[file_layout._CHOICE_AT] = 7

        with pytest.raises(Exception, match="choice of the state"):
            queue.get_nowait()

        queue._circle._map[file_layout._CHOICE_AT] = 0


# -- Between threads ---------------------------------------------------------------------------------------------------


def test_a_sealed_thread_queue_hands_out_what_it_holds_and_then_names_its_successor() -> None:
    queue = ThreadQueue(2)
    queue.put(1)
    assert queue.seal("elsewhere") == 1

    with pytest.raises(QueueMovedError):
        queue.put(2)
    assert (queue.qsize(), queue.empty(), queue.get()) == (1, False, 1)
    with pytest.raises(QueueMovedError) as caught:
        queue.get()
    assert caught.value.successor == "elsewhere"
    assert queue.empty()


def test_a_seal_wakes_those_who_wait_at_a_thread_queue() -> None:
    full, empty = ThreadQueue(1), ThreadQueue()
    full.put(1)
    putting, taking = background(lambda: full.put(2)), background(empty.get)
    full.seal("a")
    empty.seal("b")

    for waiting in (putting, taking):
        with pytest.raises(QueueMovedError):
            waiting.result()


def test_a_fork_shares_the_queue_and_not_the_lock(queue_id: str) -> None:
    queue: FileQueue[Any] = FileQueue.open(queue_id)

    def many() -> None:
        for number in range(300):
            queue.put(number)

    child = FORK.Process(target=many)
    child.start()
    many()
    child.join()

    assert sorted(queue.get() for _ in range(600)) == sorted([*range(300)] * 2)
    queue.close()


def test_making_a_queue_leaves_no_file_when_it_is_cut_off(queue_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(os, "pwrite", killed)
    child = FORK.Process(target=FileQueue.open, args=(queue_id,))
    child.start()
    child.join()

    assert child.exitcode == -signal.SIGKILL
    assert os.listdir(folder("queues")) == []


def test_a_queue_is_made_where_files_need_names(queue_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_files, "_NAMELESS", None)

    with FileQueue.open(queue_id) as queue:
        queue.put(1)
        assert not [name for name in os.listdir(folder("queues")) if name.startswith("~")]
        assert queue.get() == 1
