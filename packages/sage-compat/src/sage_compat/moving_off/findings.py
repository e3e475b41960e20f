"""What the report is made of: lines that use the old API, in the sources and at run time, put together."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sage_compat.moving_off.census_files import Census, SeenCall
from sage_compat.moving_off.paths import shown_path
from sage_compat.moving_off.replacements import BY_CODE, Replacement, code_of_call

__all__ = ["Finding", "Report", "together"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """
    A line that uses the old API.

    Attributes:
        path: The file, relative to where the report was made if it lies below.
        line: Where it begins, from 1.
        end_line: Where it ends.
        column: From 1; 0 for what was seen at run time only.
        code: Row of the table.
        text: What stands there, or what was called.
        replacement: What to write instead.
        is_sure: False for what is known at run time only.
        is_automatic: Whether ``sage-compat fix`` writes it.
        reason: Why not.
        seen: What the census knows of this line.
        is_scanned: False where the file is none of those that were scanned.
    """

    path: str
    line: int
    end_line: int
    column: int
    code: str
    text: str
    replacement: str
    is_sure: bool = True
    is_automatic: bool = False
    reason: str = ""
    seen: tuple[SeenCall, ...] = ()
    is_scanned: bool = True

    @property
    def row(self) -> Replacement:
        """The row of the table."""
        return BY_CODE[self.code]

    @property
    def count(self) -> int:
        """How often it was called."""
        return sum(call.count for call in self.seen)

    @property
    def last_seen(self) -> float | None:
        """When it was last called, in seconds since 1970; None if it was not seen."""
        return max((call.last_seen for call in self.seen), default=None)


@dataclass(frozen=True, kw_only=True)
class Report:
    """
    Everything that was found.

    Attributes:
        findings: By file and line.
        files: How many files were scanned.
        processes: How many processes the census is of.
        torn: How many ends of census files were lost in kills.
        outdated: How many kinds of calls were seen on lines of files that are gone, or were changed since.
        elsewhere: How many findings were left out, because they are in files of other programs.
    """

    findings: tuple[Finding, ...]
    files: int
    processes: int
    torn: int
    outdated: int
    elsewhere: int = 0

    def of_scanned_files(self) -> "Report":
        """The same without what was seen in files that were not scanned."""
        kept = tuple(finding for finding in self.findings if finding.is_scanned)
        return replace(self, findings=kept, elsewhere=len(self.findings) - len(kept))

    @property
    def counted(self) -> list[Finding]:
        """What limits are about: findings in the scanned files, or all where none were scanned."""
        return [finding for finding in self.findings if finding.is_scanned or not self.files]

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """How many of these each file has of each code."""
        found: dict[str, dict[str, int]] = {}
        for finding in self.counted:
            codes = found.setdefault(finding.path, {})
            codes[finding.code] = codes.get(finding.code, 0) + 1
        return found


def together(findings: Iterable[Finding], files: int, census: Census, scanned: Sequence[Path]) -> Report:
    """
    Put the scan and the census together.

    What the census saw on a line that the scan did not find was called in a way that only shows at run time: a finding
    that is not sure. So is what it saw in files that were not scanned. A file that is gone, or was changed since, is
    left out.

    Args:
        findings: Of the scan.
        files: How many files it read.
        census: What was seen at run time.
        scanned: The files.
    """
    places: dict[tuple[str, int], list[SeenCall]] = {}
    for call in census.calls:
        places.setdefault((shown_path(Path(call.path)), call.line), []).append(call)
    whole = []
    for finding in findings:
        seen = [
            call
            for line in range(finding.line, finding.end_line + 1)
            for call in places.get((finding.path, line), ())
            if _is_same(finding, call)
        ]
        whole.append(replace(finding, seen=tuple(seen)))
    known = {id(call) for finding in whole for call in finding.seen}
    names = {shown_path(path) for path in scanned}
    rest = [(path, line, call) for (path, line), calls in places.items() for call in calls if id(call) not in known]
    current = [(path, line, call) for path, line, call in rest if not _is_outdated(call)]
    whole += [_only_seen(path, line, call, path in names) for path, line, call in current]
    whole.sort(key=lambda each: (each.path, each.line, each.column, each.code))
    return Report(
        findings=tuple(whole),
        files=files,
        processes=census.processes,
        torn=census.torn,
        outdated=len(rest) - len(current),
    )


def _is_same(finding: Finding, call: SeenCall) -> bool:
    """Whether a call that was seen on a line is what the scan found there: by what was called."""
    called = call.function.rpartition(".")[2]
    return called in finding.text or any(called == name.rpartition(".")[2] for name in finding.row.names)


def _is_outdated(call: SeenCall) -> bool:
    """Whether the file is another one by now than that in which the call was seen; ``<stdin>`` and its like never."""
    if call.path.startswith("<"):
        return False
    try:
        return os.stat(call.path).st_mtime > call.last_seen
    except FileNotFoundError:
        return True


def _only_seen(path: str, line: int, call: SeenCall, is_scanned: bool) -> Finding:
    row = code_of_call(call.function, call.backend, call.keywords)
    reason = "seen at run time only" if is_scanned else "seen at run time; the file was not scanned"
    return Finding(
        path=path,
        line=line,
        end_line=line,
        column=0,
        code=row.code,
        text=f"{call.function}()",
        replacement=row.new,
        is_sure=False,
        reason=reason,
        seen=(call,),
        is_scanned=is_scanned,
    )
