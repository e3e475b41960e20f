"""Which wheels are the same, and what a killed build leaves; without a compiler."""

from pathlib import Path

import pytest

from sage_sim.gate.wheels import _digest

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
