"""``report`` and ``fix`` as a user types them: forms, exit codes, exact errors, and nothing half written."""

import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from sage_compat.moving_off.__main__ import run as run_verb
from sage_compat.moving_off.replacing import write_whole

PROGRAM = """\
from sage.utils.queue_adapter import create_queue

q = create_queue(backend="python", name="jobs", maxsize=3)
p = create_queue(backend=kind, name="</script><b>")
"""
Run = Callable[..., "subprocess.CompletedProcess[str]"]
WORDS = [sys.executable, "-m", "sage_compat.moving_off"]


@pytest.fixture
def app(tmp_path: Path) -> Path:
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "work.py").write_text(PROGRAM)
    return tmp_path / "app" / "work.py"


@pytest.fixture
def run(tmp_path: Path, app: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run ``sage-compat`` with these words, where the program is."""
    monkeypatch.setenv("SAGE_COMPAT_CENSUS", str(tmp_path / "census"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(app.parent)

    def command(*words: object) -> "subprocess.CompletedProcess[str]":
        code = run_verb([str(word) for word in words])
        said = capsys.readouterr()
        return subprocess.CompletedProcess([], int(code), said.out, said.err)

    return command


@pytest.fixture
def seen(tmp_path: Path, app: Path) -> None:
    """A census in which both lines of the program were called, and one of a file that nobody scans."""
    lines: list[dict[str, Any]] = [{"schema": "sage-compat.census/1", "pid": 1, "user": "ann", "program": "serve.py"}]
    other = tmp_path / "other.py"
    other.write_text("")
    os.utime(other, (1_600_000_000, 1_600_000_000))
    places = ((str(app), 3, 40), (str(app), 4, 2), (str(other), 9, 1), (str(tmp_path / "gone.py"), 1, 1))
    for path, line, count in places:
        call = {"in": "<module>", "function": "create_queue", "backend": "python", "kwargs": {"name": "'jobs'"}}
        lines.append({"path": path, "line": line, "count": count, "seen": 1_700_000_000.0} | call)
    (tmp_path / "census").mkdir()
    (tmp_path / "census" / "x.census.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


# -- report -----------------------------------------------------------------------------------------------------------


def test_report_shows_lines_replacements_and_reasons(run: Run) -> None:
    done = run("report")

    assert done.returncode == 0
    assert "work.py:3  SQC001" in done.stdout
    assert "LocalQueueDescriptor(maxsize=3).open()" in done.stdout
    assert "the backend kind is known at run time only" in done.stdout
    assert "2 places use the old API: sage-compat fix can do 1, 0 are not sure; 1 files scanned" in done.stdout


@pytest.mark.usefixtures("seen")
def test_report_puts_the_census_to_the_lines(run: Run, tmp_path: Path) -> None:
    document = json.loads(run("report", "--format", "json").stdout)

    assert document["schema"] == "sage-compat.report/1"
    counted = {(each["path"], each["line"]): each["count"] for each in document["findings"]}
    assert counted == {("work.py", 3): 40, ("work.py", 4): 2, (str(tmp_path / "other.py"), 9): 1}
    assert document["outdated"] == 1
    [first] = [each for each in document["findings"] if each["line"] == 3]
    assert first["seen"][0]["ignored"] == ["name"]
    assert first["seen"][0]["programs"] == ["serve.py"]
    [other] = [each for each in document["findings"] if each["line"] == 9]
    assert (other["sure"], other["reason"]) == (False, "seen at run time; the file was not scanned")


@pytest.mark.usefixtures("seen")
def test_report_without_a_scan_needs_no_sources(run: Run) -> None:
    document = json.loads(run("report", "--no-scan", "--format", "json").stdout)

    assert (document["files"], document["total"], document["processes"]) == (0, 1, 1)
    assert run("report", "--no-scan", "--fail-over", 0).returncode == 1


@pytest.mark.usefixtures("seen")
def test_a_call_that_only_the_census_knows_is_not_sure(run: Run, app: Path) -> None:
    app.write_text("import importlib\n\n\n\n")
    os.utime(app, (1_600_000_000, 1_600_000_000))

    document = json.loads(run("report", "--format", "json").stdout)

    found = [each for each in document["findings"] if each["path"] == "work.py"]
    assert {(each["line"], each["sure"], each["reason"]) for each in found} == {
        (3, False, "seen at run time only"),
        (4, False, "seen at run time only"),
    }


@pytest.mark.usefixtures("seen")
def test_calls_in_files_that_were_changed_since_are_left_out(run: Run, app: Path) -> None:
    app.write_text("import importlib\n\n\n\n")

    done = run("report", "--fail-over", 0)

    assert done.returncode == 0
    assert "3 calls are of files that are gone or were changed since" in done.stdout


@pytest.mark.usefixtures("seen")
def test_since_leaves_out_what_was_seen_before(run: Run) -> None:
    before, after = (
        json.loads(run("report", "--since", day, "--format", "json").stdout) for day in ("2023-11-14", "2023-11-15")
    )

    assert sum(each["count"] for each in before["findings"]) == 43
    assert sum(each["count"] for each in after["findings"]) == 0


class Page(HTMLParser):
    """Counts tags, and collects what would be fetched."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.fetched: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.fetched += [value or "" for name, value in attrs if name in ("src", "href")]


@pytest.mark.usefixtures("seen")
def test_html_needs_nothing_else_and_shows_texts_as_texts(run: Run) -> None:
    page = Page(run("report", "--format", "html").stdout)

    assert page.fetched == []
    assert page.tags.count("script") == 1
    assert "b" not in page.tags
    assert page.tags.count("tr") == 2 + 3 + 2  # two headings, three findings, two codes


def test_output_goes_to_a_file(run: Run, app: Path) -> None:
    done = run("report", "--format", "html", "--output", "old.html")

    assert (done.returncode, done.stdout) == (0, "")
    assert (app.parent / "old.html").read_text().startswith("<!DOCTYPE html>")


@pytest.mark.usefixtures("seen")
def test_sarif_has_what_the_standard_asks_for(run: Run, tmp_path: Path) -> None:
    document = json.loads(run("report", "--format", "sarif").stdout)

    [made] = document["runs"]
    rules = [rule["id"] for rule in made["tool"]["driver"]["rules"]]
    assert document["version"] == "2.1.0"
    assert [rules[result["ruleIndex"]] for result in made["results"]] == [each["ruleId"] for each in made["results"]]
    places = [each["locations"][0]["physicalLocation"] for each in made["results"]]
    assert places[-1]["artifactLocation"] == {"uri": "work.py", "uriBaseId": "ROOT"}
    assert places[-1]["region"] == {"startLine": 4, "endLine": 4, "startColumn": 5}
    assert places[0]["artifactLocation"] == {"uri": (tmp_path / "other.py").as_uri()}
    assert {each["level"] for each in made["results"]} == {"warning", "note"}
    marks = [each["partialFingerprints"]["oldCall/v1"] for each in made["results"]]
    assert len(set(marks)) == 3


def test_the_mark_of_a_result_stays_when_lines_move(run: Run, app: Path) -> None:
    before = json.loads(run("report", "--format", "sarif").stdout)["runs"][0]["results"]
    app.write_text(f"\n\n{PROGRAM}")

    after = json.loads(run("report", "--format", "sarif").stdout)["runs"][0]["results"]

    assert [each["partialFingerprints"] for each in after] == [each["partialFingerprints"] for each in before]


def test_fail_over_counts_places(run: Run) -> None:
    assert run("report", "--fail-over", 2).returncode == 0

    done = run("report", "--fail-over", 1)

    assert done.returncode == 1
    assert done.stderr == "sage-compat: 2 places use the old API, and --fail-over allows 1\n"


def test_a_ratchet_only_lets_numbers_fall(run: Run, app: Path) -> None:
    assert run("report", "--ratchet", "old.json").returncode == 0
    ratchet = app.parent / "old.json"
    assert json.loads(ratchet.read_text())["counts"] == {"work.py": {"SQC001": 1, "SQC004": 1}}

    app.write_text(PROGRAM + 'r = create_queue(backend="python")\n')
    done = run("report", "--ratchet", "old.json")
    assert (done.returncode, done.stderr) == (1, "sage-compat: work.py: 2 of SQC001, and 1 allowed\n")

    app.write_text("\n".join(PROGRAM.splitlines()[:3]))
    assert run("report", "--ratchet", "old.json").returncode == 0
    assert json.loads(ratchet.read_text())["counts"] == {"work.py": {"SQC001": 1}}

    app.write_text(PROGRAM)
    assert run("report", "--ratchet", "old.json").returncode == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "old.json is no JSON"),
        ("{}", 'old.json has no "schema": "sage-compat.ratchet/1"'),
        ('{"schema": "sage-compat.ratchet/1", "counts": {"a.py": {"SQC001": -1}}}', "SQC001 of a.py must be a count"),
    ],
)
def test_a_ratchet_that_is_none_is_an_error_with_the_place(run: Run, app: Path, text: str, said: str) -> None:
    (app.parent / "old.json").write_text(text)

    done = run("report", "--ratchet", "old.json")

    assert done.returncode == 4
    assert said in done.stderr


