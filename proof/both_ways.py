"""Row R31: the same operations on the old path of sage-compat and on the new one, compared answer by answer.

Hypothesis makes histories of puts, gets, questions, refusals and handles that come again, and shrinks what differs. The
machine is the one of the property test of sage-compat.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import row
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

OPERATIONS = {False: 200_000, True: 10_000_000}
EXAMPLES = 40

sys.path.insert(0, str(row.ROOT / "packages" / "sage-compat" / "tests" / "property"))


def main() -> int:
    """Run histories until there were enough operations, and report the row; 1 when it failed."""
    options = row.arguments(__doc__ or "")
    proof = row.Row.begin(options, "R31", "operations on the old way and on the new one: answers that differ", "0")
    with tempfile.TemporaryDirectory() as name:
        os.environ["SAGE_COMPAT_DIR"] = str(Path(name, "compat"))
        from both_ways import BothWays

        chosen = settings(
            max_examples=EXAMPLES,
            stateful_step_count=100,
            deadline=None,
            database=None,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
        )
        differences, said, runs = 0, "", 0
        while BothWays.operations < OPERATIONS[options.long] and not differences:
            machine = seed(options.seed + runs)(type(f"BothWays{runs}", (BothWays,), {"operations": 0}))
            try:
                run_state_machine_as_test(machine, settings=chosen)
            except AssertionError as error:
                differences, said = 1, str(error)
            BothWays.operations += machine.operations
            runs += 1
            print(f"  {BothWays.operations:,} operations", flush=True)
    if said:
        print(said)
    return not proof.report(f"{differences} in {BothWays.operations:,} operations", not differences)


if __name__ == "__main__":
    sys.exit(main())
