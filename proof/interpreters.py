"""The ring under Python: counters that wrap (R19) and every way to start a process (R23)."""

from __future__ import annotations

import multiprocessing
import os
import random
import sys
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from row import Row, arguments

from sage_qd import Empty, Full, SageQueueDescriptor
from sage_qd import ring as rings

NAMESPACE = f"proof-{os.getpid()}"


def main() -> int:
    """Run both rows; 1 when one failed."""
    options = arguments(__doc__ or "")
    good = [wraps(options), starts(options)]
    return 0 if all(good) else 1


# -- R19: counters near their wrap ------------------------------------------------------------------------------------

STEPS_BEFORE = 40  # so that every wrap is crossed by items, and by units, within a few operations


def wraps(options: Any) -> bool:
    """Random operations on a ring whose counters start just below a power of two, beside a plain model."""
    row = Row.begin(options, "R19", "counters started below 2^8 ... 2^64: operations that differ from the model", "0")
    rolls = random.Random(options.seed)
    powers = (8, 16, 24, 31, 32, 33, 48, 63, 64)
    operations = differences = 0
    for power in powers:
        for bits in ((power, 0), (0, power), (power, power)):
            start = tuple((1 << bit) - STEPS_BEFORE if bit else 0 for bit in bits)
            for max_items in (0, 7):
                settings = {"capacity_bytes": 4096, "max_items": max_items, "start": (start[0], start[1])}
                done, wrong = compared(rolls, settings, 20_000 if options.long else 2_000)
                operations += done
                differences += wrong
    return row.report(f"{differences} of {operations:,}, at {len(powers)} powers", differences == 0)


def compared(rolls: random.Random, settings: dict[str, Any], steps: int) -> tuple[int, int]:
    """Do the same on a ring and on a deque; how much was done, and how often the answers differed."""
    differences = 0
    model: deque[bytes] = deque()
    held: list[tuple[rings.Lease, bytes]] = []
    bound = settings["max_items"] or 1 << 30
    number = 0
    with rings.create(anonymous=True, **settings) as ring:
        before = ring.stats()
        for _ in range(steps):
            choice = rolls.random()
            if choice < 0.45:
                number += 1
                item = b"%d:" % number + bytes(rolls.randrange(200))
                try:
                    ring.put_nowait(item)
                    model.append(item)
                    differences += len(model) + len(held) > bound
                except Full:
                    differences += len(model) + len(held) < bound and ring.stats().depth_bytes < 4096 - 400
            elif choice < 0.8:
                differences += answer(ring.get_nowait) != (model.popleft() if model else None)
            elif choice < 0.85:
                differences += answer(ring.peek) != (model[0] if model else None)
            elif choice < 0.92 and len(held) < 3:
                lease = answer(lambda: ring.lease(block=False))
                differences += (bytes(lease) if lease else None) != (model[0] if model else None)
                if lease:
                    held.append((lease, model.popleft()))
            elif held:
                # The youngest first: giving back an older one would put it before those held, which the model does
                # not know.
                lease, item = held.pop()
                if rolls.random() < 0.5:
                    lease.ack()
                else:
                    lease.nack()
                    model.appendleft(item)
            differences += ring.qsize() != len(model)
        for lease, _ in held:
            lease.ack()
        after = ring.stats()
        differences += after.puts - before.puts != number_put(after, before)
        differences += after.puts - after.gets != len(model)
    return steps, differences


def number_put(after: rings.RingStats, before: rings.RingStats) -> int:
    """What the counters must differ by: they are never negative, and taken and queued items add up to those put."""
    return (after.gets - before.gets) + after.depth


def answer(call: Callable[[], Any]) -> Any:
    """What a call returns; None when there is nothing."""
    try:
        return call()
    except Empty:
        return None


# -- R23: ways to start a process -------------------------------------------------------------------------------------

ITEMS = 200


def starts(options: Any) -> bool:
    """Every start method, with a queue opened before and after the start, idle and with threads at work meanwhile."""
    row = Row.begin(
        options, "R23", "start methods x handle opened before or after x idle or busy: cells not right", "0"
    )
    cells = wrong = 0
    notes = []
    rounds = 50 if options.long else 3
    for method in multiprocessing.get_all_start_methods():
        for handed_over in (True, False):
            for busy in (False, True):
                for _ in range(rounds):
                    problem = one_cell(method, handed_over, busy)
                    cells += 1
                    if problem:
                        wrong += 1
                        how = "handle" if handed_over else "descriptor"
                        notes.append(f"{method}, {how}, {'busy' if busy else 'idle'}: {problem}")
    left = [info.path for info in rings.list_segments(NAMESPACE)]
    if left:
        notes.append(f"left behind: {left}")
    if (rings.directory() / NAMESPACE).is_dir():
        (rings.directory() / NAMESPACE).rmdir() if not left else None
    value = f"{wrong} of {cells}" + "".join(f"; {note}" for note in notes[:5])
    return row.report(value, not wrong and not left)


def one_cell(method: str, handed_over: bool, busy: bool) -> str | None:
    """Start one child that answers every item; what went wrong."""
    context = multiprocessing.get_context(method)
    there = SageQueueDescriptor("there", namespace=NAMESPACE)
    back = SageQueueDescriptor("back", namespace=NAMESPACE)
    stop = threading.Event()
    with (
        there.open() as questions,
        back.open() as answers,
        SageQueueDescriptor("noise", namespace=NAMESPACE).open() as noise,
    ):
        threads = [threading.Thread(target=hammer, args=(noise, stop)) for _ in range(2 if busy else 0)]
        for thread in threads:
            thread.start()
        try:
            given = (questions, answers) if handed_over else (there, back)
            child = context.Process(target=echo, args=given)
            child.start()
            for number in range(ITEMS):
                questions.put((number, b"x" * number))
            got = [answers.get(timeout=60) for _ in range(ITEMS)]
            child.join(60)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        if child.exitcode != 0:
            return f"child ended with {child.exitcode}"
        if got != [(number, number) for number in range(ITEMS)]:
            return "answers differ"
        if answers.stats().unlinked or questions.stats().unlinked:
            return "the child took the queue along"
    return None


def echo(questions: Any, answers: Any) -> None:
    """The child: answer every item with its number and length."""
    if isinstance(questions, SageQueueDescriptor):
        questions, answers = questions.open(), answers.open()
    for _ in range(ITEMS):
        number, payload = questions.get(timeout=60)
        answers.put((number, len(payload)))
    questions.close()
    answers.close()


def hammer(noise: Any, stop: threading.Event) -> None:
    """Keep a queue of this process busy, so that a fork meets threads in the middle of put and get."""
    while not stop.is_set():
        noise.put(b"noise")
        noise.put({"noise": 1})
        noise.get()
        noise.get()


if __name__ == "__main__":
    sys.exit(main())
