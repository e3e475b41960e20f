"""``python -m sage_compat.moving_off``: the verbs that need nothing else of the package."""

import sys
from collections.abc import Sequence

import rich_click as click

from sage_compat.moving_off.cli import EXIT_CODES, ExitCode, fix, report


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, epilog=f"Exit codes: {EXIT_CODES}")
def app() -> None:
    """Find the old queue API in a program, and write descriptors in its place."""


app.add_command(report)
app.add_command(fix)


def run(arguments: Sequence[str] | None = None) -> int:
    """
    Run a verb, say what went wrong, and return the exit code.

    Args:
        arguments: The words after the name of the program; None for those of this process.
    """
    try:
        ended = app.main(arguments, prog_name="sage-compat", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("sage-compat: interrupted", err=True)
        return ExitCode.INTERRUPTED
    return int(ended) if isinstance(ended, int) else ExitCode.FINE


if __name__ == "__main__":
    sys.exit(run())
