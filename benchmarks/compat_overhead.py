"""What `create_queue` costs in mode descriptor, over the descriptor itself: one put and one get in one thread.

    python benchmarks/compat_overhead.py

Both take turns in each repetition; the figure is the ratio of the shortest, which other programs disturb least. The bar
is 1.10 for what old programs put, which are objects; the row of bare bytes shows what is left when nothing has to be
pickled.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
import uuid
from typing import Any

from sage_compat import create_queue, set_mode
from sage_qd import LocalQueueDescriptor, SageQueueDescriptor

BAR = 1.10
REPETITIONS = 200
CALLS = 1_000
PACKET = {"source": "map-2", "key": "user-4711", "payload": list(range(20)), "meta": {"at": 17.5, "tags": ["a", "b"]}}
ROWS = (
    ("packet of a stream", "sage", PACKET, True),
    ("small tuple with a dict", "sage", ("job", 17, {"a": 1, "b": "text"}), True),
    ("64 bytes", "sage", b"x" * 64, False),
    ("between threads", "python", PACKET, True),
)


def nanoseconds(queue: Any, item: object) -> float:
    """One put and one get, on average."""
    put, get = queue.put, queue.get
    began = time.perf_counter_ns()
    for _ in range(CALLS):
        put(item)
        get()
    return (time.perf_counter_ns() - began) / CALLS


def main() -> int:
    """Print the table; 1 when a row that has a bar does not reach it."""
    missed = False
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        os.environ["SAGE_COMPAT_DIR"] = folder
        set_mode("descriptor")
        for figure, backend, item, has_bar in ROWS:
            kind = SageQueueDescriptor if backend == "sage" else LocalQueueDescriptor
            plain = kind(queue_id=f"overhead-{uuid.uuid4().hex[:8]}")
            compat = create_queue(backend, name=f"overhead-{uuid.uuid4().hex[:8]}")
            plain.open()
            times: tuple[list[float], list[float]] = ([], [])
            for _ in range(REPETITIONS):
                times[0].append(nanoseconds(plain, item))
                times[1].append(nanoseconds(compat, item))
            ratio = min(times[1]) / min(times[0])
            verdict = "no bar" if not has_bar else "yes" if ratio <= BAR else "no"
            missed |= verdict == "no"
            print(
                f"{figure:<24} descriptor {min(times[0]):8.0f} ns   create_queue {min(times[1]):8.0f} ns   "
                f"{ratio:5.2f} (<= {BAR:.2f}: {verdict})"
            )
            plain.close()
            compat.close()
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