# -- fix --------------------------------------------------------------------------------------------------------------


def test_fix_writes_and_says_what(run: Run, app: Path) -> None:
    done = run("fix")

    assert (done.returncode, done.stdout) == (0, "changed work.py\n")
    assert done.stderr == "1 calls and names replaced, 1 stay; 1 of 1 files changed\n"
    assert "q = LocalQueueDescriptor(maxsize=3).open()" in app.read_text()
    assert "# sage-compat: SQC004 stays: the backend kind" in app.read_text()


def test_fix_twice_changes_nothing(run: Run, app: Path) -> None:
    run("fix")
    before = app.read_bytes(), app.stat().st_mtime_ns

    done = run("fix")

    assert done.stderr == "0 calls and names replaced, 1 stay; 0 of 1 files changed\n"
    assert (app.read_bytes(), app.stat().st_mtime_ns) == before


def test_diff_writes_nothing_and_can_be_applied(run: Run, app: Path) -> None:
    done = run("fix", "--diff")
    assert (done.returncode, app.read_text()) == (0, PROGRAM)

    subprocess.run(["patch", "-p1"], input=done.stdout, text=True, cwd=app.parent, check=True, capture_output=True)
    patched = app.read_text()
    app.write_text(PROGRAM)
    run("fix")

    assert patched == app.read_text()


