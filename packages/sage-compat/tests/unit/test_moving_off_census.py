"""The census: what is counted, by how many processes, and what a kill or a fork leaves."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sage_compat.moving_off import census as counting
from sage_compat.moving_off.census import note
from sage_compat.moving_off.census_files import fold, read_census

SURFACE = """
import os, sys, types
surface = types.ModuleType("sage_compat.surface")
exec('''
from sage_compat.moving_off import note
def create_queue(backend=None, **kwargs):
    note("create_queue", backend, kwargs)
''', vars(surface))
create_queue = surface.create_queue
"""
LIMIT_SECONDS = 60


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SAGE_COMPAT_CENSUS", str(tmp_path / "census"))
    monkeypatch.setattr(counting, "_census", counting._Census())
    return tmp_path / "census"


Start = Callable[[str], "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path, folder: Path) -> Start:
    """Start a program that makes old calls."""

    def started(body: str) -> "subprocess.Popen[str]":
        path = tmp_path / f"program{len(list(tmp_path.glob('program*')))}.py"
        path.write_text(f"{SURFACE}{body}\n")
        return subprocess.Popen([sys.executable, path], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True)

    return started


def ended(process: "subprocess.Popen[str]") -> int:
    process.communicate(timeout=LIMIT_SECONDS)
    return process.returncode


def test_it_knows_who_where_how_often_and_with_what(folder: Path, start: Start) -> None:
    before = time.time()
    process = start("def work():\n    create_queue('sage', name='jobs', maxsize=7)\nfor _ in range(3): work()")
    assert ended(process) == 0

    census = read_census(folder)

    [call] = census.calls
    assert (call.function, call.backend, call.count, call.processes) == ("create_queue", "sage", 3, 1)
    assert call.keywords == {"name": "'jobs'", "maxsize": "7"}
    assert call.inside == "work"
    assert Path(call.path).name == "program0.py"
    assert call.last_seen >= before - 1
    assert {Path(program).name for program in call.programs} == {"program0.py"}
    assert census.torn == 0


def test_processes_are_added_up(folder: Path, tmp_path: Path, start: Start) -> None:
    (tmp_path / "lib.py").write_text("def make(create_queue):\n    create_queue('python')\n")
    body = "import lib\nfor _ in range(5): lib.make(create_queue)"
    assert [ended(start(body)) for _ in range(3)] == [0, 0, 0]

    [call] = read_census(folder).calls

    assert (call.count, call.processes, len(call.programs)) == (15, 3, 3)


def test_many_calls_are_counted_exactly_at_a_normal_end(folder: Path, start: Start) -> None:
    assert ended(start("for _ in range(10_000): create_queue('python')")) == 0

    assert sum(call.count for call in read_census(folder).calls) == 10_000
    assert sum(path.stat().st_size for path in folder.iterdir()) < 64 * 1024


def test_a_kill_loses_none_of_the_first_calls(folder: Path, start: Start) -> None:
    process = start("for _ in range(16): create_queue('python')\nprint('done', flush=True)\nsys.stdin.read()")
    assert process.stdout is not None
    assert process.stdout.readline() == "done\n"
    process.kill()
    assert ended(process) == -signal.SIGKILL

    assert read_census(folder).calls[0].count == 16


def test_a_forked_child_has_a_file_of_its_own(folder: Path, start: Start) -> None:
    body = """
def work():
    create_queue('python')
work()
child = os.fork()
if not child:
    work()
    work()
    os._exit(0)
os.waitpid(child, 0)
work()
"""
    assert ended(start(body)) == 0

    [call] = read_census(folder).calls

    assert (call.count, call.processes) == (4, 2)


@pytest.mark.parametrize("way", ["fork", "spawn"])
def test_children_of_multiprocessing_count_exactly(folder: Path, start: Start, way: str) -> None:
    body = f"""
import multiprocessing
def work():
    for _ in range(1000):
        create_queue('python')
if __name__ == '__main__':
    child = multiprocessing.get_context('{way}').Process(target=work)
    child.start()
    child.join()
    sys.exit(child.exitcode)
