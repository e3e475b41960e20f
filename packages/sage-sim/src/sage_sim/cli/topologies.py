"""Verbs about topology files: `new`, `validate`, `schema`."""

from __future__ import annotations

import json
from pathlib import Path

import rich_click as click
import tomli_w

from sage_sim.cli.options import preset_named, scenario_in
from sage_sim.cli.output import terminal
from sage_sim.scenario import as_file
from sage_sim.schema import schema as described

_HEAD = """\
# Made by `sage-sim new {name}`. Run it with `sage-sim run FILE`; `sage-sim validate FILE` checks it, and
# `sage-sim schema` says what else it may hold.

"""


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path, dir_okay=False))
def validate(files: tuple[Path, ...]) -> None:
    """
    Check topology files; everything that is wrong is told at once, with its line.

    \b
    Examples:
      sage-sim validate orders.toml
    """  # noqa: D301  (click wants this very character before a block that it must not wrap)
    console, wrong = terminal(), []
    for path in files:
        try:
            scenario = scenario_in(path)
        except click.UsageError as error:
            wrong.append(error.message)
            continue
        topology = scenario.topology()
        console.print(
            f"{path}: {topology.name}, {topology.processes:,} processes, {topology.queues:,} queues", soft_wrap=True
        )
    if wrong:
        raise click.UsageError("\n".join(wrong))


@click.command()
def schema() -> None:
    """
    Print the JSON Schema of topology files, for editors.

    \b
    Examples:
      sage-sim schema > topology.schema.json
    """  # noqa: D301  (as above)
    print(json.dumps(described(), indent=1))


@click.command()
@click.argument("preset")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
def new(preset: str, file: Path) -> None:
    """
    Write a topology file that says what a preset does, to be changed.

    \b
    Examples:
      sage-sim new pipeline orders.toml
    """  # noqa: D301  (as above)
    scenario = preset_named(preset).scenario()
    try:
        with file.open("x", encoding="utf-8") as target:
            target.write(_HEAD.format(name=preset) + tomli_w.dumps(as_file(scenario)))
    except OSError as error:
        raise click.UsageError(f"{file}: {error.strerror}") from None
    terminal().print(f"wrote {file}", soft_wrap=True)
