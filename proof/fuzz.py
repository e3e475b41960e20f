"""Rows R6, R7 and R8: damaged segments, a hostile peer, and every single bit of the header.

R6 makes random damage (flipped bits, edge values, neighbours' values, signed lies, cut files), attaches each image,
drains and refills it; a fifth as many under AddressSanitizer. R7 lets a process that does not use our library flip
words of a segment while others put, take, lease and sweep with time limits. R8 flips each bit of the header in turn and
runs a fixed course: either nothing changes, or an answer names the damage, or a lock had to be waited for.

Mappings lie between inaccessible pages, so that a step beyond one is a crash and not luck.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import threading
from pathlib import Path

import row

IMAGES = {False: 1_000_000, True: 50_000_000}
IMAGES_SECONDS = {False: 40.0, True: 1800.0}  # the short form stops here and says how many it made
HOSTILE_SECONDS = {False: 30, True: 600}
HOSTILE_FLIPS = 1_000_000
WORKERS = 2  # each with its own file
ADDRESS_SANITIZER = ("-fsanitize=address,undefined", "-fno-sanitize-recover=undefined")

Result = dict[str, object]


def number(result: Result, name: str) -> int:
    """A whole number of a result; 0 when a worker that was stopped did not get to say it."""
    found = result.get(name, 0)
    return found if isinstance(found, int) else 0


def in_parallel(program: Path, count: int, seed: int, seconds: float) -> list[Result]:
    """Run `WORKERS` times a share of the images at the same time, none longer than `seconds`."""
    results: list[Result] = [{} for _ in range(WORKERS)]

    def work(worker: int) -> None:
        words = ("images", count // WORKERS, seed * WORKERS + worker, seconds)
        results[worker] = row.run(program, *words, timeout=seconds * 3 + 60)

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(WORKERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def images(options: argparse.Namespace, plain: Path, checked: Path) -> bool:
    """Row R6."""
    long, seed = options.long, options.seed
    wanted = IMAGES[long]
    ledger = row.Row.begin(
        options,
        "R6",
        "corrupt images attached and drained: crashes / hangs / wrong answers",
        f"0/0/0 of {wanted:,}, or as many as fit in {IMAGES_SECONDS[long]:.0f} s; a fifth under AddressSanitizer",
    )
    done = in_parallel(plain, wanted, seed, IMAGES_SECONDS[long])
    made = sum(number(result, "done") for result in done)
    again = in_parallel(checked, made // 5, seed + 1, IMAGES_SECONDS[long])
    every = done + again
    bad = [sum(number(result, name) for result in every) for name in ("crashes", "hangs", "wrong")]
    ended = all(result.get("exit") == 0 for result in every)
    typed, attached = (sum(number(result, name) for result in done) for name in ("typed", "attached"))
    value = (
        f"{bad[0]}/{bad[1]}/{bad[2]} of {made:,} ({attached:,} attached, {typed:,} named as damaged)"
        f" and {sum(number(result, 'done') for result in again):,} under AddressSanitizer"
    )
    return ledger.report(value, ended and made > 0 and not any(bad))


def hostile(options: argparse.Namespace, plain: Path) -> bool:
    """Row R7."""
    seconds, seed = HOSTILE_SECONDS[options.long], options.seed
    ledger = row.Row.begin(
        options,
        "R7",
        f"a hostile peer flips words for {seconds} s: crashes / hangs / calls later than timeout + 250 ms",
        f"0/0/0, at least {HOSTILE_FLIPS:,} flips",
    )
    result = row.run(plain, "hostile", seconds, seed, timeout=seconds + 60)
    bad = [number(result, name) for name in ("crashes", "hangs", "late", "wrong")]
    value = (
        f"{bad[0]}/{bad[1]}/{bad[2]}; {number(result, 'flips'):,} flips, {number(result, 'calls'):,} calls,"
        f" {number(result, 'corrupt'):,} found damage, latest {result.get('latest_ms')} ms after its timeout"
    )
    return ledger.report(value, result.get("exit") == 0 and not any(bad) and number(result, "flips") >= HOSTILE_FLIPS)


def bits(options: argparse.Namespace, plain: Path) -> bool:
    """Row R8."""
    ledger = row.Row.begin(
        options,
        "R8",
        "each single bit of the header flipped, in four states: silent changes, crashes, hangs",
        "0/0/0",
    )
    result = row.run(plain, "bits", timeout=600)
    bad = [number(result, name) for name in ("wrong", "crashes", "hangs")]
    value = (
        f"{bad[0]}/{bad[1]}/{bad[2]} of {number(result, 'done'):,}: {number(result, 'typed'):,} named,"
        f" {number(result, 'same'):,} without effect (in {number(result, 'returned')} of them a lease ended and its"
        f" item came again, marked), {number(result, 'bounded')} waited a slice for a lock that nobody held"
    )
    return ledger.report(value, result.get("exit") == 0 and number(result, "done") > 0 and not any(bad))


def main() -> int:
    """Build twice and write the three rows."""
    options = row.arguments(__doc__ or "")
    try:
        plain = row.build("fuzz.c")
        checked = row.build("fuzz.c", *ADDRESS_SANITIZER, name="fuzz_asan", optimise="-O1")
    except row.NotRunError as missing:
        for name in ("R6", "R7", "R8"):
            row.Row.begin(options, name, "damaged segments", "").not_run(str(missing))
        return 0
    except subprocess.CalledProcessError:
        return 1
    good = [bits(options, plain), images(options, plain, checked), hostile(options, plain)]
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
