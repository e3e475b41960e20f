"""``run``: an old program, unchanged."""

import os
import sys
from typing import NoReturn

import rich_click as click

from sage_compat.cli.app import EXIT_CODES
from sage_compat.installing import install
from sage_compat.rules import MODE_VARIABLE, check, mode_of
from sage_compat.session import session

__all__ = ["run"]


@click.command(context_settings={"ignore_unknown_options": True}, epilog=f"Exit codes: {EXIT_CODES}")
@click.option("--mode", help="Mode of its queues where no rule says another one: the variable SAGE_COMPAT_MODE.")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def run(mode: str | None, command: tuple[str, ...]) -> NoReturn:
    """
    Run a program whose old imports are answered, here and in the processes that it starts.

    \b
    Examples:
      sage-compat run -- python app.py
      sage-compat run --mode descriptor -- python -m jobs.nightly
    """  # noqa: D301  (click wants this very character before a block that it must not wrap)
    if mode is not None:
        os.environ[MODE_VARIABLE] = str(mode_of(mode.partition(":")[0], "--mode")) + mode[len(mode.partition(":")[0]) :]
    check()
    install()
    session()
    words = list(command)
    if words[0] in ("python", "python3"):
        words[0] = sys.executable
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        os.execvp(words[0], words)  # signals reach the program, and its exit code is that of this command
    except OSError as error:
        raise OSError(error.errno, error.strerror, words[0]) from error
