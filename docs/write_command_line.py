"""
Write docs/reference/command-line.md from the commands themselves; a test compares the two.

::

    python docs/write_command_line.py
"""

import inspect
from collections.abc import Iterator
from pathlib import Path

import click

from sage_qd.cli.app import app

PAGE = Path(__file__).parent / "reference" / "command-line.md"
HEAD = """\
# Command line

`sage-qd`, or `python -m sage_qd`. This page is made from the commands by `docs/write_command_line.py`.

| Exit code | Means |
|---|---|
| 0 | fine |
| 1 | something is wrong: a failed check, a cycle of waits |
| 2 | wrong usage |
| 3 | no such queue |
| 4 | it cannot be done; the text says why |
| 5 | something is not installed; the text says what to install |
| 130 | interrupted |

Errors are one line on standard error. Verbs that answer have `--json`; its member `schema` names the form and its
version. Members may be added under the same version; none is changed or removed.
"""


def page() -> str:
    """The whole page."""
    return "\n".join([HEAD, *(line for name in app.commands for line in section(name, app.commands[name]))])


def section(name: str, command: click.Command) -> Iterator[str]:
    """One verb: usage, help, options, examples."""
    text, _, examples = inspect.cleandoc(command.help or "").partition("\n\b\nExamples:\n")
    context = click.Context(command, info_name=f"sage-qd {name}")
    pieces = command.collect_usage_pieces(context)
    yield f"## `{name}`\n"
    yield f"```text\nsage-qd {' '.join([name, *pieces])}\n```\n"
    yield f"{text.strip()}\n"
    yield "| Option | Default | Means |"
    yield "|---|---|---|"
    for option in command.params:
        if isinstance(option, click.Option):
            yield f"| {written(option, context)} | {default(option)} | {option.help} |"
    yield ""
    lines = "\n".join(line.strip() for line in examples.splitlines() if line.strip())
    yield f"```sh\n{lines}\n```\n"


def written(option: click.Option, context: click.Context) -> str:
    """An option as a user types it."""
    names = ", ".join(f"`{name}`" for name in option.opts)
    if option.is_flag:
        return names
    choices = option.type.choices if isinstance(option.type, click.Choice) else None
    value = "\\|".join(map(str, choices)) if choices else option.make_metavar(context)
    return f"{names} {value}"


def default(option: click.Option) -> str:
    """What it is when it is not given, where that is worth a word."""
    return f"`{option.default}`" if option.show_default and option.default is not None else ""


if __name__ == "__main__":
    PAGE.write_text(page())
