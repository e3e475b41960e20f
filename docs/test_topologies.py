"""Topology files in the pages are right, and the tutorial of simulations runs as printed."""

import re
import shlex
import subprocess
import sysconfig
from pathlib import Path

import pytest

from sage_sim.files import read_scenario

PAGES = Path(__file__).parent
PROCESSES = {"how-to/simulate.md": [5, 2], "explanation/prediction.md": [10_000]}


@pytest.mark.parametrize("page", PROCESSES)
def test_topology_files_of_the_pages_are_right(page: str, tmp_path: Path) -> None:
    """Everything in them is known."""
    found = []
    for block in re.findall(r"```toml\n(.*?)```", (PAGES / page).read_text(), re.DOTALL):
        (tmp_path / "page.toml").write_text(block)
        found.append(read_scenario(tmp_path / "page.toml").topology().processes)

    assert found == PROCESSES[page]


TUTORIAL = (PAGES / "tutorial" / "first-simulation.md").read_text()
FAILS = ("fourth", "fifth")
"""The folders of runs that are to fail."""


def test_the_tutorial_runs_as_printed(tmp_path: Path) -> None:
    """Each of its commands, one after the other, in an empty folder."""
    pytest.importorskip("faster_fifo")
    (block,) = re.findall(r"```toml\n(.*?)```", TUTORIAL, re.DOTALL)
    (tmp_path / "mail.toml").write_text(block)
    commands = re.findall(r"^\$ (sage-sim .*)$", TUTORIAL, re.MULTILINE)
    assert len(commands) == 8
    for command in commands:
        program, *words = shlex.split(command)

        ended = subprocess.run(
            [Path(sysconfig.get_path("scripts"), program), *words],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

        fails = words[-1] in FAILS
        assert ended.returncode == int(fails), command + ended.stdout + ended.stderr
        assert ("nothing lost                     FAILED" in ended.stdout) == fails
    assert "<polyline" in (tmp_path / "second.html").read_text()
