"""
What the shadow mode found: one small file for each process, and the report over all of them.

The verdict is ``ready`` when enough messages were compared, none differed, was lost or came twice, the shadow stayed
within its budget everywhere, and the new way was no slower; else ``not ready`` with every reason, or ``no evidence``.
"""

import html
import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from sage_compat.places import folder, replace_file
from sage_qd.queues.names import segment_name

__all__ = ["ENOUGH", "Evidence", "Report", "as_html", "evidence_folder", "reports"]

ENOUGH: Final = 1000
"""How many compared messages a verdict needs."""
SCHEMA: Final = "sage-compat.shadow/1"
_DIFFERENCES: Final = ("digest", "loss", "duplicate", "exception")


@dataclass
class Evidence:
    """
    What one process found about one name.

    Attributes:
        full_name: The name.
        producer: The process, and a few random digits.
        counts: By what was counted.
        times: By call: how often, nanoseconds in sum, the longest.
        share: Largest share of the calls' time that copies took.
        off: Why the shadow turned itself off; empty while it is on.
        last_exception: Class of the last exception that was compared.
    """

    full_name: str
    producer: str
    counts: Counter[str] = field(default_factory=Counter)
    times: dict[str, list[int]] = field(default_factory=dict)
    share: float = 0.0
    off: str = ""
    last_exception: str = ""

    def agree(self, what: str) -> None:
        """Both ways gave the same."""
        self.counts[f"same_{what}"] += 1

    def differ(self, what: str, by: int = 1) -> None:
        """They did not."""
        self.counts[f"different_{what}"] += by

    def time(self, call: str, nanoseconds: int) -> None:
        """Note how long a call took."""
        found = self.times.setdefault(call, [0, 0, 0])
        found[0] += 1
        found[1] += nanoseconds
        found[2] = max(found[2], nanoseconds)

    def save(self) -> None:
        """Write it, in one step."""
        document = {
            "full_name": self.full_name,
            "producer": self.producer,
            "counts": dict(list(self.counts.items())),
            "times": {call: list(each) for call, each in list(self.times.items())},
            "share": self.share,
            "off": self.off,
            "last_exception": self.last_exception,
        }
        replace_file(evidence_folder(self.full_name) / f"{self.producer}.json", json.dumps(document))


def evidence_folder(full_name: str) -> Path:
    """The folder with the evidence about a name."""
    folder("evidence")
    return folder(f"evidence/{segment_name(full_name)}")


@dataclass(frozen=True, kw_only=True)
class Report:
    """
    What all processes found about one name.

    Attributes:
        full_name: The name.
        compared: Messages that went both ways and were compared.
        differences: By kind; those that are 0 are left out.
        mean_us: Mean microseconds of each call on each way.
        share: Largest share of the calls' time that copies took.
        off: Why shadows turned themselves off.
        skipped: Messages that were not copied because the drainer was behind, or they were too large.
    """

    full_name: str
    compared: int
    differences: dict[str, int]
    mean_us: dict[str, float]
    share: float
    off: tuple[str, ...]
    skipped: int

    @property
    def reasons(self) -> list[str]:
        """What speaks against going on."""
        said = [f"{count:,} messages differ: {kind}" for kind, count in self.differences.items()]
        said += [f"a shadow turned itself off: {reason}" for reason in self.off]
        old, new = self.mean_us.get("old_put"), self.mean_us.get("new_put")
        if old is not None and new is not None and new > old:
            said.append(f"a put takes {new:.1f} µs on the new way and {old:.1f} µs on the old one")
        if self.compared < ENOUGH:
            said.append(f"{self.compared:,} messages were compared, and {ENOUGH:,} are needed")
        return said

    @property
    def verdict(self) -> str:
        """``ready``, ``not ready`` or ``no evidence``."""
        if not self.compared and not self.off and not self.differences:
            return "no evidence"
        return "not ready" if self.reasons else "ready"

    def as_dict(self) -> dict[str, Any]:
        """The report as a document."""
        return {
            "schema": SCHEMA,
            "full_name": self.full_name,
            "verdict": self.verdict,
            "reasons": self.reasons,
            "compared": self.compared,
            "differences": self.differences,
            "mean_us": self.mean_us,
            "share": self.share,
            "skipped": self.skipped,
        }


def reports() -> list[Report]:
    """Read what there is, one report for each name."""
    places = sorted(path for path in folder("evidence").iterdir() if path.is_dir())
    found = (_report(place) for place in places)
    return [report for report in found if report is not None]


def _report(place: Path) -> Report | None:
    files = [json.loads(path.read_text("utf-8")) for path in sorted(place.glob("*.json")) if path.name[0] != "."]
    if not files:
        return None
    counts: Counter[str] = Counter()
    times: dict[str, list[int]] = {}
    for each in files:
        counts.update(each["counts"])
        for call, (number, total, _) in each["times"].items():
            found = times.setdefault(call, [0, 0])
            found[0] += number
            found[1] += total
    differences = {kind: counts[f"different_{kind}"] for kind in _DIFFERENCES if counts[f"different_{kind}"]}
    return Report(
        full_name=files[0]["full_name"],
        compared=counts["same_digest"] + counts["different_digest"],
        differences=differences,
        mean_us={call: round(total / number / 1000, 3) for call, (number, total) in sorted(times.items())},
        share=max(each["share"] for each in files),
        off=tuple(sorted({each["off"] for each in files if each["off"]})),
        skipped=counts["skipped"] + counts["too_large"],
    )


_PAGE: Final = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>sage-compat: shadow</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; }}
table {{ border-collapse: collapse; width: 100%; }}
th, td {{ text-align: left; padding: .4rem .8rem; border-bottom: 1px solid #ccc; vertical-align: top; }}
.ready {{ color: #176117; font-weight: bold; }} .not {{ color: #a11616; font-weight: bold; }}
</style>
<h1>Old and new, compared</h1>
<table><tr><th>Queue<th>Verdict<th>Compared<th>Put, old / new (µs)<th>Share<th>Reasons</tr>
{rows}
</table></html>
"""


def as_html(found: list[Report]) -> str:
    """The reports as one page that needs nothing else."""
    return _PAGE.format(rows="\n".join(map(_row, found)))


def _row(report: Report) -> str:
    kind = "ready" if report.verdict == "ready" else "not"
    cells = (
        html.escape(report.full_name),
        f'<span class="{kind}">{report.verdict}</span>',
        f"{report.compared:,}",
        f"{report.mean_us.get('old_put', 0):.1f} / {report.mean_us.get('new_put', 0):.1f}",
        f"{report.share:.1%}",
        html.escape("; ".join(report.reasons)) or "none",
    )
    return f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
