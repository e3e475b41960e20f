"""
Row R12: the real core under schedules that a seed decides, with kills and stops at any step, accounting for all items.

``schedules.c`` runs the ring's own code as coroutines; ``world.h`` says what stands in for processor, kernel and clock.
Without kills nobody may even have to wait for the end of a slice. Then bugs are planted, those of `planted.py` that
order or death bring to light, and each has to be found. A finding prints the words that replay it, step by step.
"""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import row

COUNTS = {False: 1_000_000, True: 100_000_000}
SECONDS = {False: 1800, True: 6 * 3600}
WORKERS = 2
PLANTED_COUNT, PLANTED_SEED = 200_000, 1  # up to the first finding, which is the same each time
PLANTS = (
    "COMMIT_BEFORE_COPY",
    "RELEASE_BEFORE_COPY",
    "PUBLISH_UNFENCED",
    "ANNOUNCED_UNFENCED",
    "NO_WAKE",
    "SLEEPERS_FORGOTTEN",
    "SHUTDOWN_NO_WAKE",
    "TAIL_BEFORE_STATE",
    "LOCK_KEPT_AT_SHUTDOWN",
    "LOCK_NOT_ANNOUNCED",
    "LOCK_WAKE_FORGOTTEN",
    "VANISHED_OWNER_TRUSTED",
    "OWNER_DIED_IGNORED",
    "NO_RECOVERY",
    "MAX_ITEMS_OFF_BY_ONE",
    "POSITION_CARRY",
    "HEAD_NOT_LOOKED_UP",
    "REMAP_FORGOTTEN",
    "RESIZE_STORED_BEFORE_COPY",
    "HEAD_PASSES_LEASE",
    "NACK_FORGETS_ATTEMPT",
    "CURSOR_FORGOTTEN",
    "FRONTIER_FORGOTTEN",
    "LEASE_BEFORE_DISORDER",
    "NO_SWEEP",
    "SLOT_FREED_FIRST",
    "SLOT_EPOCH_IGNORED",
)


def built(name: str, *flags: str) -> Path:
    """The program, with or without a planted bug."""
    return row.build("schedules.c", "-DSQ_FAULT_POINTS", *flags, name=name, optimise="-O1" if flags else "-O2")


def explored(program: Path, count: int, seed: int, seconds: float) -> list[dict[str, object]]:
    """The results of so many schedules, shared among processes with seeds of their own."""
    with ThreadPoolExecutor(WORKERS) as pool:
        shares = [(count // WORKERS, seed * WORKERS + worker) for worker in range(WORKERS)]
        return list(pool.map(lambda share: row.run(program, *share, timeout=seconds), shares))


def is_found(plant: str) -> bool:
    """Whether a planted bug is found; the program ends with 1 as soon as it is."""
    program = built(f"schedules_{plant.lower()}", "-w", f"-DSQ_PLANT_{plant}")
    command = [program, "--first", str(PLANTED_COUNT), str(PLANTED_SEED)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    program.unlink()
    told = next((line for line in ended.stdout.splitlines() if ": " in line), "")
    print(f"{'found' if ended.returncode == 1 else 'MISSED':6}  {plant:26} {told}", flush=True)
    return ended.returncode == 1


def main() -> int:
    """Explore, plant, and report the row; 1 when it failed."""
    options = row.arguments(
        __doc__ or "", count={"type": int, "help": "schedules [1,000,000; 100 times that with --long]"}
    )
    count = options.count or COUNTS[options.long]
    proof = row.Row.begin(
        options,
        "R12",
        "schedules of the real core with kills at any step: wrong, planted bugs found",
        f"{count:,}: 0, all of {len(PLANTS)}",
    )
    try:
        program = built("schedules")
    except row.NotRunError as reason:
        return not proof.not_run(str(reason))
    results = explored(program, count, options.seed, SECONDS[options.long])
    if any("bad" not in result for result in results):
        return not proof.report(f"the run did not finish: {[result['exit'] for result in results]}", False)
    total = {
        name: sum(int(str(result[name])) for result in results) for name in ("schedules", "steps", "deaths", "bad")
    }
    places = max(int(str(result["places"])) for result in results)
    with ThreadPoolExecutor(WORKERS) as pool:
        found = sum(pool.map(is_found, PLANTS))
    value = (
        f"{total['bad']} wrong in {total['schedules']:,} schedules of {total['steps']:,} steps, "
        f"{total['deaths']:,} deaths at {places:,} places; {found}/{len(PLANTS)} found"
    )
    return not proof.report(value, total["bad"] == 0 and found == len(PLANTS))


if __name__ == "__main__":
    sys.exit(main())
