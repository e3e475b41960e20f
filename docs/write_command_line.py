"""
Write the pages of the command lines from the commands themselves; a test compares the two.

::

    python docs/write_command_line.py
"""

import inspect
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from sage_compat.cli.app import app as compat_app
from sage_qd.cli.app import app
from sage_sim.cli.app import main as sim_app
from sage_sim.schema import PARTS, schema

PAGE = Path(__file__).parent / "reference" / "command-line.md"
COMPAT_PAGE = Path(__file__).parent / "reference" / "compat-command-line.md"
SIM_PAGE = Path(__file__).parent / "reference" / "sim-command-line.md"
TOPOLOGY_PAGE = Path(__file__).parent / "reference" / "topology-file.md"
TOPOLOGY_HEAD = """\
# Topology files

What `sage-sim run FILE` takes: TOML, JSON, or YAML with `pip install 'sage-sim[yaml]'`. `sage-sim new` writes one to
begin with, `sage-sim validate` checks one, and `sage-sim schema` prints all of this for editors. How to use it is in
[Try a topology under load and faults](../how-to/simulate.md). This page is made from the schema by
`docs/write_command_line.py`.
"""
SIM_HEAD = """\
# Command line of sage-sim

`sage-sim`, or `python -m sage_sim`. This page is made from the commands by `docs/write_command_line.py`.

| Exit code | Means |
|---|---|
| 0 | all checks hold |
| 1 | a check failed |
| 2 | wrong usage, or a wrong file |
| 3 | slower than what it is compared with |
| 4 | nobody can tell |
| 5 | this machine cannot; the text says what is missing |
| 6 | a run or a process hung; the text says where everybody was |
| 130 | interrupted |
"""
COMPAT_HEAD = """\
# Command line of sage-compat

`sage-compat`, or `python -m sage_compat`. This page is made from the commands by `docs/write_command_line.py`.

| Exit code | Means |
|---|---|
| 0 | fine |
| 1 | something is wrong: messages that could not be moved, a queue that is not ready, a failed check; of `report`: \
more old calls than allowed; of `fix --check`: something would change |
| 2 | wrong usage or configuration |
| 3 | `report` and `fix`: no such file or folder |
| 4 | it cannot be done; the text says why |
| 5 | `report` and `fix`: libcst is not installed |
| 130 | interrupted |

`run` ends with the exit code of the program. Errors are one line on standard error.
"""
HEAD = """\
# Command line

`sage-qd`, or `python -m sage_qd`. This page is made from the commands by `docs/write_command_line.py`.

| Exit code | Means |
|---|---|
| 0 | fine |
| 1 | something is wrong: a failed check, a cycle of waits |
| 2 | wrong usage |
| 3 | no such queue or job |
| 4 | it cannot be done; the text says why |
| 5 | something is not installed; the text says what to install |
| 130 | interrupted |

Errors are one line on standard error. Verbs that answer have `--json`; its member `schema` names the form and its
version. Members may be added under the same version; none is changed or removed.
"""


def page() -> str:
    """The whole page of sage-qd."""
    return "\n".join([HEAD, *(line for name in app.commands for line in section("sage-qd", name, app.commands[name]))])


def compat_page() -> str:
    """The whole page of sage-compat."""
    return "\n".join(
        [COMPAT_HEAD, *(line for name, verb in compat_verbs() for line in section("sage-compat", name, verb))]
    )


def sim_page() -> str:
    """The whole page of sage-sim."""
    verbs = sim_app.commands
    return "\n".join([SIM_HEAD, *(line for name in verbs for line in section("sage-sim", name, verbs[name]))])


def topology_page() -> str:
    """What a topology file may hold."""
    found = schema()
    parts = found["$defs"] | {"Scenario": found}
    lines = [TOPOLOGY_HEAD]
    for name, (head, _) in PARTS.items():
        lines += [
            f"## `{head}`\n" if head else "## At the top\n",
            "| Word | Value | Default | Means |",
            "|---|---|---|---|",
        ]
        for word, field in parts[name]["properties"].items():
            is_needed = word in parts[name].get("required", ())
            usual = "needed" if is_needed else shown_default(field)
            lines.append(f"| `{word}` | {value_of(field)} | {usual} | {field.get('description', '')} |")
        lines.append("")
    return "\n".join(lines)


def value_of(field: dict[str, Any]) -> str:
    """What a word of a file may be."""
    kinds = [one for one in field.get("anyOf", [field]) if one.get("type") != "null"]
    words = [word for one in kinds for word in one.get("enum", ())]
    if words:
        return ", ".join(f"`{word}`" for word in words)
    kind = kinds[0]
    bounds = [
        f"{sign} {kind[name]:,g}"
        for name, sign in (("minimum", "≥"), ("exclusiveMinimum", ">"), ("maximum", "≤"), ("exclusiveMaximum", "<"))
        if name in kind
    ]
    told = {"array": "list", "object": "table"}.get(kind.get("type", "object"), kind.get("type", "table"))
    return ", ".join([told, *bounds])


def shown_default(field: dict[str, Any]) -> str:
    """What it is when it is not given, where that is a value."""
    value = field.get("default")
    return "" if value in (None, [], {}) or isinstance(value, dict) else f"`{json.dumps(value)}`"


def compat_verbs() -> Iterator[tuple[str, click.Command]]:
    """The verbs of sage-compat, which are loaded one by one."""
    context = click.Context(compat_app)
    for name in compat_app.list_commands(context):
        verb = compat_app.get_command(context, name)
        assert verb is not None
        yield name, verb


def section(program: str, name: str, command: click.Command) -> Iterator[str]:
    """One verb: usage, help, options, examples."""
    text, _, examples = inspect.cleandoc(command.help or "").partition("\n\b\nExamples:\n")
    context = click.Context(command, info_name=f"{program} {name}")
    pieces = command.collect_usage_pieces(context)
    yield f"## `{name}`\n"
    yield f"```text\n{program} {' '.join([name, *pieces])}\n```\n"
    yield f"{text.strip()}\n"
    yield "| Option | Default | Means |"
    yield "|---|---|---|"
    for option in command.params:
        if isinstance(option, click.Option):
            yield f"| {written(option, context)} | {default(option)} | {option.help} |"
    yield ""
    if lines := "\n".join(line.strip() for line in examples.splitlines() if line.strip()):
        yield f"```sh\n{lines}\n```\n"


def written(option: click.Option, context: click.Context) -> str:
    """An option as a user types it."""
    names = ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
    if option.is_flag:
        return names
    choices = option.type.choices if isinstance(option.type, click.Choice) else None
    value = "|".join(map(str, choices)) if choices else option.make_metavar(context)
    value = value.replace("|", "\\|")
    return f"{names} {value}"


def default(option: click.Option) -> str:
    """What it is when it is not given, where that is worth a word."""
    return f"`{option.default}`" if option.show_default and option.default is not None else ""


if __name__ == "__main__":
    PAGE.write_text(page())
    COMPAT_PAGE.write_text(compat_page())
    SIM_PAGE.write_text(sim_page())
    TOPOLOGY_PAGE.write_text(topology_page())
