"""
Runs the programs that pages tell the reader to save, and compares what they print with the page.

A program is a ``python`` block whose first line is ``# <name>.py``. What it prints stands in the ``text`` block of the
same page that starts with ``$ python <name>.py``.
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parent
PROGRAM = re.compile(r"^```python\n# (\w+\.py)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
OUTPUT = re.compile(r"^```text\n\$ python (\w+\.py)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LIMIT_SECONDS = 120

PAGES = {page: page.read_text() for page in sorted(DOCS.glob("**/*.md"))}
PROGRAMS = [
    pytest.param(name, source, dict(OUTPUT.findall(text)).get(name), id=f"{page.stem}-{name}")
    for page, text in PAGES.items()
    for name, source in PROGRAM.findall(text)
]


def test_tutorial_and_how_to_have_programs() -> None:
    """The pattern still finds them."""
    assert len(PROGRAMS) >= 2


@pytest.mark.parametrize(("name", "source", "shown"), PROGRAMS)
def test_program_prints_what_its_page_shows(name: str, source: str, shown: str | None, tmp_path: Path) -> None:
    """Saved, run and compared, as a reader would."""
    (tmp_path / name).write_text(source)

    ran = subprocess.run(
        [sys.executable, name], cwd=tmp_path, capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False
    )

    assert (ran.stdout, ran.stderr, ran.returncode) == (shown, "", 0)
