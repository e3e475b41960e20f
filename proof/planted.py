"""Row R13: bugs planted in the real core, one macro each; every one must be caught by the test that is named for it.

A test suite that passes says little until it has been seen to fail. Each macro ``SQ_PLANT_*`` in the ring's headers
changes one thing that a tired programmer might get wrong. The tests must pass without it and fail with it.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import row
import schedules

BOUND = 20
ATTEMPTS = 10
SECONDS_EACH = 90
QUICK = (
    "-w",
)  # dozens of builds: no optimisation; a planted bug makes warnings, and the plain build is checked elsewhere


@dataclass(frozen=True)
class Plant:
    """One macro (without ``SQ_PLANT_``), what it breaks in words, and the tests of `core_test` that must fail."""

    macro: str
    what: str
    tests: tuple[str, ...] = ()
    race: bool = False  # invisible to any single run on this processor: the thread sanitizer must see it in `stress`
    late: bool = False  # needs a store that others see late: `schedules` must find it


PLANTS = (
    Plant("COMMIT_BEFORE_COPY", "an item is published before its bytes are there",
    ("an_item_is_not_seen_before_it_is_complete",)),
    Plant("RELEASE_BEFORE_COPY", "room is given back before the bytes were copied out",
          ("room_is_not_free_before_the_bytes_were_copied_out",)),
    Plant("RELAXED_PUBLISH", "the store that publishes has no release order", race=True),
    Plant("RELAXED_RELEASE", "the store that gives room back has no release order", race=True),
    Plant("PUBLISH_UNFENCED", "without a lock, nothing orders the publication before the look at sleepers", late=True),
    Plant("ANNOUNCED_UNFENCED", "nothing orders a sleeper's announcement before its second look", late=True),
    Plant("WAKE_BEFORE_PUBLISH", "sleepers are woken before the item is visible",
          ("an_item_is_there_before_anybody_is_woken_for_it",)),
    Plant("NO_WAKE", "nobody is woken", ("a_put_wakes_a_sleeping_getter", "a_get_wakes_a_sleeping_putter")),
    Plant("SLEEPERS_FORGOTTEN", "a wake clears the marks of those who sleep on",
          ("a_wake_keeps_the_mark_of_those_who_sleep_on",)),
    Plant("SHUTDOWN_NO_WAKE", "shutdown leaves sleepers asleep", ("shutdown_wakes_sleepers_on_both_sides",)),
    Plant("TAIL_BEFORE_STATE", "a getter looks for items first and for shutdown second",
          ("no_item_is_missed_when_shutdown_is_seen",)),
    Plant("LOCK_KEPT_AT_SHUTDOWN", "a refused put keeps the lock", ("nothing_is_kept_when_an_operation_is_refused",)),
    Plant("LOCK_NOT_ANNOUNCED", "the kernel is not told which lock a thread holds",
          ("killed_before_publication_nothing_is_seen",)),
    Plant("LOCK_WAKE_FORGOTTEN", "freeing the lock wakes nobody", ("freeing_the_lock_wakes_who_waits_for_it",)),
    Plant("VANISHED_OWNER_TRUSTED", "nobody looks whether the owner still exists",
          ("a_lock_whose_owner_vanished_is_taken_over",)),
    Plant("OWNER_DIED_IGNORED", "a lock from a dead owner is taken as any other",
          ("the_lease_of_a_killed_process_comes_back", "killed_before_publication_nothing_is_seen")),
    Plant("NO_RECOVERY", "recovery does nothing",
          ("the_lease_of_a_killed_process_comes_back", "a_killed_recovery_of_return_loses_nothing")),
    Plant("BOOT_ID_IGNORED", "owners from an earlier boot are believed", ("a_file_from_an_earlier_boot_is_adopted",)),
    Plant("KILL_ZERO_LIVENESS", "kill(pid, 0) decides who is alive", ("a_process_that_nobody_reaped_is_gone",)),
    Plant("MAX_ITEMS_OFF_BY_ONE", "one item more than the limit", ("max_items_is_exact",)),
    Plant("POSITION_CARRY", "the units' half of a position overflows into the items' half",
          ("counters_wrap_without_effect",)),
    Plant("HEAD_NOT_LOOKED_UP", "a producer believes the head it saw once",
          ("room_is_found_again_after_a_full_ring_was_drained",)),
    Plant("SEQUENCE_UNCHECKED", "any bytes pass for a record", ("a_wrong_sequence_is_damage",)),
    Plant("LENGTH_UNCHECKED", "a length is believed", ("a_length_beyond_what_was_published_is_damage",)),
    Plant("CHECKSUM_IGNORED", "a damaged payload is delivered", ("a_changed_payload_byte_is_found_by_the_checksum",)),
    Plant("GEOMETRY_UNCHECKED", "a region outside the file is mapped", ("a_geometry_outside_the_file_is_damage",)),
    Plant("REMAP_FORGOTTEN", "after a resize a handle goes on with the old region", ("resize_keeps_what_is_queued",)),
    Plant("RESIZE_STORED_BEFORE_COPY", "the new region is in force before the items are in it",
          ("a_killed_resize_loses_nothing",)),
    Plant("HEAD_PASSES_LEASE", "the head passes a leased item", ("the_head_does_not_pass_a_leased_item",)),
    Plant("NACK_FORGETS_ATTEMPT", "a returned item looks like a new one",
          ("a_returned_item_comes_first_and_counts_the_attempt",)),
    Plant("CURSOR_FORGOTTEN", "a returned item is never found again",
          ("a_returned_item_comes_first_and_counts_the_attempt",)),
    Plant("FRONTIER_FORGOTTEN", "recovery and sweep stop before the last leased item",
          ("leases_of_a_killed_process_come_back",)),
    Plant("FENCE_FORGOTTEN", "an answer to a lease that is over counts",
    ("an_answer_to_a_lease_that_is_over_is_fenced",)),
    Plant("LEASE_BEFORE_DISORDER", "an item is marked before the ring says that it may be",
          ("the_lease_of_a_killed_process_comes_back",)),
    Plant("NO_SWEEP", "leases of dead processes stay with them", ("leases_of_a_killed_process_come_back",)),
    Plant("SLOT_FREED_FIRST", "a sweep frees the slot before it gave the leases back",
    ("a_killed_sweep_loses_nothing",)), Plant("SLOT_EPOCH_IGNORED", "a sweep frees a slot that changed hands meanwhile",
          ("a_sweep_spares_a_slot_that_changed_hands_meanwhile",)),
    Plant("FORK_UNNOTICED", "a forked child acts as its parent", ("a_forked_child_is_a_party_of_its_own",)),
)  # fmt: skip


def macros_in_headers() -> set[str]:
    """Every planted bug that the headers have."""
    return {name for header in row.HEADERS.glob("*.h") for name in re.findall(r"\bSQ_PLANT_(\w+)", header.read_text())}


def tests_that_fail(program: Path, tests: tuple[str, ...]) -> list[str]:
    """Run the named tests; the names of those that failed."""
    done = subprocess.run([program, *tests], capture_output=True, text=True, timeout=SECONDS_EACH)
    failed = [test for test in tests if re.search(rf"^{test} +FAILED", done.stdout, re.M)]
    passed = [test for test in tests if re.search(rf"^{test} +ok$", done.stdout, re.M)]
    if len(failed) + len(passed) != len(tests):
        raise RuntimeError(f"{program.name} did not run all of {tests}:\n{done.stdout}{done.stderr}")
    return failed


def race_is_reported(program: Path, seed: int) -> bool:
    """Run a second of traffic under the thread sanitizer; true when it reports a data race."""
    done = subprocess.run(
        [program, "shared", "1", "1", "1", str(seed)],
        capture_output=True, text=True, timeout=SECONDS_EACH, env=os.environ | {"TSAN_OPTIONS": "halt_on_error=1"},
    )  # fmt: skip
    return "WARNING: ThreadSanitizer: data race" in done.stderr


def catch(plant: Plant, seed: int) -> tuple[bool, str]:
    """Build with the bug and look whether it is caught; the second value says by what."""
    flag = f"-DSQ_PLANT_{plant.macro}"
    if plant.late:
        return schedules.is_found(plant.macro), "schedules"
    if plant.race:
        program = row.build("stress.c", *QUICK, "-fsanitize=thread", flag, name="stress_planted", optimise="-O0")
        return race_is_reported(program, seed), "stress under the thread sanitizer"
    program = row.build("core_test.c", *QUICK, "-DSQ_FAULT_POINTS", flag, name="core_test_planted", optimise="-O0")
    failed: set[str] = set()
    for _ in range(ATTEMPTS):  # a race shows only when both threads run at the same moment
        failed.update(tests_that_fail(program, plant.tests))
        if len(failed) == len(plant.tests):
            break
    return len(failed) == len(plant.tests), ", ".join(plant.tests)


def sound_without_bugs(seed: int) -> list[str]:
    """The named tests on the core as it is; the names of those that fail (there must be none)."""
    program = row.build("core_test.c", *QUICK, "-DSQ_FAULT_POINTS", name="core_test_plain", optimise="-O0")
    bad = tests_that_fail(program, tuple(sorted({test for plant in PLANTS for test in plant.tests})))
    racing = row.build("stress.c", *QUICK, "-fsanitize=thread", name="stress_plain", optimise="-O0")
    return bad + (["stress under the thread sanitizer"] if race_is_reported(racing, seed) else [])


def main() -> int:
    """Plant every bug in turn and write row R13."""
    options = row.arguments(__doc__ or "")
    ledger = row.Row.begin(options, "R13", "planted bugs in the real core caught", f"all, and at least {BOUND}")
    known = {plant.macro for plant in PLANTS}
    strays = sorted(macros_in_headers() ^ known)
    try:
        unsound = sound_without_bugs(options.seed)
        caught = 0
        for plant in PLANTS:
            good, how = catch(plant, options.seed)
            caught += good
            print(f"{'caught' if good else 'MISSED':6}  {plant.macro:26} {plant.what}\n{'':34} {how}", flush=True)
    except row.NotRunError as missing:
        return 0 if ledger.not_run(str(missing)) else 1
    for name in unsound:
        print(f"fails without any bug: {name}")
    for name in strays:
        print(f"in the headers or in this list, not in both: {name}")
    good = caught == len(PLANTS) >= BOUND and not unsound and not strays
    return 0 if ledger.report(f"{caught}/{len(PLANTS)}", good) else 1


if __name__ == "__main__":
    sys.exit(main())
