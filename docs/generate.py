"""Write the pages of the reference that are made from code; docs/test_reference.py compares them."""

from pathlib import Path

from sage_qd.testing.reference import deviations_page, kinds_page

REFERENCE = Path(__file__).parent / "reference"
PAGES = {"deviations.md": deviations_page, "kinds.md": kinds_page}


def main() -> None:
    """Write all of them."""
    for name, page in PAGES.items():
        (REFERENCE / name).write_text(page())


if __name__ == "__main__":
    main()
