"""The command line, without running anything."""

import pytest
from click.testing import CliRunner, Result

from sage_sim.cli import main
from sage_sim.faults import Faults
from sage_sim.presets import PRESETS
from sage_sim.request import Request


def called(*words: str) -> Result:
    return CliRunner().invoke(main, list(words), env={"COLUMNS": "200", "NO_COLOR": "1"})


def request(**changes: object) -> Request:
    preset = PRESETS["pipeline"]
    fields: dict[str, object] = {
        "preset": preset,
        "seed": 7,
        "items": preset.items,
        "duration": None,
        "counts": dict(preset.counts),
        "payload": 64,
        "capacity": 1 << 16,
        "faults": None,
        "time_limit": 600.0,
    }
    return Request(**(fields | changes))  # type: ignore[arg-type]


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
        (["walk"], "No such command"),
    ],
)
def test_wrong_usage_is_answered_with_2_and_the_reason(words: list[str], answer: str) -> None:
    result = called(*words)

    assert result.exit_code == 2
    assert answer in result.output


def test_a_folder_with_something_in_it_is_not_overwritten() -> None:
    result = called("run", "pipeline", "--out", "/proc/self")

    assert result.exit_code == 2
    assert "is not empty" in result.output


def test_presets_are_listed() -> None:
    shown = called("presets").output

    assert all(name in shown for name in PRESETS)


def test_the_command_that_repeats_a_default_run_is_short() -> None:
    assert request().command() == "sage-sim run pipeline --seed 7"


def test_the_command_that_repeats_a_run_holds_all_that_was_chosen() -> None:
    chosen = request(
        items=100,
        duration=2.5,
        counts={"producers": 1, "workers": 3, "consumers": 2},
        capacity=4096,
        faults=Faults(kills_per_second=8),
        time_limit=30.0,
    )

    assert chosen.command() == (
        "sage-sim run pipeline --seed 7 --items 100 --duration 2.5 --producers 1 --capacity 4096 "
        "--faults kill:8 --time-limit 30"
    )
