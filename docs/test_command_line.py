"""The page of the command line says what the commands say."""

from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner
from write_command_line import (
    COMPAT_PAGE,
    PAGE,
    SIM_PAGE,
    TOPOLOGY_PAGE,
    compat_page,
    compat_verbs,
    page,
    sim_page,
    topology_page,
)

from sage_compat.cli.app import EXIT_CODES as COMPAT_EXIT_CODES
from sage_compat.cli.app import ExitCode as CompatExitCode
from sage_compat.moving_off.cli import EXIT_CODES as MOVING_OFF_EXIT_CODES
from sage_compat.moving_off.cli import ExitCode as MovingOffExitCode
from sage_qd.cli.app import app
from sage_qd.cli.endings import EXIT_CODES, ExitCode
from sage_sim.cli.app import main as sim_app
from sage_sim.cli.output import EXIT_CODES as SIM_EXIT_CODES
from sage_sim.results import ExitCode as SimExitCode


def test_page_is_made_from_the_commands() -> None:
    """By docs/write_command_line.py, which says how to do it again."""
    assert PAGE.read_text() == page(), "run: python docs/write_command_line.py"
    assert COMPAT_PAGE.read_text() == compat_page(), "run: python docs/write_command_line.py"
    assert SIM_PAGE.read_text() == sim_page(), "run: python docs/write_command_line.py"


def test_the_page_of_topology_files_is_made_from_the_schema() -> None:
    """Likewise."""
    assert TOPOLOGY_PAGE.read_text() == topology_page(), "run: python docs/write_command_line.py"


def test_page_and_help_have_each_exit_code() -> None:
    """So that scripts can rely on them."""
    text = PAGE.read_text()

    assert all(f"\n| {code.value} | " in text for code in ExitCode)
    assert all(f"{code.value} " in EXIT_CODES for code in ExitCode)


def test_every_verb_has_a_section() -> None:
    """In the order of the help."""
    assert [line for line in PAGE.read_text().splitlines() if line.startswith("## ")] == [
        f"## `{name}`" for name in app.commands
    ]


def test_every_verb_of_sage_compat_has_a_section() -> None:
    """Likewise."""
    assert [line for line in COMPAT_PAGE.read_text().splitlines() if line.startswith("## ")] == [
        f"## `{name}`" for name, _ in compat_verbs()
    ]


def test_page_and_help_of_sage_sim_have_each_exit_code_and_verb() -> None:
    """Likewise."""
    text = SIM_PAGE.read_text()

    assert all(f"\n| {code.value} | " in text for code in SimExitCode)
    assert all(f"{code.value} " in SIM_EXIT_CODES for code in SimExitCode)
    assert [line for line in text.splitlines() if line.startswith("## ")] == [
        f"## `{name}`" for name in sim_app.commands
    ]


def test_page_and_help_of_sage_compat_have_each_exit_code() -> None:
    """Likewise; `report` and `fix` have some of their own."""
    text = COMPAT_PAGE.read_text()

    assert all(f"\n| {code.value} | " in text for code in (*CompatExitCode, *MovingOffExitCode))
    assert all(f"{code.value} " in COMPAT_EXIT_CODES for code in CompatExitCode)
    assert all(f"{code.value} " in MOVING_OFF_EXIT_CODES for code in MovingOffExitCode)


def verbs() -> Iterator[tuple[str, click.Command]]:
    """Every verb of the three programs."""
    yield from ((f"sage-qd {name}", verb) for name, verb in app.commands.items())
    yield from ((f"sage-sim {name}", verb) for name, verb in sim_app.commands.items())
    yield from ((f"sage-compat {name}", verb) for name, verb in compat_verbs())


@pytest.mark.parametrize(("name", "verb"), [*verbs()])
def test_help_of_a_verb_shows_the_whole_text_of_each_option_and_the_exit_codes(name: str, verb: click.Command) -> None:
    """What stands in brackets would be taken for markup."""
    shown = CliRunner().invoke(verb, ["--help"], prog_name=name, env={"COLUMNS": "500"}).output
    text = " ".join(shown.split())

    for option in verb.params:
        if isinstance(option, click.Option):
            assert " ".join((option.help or "").split()) in text
    assert "Exit codes: 0 " in text
