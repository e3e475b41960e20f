"""
One page for the browser that shows a job: its tasks in the order in which packets pass them, and where they are stuck.

Everything is in the page itself; it loads nothing and runs nothing. It shows one moment: what
:meth:`Dispatcher.snapshot` returned.
"""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, Final

__all__ = ["job_page"]

_BOX: Final = (190, 62)
_GAP: Final = (70, 22)
_MARGIN: Final = 20
_STYLE: Final = """
body { font: 14px/1.5 system-ui, sans-serif; margin: 2rem; color: #1c2733; background: #fff }
h1 { font-size: 1.4rem; margin: 0 }
.state { color: #51606f; margin: 0 0 1.5rem }
.error { color: #b3261e }
svg { max-width: 100%; height: auto }
svg text { font: 12px system-ui, sans-serif; fill: #1c2733 }
svg .name { font-weight: 600 }
svg .small { fill: #51606f }
svg path { fill: none; stroke: #9aa8b5; stroke-width: 1.5 }
table { border-collapse: collapse; margin-top: 1.5rem }
th, td { padding: .3rem .9rem; text-align: right; border-bottom: 1px solid #dfe5ea }
th:first-child, td:first-child { text-align: left }
.bar { background: #eceff2; width: 90px; height: 9px; display: inline-block; vertical-align: middle }
.bar span { display: block; height: 9px }
"""
_COLOURS: Final = ((0.5, "#2e7d4f"), (0.9, "#c98a00"), (2.0, "#b3261e"))
_HEAD: Final = ("task", "taken", "sent", "errors", "skipped", "restarts", "waiting", "in hand", "queue")


def job_page(snapshot: Mapping[str, Any]) -> str:
    """
    Return the page as HTML.

    Args:
        snapshot: What :meth:`Dispatcher.snapshot` returned.
    """
    name, state = escape(snapshot["job"]), escape(snapshot["state"])
    error = f'<p class="error">{escape(snapshot["error"])}</p>' if snapshot["error"] else ""
    stuck = _stuck(snapshot)
    told = f" · the slow task is <b>{escape(stuck)}</b>" if stuck else ""
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{name}: {state}</title>'
        f"<style>{_STYLE}</style></head><body>\n<h1>{name}</h1>\n"
        f'<p class="state">{state} · {len(snapshot["tasks"])} tasks{told}</p>\n{error}'
        f"{_drawing(snapshot)}\n{_table(snapshot)}\n</body></html>\n"
    )


def _stuck(snapshot: Mapping[str, Any]) -> str | None:
    """The last task along the way whose queue is full; what comes before it waits for it."""
    for column in reversed(_columns(snapshot)):
        for task in column:
            if _load(snapshot, task) >= 0.9:
                return task
    return None


def _columns(snapshot: Mapping[str, Any]) -> list[list[str]]:
    """The tasks and results, each after all that send to it."""
    names = [*snapshot["tasks"], *(edge["target"] for edge in snapshot["edges"])]
    place = dict.fromkeys(names, 0)
    for _ in range(len(place)):
        moved = False
        for edge in snapshot["edges"]:
            if place[edge["target"]] <= place[edge["source"]]:
                place[edge["target"]] = place[edge["source"]] + 1
                moved = True
        if not moved:
            break
    columns: list[list[str]] = [[] for _ in range(max(place.values(), default=0) + 1)]
    for name, column in place.items():
        columns[column].append(name)
    return columns


def _drawing(snapshot: Mapping[str, Any]) -> str:
    columns = _columns(snapshot)
    width = len(columns) * (_BOX[0] + _GAP[0]) - _GAP[0] + 2 * _MARGIN
    height = max(map(len, columns), default=1) * (_BOX[1] + _GAP[1]) - _GAP[1] + 2 * _MARGIN
    where = {}
    for x, column in enumerate(columns):
        top = (height - len(column) * (_BOX[1] + _GAP[1]) + _GAP[1]) / 2
        for y, name in enumerate(column):
            where[name] = (_MARGIN + x * (_BOX[0] + _GAP[0]), top + y * (_BOX[1] + _GAP[1]))
    parts = [f'<svg viewBox="0 0 {width} {height:.0f}" width="{width}" role="img" aria-label="the tasks of the job">']
    for edge in snapshot["edges"]:
        (x1, y1), (x2, y2) = where[edge["source"]], where[edge["target"]]
        x1, y1, y2 = x1 + _BOX[0], y1 + _BOX[1] / 2, y2 + _BOX[1] / 2
        bend = (x2 - x1) / 2
        parts.append(
            f'<path d="M{x1:.0f} {y1:.0f} C{x1 + bend:.0f} {y1:.0f} {x2 - bend:.0f} {y2:.0f} {x2:.0f} {y2:.0f}"/>'
        )
    parts += [_box(snapshot, name, *corner) for name, corner in where.items()]
    return "\n".join([*parts, "</svg>"])


def _box(snapshot: Mapping[str, Any], name: str, x: float, y: float) -> str:
    figures = snapshot["tasks"].get(name)
    queue = snapshot["queues"].get(f"input_{name}")
    load = _load(snapshot, name)
    below = "result, at the driver" if figures is None else f"{figures['taken']:,} in, {figures['out']:,} out"
    bar = (
        ""
        if queue is None
        else f'<rect x="{x + 10}" y="{y + 48:.0f}" width="{_BOX[0] - 20}" height="6" fill="#eceff2"/>'
        f'<rect x="{x + 10}" y="{y + 48:.0f}" width="{load * (_BOX[0] - 20):.0f}" height="6" fill="{_colour(load)}"/>'
    )
    return (
        f'<g><rect x="{x}" y="{y:.0f}" width="{_BOX[0]}" height="{_BOX[1]}" rx="6" fill="#fff" stroke="#51606f"/>'
        f'<text class="name" x="{x + 10}" y="{y + 20:.0f}">{escape(name[:26])}</text>'
        f'<text class="small" x="{x + 10}" y="{y + 38:.0f}">{escape(below)}</text>{bar}</g>'
    )


def _table(snapshot: Mapping[str, Any]) -> str:
    rows: list[Sequence[str]] = []
    for name, figures in snapshot["tasks"].items():
        queue = snapshot["queues"].get(f"input_{name}")
        load = _load(snapshot, name)
        colour = f"width:{load:.0%};background:{_colour(load)}"
        shown = "–" if queue is None else f'<span class="bar"><span style="{colour}"></span></span> {load:.0%}'
        numbers = (figures[key] for key in ("taken", "out", "errors", "skipped", "restarts"))
        held = ("–", "–") if queue is None else (f"{queue['depth']:,}", f"{queue['leased']:,}")
        rows.append((escape(name), *(f"{number:,}" for number in numbers), *held, shown))
    head = "".join(f"<th>{word}</th>" for word in _HEAD)
    body = "\n".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table>"


def _load(snapshot: Mapping[str, Any], name: str) -> float:
    figures = snapshot["tasks"].get(name, {})
    if "load" in figures:  # of all queues of the task
        return float(figures["load"])
    queue = snapshot["queues"].get(f"input_{name}")
    return 0.0 if queue is None else float(queue["load"])


def _colour(load: float) -> str:
    return next(colour for bound, colour in _COLOURS if load < bound)
