"""The verb `top`: watch runs that go on."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import asdict
from time import sleep

import rich_click as click
from rich import box
from rich.table import Table
from rich.text import Text

from sage_sim.cli.output import give_up, terminal
from sage_sim.watching import RoleSight, Sight, Watch

COLUMNS = ("role", "alive", "items", "items/s", "queued", "blocked", "idle", "faults")
"""Blocked and idle: the share of the time since the look before in which processes waited for room, or for messages."""


@click.command()
@click.option(
    "--interval",
    type=click.FloatRange(0.1, 60),
    default=1.0,
    show_default=True,
    help="Seconds between two looks.",
)
@click.option("--once", is_flag=True, help="Look twice, an interval apart, print that, and end.")
@click.option("--json", "as_json", is_flag=True, help="With --once, print figures as JSON and nothing else.")
def top(interval: float, once: bool, as_json: bool) -> None:
    """
    Watch the runs that go on here, live: rate, depth, who waits, and the faults so far, for each role.

    Keys: q quits, p pauses, d sorts by depth, r by rate, n by name, w as items flow. The live view needs the extra top;
    --once does not. Jobs of the dataflow runtime are watched with `sage-qd top --job`.

    \b
    Examples:
      sage-sim top
      sage-sim top --once --json | jq '.[].roles[] | {role, rate}'
    """  # noqa: D301  (click wants this very character before a block that it must not wrap)
    if as_json and not once:
        raise click.UsageError("--json needs --once")
    if not once:
        try:
            from sage_sim.cli.screen import RunScreen
        except ImportError as error:
            give_up(f"the live view needs {error.name}: pip install 'sage-sim[top]', or use --once")
        RunScreen(interval).follow()
        return
    with closing(Watch()) as watch:
        watch.look()
        sleep(interval)
        seen = watch.look()
    if as_json:
        print(json.dumps([asdict(sight) for sight in seen], indent=1))
    else:
        _show(seen)


def title_of(sight: Sight) -> str:
    """A run in one line."""
    return (
        f"{sight.name}   {sight.seconds:.1f} s, {sight.faults:,} faults so far, seed {sight.seed}, pid {sight.pid}, "
        f"{sight.folder}"
    )


def cells_of(role: RoleSight) -> list[str]:
    """The cells of one role, in the order of COLUMNS but for the first."""
    return [
        f"{role.alive}/{role.processes}",
        f"{role.items:,}",
        "-" if role.rate is None else f"{role.rate:,.0f}",
        "-" if role.queued is None else f"{role.queued:,}",
        *("-" if share is None else f"{share:.0%}" for share in (role.blocked, role.idle)),
        f"{role.faults:,}",
    ]


def _show(seen: list[Sight]) -> None:
    console = terminal()
    if not seen:
        console.print("no run goes on")
    for sight in seen:
        console.print(Text(title_of(sight), style="bold"), soft_wrap=True)
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for heading in COLUMNS:
            table.add_column(heading, justify="left" if heading == "role" else "right")
        for role in sight.roles:
            table.add_row(Text(role.role), *cells_of(role))
        console.print(table)
