"""
Row R3: every fault point of the ring is hit with a kill, a stop and a delay, in every role that comes by.

The survivors check the outcome after each hit. See ``points.c`` and the list in ``ring_points.h``.
"""

from __future__ import annotations

import sys

import row

SHORT_TIMES, LONG_TIMES = 100, 2000
SHORT_SECONDS, LONG_SECONDS = 300, 3600


def main() -> int:
    """Run all points and report the row; 1 when it failed."""
    options = row.arguments(__doc__)
    times = LONG_TIMES if options.long else SHORT_TIMES
    proof = row.Row.begin(
        options, "R3", "fault points hit / total, x {kill, stop, delay} x role", f"100 %, {times:,} each, 0 wrong"
    )
    try:
        program = row.build("points.c", "-DSQ_FAULT_POINTS", "-no-pie")
    except row.NotRunError as reason:
        return not proof.not_run(str(reason))
    result = row.run(program, times, options.seed, timeout=LONG_SECONDS if options.long else SHORT_SECONDS)
    if "points" not in result:
        return not proof.report(f"the run did not finish: {result['exit']}", False)
    value = (
        f"{result['points_hit']} / {result['points']} points, {result['cells']} pairs of point and role, "
        f"{result['fewest']} times or more each, {result['trials']:,} in all, {result['bad']} wrong"
    )
    complete = result["points_hit"] == result["points"] and int(str(result["fewest"])) >= times
    return not proof.report(value, result["exit"] == 0 and complete and result["bad"] == 0)


if __name__ == "__main__":
    sys.exit(main())
