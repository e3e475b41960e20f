"""How long importing takes in a fresh interpreter: printed, never judged, as it depends on disk and load."""

import subprocess
import sys
from statistics import median

import pytest

ROUNDS = 20
MEASURE = "import time; start = time.perf_counter_ns(); import {0}; print(time.perf_counter_ns() - start)"


def bench_import(capsys: pytest.CaptureFixture[str]) -> None:
    for module in ("sage_qd", "sage_qd.ring", "sage_qd.monitor", "sage_qd.cli.app"):
        words = [sys.executable, "-c", MEASURE.format(module)]
        times = [int(subprocess.run(words, capture_output=True, check=True).stdout) for _ in range(ROUNDS)]
        with capsys.disabled():
            print(f"\nimport {module}: median {median(times) / 1e6:.1f} ms, best {min(times) / 1e6:.1f} ms", end="")
