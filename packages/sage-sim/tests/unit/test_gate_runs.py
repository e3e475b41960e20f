"""The gate with real processes over the installed package, and over a copy of it that is slower on purpose."""

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import sage_qd
from sage_sim.cli.app import main
from sage_sim.cli.gating import again, gate_verb
from sage_sim.gate.baselines import BaselineError, Baselines
from sage_sim.gate.benchmarks import OURS
from sage_sim.gate.exact import lacking, system_calls
from sage_sim.gate.gating import Order, _names, _shapes
from sage_sim.gate.rounds import Ending
from sage_sim.gate.rules import Pinned, Rules, Shape
from sage_sim.gate.shapes import Shaper
from sage_sim.gate.sides import Side, SideError
from sage_sim.gate.timing import Timer, Timings
from sage_sim.gate.wheels import Wheel

pytestmark = pytest.mark.once
HERE = Path(sage_qd.__file__).resolve().parent.parent
NAME = "seq[local_queue-tuple]"
RULES = Rules(
    one_process=0.07,
    processes=0.2,
    instructions=0.02,
    allocations=0.5,
    rounds_at_least=5,
    rounds_at_most=10,
    benchmarks=(Pinned(name=NAME),),
)
SLOWER = """
def _slower(put):
    def slow(*words, **more):
        sum(range(2000))
        return put(*words, **more)
    return slow

LocalQueue.put = _slower(LocalQueue.put)
"""


def copy_of_the_package(place: Path) -> Path:
    shutil.copytree(HERE / "sage_qd", place / "sage_qd", ignore=shutil.ignore_patterns("__pycache__"))
    return place


def timed(place: Path, head: Path) -> Timings:
    timer = Timer(
        folders={"head": head, "base": HERE, "again": HERE},
        rules=RULES,
        namespace="sage-sim",
        words=place / "words.log",
        seed=1,
        seconds=4.0,
        say=lambda text: None,
    )
    return timer.all([NAME])


def test_equal_code_is_never_called_slower(tmp_path: Path) -> None:
    found = timed(tmp_path, HERE)

    assert [one.ending for one in found.findings] != [Ending.REGRESSION]
    assert found.rounds[NAME]


def test_a_slower_copy_never_passes(tmp_path: Path) -> None:
    head = copy_of_the_package(tmp_path / "head")
    with (head / "sage_qd" / "queues" / "local.py").open("a") as module:
        module.write(SLOWER)

    found = timed(tmp_path, head)

    assert [one.ending for one in found.findings] != [Ending.PASS]
    assert min(one.head for one in found.rounds[NAME]) > 1


def test_a_side_says_what_it_cannot_do(tmp_path: Path) -> None:
    head = copy_of_the_package(tmp_path / "head")
    (head / "sage_qd" / "queues" / "local.py").write_text("raise ImportError('gone')\n")

    with Side("head", head, namespace="sage-sim", words=tmp_path / "words.log") as side:
        refused = side.refused([NAME, "seq[ring-64B]"])

    assert refused == {NAME: "ImportError: gone"}


def broken_copy(place: Path) -> Path:
    """One without the queue of a process."""
    (copy_of_the_package(place) / "sage_qd" / "queues" / "local.py").write_text("raise ImportError('gone')\n")
    return place


@pytest.mark.parametrize(
    ("broken", "ending", "told"),
    [
        (("head",), Ending.REGRESSION, "head cannot do it"),
        (("base",), Ending.LEFT_OUT, "base cannot do it"),
        (("head", "base"), Ending.CANNOT, "neither side can do it"),
    ],
    ids=["head", "base", "both"],
)
def test_what_head_alone_cannot_do_is_a_regression(
    broken: tuple[str, ...], ending: Ending, told: str, tmp_path: Path
) -> None:
    wheel = Wheel(path=tmp_path, told="", digest="")
    sides = {side: broken_copy(tmp_path / side) if side in broken else HERE for side in ("head", "base")}
    rules = RULES.model_copy(update={"benchmarks": (Pinned(name=NAME), Pinned(name="seq[ring-64B]"))})

    found, able = _names(Order(rules=rules, base=wheel, head=wheel), sides, tmp_path)

    assert [(one.name, one.ending, one.why) for one in found] == [(NAME, ending, f"{told}: ImportError: gone")]
    assert able["base"] == ["seq[ring-64B]"]
    assert able["head"] == [name for name in (NAME, "seq[ring-64B]") if name != NAME or "head" not in broken]


@pytest.mark.parametrize(
    ("subject", "against", "ending"),
    [("seq[ring-64B]", NAME, Ending.INCONCLUSIVE), (NAME, "seq[ring-64B]", Ending.REGRESSION)],
    ids=["of the other", "of ours"],
)
def test_an_error_of_the_other_queue_is_no_regression(
    subject: str, against: str, ending: Ending, tmp_path: Path
) -> None:
    head = broken_copy(tmp_path / "head")
    words = tmp_path / "words.log"
    shaper = Shaper(folder=head, namespace="sage-sim", words=words, seed=1, seconds=1.0, say=lambda text: None)

    found = shaper.one(Shape(subject=subject, against=against, ratio=1, margin=100, why="it is so"))

    assert (found.ending, found.why) == (ending, f"{NAME}: ImportError: gone")