"""
    assert ended(start(body)) == 0

    [call] = read_census(folder).calls

    assert (call.count, call.processes) == (1000, 1)


def test_a_torn_end_is_skipped_and_told(folder: Path, start: Start) -> None:
    assert ended(start("create_queue('python')")) == 0
    [path] = folder.glob("*.jsonl")
    with path.open("a") as file:
        file.write('{"path": "cut off he')

    census = read_census(folder)

    assert census.torn == 1
    assert census.calls[0].count == 1


def test_a_damaged_line_is_an_error_with_its_place(folder: Path, start: Start) -> None:
    assert ended(start("create_queue('python')")) == 0
    [path] = folder.glob("*.jsonl")
    path.write_text(path.read_text().replace('"line":', '"lime":'))

    with pytest.raises(ValueError, match="line 2 has no line; remove the file"):
        read_census(folder)


def test_a_file_of_something_else_is_an_error(folder: Path) -> None:
    folder.mkdir()
    (folder / "x.census.jsonl").write_text('{"schema": "other/9"}\n')

    with pytest.raises(ValueError, match=r"line 1 has no schema sage-compat\.census/1"):
        read_census(folder)


def test_a_folder_that_is_not_there_has_seen_nothing(tmp_path: Path) -> None:
    assert read_census(tmp_path / "none").calls == ()


@pytest.mark.parametrize("word", ["0", "false", "No"])
def test_it_can_be_switched_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str) -> None:
    monkeypatch.setenv("SAGE_COMPAT_CENSUS", word)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr(counting, "_census", counting._Census())

    note("create_queue", None, {})

    assert list(tmp_path.iterdir()) == []


def test_without_a_folder_named_it_is_in_the_state_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SAGE_COMPAT_CENSUS", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr(counting, "_census", counting._Census())

    note("create_queue", "python", {})

    assert len(read_census(tmp_path / "sage-compat" / "census").calls) == 1


def test_a_folder_that_cannot_be_written_ends_the_census_and_not_the_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SAGE_COMPAT_CENSUS", str(tmp_path / "file" / "census"))
    monkeypatch.setattr(counting, "_census", counting._Census())

    for _ in range(3):
        note("create_queue", None, {})

    [record] = caplog.records
    assert "the census of old queue calls ends here" in record.message


def test_values_are_cut_and_objects_are_named_by_type(folder: Path) -> None:
    note("create_queue", None, {"name": "x" * 500, "namespace": object(), "maxsize": 5})

    [call] = read_census(folder).calls

    assert len(call.keywords["name"]) == 81
    assert call.keywords["namespace"] == "<object>"
    assert call.keywords["maxsize"] == "5"


# -- Folding ----------------------------------------------------------------------------------------------------------


def test_folding_keeps_every_figure_and_leaves_one_file(folder: Path, start: Start) -> None:
    assert [ended(start("for _ in range(3): create_queue('python')")) for _ in range(3)] == [0, 0, 0]
    before = read_census(folder)

    assert fold(folder) == 3

    assert read_census(folder) == before
    assert len(list(folder.glob("*.jsonl"))) == 1


def test_folding_twice_keeps_every_figure(folder: Path, start: Start) -> None:
    for _ in range(2):
        assert [ended(start("create_queue('python')")) for _ in range(2)] == [0, 0]
        fold(folder)

    assert read_census(folder).processes == 4
    assert sum(call.count for call in read_census(folder).calls) == 4


def test_files_of_living_processes_are_left_alone(folder: Path, start: Start) -> None:
    alive = start("create_queue('python')\nprint('on', flush=True)\nsys.stdin.read()\ncreate_queue('python')")
    assert alive.stdout is not None
    assert alive.stdout.readline() == "on\n"
    assert [ended(start("create_queue('ray')")) for _ in range(2)] == [0, 0]

    assert fold(folder) == 2
    assert ended(alive) == 0

    assert sum(call.count for call in read_census(folder).calls) == 4


def test_a_kill_between_writing_and_removing_counts_nothing_twice(folder: Path, start: Start) -> None:
    assert [ended(start("create_queue('python')")) for _ in range(3)] == [0, 0, 0]
    kept = {path: path.read_bytes() for path in folder.glob("*.jsonl")}
    before = read_census(folder)
    fold(folder)
    for path, data in list(kept.items())[:2]:  # as they would be if the process had been killed before it removed them
        path.write_bytes(data)

    assert read_census(folder) == before

    fold(folder)
    assert read_census(folder) == before


def test_many_files_are_folded_by_the_next_process(folder: Path, start: Start) -> None:
    assert ended(start("create_queue('python')")) == 0
    [path] = folder.glob("*.jsonl")
    for number in range(counting._MOST_FILES):
        (folder / f"copy{number}{counting.SUFFIX}").write_bytes(path.read_bytes())

    assert ended(start("create_queue('python')")) == 0

    assert len(list(folder.glob("*.jsonl"))) == 2
    assert read_census(folder).processes == counting._MOST_FILES + 2


def test_a_line_is_json_that_others_can_read(folder: Path) -> None:
    note("create_queue", "sage", {"name": "作业"})
    [path] = folder.glob("*.jsonl")

    head, line = map(json.loads, path.read_text().splitlines())

    assert head["pid"] == os.getpid()
    assert line["kwargs"] == {"name": "'作业'"}
