"""Rows R15 to R18: sleeping and waking, timeouts, jumps of the wall clock, and Ctrl-C in blocked calls."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import row

LONGEST_MS = 60
INTERRUPT_MS = 60
TIMEOUT_MS = {"idle": 5, "loaded": 60}
BUSY_SHARE, BUSY_MS = 0.5, 250
"""When others use more than that share of the processors, how late we are is up to them too: this bound replaces it."""
WHEN_BUSY = f" ({BUSY_MS} ms on a busy machine)"


def main() -> int:
    """Run all rows; 1 when one failed."""
    options = row.arguments(__doc__)
    rows: list[Callable[[Namespace], bool]] = [cycles, timeouts, clock_jumps, interrupts]
    good = [run(options) for run in rows]
    return 0 if all(good) else 1


def busy_share() -> float:
    """How much of the processors others use at this moment."""

    def ticks() -> tuple[int, int]:
        words = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
        return words[3] + words[4], sum(words[:8])

    before = ticks()
    time.sleep(0.5)
    after = ticks()
    return 1 - (after[0] - before[0]) / max(1, after[1] - before[1])


def in_time(late_ms: float, bound: int, busy: float) -> bool:
    """Whether that keeps the bound, or the one that holds while others are busy."""
    return late_ms <= (bound if busy <= BUSY_SHARE else max(bound, BUSY_MS))


def program() -> Path:
    """The C part, with kills at fault points."""
    return row.build("waiting.c", "-DSQ_FAULT_POINTS")


def cycles(options: Namespace) -> bool:
    """R15."""
    turns, seconds = (50_000_000, 7200) if options.long else (1_000_000, 150)
    busy = busy_share()
    proof = row.Row.begin(
        options,
        "R15",
        "turns handed over by sleep and wake, wakers and wakees killed on the way; longest oversleep",
        f"{turns:,}; <= {LONGEST_MS} ms{WHEN_BUSY}",
    )
    try:
        result = row.run(program(), "cycles", turns, seconds, options.seed, timeout=seconds + 60)
    except row.NotRunError as reason:
        return proof.not_run(str(reason))
    if "turns" not in result:
        return proof.report(f"did not finish: {result['exit']}", False)
    done, longest = int(str(result["turns"])), float(str(result["longest_ms"]))
    value = f"{done:,} turns, {result['sleeps']:,} sleeps, {result['kills']:,} killed; longest {longest:.1f} ms"
    value += f"; others use {busy:.0%} of the processors"
    return proof.report(value, done >= turns and in_time(longest, LONGEST_MS, busy) and int(str(result["kills"])) > 0)


def timeouts(options: Namespace) -> bool:
    """R16: in C on an idle and on a loaded machine, and through Python."""
    calls = 200_000 if options.long else 10_000
    busy = {"idle": busy_share(), "loaded": 0}
    proof = row.Row.begin(
        options,
        "R16",
        f"{calls:,} timed calls: early, and p99 of lateness idle / loaded",
        f"0 early; <= 5 ms{WHEN_BUSY} / 60 ms",
    )
    processors = os.cpu_count() or 1
    values, good = [], True
    try:
        for name, load in (("idle", 0), ("loaded", 2 * processors)):
            result = row.run(program(), "timeouts", calls, load, options.seed, timeout=900)
            if "calls" not in result:
                return proof.report(f"did not finish: {result['exit']}", False)
            late = float(str(result["p99_ms"]))
            values.append(f"{name}: {result['early']} early, p99 {late:.2f} ms")
            good = (
                good and result["early"] == 0 and result["wrong"] == 0 and in_time(late, TIMEOUT_MS[name], busy[name])
            )
        python = python_calls(calls // 20, options.seed, preload=None)
    except row.NotRunError as reason:
        return proof.not_run(str(reason))
    values.append(f"Python: {python['early']} early of {python['calls']:,}")
    values.append(f"others use {busy['idle']:.0%} of the processors")
    return proof.report("; ".join(values), good and python["early"] == 0)


def clock_jumps(options: Namespace) -> bool:
    """R17: calls in C and in Python while the wall clock jumps by two days, back and forth."""
    calls = 20_000 if options.long else 1_000
    proof = row.Row.begin(
        options, "R17", "wall clock jumps of a day during waits: calls affected", f"0 (early, or {BUSY_MS} ms late)"
    )
    try:
        shim = row.build("clock_shim.c", "-shared", "-fPIC", name="clock_shim.so")
        environment = {**os.environ, "LD_PRELOAD": str(shim)}
        native = row.run(program(), "clock", calls, options.seed, timeout=600, env=environment)
        python = python_calls(calls // 10, options.seed, preload=shim)
    except row.NotRunError as reason:
        return proof.not_run(str(reason))
    if "calls" not in native:
        return proof.report(f"did not finish: {native['exit']}", False)
    both = [native, python]
    early, jumps = (sum(int(str(result[name])) for result in both) for name in ("early", "jumps"))
    late = max(float(str(result["max_ms"])) for result in both)
    made = sum(int(str(result["calls"])) for result in both)
    value = f"{early} early, latest {late:.1f} ms, of {made:,}; {jumps} jumps seen"
    seen = all(int(str(result["jumps"])) > 0 for result in both)
    return proof.report(value, seen and early == 0 and native["wrong"] == 0 and late <= BUSY_MS)


def python_calls(calls: int, seed: int, preload: Path | None) -> dict[str, object]:
    """Run ``waiting_calls.py`` in an interpreter of its own."""
    environment = dict(os.environ, **({"LD_PRELOAD": str(preload)} if preload else {}))
    script = Path(__file__).with_name("waiting_calls.py")
    words = [sys.executable, str(script), str(calls), str(seed)]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=900)
    if done.returncode:
        missing = "No module named 'sage_qd'" in done.stderr
        if missing:
            raise row.NotRunError("needs sage-qd installed")
        print(done.stderr, end="")
        raise RuntimeError(f"waiting_calls.py ended with {done.returncode}")
    result: dict[str, object] = json.loads(done.stdout)
    return result


def interrupts(options: Namespace) -> bool:
    """R18: three victims, each with a third of the signals."""
    signals = 200_000 if options.long else 10_000
    busy = busy_share()
    proof = row.Row.begin(
        options,
        "R18",
        "Ctrl-C in blocked calls: latency, items lost or doubled",
        f"{signals:,}; <= {INTERRUPT_MS} ms{WHEN_BUSY}; 0",
    )
    try:
        import interrupts as victims
    except ImportError as error:
        return proof.not_run(f"needs sage-qd installed: {error}")
    each = signals // 3 + 1
    outcomes = [
        victims.interrupt(victim, each, options.seed) for victim in (victims.getting, victims.putting, victims.leasing)
    ]
    sent, items = sum(outcome.signals for outcome in outcomes), sum(outcome.items for outcome in outcomes)
    worst, lost = max(outcome.worst_ms for outcome in outcomes), sum(outcome.lost for outcome in outcomes)
    after = sum(outcome.after for outcome in outcomes)
    value = f"{sent:,} signals, longest {worst:.1f} ms, {lost} of {items:,} items; {after} came when the call was done"
    value += f"; others use {busy:.0%} of the processors"
    return proof.report(value, lost == 0 and in_time(worst, INTERRUPT_MS, busy) and items > 0)


if __name__ == "__main__":
    sys.exit(main())
