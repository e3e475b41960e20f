"""
Row R37: how often the regression gate is right: a planted slow-down, equal code, and equal code while others have the
cores. On a machine that does nothing else.

The slow-down is planted in the real ring: a loop in `put`, as long as makes a put and a get 10 % slower here, compiled
into a wheel like any other. Each run is a gate of its own, with new processes and another seed, over the times of one
benchmark: instructions, which find any planted slow-down for certain, are left out.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from row import ROOT, Row, arguments

from sage_sim.channels import NAMESPACE
from sage_sim.gate.benchmarks import BENCHMARKS
from sage_sim.gate.rounds import Ending
from sage_sim.gate.rules import Rules, read_rules
from sage_sim.gate.sides import Side
from sage_sim.gate.statistics import middle
from sage_sim.gate.timing import Timer, sized
from sage_sim.gate.wheels import Checkout, install

BENCHMARK = "seq[ring-64B]"
PLANTED = 0.10
CAUGHT, PASSED, UNSURE = 0.95, 0.98, 0.95
"""What is promised: a planted slow-down caught, equal code passed, and nobody sure while others have the cores."""
NEAR = 0.03
"""How far from that a slow-down may be that was planted: on a machine that is busy itself, nobody can plant one."""
TRIALS = (0, 25, 50, 75, 100, 150, 200)
PAIRS, SAMPLES = 10, 5
TURNS = "SAGE_GATE_PROOF_TURNS"
_HEAD = f"""
cdef extern from *:
    '''
    #include <stdlib.h>
    static int planted_turns = -1;
    static void planted(void) {{
        if (planted_turns < 0) planted_turns = getenv("{TURNS}") ? atoi(getenv("{TURNS}")) : 0;
        for (int at = 0; at < planted_turns; at++) __asm__ volatile("");
    }}
    '''
    void planted() noexcept nogil

from sage_qd import errors
"""
_BEFORE, _IN_PUT = (
    "\nfrom sage_qd import errors\n",
    "        if timeout is None and self.usable and PyBytes_CheckExact(item)",
)


def main() -> int:
    """Measure the three rates and report the row; 1 when one is below what is promised."""
    options = arguments(__doc__ or "", runs={"type": int, "help": "runs of each [10; 100 with --long]"})
    runs = options.runs or (100 if options.long else 10)
    bound = f"{CAUGHT:.0%}, {PASSED:.0%}, {UNSURE:.0%} of {runs}"
    proof = Row.begin(
        options, "R37", "gate: slow-down of a tenth caught, equal code passed, nobody sure on busy cores", bound
    )
    checkout = Checkout(ROOT)
    rules = read_rules(ROOT / "benchmarks" / "gates.toml", set(BENCHMARKS))
    with TemporaryDirectory(prefix="sage-gate-proof-") as place:
        folder = Path(place)
        install(checkout.wheel(None), folder / "base")
        ratio = plant(checkout, folder)
        if abs(ratio - 1 - PLANTED) > NEAR:
            return not proof.not_run(f"this machine is too busy to plant a slow-down of a tenth: it is {ratio - 1:.1%}")
        caught = repeated("planted slow-down", "planted", Ending.REGRESSION, runs, folder, rules, options.seed)
        passed = repeated("equal code", "base", Ending.PASS, runs, folder, rules, options.seed)
        with others():
            unsure = repeated("equal code, busy cores", "base", Ending.INCONCLUSIVE, runs, folder, rules, options.seed)
    value = f"{caught}, {passed} and {unsure} of {runs}; planted: {ratio - 1:.1%}"
    good = caught >= CAUGHT * runs and passed >= PASSED * runs and unsure >= UNSURE * runs
    return not proof.report(value, good)


def plant(checkout: Checkout, folder: Path) -> float:
    """
    Install a wheel in ``planted``, and find the turns that make it as much slower as wanted; how much it is.

    The first turns cost next to nothing, because the processor does them beside other things. So several numbers of
    turns are tried, and those between the two that are nearest.
    """
    sources = folder / "sources"
    checkout.sources(sources)
    module = sources / "src" / "sage_qd" / "ring" / "_ring.pyx"
    text = module.read_text()
    for place, new in ((_BEFORE, _HEAD), (_IN_PUT, f"        planted()\n{_IN_PUT}")):
        if text.count(place) != 1:
            sys.exit(f"{module.name} has {place.strip()!r} {text.count(place)} times, not once: plant it elsewhere")
        text = text.replace(place, new)
    module.write_text(text)
    install(checkout.built(sources, "planted"), folder / "planted")
    few, low = TRIALS[0], ratio_of(folder, TRIALS[0])
    for many in TRIALS[1:]:
        high = ratio_of(folder, many)
        if high >= 1 + PLANTED:
            break
        few, low = many, high
    turns = round(few + (many - few) * (1 + PLANTED - low) / (high - low))
    ratio = ratio_of(folder, turns)
    print(f"planted  {turns} turns of a loop in put: {ratio - 1:.1%} slower here", flush=True)
    return ratio


def ratio_of(folder: Path, turns: int) -> float:
    """How many times as long the planted one takes as the base: the middle over many pairs of new processes."""
    os.environ[TURNS] = str(turns)
    return middle([pair(folder) for _ in range(PAIRS)])


def pair(folder: Path) -> float:
    """The ratio in one pair: fastest of some samples, taken in turn."""
    words, fastest = folder / "words.log", {"base": float("inf"), "planted": float("inf")}
    with (
        Side("base", folder / "base", namespace=NAMESPACE, words=words) as base,
        Side("planted", folder / "planted", namespace=NAMESPACE, words=words) as slower,
    ):
        for side in (base, slower):
            side.open(BENCHMARK)
        count = sized(base, BENCHMARK)
        for _ in range(SAMPLES):
            for side in (base, slower):
                fastest[side.name] = min(fastest[side.name], side.sample(BENCHMARK, count).ns)
    return fastest["planted"] / fastest["base"]


def repeated(what: str, head: str, wanted: Ending, runs: int, folder: Path, rules: Rules, seed: int) -> int:
    """How many of so many gates end as they should."""
    found: Counter[str] = Counter()
    for run in range(runs):
        timer = Timer(
            folders={"head": folder / head, "base": folder / "base", "again": folder / "base"},
            rules=rules,
            namespace=NAMESPACE,
            words=folder / "words.log",
            seed=seed + run,
            seconds=60.0,
            say=lambda text: None,
        )
        found[timer.all([BENCHMARK]).findings[0].ending.value] += 1
    counts = ", ".join(f"{count} {ending}" for ending, count in sorted(found.items()))
    print(f"{what:24} {counts}", flush=True)
    return found[wanted.value]


@contextmanager
def others() -> Iterator[None]:
    """Twice as many processes as there are cores, that do nothing but use them."""
    command = [sys.executable, "-c", "while True: pass"]
    busy = [subprocess.Popen(command) for _ in range(2 * len(os.sched_getaffinity(0)))]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


if __name__ == "__main__":
    sys.exit(main())
