"""How answers look: tables for people, JSON for programs."""

import json
import os
from typing import Any

import rich_click as click
from rich.console import Console
from rich.table import Table
from rich.text import Text

__all__ = ["as_json_option", "plain", "print_json", "print_table", "terminal"]

as_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON and nothing else.")


def terminal() -> Console:
    """Where to print: as wide as the terminal, or 120 columns where there is none."""
    console = Console(highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = 120
    return console


def print_json(document: Any) -> None:
    """Print a document so that people can read it too."""
    click.echo(json.dumps(document, indent=1, ensure_ascii=False))


def plain(text: object) -> Text:
    """Text of others, in which brackets mean nothing and control characters do nothing."""
    return Text("".join(letter if letter.isprintable() else "�" for letter in str(text)))


def print_table(headings: list[str], rows: list[list[object]]) -> None:
    """Print a table; the last column may wrap."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        table.add_column(heading, no_wrap=heading != headings[-1], overflow="fold")
    for row in rows:
        table.add_row(*map(plain, row))
    terminal().print(table)
