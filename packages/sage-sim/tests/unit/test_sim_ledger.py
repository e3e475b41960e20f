"""The ledger, over programs that take no time."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.once
COMMAND = [sys.executable, "-P", "-m", "sage_sim", "ledger"]
PROGRAM = """
import json, sys
from pathlib import Path

out = Path(sys.argv[sys.argv.index("--out") + 1])
print("measuring", *sys.argv[3:])
for row, ok, code in {rows!r}:
    if code:
        sys.exit(code)
    fields = dict(row=row, figure="lost | doubled", bound="0", value="2" if ok is False else "0", ok=ok, seed=7)
    fields |= dict(reason="needs spin" if ok is None else "", command=f"python proof/x.py --seed 7", extra=1)
    (out / f"{{row}}.json").write_text(json.dumps(fields))
sys.exit(any(ok is False for _, ok, _ in {rows!r}))
"""


def checkout(folder: Path, **programs: list[tuple[str, bool | None, int]]) -> Path:
    (folder / "proof").mkdir()
    lines = [f'"{name}.py" = {[row for row, _, _ in rows]}' for name, rows in programs.items()]
    (folder / "proof" / "ledger.toml").write_text("\n".join(lines))
    for name, rows in programs.items():
        (folder / "proof" / f"{name}.py").write_text(PROGRAM.format(rows=rows))
    return folder


def called(folder: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([*COMMAND, *words], cwd=folder, capture_output=True, text=True, timeout=60, check=False)


def test_rows_that_hold_pass_also_when_others_could_not_be_run(tmp_path: Path) -> None:
    root = checkout(tmp_path, storm=[("R4", True, 0), ("R10", None, 0)], soak=[("R2", True, 0)])
    (root / "deep" / "er").mkdir(parents=True)

    ended = called(root / "deep" / "er", "--seed", "7")

    assert ended.returncode == 0, ended.stderr
    assert "2 of 3 rows ok, 0 failed, 1 not run (R10)" in ended.stdout
    assert "measuring --seed 7" in ended.stdout
    rows = json.loads((root / "build" / "ledger" / "ledger.json").read_text())["rows"]
    assert [row["row"] for row in rows] == ["R2", "R4", "R10"]
    assert "lost \\| doubled" in (root / "build" / "ledger" / "ledger.md").read_text()
    assert "not run: needs spin" in (root / "build" / "ledger" / "ledger.html").read_text()


@pytest.mark.parametrize(
    ("row", "said"),
    [(("R4", False, 0), {"failed": ["R4"], "broken": {}}), (("R4", True, 3), {"failed": [], "broken": {"a.py": 3}})],
)
def test_a_row_out_of_bounds_and_a_program_that_breaks_down_fail(
    row: tuple[str, bool, int], said: dict[str, object], tmp_path: Path
) -> None:
    ended = called(checkout(tmp_path, a=[row], b=[("R5", True, 0)]), "--json")

    told = json.loads(ended.stdout)
    assert ended.returncode == 1
    assert {name: told[name] for name in said} == said
    assert "measuring" in ended.stderr


def test_an_old_row_does_not_stand_for_a_program_that_broke_down(tmp_path: Path) -> None:
    root = checkout(tmp_path, a=[("R4", True, 3)])
    (root / "build" / "ledger").mkdir(parents=True)
    (root / "build" / "ledger" / "R4.json").write_text('{"row": "R4", "ok": true}')

    assert json.loads(called(root, "--collect", "--json").stdout)["not_run"] == []
    assert json.loads(called(root, "--json").stdout)["not_run"] == ["R4"]


def test_only_programs_of_wanted_rows_are_run(tmp_path: Path) -> None:
    root = checkout(tmp_path, a=[("R4", True, 0)], b=[("R5", False, 0)])

    ended = called(root, "--row", "R4", "--long")

    assert ended.returncode == 0, ended.stdout
    assert "1 of 1 rows ok" in ended.stdout
    assert "measuring --long" in ended.stdout
    assert "no row R9; there are R4, R5" in called(root, "--row", "R9").stderr.replace("\n", " ")


def test_outside_a_checkout_it_says_so(tmp_path: Path) -> None:
    ended = called(tmp_path)

    assert ended.returncode == 5
    assert f"no proof/ledger.toml in {tmp_path} or above it; run it in a checkout" in ended.stderr