def test_check_writes_nothing_and_fails_until_it_is_done(run: Run, app: Path) -> None:
    done = run("fix", "--check")
    assert (done.returncode, done.stdout, app.read_text()) == (1, "would change work.py\n", PROGRAM)

    run("fix")

    assert run("fix", "--check").returncode == 0


def test_fix_keeps_permissions_and_links(run: Run, app: Path) -> None:
    app.chmod(0o750)
    (app.parent / "link.py").symlink_to(app.name)

    assert run("fix", "link.py").returncode == 0

    assert (app.parent / "link.py").is_symlink()
    assert stat.S_IMODE(app.stat().st_mode) == 0o750
    assert "LocalQueueDescriptor" in app.read_text()


def test_the_namespace_is_that_of_the_project(run: Run, app: Path) -> None:
    app.write_text('from sage_compat import create_queue\nq = create_queue(backend="sage", name="a")\n')
    assert 'namespace="app"' in run("fix", "--diff").stdout

    (app.parents[1] / "pyproject.toml").write_text('[project]\nname = "etl"\n')
    assert 'namespace="etl"' in run("fix", "--diff").stdout
    assert 'namespace="mine"' in run("fix", "--diff", "--namespace", "mine").stdout


# -- Errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["report", "fix"])
def test_a_path_that_is_not_there(run: Run, verb: str) -> None:
    done = run(verb, "nowhere")

    assert (done.returncode, done.stderr) == (3, "sage-compat: nowhere: no such file or folder\n")


