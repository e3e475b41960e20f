"""
The twenty-second form: our ring against the bare one only, for work on the ring itself.

    python benchmarks/quick.py                 all six figures
    python benchmarks/quick.py pair round      those whose name holds one of the words
    python benchmarks/quick.py --repeat 3      everything three times

No verdicts: three short repetitions on a machine that does other things tell 30 % apart, not 5 %.
"""

from __future__ import annotations

import argparse

from arena import Arena, Entry
from large import large_get
from latency import pair, round_trip, wake
from report import number_text, quotient, ratio_text
from rows import FLOOR, MEGABYTE, RING, ROLES, entries, two_cores
from throughput import batches, stream

REPETITIONS = 3
SECONDS = 0.12


def figures() -> dict[str, tuple[str, list[Entry]]]:
    """Name -> unit and contenders."""
    both = (RING, ROLES, FLOOR)
    return {
        "pair in one thread": ("ns", entries(pair(), *both)),
        "one-to-one 64 B, two cores": ("M/s", entries(stream(), *both, pinned=two_cores())),
        "batches of 100, two cores": ("M/s", entries(batches(), *both, pinned=two_cores())),
        "round trip busy, two cores": ("us", entries(round_trip(), *both, pinned=two_cores())),
        "wake after 1 ms idle, two cores": ("us", entries(wake(), RING, FLOOR, pinned=two_cores())),
        "1 MiB get": ("GB/s", entries(large_get(), *both, shape=MEGABYTE)),
    }


def main() -> None:
    """Measure and print each figure as soon as it is there."""
    parser = argparse.ArgumentParser(description="Our ring against the bare one, in twenty seconds.")
    parser.add_argument("words", nargs="*", help="only figures whose name holds one of these words")
    parser.add_argument("--repeat", type=int, default=1, help="how often everything is measured")
    options = parser.parse_args()
    print(f"{'figure':33} {'contender':24} {'median':>9} {'ours / floor':>13}   all")
    for _ in range(options.repeat):
        arena = Arena(REPETITIONS, SECONDS)
        try:
            for name, (unit, made) in figures().items():
                if not options.words or any(word in name for word in options.words):
                    show(arena, name, unit, made)
        finally:
            arena.close()


def show(arena: Arena, name: str, unit: str, made: list[Entry]) -> None:
    """Measure one figure and print a line for each contender."""
    measured = arena.row(made)
    floor = measured[-1]
    for one in measured:
        if one.problem is not None:
            print(f"{name:33} {one.name:24} {one.problem}")
            continue
        ratio = "" if one is floor else ratio_text(quotient(one, floor))
        values = " ".join(map(number_text, one.values["value"]))
        median = f"{number_text(one.median() or 0.0)} {unit}"
        print(f"{name:33} {one.name:24} {median:>9} {ratio:>13}   {values}", flush=True)


if __name__ == "__main__":
    main()
