"""The reliability ledger as one page for the browser, and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from sage_sim.ledger import Row, failed, not_run
from sage_sim.outputs.sheet import STYLE, table

_HEAD = ("row", "figure", "bound", "value", "verdict", "form", "seed", "seconds", "commit")


def summary(rows: Sequence[Row]) -> str:
    """All of it in one line."""
    wrong, missing = failed(rows), not_run(rows)
    named = "".join(
        f", {len(numbers)} {word} ({', '.join(numbers)})" if numbers else f", 0 {word}"
        for word, numbers in (("failed", wrong), ("not run", missing))
    )
    return f"{len(rows) - len(wrong) - len(missing)} of {len(rows)} rows ok{named}"


def ledger_markdown(rows: Sequence[Row]) -> str:
    """A table that is readable as it is."""
    lines = [_HEAD, *(tuple(cell.replace("|", "\\|") for cell in _cells(row)) for row in rows)]
    widths = [max(len(line[at]) for line in lines) for at in range(len(_HEAD))]
    texts = [f"| {' | '.join(map(str.ljust, line, widths))} |" for line in lines]
    texts.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join([*texts, "", summary(rows)]) + "\n"


def ledger_page(rows: Sequence[Row]) -> str:
    """A page that loads nothing and runs nothing."""
    verdict = "invalid" if failed(rows) else "unknown" if not_run(rows) else "valid"
    cells = [_marked(row) for row in rows]
    repeats = [(row.row, f"<code>{escape(row.command)}</code>") for row in rows if row.command]
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>Reliability ledger</title>'
        f"<style>{STYLE}body {{ max-width: 90rem }}</style></head><body>\n"
        f'<h1>Reliability ledger <span class="verdict {verdict}">{escape(summary(rows))}</span></h1>\n'
        f"<section>{table(_HEAD, cells, kind='words')}</section>\n"
        f"<section><h2>Measure one again</h2>\n{table(('row', 'command'), repeats, kind='words')}</section>\n"
        "</body></html>\n"
    )


def _marked(row: Row) -> list[str]:
    cells = [escape(cell) for cell in _cells(row)]
    if not row.ok:
        cells[4] = f'<span class="bad">{cells[4]}</span>'
    return cells


def _cells(row: Row) -> tuple[str, ...]:
    seed = "" if row.seed is None else str(row.seed)
    return (
        *(row.row, row.figure, row.bound, row.value, row.verdict),
        *(row.form, seed, f"{row.seconds:.0f}", row.commit),
    )
