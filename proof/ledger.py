"""The reliability ledger: run every proof script and print one table of all rows.

A row that could not be run says "not run" and why; it never counts as passed. The table is also written as
``ledger.md`` and ``ledger.json`` beside the row files.

    python proof/ledger.py              run every script in its short form (CI)
    python proof/ledger.py --long       the form run before a release; hours
    python proof/ledger.py --collect    only gather the rows that earlier runs wrote
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import TypedDict

from row import ROOT, arguments, commit

SCRIPTS: dict[str, tuple[str, ...]] = {
    "storm.py": ("R1", "R4", "R5"),
    "kill_sweep.py": ("R2",),
    "points.py": ("R3",),
    "interpreters.py": ("R19", "R23"),
    "fuzz.py": ("R6", "R7", "R8"),
    "descriptors.py": ("R9",),
    "model.py": ("R11",),
    "planted.py": ("R13",),
    "histories.py": ("R14",),
    "waiting.py": ("R15", "R16", "R17", "R18"),
    "creation.py": ("R20", "R21", "R22"),
    "sanitizers.py": ("R24",),
    "migration.py": ("R33",),
    "dag_storm.py": ("R34",),
    "versions.py": ("R25",),
    "crowd.py": ("R28", "R29"),
    "soak.py": ("R30",),
    "rpc.py": ("R10", "R26", "R27"),
}
"""Which script writes which rows. The other numbers of the ledger belong to parts that do not exist yet."""


class Found(TypedDict, total=False):
    """One row file, as `row.Row` writes it."""

    row: str
    figure: str
    bound: str
    value: str
    ok: bool | None
    seed: int
    seconds: float
    commit: str
    form: str
    command: str
    reason: str


def main() -> int:
    """Run, gather, print; 1 when a row failed or a script broke down."""
    options = arguments(
        __doc__ or "", collect={"action": "store_true", "help": "run nothing, gather the rows there are"}
    )
    options.out.mkdir(parents=True, exist_ok=True)
    broken = [] if options.collect else run_all(options.out, long=options.long, seed=options.seed)
    rows = [read(options.out, row) for rows in SCRIPTS.values() for row in rows]
    rows.sort(key=lambda found: int(found["row"][1:]))
    table = render(rows)
    (options.out / "ledger.json").write_text(json.dumps(rows, indent=2) + "\n")
    (options.out / "ledger.md").write_text(table)
    print(f"\n{table}", end="")
    failed = [found["row"] for found in rows if found["ok"] is False]
    not_run = [found["row"] for found in rows if found["ok"] is None]
    print(
        f"\n{len(rows) - len(failed) - len(not_run)} rows ok, "
        f"{len(failed)} failed {failed}, {len(not_run)} not run {not_run}"
    )
    for name in broken:
        print(f"proof/{name} ended with an error; see above")
    return 1 if failed or broken else 0


def run_all(out: Path, *, long: bool, seed: int) -> list[str]:
    """Run the scripts one after the other, each with old rows removed; the names of those that broke down."""
    broken = []
    for name, rows in SCRIPTS.items():
        for row in rows:
            (out / f"{row}.json").unlink(missing_ok=True)
        command = [sys.executable, str(ROOT / "proof" / name), "--seed", str(seed), "--out", str(out)]
        print(f"\n-- proof/{name}", flush=True)
        started = time.monotonic()
        code = subprocess.run([*command, "--long"] if long else command, cwd=ROOT).returncode
        print(f"-- proof/{name}: exit {code} after {time.monotonic() - started:.0f} s", flush=True)
        written = [read(out, row) for row in rows]
        if code and not any(found["ok"] is False for found in written):
            broken.append(name)
    return broken


def read(out: Path, row: str) -> Found:
    """One row, or a row that says it was not run."""
    path = out / f"{row}.json"
    if path.is_file():
        found: Found = json.loads(path.read_text())
        return found
    return Found(row=row, figure="", bound="", value="not run", ok=None, reason="no script wrote it", commit=commit())


def render(rows: list[Found]) -> str:
    """The table as Markdown, readable as it is."""
    heads = ("row", "figure", "bound", "value", "verdict", "form", "seed", "seconds", "commit")
    lines = [heads, *(cells(found) for found in rows)]
    widths = [max(len(line[at]) for line in lines) for at in range(len(heads))]
    texts = [f"| {' | '.join(map(str.ljust, line, widths))} |" for line in lines]
    texts.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(texts) + "\n"


def cells(found: Found) -> tuple[str, ...]:
    """The texts of one line."""
    verdict = {True: "ok", False: "FAILED", None: f"not run: {found.get('reason', '')}"}[found["ok"]]
    return (
        found["row"],
        found.get("figure", ""),
        found.get("bound", ""),
        found.get("value", ""),
        verdict,
        found.get("form", ""),
        str(found.get("seed", "")),
        f"{found.get('seconds', 0):.0f}",
        found.get("commit", ""),
    )


if __name__ == "__main__":
    sys.exit(main())
