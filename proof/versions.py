"""Row R25: the contract of all queue kinds on every version of Python that is supported and installed.

The short form runs the contract tests, the long form the unit tests too, each in the environment of tox for that
version. A version that is not installed is named; so is the free-threaded build, which has no environment yet.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import row

VERSIONS = {
    "3.11": ("contract", "unit-py311"),
    "3.12": ("contract-py312", "unit-py312"),
    "3.13": ("contract-py313", "unit-py313"),
}
PASSED = re.compile(r"(\d+) passed")
WATCHDOG_SECONDS = 1800.0


def main() -> int:
    """Run them and report the row; 1 when a suite failed."""
    options = row.arguments(__doc__ or "")
    proof = row.Row.begin(
        options, "R25", "suites on 3.11, 3.12, 3.13 and the free-threaded build", "green where it exists"
    )
    tox = row.ROOT / ".venv" / "bin" / "tox"
    if not tox.exists():
        return not proof.not_run("needs .venv; make .venv/ready")
    values, good = [], True
    for version, environments in VERSIONS.items():
        value, ok = suite(tox, environments if options.long else environments[:1])
        values.append(f"{version}: {value}")
        good = good and ok
    return not proof.report(", ".join([*values, "free-threaded: not run"]), good)


def suite(tox: Path, environments: tuple[str, ...]) -> tuple[str, bool]:
    """Run some environments; what came out, in words, and whether nothing failed."""
    command = [tox, "run", "-e", ",".join(environments)]
    ran = subprocess.run(command, cwd=row.ROOT, capture_output=True, text=True, timeout=WATCHDOG_SECONDS)
    passed = sum(map(int, PASSED.findall(ran.stdout)))
    if ran.returncode:
        print(ran.stdout[-4000:])
        return f"exit {ran.returncode}", False
    return (f"{passed:,} passed" if passed else "not installed"), True


if __name__ == "__main__":
    sys.exit(main())
