"""
Timed calls of the Python layer, as one JSON line: how many were early, how late the latest was.

Run by ``waiting.py``, also with the wall clock jumping (``clock_shim.c``); ``jumps`` says how many this process saw.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Callable

from sage_qd import Empty, Full
from sage_qd.ring import Ring, create, wait

FAR = 80_000
"""Seconds; a step of the wall clock beyond that is a jump."""


def main(calls: int, seed: int) -> None:
    """Make the calls and print what they took."""
    chance = random.Random(seed)
    with create(anonymous=True) as empty, create(anonymous=True, max_items=1) as full:
        full.put(b"")
        late: list[float] = []
        early = jumps = 0
        kinds = kinds_of_calls(empty, full)
        wall = time.time()
        for _ in range(calls):
            kind, timeout = chance.choice(kinds), chance.choice((0.001, 0.005, 0.02, 0.06))
            start = time.monotonic()
            kind(timeout)
            over = time.monotonic() - start - timeout
            early += over < 0
            late.append(over)
            jumps += abs(time.time() - wall) > FAR
            wall = time.time()
    print(json.dumps({"calls": calls, "early": early, "jumps": jumps, "max_ms": round(max(late) * 1000, 2)}))


def kinds_of_calls(empty: Ring, full: Ring) -> list[Callable[[float], None]]:
    """Every call that takes a timeout; each must end by it, and say so."""

    def expecting(outcome: type[Exception], call: Callable[[float], object]) -> Callable[[float], None]:
        def kind(timeout: float) -> None:
            try:
                answer = call(timeout)
            except outcome:
                return
            raise AssertionError(f"{answer!r} instead of {outcome.__name__}")

        return kind

    def waits(timeout: float) -> None:
        ready = wait([empty], timeout)
        if ready:
            raise AssertionError("an empty ring is not ready")

    return [
        expecting(Empty, lambda timeout: empty.get(timeout=timeout)),
        expecting(Empty, lambda timeout: empty.lease(timeout=timeout)),
        expecting(Empty, lambda timeout: empty.get_into(bytearray(8), timeout=timeout)),
        expecting(Full, lambda timeout: full.put(b"x", timeout=timeout)),
        waits,
    ]


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
