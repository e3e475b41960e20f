"""What all pages for the browser share: how they look, and tables."""

from __future__ import annotations

from collections.abc import Sequence

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem; color: #1c2733;
  background: #fff }
h1 { font-size: 1.5rem; margin: 0 } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem }
.verdict { display: inline-block; padding: .1rem .7rem; border-radius: 1rem; color: #fff; background: #b26a00 }
.verdict.valid { background: #2e7d4f } .verdict.invalid { background: #b3261e }
.about, .note { color: #51606f } code, pre { font-size: .9rem; background: #f1f4f6; padding: .1rem .3rem }
pre { overflow-x: auto; padding: .6rem } svg { width: 100%; height: auto }
svg text { font: 12px system-ui, sans-serif; fill: #1c2733 } svg .small { fill: #51606f; font-size: 11px }
svg .name { font-weight: 600 } svg .middle { text-anchor: middle } svg .end { text-anchor: end }
.grid { stroke: #e5e9ed } .mark { stroke: #b3261e; stroke-dasharray: 2 3 } .span { fill: #b3261e; opacity: .12 }
polyline { fill: none; stroke-width: 1.6 } .edge { fill: none; stroke: #9aa8b5; stroke-width: 1.5 }
.edge.bad { stroke: #b3261e; stroke-width: 2.5 }
table { border-collapse: collapse; width: 100% } th, td { padding: .25rem .6rem; text-align: right;
  border-bottom: 1px solid #dfe5ea; vertical-align: top }
th:first-child, td:first-child, .words td, .words th { text-align: left } .bad { color: #b3261e; font-weight: 600 }
.legend { list-style: none; padding: 0; margin: .2rem 0; display: flex; flex-wrap: wrap; gap: .2rem 1.2rem }
.legend i { display: inline-block; width: .8rem; height: .8rem; border-radius: .2rem; margin-right: .4rem }
"""


def table(head: Sequence[str], rows: Sequence[Sequence[str]], kind: str = "") -> str:
    """A table; its cells are HTML already."""
    top = "".join(f"<th>{word}</th>" for word in head)
    body = "\n".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<table class="{kind}"><thead><tr>{top}</tr></thead><tbody>\n{body}\n</tbody></table>'
