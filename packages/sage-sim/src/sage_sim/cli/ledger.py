"""The verb `ledger`."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

import rich_click as click
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sage_sim.cli.output import terminal
from sage_sim.ledger import Ledger, Row, failed, not_run, written
from sage_sim.outputs.ledger_page import ledger_markdown, ledger_page, summary
from sage_sim.results import ExitCode

_STYLES = {True: "green", False: "bold red", None: "yellow"}


@click.command()
@click.option("--row", "wanted", multiple=True, metavar="R1", help="Only this row; again for each. (default: all)")
@click.option("--long", is_flag=True, help="The form before a release; hours.")
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), help="Of all programs; each draws its own if none is given.")
@click.option("--collect", is_flag=True, help="Measure nothing: show what was written before.")
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), help="Folder for rows and pages. (default: build/ledger)"
)
@click.option("--json", "as_json", is_flag=True, help="Print the rows as JSON, and the programs' words as errors.")
def ledger(
    wanted: tuple[str, ...], long: bool, seed: int | None, collect: bool, out: Path | None, as_json: bool
) -> None:
    """
    Measure the rows of the reliability ledger, and write them as one page, as Markdown and as JSON.

    Each row is measured by a program of the sources, so it works in a checkout only. The exit code is 1 when a row was
    out of its bound or a program broke down; a row that was not run says why, and never counts as held.

    \b
    Examples:
      sage-sim ledger
      sage-sim ledger --row R4 --row R32 --seed 7
      sage-sim ledger --collect --json | jq '.failed'
    """  # noqa: D301  (click wants this very character before a block that it must not wrap)
    found = Ledger.around(Path.cwd())
    if unknown := sorted(set(wanted) - set(found.numbers)):
        raise click.UsageError(f"no row {', '.join(unknown)}; there are {', '.join(found.numbers)}")
    place, numbers = out or found.out, [one for one in found.numbers if not wanted or one in wanted]
    place.mkdir(parents=True, exist_ok=True)
    words = sys.stderr if as_json else sys.stdout
    broken = {} if collect else found.measure(numbers, place, long=long, seed=seed, words=words)
    rows = written(numbers, place)
    content = {"failed": failed(rows), "not_run": not_run(rows), "broken": broken}
    text = json.dumps(content | {"rows": [asdict(row) for row in rows]}, indent=1) + "\n"
    for name, told in (("json", text), ("md", ledger_markdown(rows)), ("html", ledger_page(rows))):
        (place / f"ledger.{name}").write_text(told, encoding="utf-8")
    if as_json:
        print(text, end="")
    else:
        _show(terminal(), rows, broken, place)
    sys.exit(ExitCode.CHECK_FAILED if failed(rows) or broken else ExitCode.PASS)


def _show(console: Console, rows: list[Row], broken: dict[str, int], place: Path) -> None:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("row", "figure", "bound", "value", "verdict", "seconds"):
        table.add_column(heading, justify="right" if heading == "seconds" else "left")
    for row in rows:
        verdict = Text(row.verdict, style=_STYLES[row.ok])
        table.add_row(row.row, Text(row.figure), Text(row.bound), Text(row.value), verdict, f"{row.seconds:.0f}")
    console.print(table)
    for name, code in broken.items():
        console.print(f"proof/{name} broke down with exit code {code}; its words are above", style="bold red")
    console.print(summary(rows), soft_wrap=True)
    console.print(f"page     {place / 'ledger.html'}", soft_wrap=True)
