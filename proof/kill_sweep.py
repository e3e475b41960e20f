"""
Row R2: a process is killed at every single instruction of an operation of the ring, and the survivors find all well.

The short form sweeps put and get from every start state, the long form all operations. See ``kill_sweep.c``.
"""

from __future__ import annotations

import sys

import row

SHORT_SECONDS, LONG_SECONDS = 180, 4 * 3600


def main() -> int:
    """Run the sweep and report the row; 1 when it failed."""
    options = row.arguments(__doc__)
    what = "all operations" if options.long else "put and get"
    proof = row.Row.begin(
        options,
        "R2",
        "kill at every instruction boundary, start states empty, full, wrapping, spilling and others",
        f"100 % of {what}",
    )
    try:
        program = row.build("kill_sweep.c", "-no-pie")  # fixed addresses, so that a complaint names its instruction
    except row.NotRunError as reason:
        return not proof.not_run(str(reason))
    result = row.run(
        program, *(["--long"] if options.long else []), timeout=LONG_SECONDS if options.long else SHORT_SECONDS
    )
    if "not_run" in result:
        return not proof.not_run(str(result["not_run"]))
    if "kills" not in result:
        return not proof.report(f"the sweep did not finish: {result['exit']}", False)
    ended = f"{result['kills']:,} kills in {result['sweeps']} sweeps of {what}, {result['bad']} wrong"
    return not proof.report(ended, result["exit"] == 0 and result["bad"] == 0)


if __name__ == "__main__":
    sys.exit(main())
