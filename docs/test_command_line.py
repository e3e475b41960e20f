"""The page of the command line says what the commands say."""

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
