"""Write the pages that are made from code; docs/test_reference.py compares them."""

from pathlib import Path

from sage_compat.moving_off.table_page import page_with_table
from sage_qd.testing.reference import deviations_page, kinds_page

REFERENCE = Path(__file__).parent / "reference"
PAGES = {"deviations.md": deviations_page, "kinds.md": kinds_page}
MOVING_OFF = Path(__file__).parent / "how-to" / "move-off-the-old-api.md"


def main() -> None:
    """Write all of them."""
    for name, page in PAGES.items():
        (REFERENCE / name).write_text(page())
    MOVING_OFF.write_text(page_with_table(MOVING_OFF.read_text()))


if __name__ == "__main__":
    main()
