"""Waiting: lost wake-ups (R15), late timeouts (R16), a jumping wall clock (R17), Ctrl-C (R18)."""

from __future__ import annotations

import os
import random
import signal
import statistics
import subprocess
import sys
import time
from typing import Any

from row import ROOT, Row, arguments, build, compiler, run

from sage_qd import Empty, Full, ShutDown
from sage_qd import ring as rings

CPUS = len(os.sched_getaffinity(0))


def main() -> int:
    """Run the four rows; 1 when one failed. The two other ways to call it are the children of R17 and R18."""
    if sys.argv[1:2] == ["--clock-child"]:
        return clock_child()
    if sys.argv[1:2] == ["--signal-child"]:
        return signal_child(*map(int, sys.argv[2:5]))
    options = arguments(__doc__ or "")
    good = [cycles(options), timeouts(options), clocks(options), signals(options)]
    return 0 if all(good) else 1


def calm() -> bool:
    """
    Whether this machine has little else to do.

    Where others use the cores, a process may wait for one longer than 60 ms.
    """
    return os.getloadavg()[0] < CPUS / 2


def cycles(options: Any) -> bool:
    """One side sleeps, the other hands over; both are killed again and again."""
    wanted, seconds = (50_000_000, 3600) if options.long else (1_000_000, 40)
    row = Row.begin(
        options,
        "R15",
        f"{wanted:,} sleeps (or {seconds} s) with sleepers and wakers killed: oversleep",
        "60 ms; 1 in 10,000 may wait longer for a core",
    )
    program = build("waiting.c", "-DSQ_FAULT_POINTS")
    found = run(program, "cycles", seconds, wanted, options.seed, timeout=seconds + 60)
    if found["exit"] != 0:
        return row.report(f"waiting.c ended with {found['exit']}", False)
    sleeps, over = int(str(found["sleeps"])), int(str(found["over_60ms"]))
    value = f"worst {found['worst_ms']} ms, {over} above 60 ms, {sleeps:,} sleeps, {found['killed']:,} killed"
    return row.report(value, found["died"] == 0 and sleeps > 1000 and over <= sleeps // 10_000)


def timeouts(options: Any) -> bool:
    """Calls with timeouts of up to 6 ms, on an idle and on a loaded machine."""
    count = 200_000 if options.long else 10_000
    quiet = calm()
    row = Row.begin(
        options,
        "R16",
        f"{count:,} timed calls idle / loaded: p99 late, calls that returned early",
        "5 / 60 ms (60 / 250 ms on a busy machine), never early",
    )
    program = build("waiting.c", "-DSQ_FAULT_POINTS")
    idle = run(program, "timeouts", count, 0, options.seed, timeout=600)
    loaded = run(program, "timeouts", count, CPUS, options.seed, timeout=600)
    bounds = (5, 60) if quiet else (60, 250)
    good = all(
        found["exit"] == 0 and found["early"] == 0 and found["late_p99_ms"] <= bound
        for found, bound in zip((idle, loaded), bounds, strict=True)
    )
    value = " / ".join(f"{found.get('late_p99_ms')} ms, {found.get('early')} early" for found in (idle, loaded))
    return row.report(value, good)


# -- R17: the wall clock jumps ----------------------------------------------------------------------------------------


def clocks(options: Any) -> bool:
    """Timed calls in a process whose wall clock jumps by a day at every look."""
    row = Row.begin(options, "R17", "wall clock stepped by one day at every look: waits that ended early or late", "0")
    library = ROOT / "build" / "proof" / "clocks.so"
    library.parent.mkdir(parents=True, exist_ok=True)
    source = ROOT / "proof" / "clocks.c"
    subprocess.run([compiler(), "-O2", "-shared", "-fPIC", "-o", library, source], check=True)
    environment = {**os.environ, "LD_PRELOAD": str(library)}
    child = subprocess.run(
        [sys.executable, __file__, "--clock-child"], env=environment, capture_output=True, text=True, timeout=300
    )
    text = child.stdout.strip() or child.stderr.strip()[-300:]
    return row.report(text, child.returncode == 0)


def clock_child() -> int:
    """Every operation that waits, with time-outs; prints how many were wrong."""
    jumps = {round((time.time() - time.monotonic()) / 86400) for _ in range(30)}
    if len(jumps) < 3:
        print("the wall clock does not jump: nothing was tested")
        return 1
    with rings.create(anonymous=True, max_items=1) as empty, rings.create(anonymous=True, max_items=1) as full:
        full.put(b"x")
        calls = [
            lambda: empty.get(timeout=0.1),
            lambda: full.put(b"x", timeout=0.1),
            lambda: empty.lease(timeout=0.1),
            lambda: empty.get_many(9, timeout=0.1),
            lambda: empty.get_into(bytearray(9), timeout=0.1),
            lambda: full.put_many([b"x"], timeout=0.1),
            lambda: rings.wait([empty], timeout=0.1),
        ]
        wrong = 0
        for call in calls * 20:
            started = time.monotonic()
            try:
                call()
            except (Empty, Full):
                wrong += 0  # what all but wait() must do
            waited = time.monotonic() - started
            wrong += not 0.1 <= waited < 1.1
    print(f"{wrong} of {len(calls) * 20}")
    return 1 if wrong else 0


# -- R18: Ctrl-C ------------------------------------------------------------------------------------------------------


def signals(options: Any) -> bool:
    """Interrupt a process in blocked and in busy calls, while items pass; count what arrives and how late."""
    count = 200_000 if options.long else 10_000
    bound = 60 if calm() else 250
    row = Row.begin(
        options,
        "R18",
        f"{count:,} SIGINTs during calls: p99 latency, items lost or doubled",
        "60 ms (250 ms on a busy machine), 0",
    )
    rolls = random.Random(options.seed)
    source = rings.create(anonymous=True, max_items=16)
    target = rings.create(anonymous=True, max_items=16)
    marks = rings.create(anonymous=True)
    child = subprocess.Popen(
        [sys.executable, __file__, "--signal-child", *(str(ring.fileno()) for ring in (source, target, marks))],
        pass_fds=[source.fileno(), target.fileno(), marks.fileno()],
    )
    late: list[float] = []
    sent = received = wrong = 0
    try:
        marks.get(timeout=60)
        for _ in range(count):
            for _ in range(rolls.randrange(3)):
                if source.qsize() < 8:
                    source.put(b"%d" % sent)
                    sent += 1
            if rolls.random() < 0.5:
                time.sleep(rolls.random() * 0.0005)
            started = time.monotonic()
            child.send_signal(signal.SIGINT)
            marks.get(timeout=10)
            late.append(time.monotonic() - started)
            while not target.empty():
                wrong += target.get() != b"%d" % received
                received += 1
        source.shutdown()
        child.wait(60)
        while not target.empty():
            wrong += target.get() != b"%d" % received
            received += 1
    finally:
        child.kill()
        child.wait()
        for ring in (source, target, marks):
            ring.close()
    late.sort()
    p99, worst = late[len(late) * 99 // 100] * 1000, late[-1] * 1000
    value = (
        f"p50 {statistics.median(late) * 1000:.2f}, p99 {p99:.1f}, worst {worst:.1f} ms; "
        f"{sent - received} of {sent:,} lost, {wrong} out of order"
    )
    return row.report(value, sent == received and not wrong and p99 <= bound and child.returncode == 0)


def signal_child(*descriptors: int) -> int:
    """
    Pass items on, and answer every interrupt.

    A handler that raises may hit between get() returning and its result being stored: then the item is in nobody's
    hands. That gap is Python's, not the ring's; leases close it, so leases are used here, as a careful program does.
    """
    source, target, marks = (rings.attach(fd=descriptor) for descriptor in descriptors)
    interrupts = 0
    done: set[bytes] = set()

    def interrupted(*_: object) -> None:
        nonlocal interrupts
        interrupts += 1
        raise KeyboardInterrupt

    def answered() -> None:
        nonlocal interrupts
        while interrupts:
            interrupts -= 1
            marks.put(b"!")

    interrupts = 1  # the first answer says that we are ready
    signal.signal(signal.SIGINT, interrupted)
    while True:
        try:
            answered()
            with source.lease() as lease:
                number = bytes(lease)
                if number not in done:
                    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
                    target.put(number)
                    done.add(number)
                    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
        except KeyboardInterrupt:
            continue
        except ShutDown:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            answered()
            return 0


if __name__ == "__main__":
    sys.exit(main())
