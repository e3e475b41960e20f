"""The reference names what the packages have: no more, no less."""

import re
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

import sage_compat
import sage_qd
import sage_qd.errors
import sage_qd.monitor
import sage_qd.ring
import sage_qd.runtime
from sage_compat.moving_off.table_page import page_with_table
from sage_qd.testing.reference import deviations_page, kinds_page

REFERENCE = Path(__file__).parent / "reference"
PROOF = Path(__file__).parents[1] / "proof"
DOCUMENTED = re.compile(r"^\.\. auto\w+:: (\S+)$", re.MULTILINE)
LEDGER_ROW = re.compile(r"^\| (R\d+) \|.*\| ([^|]+) \|$", re.MULTILINE)

API = DOCUMENTED.findall((REFERENCE / "api.md").read_text())
ERRORS = DOCUMENTED.findall((REFERENCE / "errors.md").read_text())
LEDGER = {
    row: re.findall(r"`([\w-]+)`", where) for row, where in LEDGER_ROW.findall((REFERENCE / "ledger.md").read_text())
}


def test_names_page_has_each_public_name_once() -> None:
    """Exceptions have a page of their own."""
    queues = [f"sage_qd.{name}" for name in sage_qd.__all__ if name != "__version__"]
    ring = [f"sage_qd.ring.{name}" for name in sage_qd.ring.__all__]
    monitor = [f"sage_qd.monitor.{name}" for name in sage_qd.monitor.__all__]
    errors = [f"sage_qd.{name}" for name in sage_qd.errors.__all__]
    assert sorted(API) == sorted({*queues, *ring, *monitor} - {*errors})


def test_page_of_the_runtime_has_each_public_name_once() -> None:
    """Likewise."""
    page = (REFERENCE / "runtime.md").read_text()
    documented = DOCUMENTED.findall(page)
    assert sorted(documented) == sorted(f"sage_qd.runtime.{name}" for name in sage_qd.runtime.__all__)
    assert ".. py:class:: sage_qd.runtime.RayTask\n" in page  # by hand: it cannot be imported where pages are made


def test_page_of_sage_compat_has_each_public_name_once() -> None:
    """Likewise."""
    documented = DOCUMENTED.findall((REFERENCE / "compat.md").read_text())
    assert sorted(documented) == sorted(f"sage_compat.{name}" for name in sage_compat.__all__ if name != "__version__")


def test_errors_page_has_each_exception_once() -> None:
    """Those that users import."""
    documented = [name for name in ERRORS if name != "sage_qd.errors"]
    assert sorted(documented) == sorted(f"sage_qd.{name}" for name in sage_qd.errors.__all__)


def test_ledger_page_names_environments_of_tox() -> None:
    """So that each command can be typed."""
    tox = (PROOF.parent / "tox.ini").read_text()
    known = {
        name for group in re.findall(r"^\[testenv:(.*)\]$", tox, re.MULTILINE) for name in re.findall(r"[\w-]+", group)
    }
    assert {name for names in LEDGER.values() for name in names} <= known


def test_ledger_page_says_which_script_prints_each_row() -> None:
    """As proof/ledger.toml has it; two environments belong to the script of the sanitizers."""
    environments = {"sanitizers": ["asan", "tsan"]}
    programs = tomllib.loads((PROOF / "ledger.toml").read_text())
    printed = {
        row: environments.get(Path(name).stem, [Path(name).stem.replace("_", "-")])
        for name, rows in programs.items()
        for row in rows
    }
    assert printed == LEDGER


@pytest.mark.parametrize(("name", "page"), [("kinds.md", kinds_page), ("deviations.md", deviations_page)])
def test_pages_made_from_code_are_those_that_the_code_makes(name: str, page: Callable[[], str]) -> None:
    """Otherwise: python docs/generate.py."""
    assert (REFERENCE / name).read_text() == page()


def test_page_on_moving_off_has_the_table_of_today() -> None:
    """Otherwise: python docs/generate.py."""
    page = (REFERENCE.parent / "how-to" / "move-off-the-old-api.md").read_text()

    assert page == page_with_table(page)


def test_the_table_of_the_first_page_links_every_page() -> None:
    """The lists of pages are hidden, so the table is how a reader finds them."""
    text = (REFERENCE.parent / "index.md").read_text()
    listed = [page for block in re.findall(r"```{toctree}\n(?::.*\n)+\n([^`]*)```", text) for page in block.split()]
    table = "\n".join(line for line in text.splitlines() if line.startswith("| "))

    assert len(listed) > 30
    assert sorted(re.findall(r"\]\(([\w/-]+)\.md\)", table)) == sorted(listed)
