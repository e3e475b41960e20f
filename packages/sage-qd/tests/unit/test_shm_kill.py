"""A process that is killed before any store into shared memory leaves a queue that is as before, or as after."""

import multiprocessing
import os
import signal
import uuid
from collections.abc import Callable, Iterator
from struct import Struct
from typing import Any

import pytest

from sage_qd import QueueMovedError, SharedMemoryQueue, SharedMemoryQueueDescriptor, ShutDown
from sage_qd.queues import shm_layout, shm_store

FORK = multiprocessing.get_context("fork")
MOST_STORES = 60


class Countdown:
    """Kills this process before its n-th store."""

    def __init__(self, stores: int) -> None:
        self.left = stores

    def __call__(self) -> None:
        self.left -= 1
        if not self.left:
            os.kill(os.getpid(), signal.SIGKILL)


class WatchedBytes:
    """A memoryview that counts what is stored into it, also through its parts."""

    def __init__(self, view: memoryview, tick: Callable[[], None]) -> None:
        self.view = view
        self.tick = tick

    def __getitem__(self, at: Any) -> Any:
        found = self.view[at]
        return WatchedBytes(found, self.tick) if isinstance(found, memoryview) else found

    def __setitem__(self, at: Any, value: Any) -> None:
        self.tick()
        self.view[at] = value

    def __bytes__(self) -> bytes:
        return bytes(self.view)

    def cast(self, kind: Any) -> "WatchedBytes":
        return WatchedBytes(self.view.cast(kind), self.tick)

    def release(self) -> None:
        self.view.release()


class WatchedStruct:
    """A Struct that counts what it packs."""

    def __init__(self, struct: Struct, tick: Callable[[], None]) -> None:
        self.struct = struct
        self.tick = tick
        self.pack = struct.pack

    def pack_into(self, buffer: Any, *rest: Any) -> None:
        self.tick()
        self.struct.pack_into(getattr(buffer, "view", buffer), *rest)

    def unpack_from(self, buffer: Any, *rest: Any) -> Any:
        return self.struct.unpack_from(getattr(buffer, "view", buffer), *rest)


def act_and_die(descriptor: SharedMemoryQueueDescriptor, action: str, stores: int) -> None:
    queue = descriptor.attach()
    lease = queue.lease() if action in ("ack", "nack") else None
    tick = Countdown(stores)
    memory: Any = queue._segment.memory
    for name in ("_bytes", "_words", "_data"):
        setattr(memory, name, WatchedBytes(getattr(memory, name), tick))
    for name in ("_STATE", "_RECORD"):
        setattr(shm_layout, name, WatchedStruct(getattr(shm_layout, name), tick))
    ACTIONS[action](queue, lease)
    os._exit(0)


ACTIONS: dict[str, Callable[[SharedMemoryQueue[Any], Any], Any]] = {
    "put": lambda queue, lease: queue.put(b"e"),
    "put_many": lambda queue, lease: queue.put_many([b"e", b"f"]),
    "get": lambda queue, lease: queue.get(),
    "get_many": lambda queue, lease: queue.get_many(2),
    "lease": lambda queue, lease: queue.lease(),
    "ack": lambda queue, lease: lease.ack(),
    "nack": lambda queue, lease: lease.nack(),
    "clear": lambda queue, lease: queue.clear(),
    "shutdown": lambda queue, lease: queue.shutdown(),
    "shutdown_immediate": lambda queue, lease: queue.shutdown(immediate=True),
    "seal": lambda queue, lease: queue.seal("successor"),
}
A, B, C, D, E, F = (bytes([code]) for code in b"abcdef")
ALL = [A, B, C, D]


def allowed(action: str, first_is_leased: bool) -> list[list[bytes]]:
    """What may be there afterwards."""
    after_first = [A, C, D] if first_is_leased else [B, C, D]
    after_two = [[A, C, D], [A, D]] if first_is_leased else [[C, D]]  # what overtakes is taken one by one
    return {
        "put": [ALL, [*ALL, E]],
        "put_many": [ALL, [*ALL, E, F]],
        "get": [ALL, after_first],
        "get_many": [ALL, *after_two],
        "lease": [ALL],
        "ack": [ALL, after_first],
        "nack": [ALL],
        "clear": [ALL, [A, C, D], [A, D], [A]] if first_is_leased else [ALL, []],
        "shutdown": [ALL],
        "shutdown_immediate": [ALL, [A, C, D], [A, D], [A], []] if first_is_leased else [ALL, []],
        "seal": [ALL],
    }[action]


@pytest.fixture
def prepared() -> Iterator[Callable[[], SharedMemoryQueue[bytes]]]:
    made: list[SharedMemoryQueue[bytes]] = []

    def prepare() -> SharedMemoryQueue[bytes]:
        made.append(SharedMemoryQueueDescriptor(f"kill-{uuid.uuid4().hex}", codec="raw").open())
        made[-1].follow(None)  # the successor of these is no queue
        made[-1].put_many(ALL)
        return made[-1]

    yield prepare
    for queue in made:
        queue.close()


def drained(queue: SharedMemoryQueue[bytes]) -> list[bytes]:
    messages = []
    while True:
        try:
            if not queue.wait_message(timeout=0):
                return messages
            messages.append(queue.get(timeout=0))
        except (ShutDown, QueueMovedError):
            return messages


@pytest.mark.parametrize("first_is_leased", [False, True], ids=["nothing_leased", "the_oldest_leased"])
@pytest.mark.parametrize("action", ACTIONS)
def test_killed_before_any_store_it_is_as_before_or_as_after(
    action: str, first_is_leased: bool, prepared: Callable[[], SharedMemoryQueue[bytes]]
) -> None:
    for stores in range(1, MOST_STORES):
        queue = prepared()
        lease = queue.lease() if first_is_leased else None
        child = FORK.Process(target=act_and_die, args=(queue.descriptor, action, stores))
        child.start()
        child.join(60)

        if lease is not None:
            lease.nack()
        figures = queue.stats()
        unfinished = queue._changes.change(lambda state: state.unfinished)
        remaining = drained(queue)

        assert figures.puts == figures.gets + figures.depth
        assert (figures.leased, figures.depth) == (0, len(remaining)) or figures.is_shutdown
        assert remaining in allowed(action, first_is_leased)
        if action in ("ack", "clear", "shutdown_immediate", "put", "put_many"):
            assert unfinished == figures.depth
        assert queue.stats().bytes_put == queue.stats().bytes_taken or figures.is_shutdown
        queue.close()
        if child.exitcode == 0:
            assert stores > 1, "it made no store"
            return
        assert child.exitcode == -signal.SIGKILL
    raise AssertionError("it never came to its end")


def test_recovery_can_be_killed_itself(prepared: Callable[[], SharedMemoryQueue[bytes]]) -> None:
    """The one who counts anew is killed at each of its stores, too, and the next one counts again."""
    for stores in range(1, 8):
        queue = prepared()
        held = queue.lease()
        dying = FORK.Process(target=act_and_die, args=(queue.descriptor, "get_many", 4))
        dying.start()
        dying.join(60)
        assert dying.exitcode == -signal.SIGKILL
        assert queue._segment.memory.busy == shm_store.Busy.TAKING

        recovering = FORK.Process(target=act_and_die, args=(queue.descriptor, "put", stores))
        recovering.start()
        recovering.join(60)

        held.nack()
        remaining = drained(queue)
        assert [message for message in remaining if message != E] in ([A, C, D], [A, D])
        assert queue.stats().puts == queue.stats().gets
