"""The page on moving off the old API shows what the command really does."""

import re
from pathlib import Path

from sage_compat.moving_off.cli import ExitCode
from sage_compat.moving_off.fixing import fixed
from sage_compat.moving_off.judging import Granted
from sage_compat.moving_off.sources import Decoded

PAGE = Path(__file__).parent / "how-to" / "move-off-the-old-api.md"
DIFF = re.compile(r"^```diff\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_the_difference_on_the_page_is_what_fix_makes() -> None:
    """Its lines without those that are added, and those without the ones that go."""
    [diff] = DIFF.findall(PAGE.read_text())
    lines = diff.splitlines()
    before = "".join(f"{line[1:]}\n" for line in lines if line[0] != "+")
    after = "".join(f"{line[1:]}\n" for line in lines if line[0] != "-")

    done = fixed({Path("etl.py"): Decoded(before, "utf-8")}, Granted(namespace='"etl"'))

    assert done.texts == {Path("etl.py"): after}


def test_the_page_has_each_exit_code() -> None:
    """Those of the commands."""
    text = PAGE.read_text()

    assert all(f"\n| {code.value} | " in text for code in ExitCode)
