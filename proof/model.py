"""Row R11: the protocol of the ring, explored by Spin: every interleaving, with kills at every step.

`model/ring.pml` holds the two robust locks, the commit words and the event counts; `model/lease.pml` leases, recovery
and the sweep. Each configuration is searched to its end. Then errors are planted by macro, and each must be found.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import row

MODELS = Path(__file__).resolve().parent / "model"
STATES = {False: 30_000_000, True: 300_000_000}
WORKERS = 2
SECONDS = {False: 300, True: 7200}  # for one search; one that does not end in it is a failure, never a short-cut


@dataclass(frozen=True)
class Search:
    """One configuration: the model, its macros, and what they mean in words."""

    model: str
    macros: str
    what: str


SHORT = (
    Search("lease", "RECORDS=2 CRASHES=2 RETURNS=0", "leases, two kills: the sweeper's and its successor's among them"),
    Search("lease", "RECORDS=3 CRASHES=1 RETURNS=0", "leases, three records, one kill"),
    Search("ring", "PRODUCERS=1 CONSUMERS=2 ITEMS=4 QUOTA=2", "wake-ups, one producer, two consumers, no slices"),
    Search("ring", "ITEMS=1 CRASHES=2", "two producers, two consumers, two kills"),
    Search("ring", "ITEMS=1 QUOTA=1", "wake-ups, two producers, two consumers, no slices"),
    Search("ring", "PRODUCERS=1 CONSUMERS=2 ITEMS=3 CRASHES=2", "one producer wraps the ring, two kills"),
)
LONG = (
    Search("lease", "RECORDS=2 CRASHES=2 RETURNS=1", "leases that are also returned, two kills"),
    Search("lease", "RECORDS=3 CRASHES=1 RETURNS=1", "leases that are also returned, three records, one kill"),
    Search("lease", "RECORDS=3 CRASHES=2 RETURNS=0", "leases, three records, two kills"),
    Search("ring", "ITEMS=2 QUOTA=2", "wake-ups, two items each, no slices"),
    Search("ring", "ITEMS=2 CRASHES=2", "two producers, two consumers, two items each, two kills"),
    *SHORT,
)
PLANTS = (
    Search("ring", "PLANT_COMMIT_FIRST ITEMS=1", "an item is published before its bytes are there"),
    Search("ring", "PLANT_RELEASE_FIRST CONSUMERS=1 CAPACITY=1", "room is given back before the bytes were copied out"),
    Search("ring", "PLANT_LOCK_NOT_ROBUST ITEMS=1 CRASHES=1", "the kernel does not mark the lock of a dead owner"),
    Search("ring", "PLANT_REPAIR_FORGOTTEN ITEMS=1 CRASHES=1", "the next owner does not repair the counter"),
    Search("ring", "PLANT_REPAIR_BY_ADDING ITEMS=1 CRASHES=1", "the next owner adds one, whatever happened"),
    Search("ring", "PLANT_WAKE_FIRST PRODUCERS=1 ITEMS=1", "sleepers are woken before the item is visible"),
    Search("ring", "PLANT_NO_SECOND_LOOK PRODUCERS=1 CONSUMERS=1 CAPACITY=1", "a sleeper does not look again"),
    Search("ring", "PLANT_MARKS_FORGOTTEN ITEMS=1 QUOTA=1", "a wake clears the marks of those who sleep on"),
    Search("ring", "PLANT_MARKS_GIVEN_BACK_LATE ITEMS=1 QUOTA=1", "a wake hides the marks of those who sleep on"),
    Search("lease", "PLANT_HEAD_PASSES_LEASE RECORDS=2", "the head passes a leased record"),
    Search("lease", "PLANT_MARK_BEFORE_DISORDER RECORDS=2", "a record is marked before the ring says that it may be"),
    Search("lease", "PLANT_FRONTIER_AFTER_MARK RECORDS=2", "the frontier moves after the record was marked"),
    Search("lease", "PLANT_CURSOR_FORGOTTEN RECORDS=2", "a returned record is never found again"),
    Search("lease", "PLANT_SLOT_FREED_FIRST RECORDS=1", "a sweep frees the slot before it gave the leases back"),
    Search("lease", "PLANT_REPAIR_FORGOTTEN RECORDS=2", "the next owner counts nothing again"),
    Search("lease", "PLANT_EPOCH_IGNORED RECORDS=2", "a sweep acts on a slot that changed hands meanwhile"),
)  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """What Spin said: states stored, errors found, whether the search came to its end, and the first error in words."""

    states: int
    errors: int
    ended: bool
    first: str


def explore(search: Search, long: bool) -> Outcome:
    """Make the verifier of one configuration, run it, and read its report."""
    macros = [f"-D{macro}" for macro in search.macros.split()]
    with tempfile.TemporaryDirectory(prefix="sage-model-") as folder:
        shutil.copy(MODELS / f"{search.model}.pml", folder)
        made = subprocess.run(
            [shutil.which("spin") or "spin", *macros, "-a", f"{search.model}.pml"],
            cwd=folder,
            capture_output=True,
            text=True,
        )
        if made.returncode or "Error" in made.stdout or not Path(folder, "pan.c").exists():
            raise RuntimeError(f"spin {search.model} {search.macros}:\n{made.stdout}{made.stderr}")
        # The long form keeps 64-bit hashes of states instead of the states; the short one the states themselves.
        flags = ["-DSAFETY", "-DVECTORSZ=2048", *(["-DHC4"] if long else [])]
        subprocess.run(
            [row.compiler(), "-O1" if search in PLANTS else "-O2", "-w", *flags, "-o", "pan", "pan.c"],
            cwd=folder,
            check=True,
        )
        words = ["-m500000", "-w24" if search in PLANTS else "-w28" if long else "-w25"]
        try:
            done = subprocess.run(
                [Path(folder, "pan"), *words], cwd=folder, capture_output=True, text=True, timeout=SECONDS[long]
            )
        except subprocess.TimeoutExpired:
            return Outcome(0, 0, ended=False, first=f"not at its end after {SECONDS[long]} s")
    report = done.stdout
    states = re.search(r"^ *(\d+) states, stored", report, re.M)
    errors = re.search(r"errors: (\d+)", report)
    first = re.search(r"^pan:\d+: (.*)$", report, re.M)
    if states is None or errors is None:
        raise RuntimeError(f"pan {search.model} {search.macros}:\n{report}{done.stderr}")
    ended = "Search not completed" not in report and "max search depth too small" not in report
    return Outcome(int(states[1]), int(errors[1]), ended, first[1] if first else "")


def main() -> int:
    """Search every configuration, plant every error, and write row R11."""
    options = row.arguments(__doc__ or "")
    wanted = STATES[options.long]
    ledger = row.Row.begin(
        options,
        "R11",
        "model: states explored, errors, planted errors caught",
        f"at least {wanted:,}, 0, all of at least 8",
    )
    if shutil.which("spin") is None:
        return 0 if ledger.not_run("needs spin (Debian: apt install spin)") else 1
    searches = LONG if options.long else SHORT
    try:
        with ThreadPoolExecutor(WORKERS) as pool:
            sound = list(pool.map(lambda search: explore(search, options.long), searches))
            planted = list(pool.map(lambda search: explore(search, False), PLANTS))
    except row.NotRunError as missing:
        return 0 if ledger.not_run(str(missing)) else 1
    good = True
    for search, outcome in zip(searches, sound, strict=True):
        fine = outcome.errors == 0 and outcome.ended
        good = good and fine
        said = "no error" if fine else f"FAILED: {outcome.first or 'not searched to the end'}"
        print(f"{outcome.states:12,} states  {search.model:5} {search.macros}: {search.what}: {said}")
    caught = 0
    for search, outcome in zip(PLANTS, planted, strict=True):
        caught += outcome.errors > 0
        said = f"caught: {outcome.first}" if outcome.errors else "MISSED"
        print(f"{outcome.states:12,} states  {search.model:5} {search.macros.split()[0]}: {search.what}: {said[:110]}")
    states = sum(outcome.states for outcome in sound)
    errors = sum(outcome.errors for outcome in sound)
    complete = sum(outcome.ended for outcome in sound)
    value = f"{states:,} states in {complete} complete searches, {errors} errors, {caught}/{len(PLANTS)} planted caught"
    return 0 if ledger.report(value, good and states >= wanted and caught == len(PLANTS) >= 8) else 1


if __name__ == "__main__":
    sys.exit(main())
