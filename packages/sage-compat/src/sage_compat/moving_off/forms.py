"""The report as JSON, as SARIF 2.1.0, and as one HTML page that needs nothing else."""

import html
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any, Final
from urllib.parse import quote

from sage_compat.moving_off.census_files import SeenCall
from sage_compat.moving_off.findings import Finding, Report
from sage_compat.moving_off.replacements import BY_CODE, Replacement, code_of_call
from sage_qd import __version__

__all__ = ["as_document", "as_html", "as_sarif", "when"]

SCHEMA: Final = "sage-compat.report/1"
SARIF_SCHEMA: Final = "https://json.schemastore.org/sarif-2.1.0.json"


def as_document(report: Report) -> dict[str, Any]:
    """The report as JSON has it."""
    return {
        "schema": SCHEMA,
        "files": report.files,
        "processes": report.processes,
        "torn": report.torn,
        "outdated": report.outdated,
        "elsewhere": report.elsewhere,
        "total": len(report.findings),
        "counts": report.counts,
        "findings": [_finding(each) for each in report.findings],
    }


def _finding(finding: Finding) -> dict[str, Any]:
    return {
        "path": finding.path,
        "line": finding.line,
        "end_line": finding.end_line,
        "column": finding.column,
        "code": finding.code,
        "text": finding.text,
        "replacement": finding.replacement,
        "page": finding.row.page,
        "sure": finding.is_sure,
        "automatic": finding.is_automatic,
        "scanned": finding.is_scanned,
        "reason": finding.reason,
        "count": finding.count,
        "last_seen": finding.last_seen,
        "seen": [_seen(each) for each in finding.seen],
    }


def _seen(call: SeenCall) -> dict[str, Any]:
    return {
        "function": call.function,
        "in": call.inside,
        "backend": call.backend,
        "kwargs": call.keywords,
        "ignored": ignored(call),
        "count": call.count,
        "processes": call.processes,
        "programs": sorted(call.programs),
        "users": sorted(call.users),
        "last_seen": call.last_seen,
    }


def ignored(call: SeenCall) -> list[str]:
    """Arguments that the old call took and did nothing with."""
    row = code_of_call(call.function, call.backend, call.keywords)
    return [each.old for each in row.keywords if each.note == "was ignored" and each.old in call.keywords]


def when(seconds: float | None) -> str:
    """A moment to the second, in UTC; a dash for none."""
    return "-" if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")


# -- SARIF ------------------------------------------------------------------------------------------------------------


def as_sarif(report: Report) -> dict[str, Any]:
    """The report in the form that code hosts and editors read."""
    codes = sorted({finding.code for finding in report.findings})
    root = Path.cwd().as_uri() + "/"
    return {
        "$schema": SARIF_SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "sage-compat",
                        "version": __version__,
                        "rules": [_rule(BY_CODE[code]) for code in codes],
                    }
                },
                "columnKind": "unicodeCodePoints",
                "originalUriBaseIds": {"ROOT": {"uri": root}},
                "results": list(_results(report, codes)),
            }
        ],
    }


def _rule(row: Replacement) -> dict[str, Any]:
    return {
        "id": row.code,
        "shortDescription": {"text": f"{row.old} is the old queue API"},
        "fullDescription": {"text": f"Write {row.new} instead. {row.note}"},
        "help": {"text": f"See {row.page}"},
        "defaultConfiguration": {"level": "warning"},
    }


def _results(report: Report, codes: list[str]) -> Iterator[dict[str, Any]]:
    alike: Counter[tuple[str, str, str]] = Counter()
    for finding in report.findings:
        key = (finding.path, finding.code, finding.text)
        alike[key] += 1
        region: dict[str, int] = {"startLine": finding.line, "endLine": finding.end_line}
        if finding.column:
            region["startColumn"] = finding.column
        is_below = not finding.path.startswith(("/", "<"))
        location = {"uri": _uri(finding.path)} | ({"uriBaseId": "ROOT"} if is_below else {})
        yield {
            "ruleId": finding.code,
            "ruleIndex": codes.index(finding.code),
            "level": "warning" if finding.is_sure else "note",
            "message": {"text": _sentence(finding)},
            "locations": [{"physicalLocation": {"artifactLocation": location, "region": region}}],
            # The text and its number among equal ones: it stays the same when lines move.
            "partialFingerprints": {"oldCall/v1": f"{finding.code}:{finding.text}:{alike[key]}"},
            "properties": {"automatic": finding.is_automatic, "count": finding.count},
        }


def _uri(path: str) -> str:
    return f"file://{quote(path)}" if path.startswith("/") else quote(path)


def _sentence(finding: Finding) -> str:
    said = [f"{finding.text}: write {finding.replacement}"]
    if finding.is_automatic:
        said.append("sage-compat fix does it")
    if finding.reason:
        said.append(finding.reason)
    if finding.count:
        said.append(f"called {finding.count:,} times, last {when(finding.last_seen)} UTC")
    return "; ".join(said)


# -- HTML -------------------------------------------------------------------------------------------------------------


def as_html(report: Report) -> str:
    """One page with styles and script in it; sorts and filters without a network."""
    page = Template(files("sage_compat.moving_off").joinpath("report.html").read_text(encoding="utf-8"))
    codes = Counter(finding.code for finding in report.findings)
    most = max(codes.values(), default=1)
    return page.substitute(
        total=f"{len(report.findings):,}",
        automatic=f"{sum(finding.is_automatic for finding in report.findings):,}",
        unsure=f"{sum(not finding.is_sure for finding in report.findings):,}",
        files=f"{report.files:,}",
        processes=f"{report.processes:,}",
        codes="\n".join(_code_line(code, count, most) for code, count in sorted(codes.items())),
        rows="\n".join(map(_html_row, report.findings)),
    )


def _code_line(code: str, count: int, most: int) -> str:
    row = BY_CODE[code]
    return (
        f"<tr><td>{code}</td><td><code>{html.escape(row.old)}</code></td><td><code>{html.escape(row.new)}</code></td>"
        f'<td class="number">{count:,}</td><td><meter max="{most}" value="{count}">{count}</meter></td></tr>'
    )


def _html_row(finding: Finding) -> str:
    state = "automatic" if finding.is_automatic else ("by hand" if finding.is_sure else "not sure")
    what = "; ".join(f"{call.function} backend={call.backend} {_keywords(call)}" for call in finding.seen)
    cells = (
        f"{html.escape(finding.path)}:{finding.line}",
        finding.code,
        f"<code>{html.escape(finding.text)}</code>",
        f"<code>{html.escape(finding.replacement)}</code>",
        f'<span class="{state.replace(" ", "-")}">{state}</span> {html.escape(finding.reason)}',
        f'<span title="{html.escape(what)}">{finding.count:,}</span>',
        when(finding.last_seen),
    )
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def _keywords(call: SeenCall) -> str:
    return " ".join(f"{name}={value}" for name, value in sorted(call.keywords.items()))