def test_a_shape_of_what_head_cannot_do_is_told_with_the_names_alone(tmp_path: Path) -> None:
    wheel = Wheel(path=tmp_path, told="", digest="")
    shape = Shape(subject=NAME, against="seq[ring-64B]", ratio=1, margin=100, why="it is so")
    order = Order(rules=RULES.model_copy(update={"shapes": (shape,)}), base=wheel, head=wheel)

    assert _shapes(order, HERE, [], tmp_path, lambda text: None) == []


def test_a_side_that_imports_another_wheel_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SideError, match="imports"):
        Side("head", tmp_path, namespace="sage-sim", words=tmp_path / "words.log")


@pytest.mark.skipif(bool(lacking("strace", "setarch")), reason="strace or setarch is not installed")
def test_a_ring_without_a_crowd_calls_the_system_for_nothing(tmp_path: Path) -> None:
    names = ["seq[ring-64B]", "seq[sage_queue-tuple]"]

    found = system_calls(HERE, names, namespace="sage-sim", place=tmp_path)

    assert found == {name: pytest.approx(0.0, abs=0.05) for name in names}


def test_what_is_missing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")

    assert [text.partition(",")[0] for text in lacking("valgrind", "strace")] == ["valgrind", "strace"]


def test_every_benchmark_gets_out_what_it_put_in(tmp_path: Path) -> None:
    with Side("head", HERE, namespace="sage-sim", words=tmp_path / "words.log") as side:
        assert side.refused([one.name for one in OURS]) == {}


# -- The command line -------------------------------------------------------------------------------------------------


def called(*words: str, **environment: str) -> Result:
    return CliRunner().invoke(main, list(words), env={"COLUMNS": "200", "NO_COLOR": "1", **environment})


@pytest.fixture
def gates(tmp_path: Path) -> Path:
    path = tmp_path / "gates.toml"
    path.write_text(
        "[regression]\none_process = 0.07\nprocesses = 0.2\ninstructions = 0.02\nallocations = 0.5\n"
        f'[[regression.benchmarks]]\nname = "{NAME}"\n'
    )
    return path


@pytest.mark.parametrize(
    ("words", "code", "answer"),
    [
        (["--base", "no-such.whl"], 2, "there is no wheel no-such.whl"),
        (["--layer", "tim"], 2, "'tim' is not one of"),
        (["--seed", "-1"], 2, "--seed"),
        (["--base", "x"], 5, "is in no git checkout; give two wheels"),
    ],
)
def test_bad_words_are_answered_with_the_reason(
    words: list[str], code: int, answer: str, gates: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    result = called("gate", "--gates", str(gates), *words)

    assert result.exit_code == code
    assert answer in result.output


def test_a_broken_file_of_gates_is_wrong_usage(tmp_path: Path) -> None:
    broken = tmp_path / "gates.toml"
    broken.write_text("[regression]\none_process = 0\nproceses = 1\n")

    result = called("gate", "--gates", str(broken))

    assert result.exit_code == 2
    assert "gates.toml:2: regression.one_process" in result.output
    assert "did you mean 'processes'?" in result.output


def test_without_git_two_wheels_are_asked_for(gates: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")

    result = called("gate", "--gates", str(gates))

    assert result.exit_code == 5
    assert "git is not installed" in result.output


@pytest.mark.parametrize("lenient", [[], ["--lenient"]], ids=["strict", "lenient"])
def test_a_wheel_that_is_none_cannot_be_installed(
    lenient: list[str], gates: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAGE_QD_SHM_FOLDER", "/dev/shm")  # a gate sets it, and here it is put back
    wheel = tmp_path / "sage_qd-0.1.0-py3-none-any.whl"
    wheel.write_bytes(b"nothing")
    words = ["--gates", str(gates), "--base", str(wheel), "--head", str(wheel), "--out", str(tmp_path / "out")]

    result = called("gate", *words, *lenient)

    assert result.exit_code == 5
    assert "pip install sage_qd-0.1.0-py3-none-any.whl failed" in result.output


def test_the_command_that_repeats_a_gate_has_its_base_and_seed_and_another_folder(gates: Path, tmp_path: Path) -> None:
    words = [
        "--gates",
        str(gates),
        "--short",
        "--layer",
        "time",
        "--layer",
        "exact",
        "--out",
        str(tmp_path),
        "--head",
        "b",
    ]
    wheel = Wheel(path=tmp_path, told="a", digest="d", commit="0123456789abcdef")
    order = Order(rules=RULES, base=wheel, head=wheel, seed=7)

    told = again(gate_verb.make_context("gate", words), order)

    kept = f"sage-sim gate --head b --gates {gates} --layer time --layer exact --short"
    assert told == f"{kept} --base 0123456789ab --seed 7"


def test_baselines_are_none_at_first_and_asked_for_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    assert json.loads(called("baseline", "--json").output) == []
    assert called("baseline", "before").exit_code == 2
    assert "no baseline 'before'; known are: none" in called("baseline", "before").output
    with pytest.raises(BaselineError, match="can be no name"):
        Baselines().check("../there", replace=False)
