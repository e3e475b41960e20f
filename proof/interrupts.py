"""
Ctrl-C in blocked calls (row R18): a victim is interrupted thousands of times, and no item may be lost or doubled.

Three victims: one blocked in ``get_into``, one in ``put``, one in ``lease``. Each notes on a shared page how long the
signal took and what it holds; the other end counts 0, 1, 2, ... through. An interrupt can also arrive when the call has
already returned and Python has not gone on yet; then the call did its work, and the victim sees that from the outside.
"""

from __future__ import annotations

import mmap
import os
import random
import signal
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType

from sage_qd import Empty, Full
from sage_qd.ring import Ring, create

WORD = struct.Struct("<Q")
SENT, HANDLED, ARMED, DONE, NUMBER, AFTER = range(0, 48, 8)
"""Words on the page: time of the signal, signals handled, inside a call, finished, next number, done all the same."""
LATENCIES, LATENCIES_KEPT = 64, 256
"""Where the last so many latencies are."""
HANG_SECONDS = 20.0
LAST = (1 << 64) - 1


@dataclass
class Outcome:
    """What one victim went through."""

    signals: int
    items: int
    worst_ms: float
    lost: int
    after: int
    """Calls that had done their work when the interrupt came."""


class Page:
    """A few numbers that both processes see."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 4096)

    def __getitem__(self, at: int) -> int:
        return int(WORD.unpack_from(self._memory, at)[0])

    def __setitem__(self, at: int, value: int) -> None:
        WORD.pack_into(self._memory, at, value)


class Interrupts:
    """The victim's handler: raises inside calls only, so that the victim's own notes cannot be torn."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.inside = False
        signal.signal(signal.SIGINT, self.handle)

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Count it, and interrupt the call."""
        latency_ns = time.monotonic_ns() - self.page[SENT]
        self.page[LATENCIES + 8 * (self.page[HANDLED] % LATENCIES_KEPT)] = latency_ns
        self.page[HANDLED] += 1
        if self.inside:
            self.inside = False
            raise KeyboardInterrupt

    def call(self, work: Callable[[], object]) -> bool:
        """Run one call; False when it was interrupted."""
        try:
            self.inside = True
            self.page[ARMED] = 1
            work()
            self.inside = False
        except KeyboardInterrupt:
            return False
        finally:
            self.page[ARMED] = 0
        return True


# -- Victims ----------------------------------------------------------------------------------------------------------


def getting(ring: Ring, page: Page) -> None:
    """Take numbers into memory that keeps them whatever happens to the call."""
    interrupts, buffer = Interrupts(page), bytearray(WORD.size)
    while True:
        WORD.pack_into(buffer, 0, LAST - 1)
        returned = interrupts.call(lambda: ring.get_into(buffer))
        number = WORD.unpack(buffer)[0]
        if number == LAST:
            return
        if returned or number != LAST - 1:
            accept(page, number)
            page[AFTER] += not returned


def leasing(ring: Ring, page: Page) -> None:
    """Lease and acknowledge; an interrupted lease goes back by itself."""
    interrupts = Interrupts(page)
    leases: list[object] = []
    while True:
        leases.clear()
        if not interrupts.call(lambda: leases.append(ring.lease())) and not leases:
            continue
        lease = leases[0]
        number = WORD.unpack(lease.data)[0]  # type: ignore[attr-defined]
        lease.ack()  # type: ignore[attr-defined]
        if number == LAST:
            return
        accept(page, number)


def putting(ring: Ring, page: Page) -> None:
    """Put numbers; whether an interrupted put was too late is seen from the count of all puts."""
    interrupts = Interrupts(page)
    while not page[DONE]:
        item = WORD.pack(page[NUMBER])
        returned = interrupts.call(lambda: ring.put(item))  # noqa: B023 - called at once
        put = ring.stats().puts - page[NUMBER]
        if put not in (0, 1) or (returned and not put):
            raise AssertionError(f"{put} items were put by one call")
        page[NUMBER] += put
        page[AFTER] += put and not returned
    ring.put(WORD.pack(LAST))


def accept(page: Page, number: int) -> None:
    """The numbers must come one after the other."""
    if number != page[NUMBER]:
        raise AssertionError(f"number {number} came instead of {page[NUMBER]}")
    page[NUMBER] += 1


# -- The other end ----------------------------------------------------------------------------------------------------


def interrupt(victim: Callable[[Ring, Page], None], signals: int, seed: int) -> Outcome:
    """Send so many interrupts to one victim while items pass, then let it finish and compare the counts."""
    chance, page = random.Random(seed), Page()
    with create(anonymous=True, max_items=2) as ring:
        process = os.fork()
        if not process:
            try:
                victim(ring, page)
                code = 0
            except BaseException as error:  # noqa: BLE001 - the parent learns of it by the exit code
                print(f"    {victim.__name__}: {error!r}", flush=True)
                code = 1
            os._exit(code)
        worst, moved = 0, 0
        for sent in range(signals):
            wait_for(lambda: page[ARMED] == 1, process)
            if chance.random() < 0.4:
                moved += move(ring, victim, moved)
            time.sleep(chance.random() * 0.0003)
            page[SENT] = time.monotonic_ns()
            os.kill(process, signal.SIGINT)
            wait_for(lambda: page[HANDLED] > sent, process)  # noqa: B023 - called at once
            worst = max(worst, page[LATENCIES + 8 * (sent % LATENCIES_KEPT)])
        page[DONE] = 1
        items = finish(ring, victim, moved)
        _, status = os.waitpid(process, 0)
        lost = abs(items - page[NUMBER]) + (status != 0)
        return Outcome(signals, items, worst / 1e6, lost, page[AFTER])


def move(ring: Ring, victim: Callable[[Ring, Page], None], number: int) -> int:
    """Put or take one item without waiting; says how many."""
    try:
        if victim is not putting:
            ring.put_nowait(WORD.pack(number))
        elif WORD.unpack(ring.get_nowait())[0] != number:
            raise AssertionError(f"number {number} did not come")
    except (Empty, Full):
        return 0
    return 1


def finish(ring: Ring, victim: Callable[[Ring, Page], None], moved: int) -> int:
    """Tell the victim to end, and take what it still puts; returns how many items there were."""
    if victim is not putting:
        ring.put(WORD.pack(LAST), timeout=HANG_SECONDS)
        return moved
    while (number := WORD.unpack(ring.get(timeout=HANG_SECONDS))[0]) != LAST:
        if number != moved:
            raise AssertionError(f"number {number} came instead of {moved}")
        moved += 1
    return moved


def wait_for(condition: Callable[[], bool], process: int) -> None:
    """Until it holds; an error when the victim ends or hangs."""
    end = time.monotonic() + HANG_SECONDS
    while not condition():
        if os.waitpid(process, os.WNOHANG)[0]:
            raise AssertionError("the victim ended")
        if time.monotonic() > end:
            os.kill(process, signal.SIGKILL)
            raise AssertionError("the victim hangs")
        time.sleep(0)
