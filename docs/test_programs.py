"""
Runs the programs that pages tell the reader to save, and compares what they print with the page.

A program is a ``python`` block whose first line is ``# <name>.py``; what it prints stands in the ``text`` block that starts
with ``$ python <name>.py``.
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parent
PROGRAM = re.compile(r"^```python\n# (\w+\.py)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LIMIT_SECONDS = 120

PROGRAMS = [
    pytest.param(page, name, source, id=f"{page.stem}-{name}")
    for page in sorted(DOCS.glob("**/*.md"))
    for name, source in PROGRAM.findall(page.read_text())
]


def test_tutorial_and_how_to_have_programs() -> None:
    assert len(PROGRAMS) >= 2


@pytest.mark.parametrize(("page", "name", "source"), PROGRAMS)
def test_program_prints_what_its_page_says(page: Path, name: str, source: str, tmp_path: Path) -> None:
    shown = re.search(rf"^```text\n\$ python {re.escape(name)}\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
    assert shown is not None, f"{page.name} does not show what {name} prints"
    (tmp_path / name).write_text(source)

    ran = subprocess.run(
        [sys.executable, name], cwd=tmp_path, capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False
    )

    assert (ran.stdout, ran.stderr, ran.returncode) == (shown[1], "", 0)
