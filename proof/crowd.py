"""Many processes at one end of a queue: how many are woken for one message (R28), and who gets the room (R29)."""

from __future__ import annotations

import gc
import mmap
import os
import secrets
import select
import shutil
import signal
import struct
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from row import Row, arguments

from sage_qd import SageQueue, SageQueueDescriptor, ShutDown
from sage_qd import ring as rings

NAMESPACE = f"crowd-{secrets.token_hex(8)}"
PATIENCE_SECONDS = 60
WAITERS = 64
PRODUCERS = 8
MOST_WAKES = 2.0
LEAST_JAIN = 0.9
LONGEST_WAIT_SECONDS = 1.0
NOT_EMPTY_SEQUENCE = 384  # offset of not_empty.sequence, asserted in ring_layout.h: grows by one for each futex wake
MESSAGE = bytes(64)


def main() -> int:
    """Run both rows; 1 when one failed."""
    options = arguments(__doc__ or "")
    good = [herd(options), fairness(options)]
    shutil.rmtree(Path(rings.directory(), NAMESPACE), ignore_errors=True)
    return 0 if all(good) else 1


# -- Processes --------------------------------------------------------------------------------------------------------


@contextmanager
def crowd(count: int, work: Callable[[int], None]) -> Iterator[None]:
    """Have so many forked processes at work; the block ends their work, and they have to end by themselves then."""
    gc.freeze()  # what is there stays shared with all of them
    children = [_forked(work, index) for index in range(count)]
    gc.unfreeze()
    try:
        yield
    finally:
        give_up = time.monotonic() + PATIENCE_SECONDS
        for child in children:
            pidfd = os.pidfd_open(child)
            if not select.select([pidfd], [], [], max(0.0, give_up - time.monotonic()))[0]:
                os.kill(child, signal.SIGKILL)
            os.close(pidfd)
        ends = [os.waitpid(child, 0)[1] for child in children]
        assert not any(ends), f"processes ended with {ends}"


def _forked(work: Callable[[int], None], index: int) -> int:
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        work(index)
        code = 0
    finally:
        os._exit(code)


def take_all(queue: SageQueue[bytes]) -> None:
    """Get until the queue is shut down."""
    try:
        while True:
            queue.get()
    except ShutDown:
        return


# -- R28: wakes for one message ---------------------------------------------------------------------------------------


def herd(options: Namespace) -> bool:
    """Put messages one by one while 64 processes wait, once with all of them asleep, once at full speed."""
    row = Row.begin(options, "R28", f"futex wakes for a message, {WAITERS} processes waiting", f"at most {MOST_WAKES}")
    calm, fast = (20_000, 2_000_000) if options.long else (1_000, 100_000)
    queue = SageQueueDescriptor("herd", namespace=NAMESPACE).open()
    with queue, crowd(WAITERS, lambda index: take_all(queue)):
        asleep = wakes_for(queue, calm, one_at_a_time=True)
        hurried = wakes_for(queue, fast, one_at_a_time=False)
        queue.shutdown()
    value = f"{asleep:.3f} when all were asleep ({calm:,} messages), {hurried:.3f} at full speed ({fast:,} messages)"
    return row.report(value, max(asleep, hurried) <= MOST_WAKES)


def wakes_for(queue: SageQueue[bytes], messages: int, *, one_at_a_time: bool) -> float:
    """Futex wakes of consumers for each message put."""
    await_(lambda: queue.stats().get_waiters >= WAITERS)
    before = wakes(queue)
    for _ in range(messages):
        queue.put(MESSAGE)
        if one_at_a_time:
            await_(queue.empty)
            await_(lambda: queue.stats().get_waiters >= WAITERS)
    await_(queue.empty)
    return ((wakes(queue) - before) % 2**32) / messages


def wakes(queue: SageQueue[bytes]) -> int:
    """The counter of wakes in the segment itself."""
    with mmap.mmap(queue.fileno(), mmap.PAGESIZE, prot=mmap.PROT_READ) as header:
        count: int = struct.unpack_from("=I", header, NOT_EMPTY_SEQUENCE)[0]
        return count


def await_(condition: Callable[[], bool]) -> None:
    """Look until it holds."""
    give_up = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < give_up, "the processes never came to wait"
        os.sched_yield()


# -- R29: room for everybody ------------------------------------------------------------------------------------------


def fairness(options: Namespace) -> bool:
    """Have 8 processes put as fast as they can into a queue that one process empties: it is full all the time."""
    seconds = 60.0 if options.long else 8.0
    bound = f"Jain at least {LEAST_JAIN} / longest wait at most {LONGEST_WAIT_SECONDS:g} s"
    row = Row.begin(options, "R29", f"{PRODUCERS} equal producers on a full queue", bound)
    board = mmap.mmap(-1, mmap.PAGESIZE)
    queue = SageQueueDescriptor("fairness", namespace=NAMESPACE, maxsize=64).open()
    with queue, crowd(PRODUCERS, lambda index: put_all(queue, board, index)):
        await_(queue.full)
        begun, taken, end = shares(board), 0, time.monotonic() + seconds
        while time.monotonic() < end:
            queue.get()
            taken += 1
        counts = [after - before for after, before in zip(shares(board), begun, strict=True)]
        queue.shutdown(immediate=True)
    longest = max(struct.unpack_from("=qq", board, index * 16)[1] for index in range(PRODUCERS)) / 1e9
    jain = sum(counts) ** 2 / (PRODUCERS * sum(count * count for count in counts))
    value = (
        f"Jain {jain:.3f}, longest wait {longest * 1000:.0f} ms; {taken:,} messages in {seconds:g} s, "
        f"{min(counts):,} to {max(counts):,} of one producer"
    )
    return row.report(value, jain >= LEAST_JAIN and longest <= LONGEST_WAIT_SECONDS)


def shares(board: mmap.mmap) -> list[int]:
    """How many messages each producer has put."""
    return [struct.unpack_from("=qq", board, index * 16)[0] for index in range(PRODUCERS)]


def put_all(queue: SageQueue[bytes], board: mmap.mmap, index: int) -> None:
    """Put until the queue is shut down; note how many, and the longest that one put took."""
    count = longest = 0
    try:
        while True:
            began = time.monotonic_ns()
            queue.put(MESSAGE)
            count += 1
            longest = max(longest, time.monotonic_ns() - began)
            struct.pack_into("=qq", board, index * 16, count, longest)
    except ShutDown:
        return


if __name__ == "__main__":
    sys.exit(main())
