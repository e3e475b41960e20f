"""Which wheels are the same, and what a killed build leaves; without a compiler."""

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from sage_sim.cli.app import main
from sage_sim.gate import baselines, wheels
from sage_sim.gate.baselines import Baselines
from sage_sim.gate.wheels import Wheel, _built, _digest

SETUP = Path(__file__).parents[3] / "sage-qd" / "setup.py"
OF_SETUPTOOLS = ("CC", "CFLAGS", "CPPFLAGS", "LDFLAGS", "LDSHARED")
OF_SETUP = ("SAGE_QD_DEBUG", "SAGE_QD_SANITIZE", "SAGE_QD_COVERAGE", "SAGE_QD_WERROR", "SAGE_QD_POINTS")


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in (*OF_SETUPTOOLS, *OF_SETUP):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "sources").mkdir()
    (tmp_path / "sources" / "setup.py").write_text("setup()")
    (tmp_path / "constraints.txt").write_text("cython==3.1.0")
    return tmp_path / "sources"


def digest_of(sources: Path) -> str:
    return _digest(sources, sources.parent / "constraints.txt")


@pytest.mark.parametrize("name", [*OF_SETUPTOOLS, *OF_SETUP])
def test_each_switch_of_a_build_makes_another_wheel(name: str, sources: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = digest_of(sources)

    monkeypatch.setenv(name, "1")

    assert digest_of(sources) != before


@pytest.mark.parametrize("file", ["constraints.txt", "sources/setup.py"])
def test_each_file_of_a_build_makes_another_wheel(file: str, sources: Path) -> None:
    before = digest_of(sources)

    (sources.parent / file).write_text("other")

    assert digest_of(sources) != before


def test_equal_builds_have_equal_wheels(sources: Path) -> None:
    assert digest_of(sources) == digest_of(sources)


def test_every_switch_that_setup_tells_of_is_one() -> None:
    told = {line.split("=")[0].strip() for line in SETUP.read_text().splitlines() if line.startswith("    SAGE_QD_")}

    assert told == set(OF_SETUP)


# -- Killed -----------------------------------------------------------------------------------------------------------

STUCK = "print('stuck', flush=True) or time.sleep(1000)"
BUILD = f"""
import time
from pathlib import Path
from sage_sim.gate import wheels
wheels._pip = lambda *words, **more: {STUCK}
wheels._built(Path("sources"), Path("gate", "digest"), Path("constraints.txt"))
"""
MEASURE = f"""
import time
from pathlib import Path
from sage_sim.gate import baselines, wheels
baselines._measured = lambda *words: {STUCK}
baselines.Baselines(Path("kept")).record("a", wheels.Wheel(path=Path("a.whl"), told="", digest=""), [], print)
"""
REPLACE = f"""
import time
from pathlib import Path
from sage_sim.gate import baselines, wheels
rename = Path.rename
def stuck(self, target):
    rename(self, target)
    if target.name == ".before-a":
        {STUCK}
Path.rename = stuck
baselines._measured = lambda *words: dict()
wheel = wheels.Wheel(path=Path("a.whl"), told="new", digest="")
baselines.Baselines(Path("kept")).record("a", wheel, [], print, replace=True)
"""


def killed(program: str, folder: Path) -> None:
    """Run it until it is stuck, and kill it there."""
    words = [sys.executable, "-P", "-c", program]
    with subprocess.Popen(words, cwd=folder, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "stuck\n"
        process.kill()


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def keep(told: str, *, replace: bool = False) -> None:
    wheel = Wheel(path=Path("a.whl"), told=told, digest="")
    Baselines(Path("kept")).record("a", wheel, [], lambda text: None, replace=replace)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a wheel, that is measured in no time."""
    monkeypatch.setenv("SAGE_QD_SHM_FOLDER", "/dev/shm")  # measuring sets it, and here it is put back
    monkeypatch.setattr(baselines, "_measured", lambda *words: {})
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.whl").touch()
    return tmp_path


def test_what_a_killed_build_left_goes_with_the_next_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wheels, "_pip", lambda *words, env: Path(words[3], "a.whl").touch())
    killed(BUILD, tmp_path)
    left = names_in(tmp_path / "gate")

    found = _built(tmp_path / "sources", tmp_path / "gate" / "digest", tmp_path / "constraints.txt")

    assert [name.partition("-")[0] for name in left] == ["building"]
    assert names_in(tmp_path / "gate") == ["digest"]
    assert names_in(tmp_path / "gate" / "digest") == [found.name] == ["a.whl"]


def test_what_a_killed_baseline_left_goes_with_the_next_one(here: Path) -> None:
    killed(MEASURE, here)

    keep("")

    assert names_in(here / "kept") == ["a"]


def test_what_a_killed_baseline_left_is_cleaned(here: Path) -> None:
    (here / "sage-sim-runs").mkdir()
    killed(MEASURE.replace('"kept"', '"sage-sim-runs", "baselines"'), here)

    cleaned = CliRunner().invoke(main, ["clean"])

    assert "removed sage-sim-runs/baselines/.making-" in cleaned.output
    assert names_in(here / "sage-sim-runs" / "baselines") == []


def test_a_baseline_that_is_being_replaced_is_not_lost(here: Path) -> None:
    keep("old")
    killed(REPLACE, here)
    kept = Baselines(Path("kept"))

    found, listed = kept.find("a"), kept.all()
    keep("newer", replace=True)
    newer = kept.find("a")

    assert found is not None
    assert (found.wheel.told, listed) == ("old", [found])
    assert found.wheel.path.parent.name == ".before-a"
    assert newer is not None
    assert newer.wheel.told == "newer"
    assert names_in(here / "kept") == ["a"]
