"""Mixed traffic for a long time, with processes that are killed: what grows (R30).

This process and its peers put, get, lease, give back, spill, view, and open and close handles, round after round; each
round a peer is killed. After each round the queue is drained and its namespace cleaned, as a user would do it, of the
spill files of the killed one. Nothing may be in use then: no bytes of the ring, no leases, no files. The memory and the
descriptors of this process are compared between the beginning, after a warm-up, and the end.
"""

from __future__ import annotations

import gc
import os
import random
import secrets
import select
import shutil
import signal
import sys
import time
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from row import Row, arguments

from sage_qd import Empty, Full, SageQueue, SageQueueDescriptor
from sage_qd import ring as rings

NAMESPACE = f"soak-{secrets.token_hex(8)}"
SECONDS, LONG_SECONDS = 60, 3600
WARM_UP = 0.2
"""The share of the time after which nothing may grow any more."""
NOISE_KIB = 1024
"""
How much the memory may have grown: one arena of Python's allocator, or a few of the largest messages that the C library
keeps for the next one. It comes in one step, once; a leak goes on, so the long form finds one of 0.1 KiB a round.
"""
PEERS = 3
OPERATIONS = 400
SPILLED = bytes(300_000)
PATIENCE_SECONDS = 30


@dataclass(frozen=True)
class Sample:
    """What was in use after one round."""

    memory_kib: int
    descriptors: int
    ring_bytes: int
    leased: int
    files: int


def main() -> int:
    """Run R30; 1 when it failed."""
    options = arguments(__doc__ or "")
    good = soak(options)
    shutil.rmtree(Path(rings.directory(), NAMESPACE), ignore_errors=True)
    return 0 if good else 1


def soak(options: Namespace) -> bool:
    """Go round after round, and compare."""
    seconds = LONG_SECONDS if options.long else SECONDS
    bound = f"after {seconds} s: 0 descriptors, 0 bytes of the ring, 0 files; memory at most {NOISE_KIB} KiB more"
    row = Row.begin(options, "R30", "drift in a long run with kills", bound)
    chance = random.Random(options.seed)
    samples: list[tuple[float, Sample]] = []
    descriptor = SageQueueDescriptor("soak", namespace=NAMESPACE, capacity_bytes=1 << 18)
    begun = time.monotonic()
    with descriptor.open() as queue:
        while (passed := time.monotonic() - begun) < seconds:
            one_round(queue, chance)
            samples.append((passed, sample(queue)))
        puts, recoveries = queue.stats().puts, queue.stats().put_recoveries + queue.stats().get_recoveries
    steady = [found for passed, found in samples if passed > WARM_UP * seconds]
    third = max(len(steady) // 3, 1)
    first, last = steady[:third], steady[-third:]
    memory = median(found.memory_kib for found in last) - median(found.memory_kib for found in first)
    descriptors = last[-1].descriptors - first[0].descriptors
    kept = max(found.ring_bytes + found.leased for _, found in samples)
    files = max(found.files for _, found in samples) - 1
    value = (
        f"{len(samples):,} rounds, {puts:,} messages, {len(samples):,} kills, {recoveries} locks taken over: "
        f"memory {memory:+.0f} KiB, descriptors {descriptors:+d}, in use when drained {kept}, files {files}"
    )
    return row.report(value, memory <= NOISE_KIB and not (descriptors or kept or files))


def one_round(queue: SageQueue[object], chance: random.Random) -> None:
    """Have peers at work beside this process, kill one of them, wait for the others, and drain the queue."""
    peers = [forked(queue, chance.randrange(2**32)) for _ in range(PEERS)]
    traffic(queue, chance.randrange(2**32), OPERATIONS // 4)
    os.kill(peers[0], signal.SIGKILL)
    for at, peer in enumerate(peers):
        pidfd = os.pidfd_open(peer)
        assert select.select([pidfd], [], [], PATIENCE_SECONDS)[0], f"process {peer} hangs"
        os.close(pidfd)
        status = os.waitpid(peer, 0)[1]
        assert at == 0 or status == 0, f"process {peer} ended with {status}"
    drain(queue)
    rings.clean_segments(namespace=NAMESPACE)


def forked(queue: SageQueue[object], seed: int) -> int:
    """Start a peer."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        traffic(queue, seed, OPERATIONS)
        code = 0
    finally:
        os._exit(code)


def traffic(queue: SageQueue[object], seed: int, operations: int) -> None:
    """Do some of everything, never waiting long."""
    chance = random.Random(seed)
    for _ in range(operations):
        try:
            one_operation(queue, chance)
        except (Empty, Full):
            continue


def one_operation(queue: SageQueue[object], chance: random.Random) -> None:
    """Put, get, or use a handle, in one of ten ways."""
    kind = chance.randrange(10)
    if kind < 3:
        queue.put(bytes(chance.randrange(2_000)), timeout=0.001)
    elif kind == 3:
        queue.put_many([{"number": number} for number in range(8)], timeout=0.001)
    elif kind == 4:
        queue.put(SPILLED, block=False)
    elif kind == 5:
        queue.get_many(16, timeout=0.001)
    elif kind == 6:
        lease = queue.lease(block=False)
        (lease.ack if chance.random() < 0.5 else lease.nack)()
    elif kind == 7:
        with queue.view(block=False) as lease:
            assert lease.value is not None
    elif kind == 8 and queue.descriptor is not None:
        queue.descriptor.attach().close()
    else:
        queue.get(block=False)


def drain(queue: SageQueue[object]) -> None:
    """Take everything, also what the killed one had on lease."""
    while True:
        try:
            queue.get(timeout=0.001)
        except Empty:
            if not queue.stats().leased:
                return


def sample(queue: SageQueue[object]) -> Sample:
    """Look at what is in use now."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    stats = queue.stats()
    return Sample(
        memory_kib=pages * (os.sysconf("SC_PAGE_SIZE") // 1024),
        descriptors=len(os.listdir("/proc/self/fd")),
        ring_bytes=stats.depth_bytes,
        leased=stats.leased,
        files=sum(path.is_file() for path in Path(rings.directory(), NAMESPACE).rglob("*")),
    )


if __name__ == "__main__":
    sys.exit(main())
