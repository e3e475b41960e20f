"""The command line, without running anything."""

import json
import os
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from sage_sim.cli.app import main, run
from sage_sim.cli.options import FAULTS_SECONDS, requested, scenario_in
from sage_sim.presets import PRESETS
from sage_sim.request import Request


def called(*words: str) -> Result:
    return CliRunner().invoke(main, list(words), env={"COLUMNS": "200", "NO_COLOR": "1"})


def asked(*words: str) -> Request:
    """What `run` would do with these words."""
    parsed = run.make_context("run", list(words))
    options = dict(parsed.params)
    target = options.pop("target")
    for name in ("out", "keep", "as_json", "plain", "quiet"):
        del options[name]
    return requested(parsed, target, **options)


def test_help_shows_examples_and_exit_codes() -> None:
    shown = called("--help").output

    assert "sage-sim run pipeline --faults kill" in shown
    assert "130" in shown


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["run", "pipe-line"], "Did you mean 'pipeline'?"),
        (["run"], "Missing argument"),
        (["run", "fan-in", "--workers", "2"], "preset 'fan-in' has no --workers"),
        (["run", "pipeline", "--payload", "2"], "preset 'pipeline' has no --payload"),
        (["run", "pipeline", "--faults", "kil"], "did you mean 'kill'?"),
        (["run", "pipeline", "--items", "0"], "--items"),
        (["run", "pipeline", "--duration", "-1"], "--duration"),
        (["run", "pipeline", "--producers", "100", "--workers", "100"], "202 processes are too many"),
        (["run", "pipeline", "--faults", "kil:1,stp:2"], "did you mean 'stop'?"),
        (["run", "pipeline", "--text", sys.executable], "this is no text in UTF-8"),
        (["run", "pipeline", "--text", os.devnull], "has no line with anything in it"),
        (["walk"], "No such command"),
        (["rnu", "pipeline"], "Did you mean 'run'"),
    ],
)
def test_wrong_usage_is_answered_with_2_and_the_reason(words: list[str], answer: str) -> None:
    result = called(*words)

    assert result.exit_code == 2
    assert answer in result.output


def test_faults_decide_how_long_a_preset_runs_for_which_nobody_said_it() -> None:
    alone, with_items = asked("fan-in", "--faults", "kill"), asked("fan-in", "--faults", "kill", "--items", "9")

    assert (alone.scenario.items, alone.scenario.duration_seconds) == (None, FAULTS_SECONDS)
    assert (with_items.scenario.items, with_items.scenario.duration_seconds) == (9, None)
    assert asked("dataflow", "--faults", "kill").scenario.items == PRESETS["dataflow"].items


def test_a_folder_with_something_in_it_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "notes").touch()

    result = called("run", "pipeline", "--out", str(tmp_path))

    assert result.exit_code == 2
    assert "is not empty" in result.output


def test_a_folder_for_what_fuzz_finds_is_looked_at_before_the_first_run(tmp_path: Path) -> None:
    (tmp_path / "notes").touch()

    result = called("fuzz", "--out", str(tmp_path), "--runs", "1")

    assert result.exit_code == 2
    assert "is not empty" in result.output
    assert "seed" not in result.output


def test_presets_are_listed() -> None:
    shown = called("presets").output

    assert all(name in shown for name in PRESETS)


def test_the_command_that_repeats_a_default_run_is_short() -> None:
    assert asked("pipeline", "--seed", "7").command() == "sage-sim run pipeline --seed 7"


def test_the_command_that_repeats_a_run_holds_all_that_was_chosen() -> None:
    chosen = asked(
        *("pipeline", "--faults", "kill:8", "--seed", "7", "--producers", "1", "--items", "100", "--duration", "2.5"),
        *("--capacity", "4096", "--time-limit", "30", "--backend", "shm_queue"),
    )

    assert chosen.command() == (
        "sage-sim run pipeline --seed 7 --items 100 --duration 2.5 --producers 1 --capacity 4096 --backend shm_queue "
        "--faults kill:8 --time-limit 30"
    )


def test_a_repeated_command_asks_for_the_same() -> None:
    words = ["fan-in", "--seed", "3", "--rate", "500", "--duration", "2", "--payload", "1000", "--faults", "stop:1"]
    first = asked(*words)

    again = asked(*first.command().split()[2:])

    assert again == first
    assert (again.scenario.load.mode, again.scenario.load.rate, again.scenario.payload.size_bytes) == (
        "open",
        500,
        1000,
    )


def test_the_seed_of_the_command_line_is_before_that_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    called("new", "fan-in", str(path))
    path.write_text("seed = 42\n" + path.read_text())

    assert asked(str(path)).plan().seed == 42
    assert asked(str(path), "--seed", "9").plan().seed == 9


def test_the_kind_of_every_queue_can_be_chosen() -> None:
    scenario = asked("shuffle", "--backend", "rpc_queue").scenario

    assert {edge.kind for edge in scenario.edges} == {"rpc_queue"}


def test_faults_that_have_nothing_to_hit_are_refused() -> None:
    assert "needs an edge of the kind rpc_queue" in called("run", "fan-in", "--faults", "cut:1").output
    assert "neither a role nor one of its processes" in called("run", "fan-in", "--faults", "kill@1=reader").output


def test_a_file_made_from_a_preset_asks_for_the_same(tmp_path: Path) -> None:
    for name, preset in PRESETS.items():
        made = called("new", name, str(tmp_path / f"{name}.toml"))

        assert made.exit_code == 0, made.output
        assert scenario_in(tmp_path / f"{name}.toml") == preset.scenario()


def test_a_file_is_not_written_over(tmp_path: Path) -> None:
    called("new", "fan-in", str(tmp_path / "a.toml"))

    again = called("new", "fan-in", str(tmp_path / "a.toml"))

    assert again.exit_code == 2
    assert "File exists" in again.output


def test_validate_tells_all_mistakes_of_all_files(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('name = "a"\nrolls = 1\n')
    (tmp_path / "b.toml").write_text("name = \n")

    told = called("validate", str(tmp_path / "a.toml"), str(tmp_path / "b.toml"))

    assert told.exit_code == 2
    assert "did you mean 'roles'?" in told.output
    assert "this is no TOML" in told.output


def test_the_schema_tells_what_each_word_means() -> None:
    schema = json.loads(called("schema").output)

    parts = [schema, *schema["$defs"].values()]
    words = [(part["title"], word, field) for part in parts for word, field in part["properties"].items()]
    assert len(words) > 45
    assert [(part, word) for part, word, field in words if not field.get("description")] == []


def test_the_schema_is_one_that_presets_meet() -> None:
    import jsonschema

    schema = json.loads(called("schema").output)

    for preset in PRESETS.values():
        jsonschema.validate(json.loads(preset.scenario().model_dump_json(exclude_none=True)), schema)
