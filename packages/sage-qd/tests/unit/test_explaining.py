"""Why a kind was taken or not: the table, the JSON, the costs, and what would change the choice."""

import io
import json
from pathlib import Path
from typing import Any

import pytest

from sage_qd import AutoQueueDescriptor, Explanation, LocalQueueDescriptor, SageQueueDescriptor, known_queue_types
from sage_qd.descriptors.costs import calibration_path, costs


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def calibrate(figures: Any) -> None:
    calibration_path().parent.mkdir()
    calibration_path().write_text(figures if isinstance(figures, str) else json.dumps(figures))


def kinds(explanation: Explanation) -> dict[str, Any]:
    return {each["kind"]: each for each in json.loads(explanation.to_json())["kinds"]}


def test_the_json_has_each_need_of_each_kind_with_its_reason() -> None:
    explanation = AutoQueueDescriptor("jobs", views=True, maxsize=5).explain()

    document = json.loads(explanation.to_json())

    assert document == explanation.to_dict()
    assert {name: document[name] for name in ("version", "queue_id", "queue_type", "choice", "message_bytes")} == {
        "version": 1,
        "queue_id": "jobs",
        "queue_type": "auto",
        "choice": "sage_queue",
        "message_bytes": 64,
    }
    assert document["needs"] == {"reach": "processes of one host", "maxsize": "5", "views": "yes"}
    assert set(kinds(explanation)) == set(known_queue_types()) - {"auto"}
    local = kinds(explanation)["local_queue"]
    assert (local["fits"], local["missing"]) == (False, None)
    assert [(each["need"], each["met"]) for each in local["answers"]] == [
        ("reach", False),
        ("maxsize", True),
        ("views", False),
    ]
    assert all(each["reason"] for each in local["answers"])
    assert kinds(explanation)["sage_queue"]["fits"]


def test_explaining_chooses_and_opens_nothing() -> None:
    auto = AutoQueueDescriptor("jobs")

    auto.explain()

    assert not auto.is_resolved
    assert not auto.is_initialized()


def test_a_choice_that_was_made_stays() -> None:
    auto = AutoQueueDescriptor("jobs", reach="threads")
    auto.resolve()

    assert auto.explain().choice == "local_queue"


def test_the_table_is_readable_as_it_is() -> None:
    text = str(AutoQueueDescriptor("jobs", views=True).explain())
    lines = text.splitlines()

    assert lines[0] == "'jobs' (auto) needs reach: processes of one host, views: yes"
    assert lines[2].split() == ["kind", "taken", "cost", "why"]
    assert any(line.startswith("sage_queue") and "taken" in line and "meets every need" in line for line in lines)
    assert any(line.startswith("local_queue") and " no " in line and "copies every message" in line for line in lines)
    assert "taken: sage_queue" in lines


def test_rich_shows_the_same_as_a_table() -> None:
    shown = io.StringIO()
    console = pytest.importorskip("rich.console").Console(width=200, file=shown)

    console.print(AutoQueueDescriptor("jobs", views=True).explain())

    assert "it meets every need" in shown.getvalue()
    assert "taken: sage_queue" in shown.getvalue()


@pytest.mark.parametrize(
    ("descriptor", "fits"),
    [
        (LocalQueueDescriptor("q", maxsize=3), {"local_queue", "sage_queue"}),
        (SageQueueDescriptor("q", namespace="team"), {"sage_queue"}),
    ],
)
def test_a_concrete_kind_explains_itself_by_its_own_needs(descriptor: Any, fits: set[str]) -> None:
    explanation = descriptor.explain()

    assert explanation.choice == descriptor.queue_type
    assert fits <= {kind for kind, each in kinds(explanation).items() if each["fits"]}
    assert explanation.queue_id == "q"


def test_a_concrete_kind_that_cannot_be_used_here_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SageQueueDescriptor, "missing_here", classmethod(lambda cls: "the ring is at sea"))

    explanation = SageQueueDescriptor("q").explain()

    assert explanation.choice is None
    assert kinds(explanation)["sage_queue"]["missing"] == "the ring is at sea"
    assert "no kind meets all needs" not in str(LocalQueueDescriptor("q").explain())


def test_what_would_change_the_choice_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    one = AutoQueueDescriptor("q", reach="threads", views=True).explain()
    assert "no need of views would give local_queue" in one.would_change

    far = AutoQueueDescriptor("q", reach="hosts").explain()
    assert far.choice is None
    assert "a reach of processes of one host would give sage_queue" in far.would_change

    monkeypatch.setattr(SageQueueDescriptor, "missing_here", classmethod(lambda cls: "the ring is at sea"))
    views = AutoQueueDescriptor("q", views=True).explain()
    assert "sage_queue would be taken if it could be used here: the ring is at sea" in views.would_change


# -- Costs ------------------------------------------------------------------------------------------------------------


def test_costs_are_built_in_until_somebody_calibrates() -> None:
    before = kinds(AutoQueueDescriptor("q").explain())["sage_queue"]
    calibrate({"version": 1, "kinds": {"sage_queue": {"put_get_ns": 500, "per_byte_ns": 0.5, "wake_us": 9}}})
    after = kinds(AutoQueueDescriptor("q", message_bytes=1000).explain())

    assert before["cost_source"] == "built-in"
    assert (after["sage_queue"]["cost_ns"], after["sage_queue"]["wake_us"]) == (1000, 9)
    assert after["sage_queue"]["cost_source"] == "calibration"
    assert after["local_queue"]["cost_source"] == "built-in"


def test_kinds_that_outside_programs_calibrate_are_taken_too() -> None:
    calibrate({"version": 1, "kinds": {"own_queue": {"put_get_ns": 1, "per_byte_ns": 0, "wake_us": 0}}})

    assert costs()["own_queue"].nanoseconds(10) == 1


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"version": 2, "kinds": {}}',
        '{"version": 1, "kinds": {"a": {}}}',
        '{"version": 1, "kinds": {"a": {"put_get_ns": -1, "per_byte_ns": 0, "wake_us": 0}}}',
        '{"version": 1, "kinds": {"a": {"put_get_ns": "1", "per_byte_ns": 0, "wake_us": 0}}}',
    ],
)
def test_a_calibration_that_cannot_be_used_is_said_beside_the_costs(text: str) -> None:
    calibrate(text)

    assert all(each.source.startswith("built-in (") and "cannot be used" in each.source for each in costs().values())


def test_without_a_cache_variable_it_is_in_the_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))

    assert calibration_path() == tmp_path / ".cache" / "sage-qd" / "calibration.json"
