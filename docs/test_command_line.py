"""The page of the command line says what the commands say."""

from write_command_line import PAGE, page

from sage_qd.cli.app import app
from sage_qd.cli.endings import EXIT_CODES, ExitCode


def test_page_is_made_from_the_commands() -> None:
    """By docs/write_command_line.py, which says how to do it again."""
    assert PAGE.read_text() == page(), "run: python docs/write_command_line.py"


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
