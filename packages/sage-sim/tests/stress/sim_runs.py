"""Runs of the program, as a user starts it, for all tests of real processes."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

COMMAND = [sys.executable, "-P", "-m", "sage_sim"]
WATCHDOG_SECONDS = 120
PLANTED = Path(__file__).parent / "planted"


def wait_until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + WATCHDOG_SECONDS
    while not condition():
        assert time.monotonic() < end, "the watchdog ended the wait"
        time.sleep(0.02)


def run(folder: Path, *words: str, plant: str | None = None) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(filter(None, (str(PLANTED), os.environ.get("PYTHONPATH"))))
    planted = {} if plant is None else {"PLANT": plant, "PYTHONPATH": path}
    return subprocess.run(
        [*COMMAND, "run", *words, "--out", str(folder)],
        env=os.environ | planted,
        capture_output=True,
        text=True,
        timeout=WATCHDOG_SECONDS,
        check=False,
    )


def results_of(folder: Path) -> dict[str, Any]:
    results: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return results


def checks_of(results: dict[str, Any]) -> dict[str, str]:
    return {finding["check"]: finding["verdict"] for finding in results["findings"]}


def broken_checks(folder: Path) -> list[str]:
    return [check for check, verdict in checks_of(results_of(folder)).items() if verdict != "valid"]
