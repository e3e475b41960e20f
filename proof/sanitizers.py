"""Row R24: the C core under the sanitizers.

AddressSanitizer and UndefinedBehaviorSanitizer watch the tests of the core and traffic between processes.
ThreadSanitizer watches the tests and threads that share one handle: it knows memory by its address, so it sees only
accesses through the same mapping. Our locks are plain C11 atomics, which it understands without help.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass

import row

SECONDS = {False: 10, True: 1800}  # of traffic, each form
SECONDS_AT_ONCE = 10  # one run of `stress` remembers every item, so it is short
OPERATIONS = {False: 1_000_000, True: 1_000_000_000}  # at least, all runs together
# The thread sanitizer's own runtime waits for itself when a mapped page goes away under it: nothing of ours to see
# there.
NOT_UNDER_THREAD_SANITIZER = ("-a_file_that_shrank_is_an_error_and_no_signal",)
ENVIRONMENT = {
    "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=0:exitcode=66",  # tests end as they are, with rings still open
    "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1:exitcode=66",
    "TSAN_OPTIONS": "exitcode=66",
}


@dataclass(frozen=True)
class Kind:
    """A build: its flags, which tests it leaves out, and the runs of `stress` (mode, producers, consumers)."""

    name: str
    flags: tuple[str, ...]
    tests: tuple[str, ...]
    traffic: tuple[tuple[str, int, int], ...]


KINDS = {
    "asan": Kind(
        "asan",
        ("-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer"),
        (),
        (("processes", 2, 2), ("threads", 2, 2)),
    ),
    "tsan": Kind("tsan", ("-fsanitize=thread",), NOT_UNDER_THREAD_SANITIZER, (("shared", 2, 2), ("shared", 3, 1))),
}


def run(kind: Kind, long: bool, seed: int, compiler: str) -> tuple[int, list[str]]:
    """Build and run one kind. Returns how many operations the traffic did, and what failed."""
    tests = row.build(
        "core_test.c", *kind.flags, "-DSQ_FAULT_POINTS", name=f"core_test_{kind.name}", kind=compiler, optimise="-O1"
    )
    stress = row.build("stress.c", *kind.flags, name=f"stress_{kind.name}", kind=compiler, optimise="-O1")
    environment = os.environ | ENVIRONMENT
    result = row.run(tests, *kind.tests, timeout=600, env=environment)
    bad = [f"{kind.name}: {test}" for test in result.get("failed", [])]  # type: ignore[attr-defined]
    if result["exit"] != 0 and not bad:
        bad.append(f"{kind.name}: core_test ended with {result['exit']}")
    operations = 0
    for mode, producers, consumers in kind.traffic:
        for turn in range(SECONDS[long] // SECONDS_AT_ONCE):
            words = (mode, producers, consumers, SECONDS_AT_ONCE, seed + turn)
            result = row.run(stress, *words, timeout=SECONDS_AT_ONCE * 3 + 120, env=environment)
            operations += int(result.get("operations", 0))  # type: ignore[call-overload]
            if result["exit"] != 0:
                bad.append(f"{kind.name}: stress {' '.join(map(str, words))} ended with {result}")
    return operations, bad


def main(only: str = "") -> int:
    """Run all kinds and write row R24, or run `only` one and write a row of that name beside it."""
    options = row.arguments(__doc__ or "")
    kinds = [KINDS[only]] if only else list(KINDS.values())
    name = f"R24-{only}" if only else "R24"
    least = OPERATIONS[options.long]
    ledger = row.Row.begin(
        options,
        name,
        f"reports of {', '.join(kind.name for kind in kinds)} (with UBSan)",
        f"0, at least {least:,} operations",
    )
    compiler = "clang" if shutil.which("clang") else "cc"
    operations, bad = 0, []
    try:
        for kind in kinds:
            done, failed = run(kind, options.long, options.seed, compiler)
            operations += done
            bad += failed
    except row.NotRunError as missing:
        return 0 if ledger.not_run(str(missing)) else 1
    except subprocess.CalledProcessError as broken:
        return 0 if ledger.report(f"does not compile: {broken}", False) else 1
    for failure in bad:
        print(failure)
    value = f"{len(bad)} reports or failures, {operations:,} operations, {compiler}"
    return 0 if ledger.report(value, not bad and operations >= least) else 1


if __name__ == "__main__":
    sys.exit(main())
