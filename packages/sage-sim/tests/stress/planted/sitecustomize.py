"""Puts something broken under every process of a run: PLANT says what, and how it goes wrong."""

import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

HUNDREDTH, NEXT = 100, 101
LATE_SECONDS = 0.15
Put = Callable[[Any], None]


def break_put(wrap: Callable[[Any, Put], Put]) -> None:
    """Give every queue of shared memory, every one at a server, or every one of Ray, another `put`."""
    from sage_qd.queues.ray_queue import RayQueue
    from sage_qd.queues.rpc.queue import RPCQueue
    from sage_qd.queues.sage_ring import SageQueue
    from sage_qd.queues.shared_memory import SharedMemoryQueue
    from sage_sim.ray_queues import DurableChannel

    others: dict[str, tuple[Any, ...]] = {"again": (RPCQueue,), "deaf": (RayQueue,), "forgetful": (DurableChannel,)}
    for kind in others.get(os.environ["PLANT"], (SageQueue, SharedMemoryQueue)):
        _break_put_of(kind, wrap)


def _break_put_of(kind: Any, wrap: Callable[[Any, Put], Put]) -> None:
    make = kind.__init__

    def broken(self: Any, *arguments: Any, **settings: Any) -> None:
        make(self, *arguments, **settings)
        self.put = wrap(self, self.put)

    kind.__init__ = broken


def break_sequence(how: str) -> Callable[[Any, Put], Put]:
    """The 100th put of each process is lost, doubled, or overtaken by the next one."""

    def wrap(_queue: Any, put: Put) -> Put:
        seen: list[object] = []

        def broken(message: object) -> None:
            seen.append(message)
            if len(seen) == HUNDREDTH and how in ("lose", "swap"):
                return
            put(message)
            if len(seen) == HUNDREDTH and how == "double":
                put(message)
            if len(seen) == NEXT and how == "swap":
                put(seen[-2])

        return broken

    return wrap


def drop_late(queue: Any, put: Put) -> Put:
    """A message that could not be put soon is forgotten."""

    def broken(message: object) -> None:
        if queue.wait_room(LATE_SECONDS):
            put(message)

    return broken


def swallow(_queue: Any, put: Put) -> Put:
    """What the system refuses is taken for done."""

    def broken(message: object) -> None:
        with suppress(MemoryError, OSError):
            put(message)

    return broken


def again(_queue: Any, put: Put) -> Put:
    """A put whose answer is late is sent once more."""

    def broken(message: object) -> None:
        begin = time.monotonic()
        put(message)
        if time.monotonic() - begin > LATE_SECONDS:
            put(message)

    return broken


def blind(_queue: Any, put: Put) -> Put:
    """Damage, or that the queue is gone, is looked at for ever."""
    from sage_qd import CorruptQueueError, QueueLostError

    def broken(message: object) -> None:
        try:
            put(message)
        except (CorruptQueueError, QueueLostError):
            time.sleep(1000)

    return broken


def forget(_queue: Any, put: Put) -> Put:
    """The first message after the death of an actor is lost."""
    from sage_sim.ray_queues import PerhapsPutError

    died: list[object] = []

    def broken(message: object) -> None:
        if len(died) == 1:
            died.append(message)
            return
        try:
            put(message)
        except PerhapsPutError:
            died.append(message)
            raise

    return broken


def break_ack() -> None:
    """A message is settled before it was worked off."""
    from sage_sim.inlets import Inlets

    take = Inlets.take

    class Settled:
        def __init__(self, lease: Any) -> None:
            self.value, self.attempt = lease.value, lease.attempt
            lease.ack()

        def ack(self) -> None:
            """It is too late."""

    def broken(self: Any, timeout: float | None = None) -> Any:
        line, lease = take(self, timeout)
        return line, Settled(lease)

    Inlets.take = broken  # type: ignore[method-assign]


def break_router() -> None:
    """Each process has an opinion of its own about the keys of some items."""
    from sage_sim.workloads import Workload

    key = Workload.key

    def stray(self: Any, origin: int, sequence: int) -> int:
        return key(self, origin, sequence) + (sequence % HUNDREDTH == 0)

    Workload.key = stray  # type: ignore[method-assign]


def forget_words() -> None:
    """One task in the middle of a job loses some words."""
    from sage_sim import job

    words = job._words
    job._words = lambda line: (word for word in words(line) if word != "lamp")


if os.environ.get("PLANT") == "forget" and "sage_sim" in sys.orig_argv:
    forget_words()
elif "PLANT" in os.environ and "sage_sim.nursery" in sys.orig_argv:
    name = os.environ["PLANT"]
    if name == "stray":
        break_router()
    elif name == "early":
        break_ack()
    else:
        others = {
            "late": drop_late,
            "swallow": swallow,
            "again": again,
            "blind": blind,
            "deaf": blind,
            "forgetful": forget,
        }
        break_put(others.get(name) or break_sequence(name))
