"""Measured costs: real figures of real processes, and the file that estimates are made from."""

import json
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest

from sage_qd.monitor.measuring import Measured, calibration_path, measurable_kinds, measured, save_calibration
from sage_qd.ring import list_segments

pytestmark = pytest.mark.timeout(120)


@pytest.mark.parametrize("kind", ["local_queue", "sage_queue"])
def test_a_kind_is_measured_and_leaves_nothing_behind(kind: str) -> None:
    before = {info.path for info in list_segments("default")}
    steps: list[str] = []

    found = measured(kind, seconds=0.1, note=steps.append)

    assert kind in measurable_kinds()
    assert found.kind == kind
    assert all(value is None or value >= 0 for value in found.as_dict().values() if not isinstance(value, str))
    assert found.put_get_ns > 0
    assert found.wake_us_p99 >= found.wake_us > 0
    assert (found.bytes_per_second is None) == (kind == "local_queue")
    assert len(steps) == 3
    left = [info for info in list_segments("default") if info.path not in before]
    assert not [info for info in left if info.name.startswith("sage_queue_")]


@pytest.fixture
def figures() -> dict[str, Measured]:
    numbers = {each.name: 1.25 for each in fields(Measured) if each.name != "kind"}
    return {"sage_queue": Measured(kind="sage_queue", **numbers)}


def test_the_file_holds_the_three_figures_of_each_kind(figures: dict[str, Measured], tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "calibration.json"

    save_calibration(figures, path)

    assert json.loads(path.read_text()) == {
        "version": 1,
        "kinds": {"sage_queue": {"put_get_ns": 1.2, "per_byte_ns": 1.25, "wake_us": 1.2}},
    }
    assert [each.name for each in path.parent.iterdir()] == ["calibration.json"]


def test_the_file_lies_in_the_cache_folder_of_the_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert calibration_path() == tmp_path / "sage-qd" / "calibration.json"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert calibration_path() == tmp_path / ".cache" / "sage-qd" / "calibration.json"


def test_a_writer_killed_meanwhile_leaves_the_old_file(
    figures: dict[str, Measured], tmp_path: Path, start: Callable
) -> None:
    path = tmp_path / "calibration.json"
    save_calibration(figures, path)
    writer = start(
        """
from pathlib import Path
from sage_qd.monitor.measuring import Measured, save_calibration
from dataclasses import fields
numbers = {each.name: 2.0 for each in fields(Measured) if each.name != "kind"}
say("ready")
while True:
    save_calibration({"sage_queue": Measured(kind="sage_queue", **numbers)}, Path(sys.argv[2]))
""",
        path,
    )
    writer.hear()
    for _ in range(200):
        assert json.loads(path.read_text())["version"] == 1
    writer.kill()

    assert json.loads(path.read_text())["version"] == 1
