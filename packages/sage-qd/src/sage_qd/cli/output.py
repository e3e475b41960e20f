"""How figures look: tables for people, JSON for programs."""

import json
import os
from collections.abc import Iterable
from typing import Any

import rich_click as click
from rich.console import Console
from rich.table import Table
from rich.text import Text

__all__ = ["as_json_option", "duration", "number", "plain", "print_json", "quantity", "table", "terminal"]

WIDTH_WITHOUT_TERMINAL = 120

as_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON and nothing else.")


def terminal() -> Console:
    """Where to print: as wide as the terminal, or 120 columns where there is none."""
    console = Console(highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = WIDTH_WITHOUT_TERMINAL
    return console


def print_json(document: Any) -> None:
    """Print a document so that people can read it too; names in any script as they are."""
    click.echo(json.dumps(document, indent=1, ensure_ascii=False))


def table(*headings: str, right: Iterable[str] = (), wrapped: Iterable[str] = ()) -> Table:
    """Make an empty table; figures stand on the right, sentences may wrap."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    numbers, sentences = set(right), set(wrapped)
    for heading in headings:
        made.add_column(
            heading,
            justify="right" if heading in numbers else "left",
            no_wrap=heading not in sentences,
            overflow="fold" if heading in sentences else "ellipsis",
        )
    return made


def number(value: float | None) -> str:
    """A count with separators; a dash for what is not known."""
    return "-" if value is None else f"{value:,.0f}"


def quantity(value: float | None, unit: str = "") -> str:
    """A number in thousands, millions or milliards."""
    if value is None:
        return "-"
    for limit, divisor, prefix in ((1e3, 1, ""), (1e6, 1e3, "k"), (1e9, 1e6, "M")):
        if abs(value) < limit:
            return f"{value / divisor:.3g} {prefix}{unit}".rstrip()
    return f"{value / 1e9:.3g} G{unit}"


def duration(nanoseconds: float | None) -> str:
    """A time in the unit in which it reads best."""
    if nanoseconds is None:
        return "-"
    for limit, divisor, unit in ((1e3, 1, "ns"), (1e6, 1e3, "µs"), (1e9, 1e6, "ms"), (120e9, 1e9, "s")):
        if nanoseconds < limit:
            return f"{nanoseconds / divisor:.3g} {unit}"
    minutes = nanoseconds / 60e9
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.0f} h"


def plain(text: str) -> Text:
    """Text of others, in which brackets mean nothing and control characters do nothing."""
    return Text("".join(letter if letter.isprintable() else "�" for letter in text))
