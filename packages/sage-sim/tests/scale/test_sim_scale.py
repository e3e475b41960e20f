"""As much as a small machine takes: many processes at full load, and very many of both at a low rate."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

COMMAND = [sys.executable, "-P", "-m", "sage_sim"]
WIDE = """\
name = "wide"
roles = [{ name = "source", count = 10 }, { name = "middle", count = 500 }, { name = "sink", count = 490 }]
duration_seconds = 10
time_limit_seconds = 250

[[edges]]
name = "spread"
source = "source"
target = "middle"
spread = "pair"
capacity_bytes = 4096

[[edges]]
name = "gather"
source = "middle"
target = "sink"

[load]
mode = "open"
rate = 500
"""


def results(folder: Path, *words: str) -> dict[str, Any]:
    ended = subprocess.run(
        [*COMMAND, "run", *words, "--out", str(folder)], capture_output=True, text=True, timeout=280, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    print(ended.stdout)
    found: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return found


@pytest.mark.parametrize(
    "words",
    [
        ("fan-in", "--producers", "199", "--duration", "10"),
        ("shuffle", "--producers", "20", "--workers", "90", "--consumers", "90", "--duration", "10"),
        (
            "pipeline",
            "--producers",
            "60",
            "--workers",
            "80",
            "--consumers",
            "60",
            "--duration",
            "10",
            "--faults",
            "kill:10",
        ),
    ],
    ids=lambda words: words[0],
)
def test_200_processes_at_full_load(words: tuple[str, ...], tmp_path: Path) -> None:
    found = results(tmp_path / "run", *words)

    assert found["processes"] == 200
    assert found["items"]["taken"] > 10_000


def test_1000_processes_and_5000_queues_at_a_low_rate(tmp_path: Path) -> None:
    (tmp_path / "wide.toml").write_text(WIDE)

    found = results(tmp_path / "run", str(tmp_path / "wide.toml"), "--max-procs", "1000")

    assert (found["processes"], found["queue_count"]) == (1000, 5001)
    assert found["items"]["taken"] == pytest.approx(5000, abs=10)
