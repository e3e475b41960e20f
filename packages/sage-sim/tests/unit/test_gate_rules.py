"""What a change may cost: the file that says it, the set of names, and the record."""

import json
from pathlib import Path

import pytest

from sage_sim.files import FileError
from sage_sim.gate.benchmarks import BENCHMARKS, OURS
from sage_sim.gate.exact import _between, _calls
from sage_sim.gate.record import benchmark_json
from sage_sim.gate.rules import Rules, pinned_in, read_rules, vanished

LEAST = """\
[regression]
one_process = 0.07
processes = 0.2
instructions = 0.02
allocations = 0.5

[[regression.benchmarks]]
name = "seq[ring-64B]"
"""


def rules_in(place: Path, text: str) -> Rules:
    path = place / "gates.toml"
    path.write_text(text, encoding="utf-8")
    return read_rules(path, set(BENCHMARKS))


def test_a_file_is_read(tmp_path: Path) -> None:
    rules = rules_in(tmp_path, LEAST)

    assert rules.one_process == 0.07
    assert [one.name for one in rules.benchmarks] == ["seq[ring-64B]"]


def test_all_that_is_wrong_is_told_at_once_with_its_line(tmp_path: Path) -> None:
    text = LEAST.replace("processes = 0.2", "processes = -1", 1).replace("instructions", "instruction")
    text += "\n[[regression.shapes]]\nsubject = 'a'\nagainst = 'b'\nratio = 0\nmargin = 0.5\nwhy = ''\n"

    with pytest.raises(FileError) as caught:
        rules_in(tmp_path, text)

    told = str(caught.value)
    assert "gates.toml:3: regression.processes:" in told
    assert "gates.toml:4: regression.instruction: unknown word 'instruction' (did you mean 'instructions'?)" in told
    assert "regression.instructions: is missing" in told
    assert "gates.toml:13: regression.shapes[0].ratio:" in told
    assert "gates.toml:14: regression.shapes[0].margin:" in told
    assert "gates.toml:15: regression.shapes[0].why:" in told


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (
            '\n[[regression.benchmarks]]\nname = "seq[ring-64B]"\n',
            ":11: regression.benchmarks[1].name: 'seq[ring-64B]' is",
        ),
        ("system_calls = 3\n", ":9: regression.benchmarks[0].system_calls: a call of the system needs a reason"),
        (
            "\n[[regression.shapes]]\nsubject = 'spsc[ring-64B]'\nagainst = 'b'\nratio = 1\nmargin = 1\nwhy = 'so'\n",
            ":12: regression.shapes[0].against: there is no benchmark 'b'",
        ),
        (
            '\n[[regression.retired]]\nname = "seq[ring-64B]"\nwhy = "so"\n',
            ":11: regression.retired[0].name: 'seq[ring-64B]' is also among the benchmarks",
        ),
    ],
)
def test_what_contradicts_itself_is_told_with_its_line(tmp_path: Path, more: str, told: str) -> None:
    with pytest.raises(FileError) as caught:
        rules_in(tmp_path, LEAST + more)

    assert told in str(caught.value)


@pytest.mark.parametrize("text", ["", "[other]\n", "[regression\n"])
def test_a_file_without_rules_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(FileError):
        rules_in(tmp_path, text)


def test_a_name_that_is_pinned_has_to_be_there(tmp_path: Path) -> None:
    rules = rules_in(tmp_path, LEAST)

    assert vanished(rules, set(), set()) == ["seq[ring-64B] is pinned, and there is no such benchmark"]
    assert vanished(rules, set(BENCHMARKS), set()) == []


def test_a_name_that_base_pins_is_dropped_with_a_reason_only(tmp_path: Path) -> None:
    dropped = rules_in(tmp_path, LEAST)
    retired = rules_in(tmp_path, LEAST + '\n[[regression.retired]]\nname = "old"\nwhy = "its kind went"\n')
    before = pinned_in('[[regression.benchmarks]]\nname = "old"\n')

    assert before == {"old"}
    assert len(vanished(dropped, set(BENCHMARKS), before)) == 1
    assert vanished(retired, set(BENCHMARKS), before) == []


@pytest.mark.parametrize("text", ["", "[", "regression = 1\n", "[[regression.benchmarks]]\n"])
def test_an_older_file_without_names_pins_nothing(text: str) -> None:
    assert pinned_in(text) == set()


def test_the_record_has_the_form_of_pytest_benchmark() -> None:
    record = benchmark_json({"seq[ring-64B]": [100.0, 102.0, 98.0, 500.0]}, {}, commit="abc", changed=False)

    benchmark = json.loads(json.dumps(record))["benchmarks"][0]
    assert {"machine_info", "commit_info", "benchmarks", "datetime", "version"} <= set(record)
    assert (benchmark["group"], benchmark["param"]) == ("seq", "ring-64B")
    assert benchmark["stats"]["min"] == pytest.approx(98e-9)
    assert benchmark["stats"]["median"] == pytest.approx(101e-9)
    assert benchmark["stats"]["rounds"] == 4
    assert benchmark["stats"]["outliers"] == "1;1"


def test_names_are_unique_and_say_topology_and_load() -> None:
    assert len(BENCHMARKS) >= len(OURS) >= 10
    assert all(name.partition("[")[0] in ("seq", "spsc", "pingpong") for name in BENCHMARKS)


def test_calls_of_a_function_are_counted_in_a_profile() -> None:
    profile = [
        "fn=main",
        "cfn=malloc",
        "calls=3 10",
        "5 90",
        "cfn=free",
        "calls=9 1",
        "1 1",
        "cfn=calloc@@GLIBC",
        "calls=2 4",
    ]

    assert _calls(profile, {"malloc", "calloc"}) == 5


def test_system_calls_are_counted_between_marks() -> None:
    log = [
        "7 brk(NULL) = 0",
        "7 getppid() = 1",
        "7 futex(0x1 <unfinished ...>",
        "7 <... futex resumed>) = 0",
        "7 getppid() = 1",
    ]

    assert _between(log) == [1.0, 1.0]
