"""The table of replacements as the documentation shows it; ``python docs/generate.py`` puts it into its page."""

from collections.abc import Iterator
from typing import Final

from sage_compat.moving_off.replacements import FAMILIES, TABLE, Replacement

__all__ = ["BEGIN", "END", "page_with_table", "table_of_replacements"]

BEGIN: Final = "<!-- Made by docs/generate.py from the table that the commands use. -->"
END: Final = "<!-- End of what docs/generate.py makes. -->"


def table_of_replacements() -> str:
    """Return an overview, and a section for each code."""
    return "\n".join([*_overview(), "", *(line for row in TABLE for line in _section(row))]).rstrip() + "\n"


def page_with_table(page: str) -> str:
    """
    Return a page with the table of today between its two marks.

    Raises:
        ValueError: The page has not the two marks, in their order.
    """
    head, begin, rest = page.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"the page needs a line {BEGIN!r}, and after it a line {END!r}")
    return f"{head}{BEGIN}\n\n{table_of_replacements()}\n{END}{tail}"


def _overview() -> Iterator[str]:
    yield "| Code | Old | New | `fix` |"
    yield "|---|---|---|---|"
    for row in TABLE:
        automatic = "writes it" if row.is_automatic else "leaves it"
        yield f"| [{row.code}](#{row.code.lower()}) | {_cell(row.old)} | {_cell(row.new)} | {automatic} |"


def _section(row: Replacement) -> Iterator[str]:
    yield f"### {row.code}"
    yield ""
    yield f"{_code(row.old)} → {_code(row.new)}"
    yield ""
    yield row.note
    if names := [_whole_name(name) for name in row.names if not name.startswith("*")]:
        yield ""
        yield f"Old names: {', '.join(f'`{name}`' for name in names)}."
    if row.keywords:
        yield ""
        yield "| Argument | Becomes | |"
        yield "|---|---|---|"
        for keyword in row.keywords:
            yield f"| `{keyword.old}` | {f'`{keyword.new}`' if keyword.new else 'nothing'} | {keyword.note} |"
    yield ""


def _whole_name(short: str) -> str:
    """An old name under the first path that it had outside of ``sage_compat``."""
    family, _, name = short.partition(".")
    if family == "queue":
        return f"queue.{name}"
    home = next(path for path in FAMILIES[family] if not path.startswith("sage_compat"))
    return f"{home}.{name}"


def _code(text: str) -> str:
    """Code, where it is code; a sentence stays one."""
    return text if text.startswith("a descriptor") else f"`{text}`"


def _cell(text: str) -> str:
    return _code(text).replace("|", "\\|")