@pytest.mark.parametrize("verb", ["report", "fix"])
def test_a_syntax_error_has_its_place_and_nothing_is_written(run: Run, app: Path, verb: str) -> None:
    (app.parent / "bad.py").write_text("import sage_queue\nx = = 1\n")

    done = run(verb)

    assert (done.returncode, done.stderr) == (4, "sage-compat: bad.py:2:5: invalid syntax\n")
    assert app.read_text() == PROGRAM


def test_a_folder_without_a_census(run: Run) -> None:
    done = run("report", "--census", "nowhere")

    assert (done.returncode, done.stderr) == (3, "sage-compat: nowhere: no such folder\n")


@pytest.mark.parametrize(
    "words",
    [
        ["report", "--no-scan", "--no-census"],
        ["report", "--census", ".", "--no-census"],
        ["report", "--fail-over", "-1"],
        ["report", "--format", "pdf"],
        ["fix", "--namespace", ""],
        ["mend"],
    ],
)
def test_wrong_usage_is_told_apart(run: Run, words: list[str]) -> None:
    assert run(*words).returncode == 2


def test_without_libcst_it_says_how_to_install_it(app: Path, tmp_path: Path) -> None:
    (tmp_path / "hide").mkdir()
    (tmp_path / "hide" / "libcst.py").write_text("raise ImportError('not here')\n")
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "hide"), "SAGE_COMPAT_CENSUS": str(tmp_path)}

    fix, report = (
        subprocess.run([*WORDS, *words], text=True, capture_output=True, timeout=100, env=environment, cwd=app.parent)
        for words in (["fix"], ["report", "--no-scan"])
    )

    assert (fix.returncode, report.returncode) == (5, 0)
    assert "pip install 'sage-compat[fix]'" in fix.stderr


def test_help_says_exit_codes(run: Run) -> None:
    for verb in ("report", "fix"):
        done = run(verb, "--help")
        assert "3 no such file or folder" in " ".join(done.stdout.split())


def test_interrupted_it_ends_with_130(app: Path) -> None:
    """Opening a pipe that nobody writes to waits; it can be opened for writing when the report has come that far."""
    pipe = app.parent / "slow.fifo"
    os.mkfifo(pipe)
    words = [*WORDS, "report", "--no-census", "--ratchet", pipe.name]
    with subprocess.Popen(
        words, cwd=app.parent, text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as process:
        writer = None
        while writer is None:
            assert process.poll() is None, process.communicate()
            with suppress(OSError):  # ENXIO: nobody reads yet
                writer = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
        os.close(writer)

    assert (process.returncode, said.splitlines()[-1]) == (130, "sage-compat: interrupted")


# -- Files ------------------------------------------------------------------------------------------------------------


def test_a_file_that_cannot_be_replaced_stays_and_nothing_is_left(tmp_path: Path, monkeypatch: Any) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    with pytest.raises(TypeError):
        write_whole(path, None)  # type: ignore[arg-type]

    assert [each.name for each in tmp_path.iterdir()] == ["file"]
    assert path.read_text() == "old"


def test_of_the_census_of_all_programs_only_the_scanned_files_are_shown(
    run: Run, seen: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SAGE_COMPAT_CENSUS")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    (tmp_path / "sage-compat").mkdir()
    (tmp_path / "census").rename(tmp_path / "sage-compat" / "census")

    said = run("report", ".").stdout

    assert "other.py" not in said
    assert "1 places in other files were seen at run time" in said
    assert "other.py" in run("report", "--no-scan").stdout
