"""A run as Markdown, for a comment on a change or a page of notes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sage_sim.outputs.words import count, duration

_MARKS = {"valid": "ok", "unknown": "unknown", "invalid": "**failed**"}


def markdown(results: Mapping[str, Any]) -> str:
    """
    Return a run as Markdown.

    Args:
        results: What ``results.json`` holds.
    """
    about = (
        f"{results['processes']:,} processes, {results['queue_count']:,} queues, {results['seconds']:.1f} s, "
        f"seed {results['seed']}, faults {results['faults'] or 'none'}. {results['ending'].capitalize()}."
    )
    lines = [
        f"## {results['topology']}: {results['verdict']}",
        "",
        about,
        "",
        "| queue | kind | items | items/s | p50 | p99 | lost | doubled | reordered | redelivered |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|",
        *(_row(queue["name"], queue["kind"], queue) for queue in results["queues"]),
        _row("*source to sink*", "", results["items"]),
        "",
        "| check | result | figures |",
        "|---|---|---|",
        *(
            f"| {one['check']} | {_MARKS[one['verdict']]} | {_cell('; '.join((one['sentence'], *one['examples'])))} |"
            for one in results["findings"]
        ),
        "",
        f"Repeat it: `{results['command']}`",
    ]
    return "\n".join(lines) + "\n"


def _row(name: str, kind: str, books: Mapping[str, Any]) -> str:
    latency = books["latency_us"]
    cells = (
        *(name, kind, count(books["taken"]), count(books["items_per_second"])),
        *(duration(latency["p50"]), duration(latency["p99"]), count(books["lost"]), count(books["duplicated"])),
        *(count(books["reordered"]), count(books["redelivered"])),
    )
    return f"| {' | '.join(cells)} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
