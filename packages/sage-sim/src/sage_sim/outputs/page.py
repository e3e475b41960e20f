"""One page for the browser that shows a run; everything is in it, and it loads and runs nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from html import escape
from itertools import pairwise
from typing import Any

from sage_sim.outputs.charts import Chart
from sage_sim.outputs.sheet import STYLE, table
from sage_sim.outputs.words import count, duration

LINES_AT_MOST = 8
"""So many edges have a line in a chart: those that carried most."""
_BOX = (170, 58)
_GAP = (110, 24)
_MARGIN = 20
_LABELS = ("p50", "p90", "p99", "p999", "max")


def run_page(results: Mapping[str, Any]) -> str:
    """
    Return the page as HTML.

    Args:
        results: What ``results.json`` holds.
    """
    name, verdict = escape(results["topology"]), escape(results["verdict"])
    faults = f", faults <code>{escape(results['faults'])}</code>" if results["faults"] else ""
    backlog = f", backlog of {results['backlog']:,}" if results["backlog"] else ""
    ending = escape(results["ending"].capitalize())
    sections = (
        ("Topology", _drawing(results)),
        ("Throughput, messages settled per second", _chart(results, _rates(results), "messages a second")),
        ("Depth, messages put and not settled", _chart(results, _depths(results), "messages")),
        ("Latency", _latencies(results)),
        ("Queues", _queues(results)),
        ("Checks", _checks(results)),
        ("Faults that struck", _blows(results)),
        ("Machine", _machine(results)),
    )
    body = "\n".join(f"<section><h2>{title}</h2>\n{content}</section>" for title, content in sections if content)
    trouble = f"<pre>{escape(results['trouble'])}</pre>" if results["trouble"] else ""
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{name}: {verdict}</title>'
        f"<style>{STYLE}</style></head><body>\n"
        f'<h1>{name} <span class="verdict {verdict}">{verdict}</span></h1>\n'
        f'<p class="about">{results["processes"]:,} processes, {results["queue_count"]:,} queues, '
        f"{results['seconds']:.1f} s, seed {results['seed']}{backlog}{faults}. {ending}. "
        f"Started {escape(results['started'])}.</p>\n{trouble}{body}\n"
        f"<p>Repeat it: <code>{escape(results['command'])}</code></p>\n</body></html>\n"
    )


# -- Topology ---------------------------------------------------------------------------------------------------------


def _drawing(results: Mapping[str, Any]) -> str:
    """Boxes for roles, with their faults, and lines for edges, with what went through them."""
    columns = _columns(results)
    width = len(columns) * (_BOX[0] + _GAP[0]) - _GAP[0] + 2 * _MARGIN
    height = max(map(len, columns)) * (_BOX[1] + _GAP[1]) - _GAP[1] + 2 * _MARGIN + 40
    where: dict[str, tuple[float, float]] = {}
    for at, column in enumerate(columns):
        top = (height - len(column) * (_BOX[1] + _GAP[1]) + _GAP[1]) / 2
        for place, name in enumerate(column):
            where[name] = (_MARGIN + at * (_BOX[0] + _GAP[0]), top + place * (_BOX[1] + _GAP[1]))
    struck = Counter(blow["whom"].rpartition("-")[0] for blow in results["blows"])
    parts = [f'<svg viewBox="0 0 {width} {height:.0f}" role="img" aria-label="roles and the queues between them">']
    parts += [_edge(queue, where) for queue in results["queues"]]
    parts += [_role(role, where[role["name"]], struck[role["name"]]) for role in results["roles"]]
    return "\n".join([*parts, "</svg>"])


def _columns(results: Mapping[str, Any]) -> list[list[str]]:
    """The roles, each after all that send to it; replies go back."""
    place = {role["name"]: 0 for role in results["roles"]}
    order = {name: at for at, name in enumerate(place)}
    for name in place:
        for queue in results["queues"]:
            if queue["source"] == name and order[queue["target"]] > order[name]:
                place[queue["target"]] = max(place[queue["target"]], place[name] + 1)
    columns: list[list[str]] = [[] for _ in range(max(place.values()) + 1)]
    for name, column in place.items():
        columns[column].append(name)
    return columns


def _edge(queue: Mapping[str, Any], where: Mapping[str, tuple[float, float]]) -> str:
    (x1, y1), (x2, y2) = where[queue["source"]], where[queue["target"]]
    goes_back = x2 < x1
    x1 += 0 if goes_back else _BOX[0]
    x2 += _BOX[0] if goes_back else 0
    y1, y2 = y1 + _BOX[1] * (0.75 if goes_back else 0.4), y2 + _BOX[1] * (0.75 if goes_back else 0.4)
    bend, bad = (x2 - x1) / 2, " bad" if queue["lost"] or queue["duplicated"] else ""
    told = f"{queue['name']} ({queue['kind']}, {queue['spread']}): {queue['taken']:,} taken"
    middle_y = (y1 + y2) / 2 + (14 if goes_back else -6)
    return (
        f'<path class="edge{bad}" d="M{x1:.0f} {y1:.0f} C{x1 + bend:.0f} {y1:.0f} {x2 - bend:.0f} {y2:.0f} '
        f'{x2:.0f} {y2:.0f}"><title>{escape(told)}</title></path>'
        f'<text class="small middle" x="{(x1 + x2) / 2:.0f}" y="{middle_y:.0f}">'
        f"{escape(queue['name'][:16])} {count(queue['items_per_second'])}/s</text>"
    )


def _role(role: Mapping[str, Any], corner: tuple[float, float], struck: int) -> str:
    x, y = corner
    faults = (
        f'<text class="bad" x="{x + 10}" y="{y + 50:.0f}" fill="#b3261e">{_number(struck, "fault", "s")}</text>'
        if struck
        else ""
    )
    cpu = "" if role["cpu_seconds"] is None else f"{role['cpu_seconds']:.1f} CPU s"
    return (
        f'<g><rect x="{x}" y="{y:.0f}" width="{_BOX[0]}" height="{_BOX[1]}" rx="6" fill="#fff" stroke="#51606f"/>'
        f'<text class="name" x="{x + 10}" y="{y + 18:.0f}">{escape(role["name"][:22])}</text>'
        f'<text class="small" x="{x + 10}" y="{y + 34:.0f}">{_number(role["processes"], "process", "es")}, '
        f"{cpu}</text>{faults}</g>"
    )


def _number(count: int, word: str, ending: str) -> str:
    return f"{count:,} {word}{'' if count == 1 else ending}"


# -- Over time --------------------------------------------------------------------------------------------------------


def _shown(results: Mapping[str, Any]) -> list[str]:
    """The edges that have a line of their own."""
    busiest = sorted(results["queues"], key=lambda queue: -int(queue["taken"]))[:LINES_AT_MOST]
    names = {queue["name"] for queue in busiest}
    return [queue["name"] for queue in results["queues"] if queue["name"] in names]


def _rates(results: Mapping[str, Any]) -> dict[str, list[tuple[float, float]]]:
    series, found = results["series"], {}
    for name in _shown(results):
        found[name] = [
            (after["seconds"], (after["queues"][name][1] - before["queues"][name][1]) / passed)
            for before, after in pairwise(series)
            if (passed := after["seconds"] - before["seconds"]) > 0
        ]
    return found


def _depths(results: Mapping[str, Any]) -> dict[str, list[tuple[float, float]]]:
    return {
        name: [
            (moment["seconds"], max(moment["queues"][name][0] - moment["queues"][name][1], 0))
            for moment in results["series"]
        ]
        for name in _shown(results)
    }


def _chart(results: Mapping[str, Any], lines: dict[str, list[tuple[float, float]]], unit: str) -> str:
    if len(results["series"]) < 2:
        return '<p class="note">The run was too short for a chart.</p>'
    told = [
        (blow["at_seconds"], blow["seconds"], f"{blow['kind']} {blow['whom']}".strip()) for blow in results["blows"]
    ]
    drawn = Chart(
        title=f"{unit} over time",
        unit=unit,
        lines=lines,
        marks=[(at, what) for at, lasted, what in told if not lasted],
        spans=[(at, min(at + lasted, results["seconds"]), what) for at, lasted, what in told if lasted],
    )
    return drawn.svg() + drawn.legend()


# -- Tables -----------------------------------------------------------------------------------------------------------


def _latencies(results: Mapping[str, Any]) -> str:
    rows = [("source to sink, from the moment due", results["items"]["latency_us"])]
    rows += [(f"in {queue['name']}", queue["latency_us"]) for queue in results["queues"]]
    cells = [(escape(name), *(duration(latency[label]) for label in _LABELS)) for name, latency in rows]
    return table(("", "p50", "p90", "p99", "p99.9", "longest"), cells)


def _queues(results: Mapping[str, Any]) -> str:
    cells = []
    for name, kind, books in (
        *((queue["name"], queue["kind"], queue) for queue in results["queues"]),
        ("source to sink", "", results["items"]),
    ):
        wrong = [_bad(books[figure]) for figure in ("lost", "duplicated", "reordered", "damaged")]
        figures = (count(books["taken"]), count(books["items_per_second"]), *wrong, count(books["redelivered"]))
        cells.append((escape(name), escape(kind), *figures))
    head = ("queue", "kind", "messages", "a second", "lost", "doubled", "reordered", "damaged", "redelivered")
    return table(head, cells)


def _bad(number: int | None) -> str:
    return f'<span class="bad">{number:,}</span>' if number else count(number)


def _checks(results: Mapping[str, Any]) -> str:
    cells = []
    for one in results["findings"]:
        told = "<br>".join(escape(text) for text in (one["sentence"], *one["examples"]))
        word = escape(one["verdict"])
        cells.append((escape(one["check"]), word if word == "valid" else f'<span class="bad">{word}</span>', told))
    return table(("check", "", ""), cells, kind="words")


def _blows(results: Mapping[str, Any]) -> str:
    if not results["blows"]:
        return ""
    shown = results["blows"][:100]
    cells = [
        (f"{blow['at_seconds']:.2f} s", escape(blow["kind"]), escape(blow["whom"]), f"{blow['seconds']:g} s")
        for blow in shown
    ]
    more = len(results["blows"]) - len(shown)
    rest = f'<p class="note">and {more:,} more, which are in results.json</p>' if more else ""
    return table(("when", "what", "whom", "for"), cells, kind="words") + rest


def _machine(results: Mapping[str, Any]) -> str:
    return table(
        ("", ""), [(escape(str(name)), escape(str(value))) for name, value in results["machine"].items()], kind="words"
    )
