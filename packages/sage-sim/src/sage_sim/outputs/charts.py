"""Line charts as SVG: without a script, and with a mark for each fault."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

WIDTH, HEIGHT = 860, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 16, 14, 34
COLOURS = ("#2563a8", "#c2571a", "#2e7d4f", "#8a3ea8", "#a8842b", "#0f8b8d", "#b3261e", "#5b6770")


@dataclass(frozen=True, kw_only=True)
class Chart:
    """
    Lines over time.

    Attributes:
        title: What is drawn, for those who cannot see it.
        unit: Of the values.
        lines: For each name, its points: seconds and value.
        marks: Moments to be marked, each with what happened then.
        spans: Stretches of time to be marked: from, to, and what it was.
    """

    title: str
    unit: str
    lines: Mapping[str, Sequence[tuple[float, float]]]
    marks: Sequence[tuple[float, str]] = ()
    spans: Sequence[tuple[float, float, str]] = field(default_factory=tuple)

    def svg(self) -> str:
        """Draw it."""
        points = [point for line in self.lines.values() for point in line]
        longest = max([moment for moment, _ in points] + [to for _, to, _ in self.spans] + [1e-3])
        highest = max([value for _, value in points] + [1e-9])

        def x(seconds: float) -> float:
            return _LEFT + seconds / longest * (WIDTH - _LEFT - _RIGHT)

        def y(value: float) -> float:
            return HEIGHT - _BOTTOM - value / highest * (HEIGHT - _TOP - _BOTTOM)

        title = escape(self.title, quote=True)
        parts = [f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title}">']
        for begin, end, what in self.spans:
            width = max(x(end) - x(begin), 1)
            parts.append(
                f'<rect class="span" x="{x(begin):.1f}" y="{_TOP}" width="{width:.1f}" '
                f'height="{HEIGHT - _TOP - _BOTTOM}"><title>{escape(what)}</title></rect>'
            )
        for value in ticks(highest):
            parts.append(f'<path class="grid" d="M{_LEFT} {y(value):.1f} H{WIDTH - _RIGHT}"/>')
            parts.append(f'<text class="end" x="{_LEFT - 8}" y="{y(value) + 4:.1f}">{_short(value)}</text>')
        for moment in ticks(longest):
            parts.append(f'<text class="middle" x="{x(moment):.1f}" y="{HEIGHT - 12}">{moment:g} s</text>')
        for moment, what in self.marks:
            path = f"M{x(moment):.1f} {_TOP} V{HEIGHT - _BOTTOM}"
            parts.append(f'<path class="mark" d="{path}"><title>{escape(what)}</title></path>')
        for colour, (name, line) in zip(_colours(len(self.lines)), self.lines.items(), strict=True):
            path = " ".join(f"{x(moment):.1f},{y(value):.1f}" for moment, value in line)
            parts.append(f'<polyline points="{path}" stroke="{colour}"><title>{escape(name)}</title></polyline>')
        return "\n".join([*parts, "</svg>"])

    def legend(self) -> str:
        """Which colour is whose."""
        pairs = zip(_colours(len(self.lines)), self.lines, strict=True)
        items = "".join(f'<li><i style="background:{colour}"></i>{escape(name)}</li>' for colour, name in pairs)
        return f'<ul class="legend">{items}</ul>'


def ticks(highest: float) -> list[float]:
    """Four or five round values from 0 up to the highest."""
    step = 10 ** math.floor(math.log10(highest / 4))
    step *= next(factor for factor in (1, 2, 5, 10) if highest / (step * factor) <= 5)
    return [step * at for at in range(int(highest / step) + 1)]


def _colours(number: int) -> list[str]:
    return [COLOURS[at % len(COLOURS)] for at in range(number)]


def _short(value: float) -> str:
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"
