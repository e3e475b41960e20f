"""Verbs that move queues: ``set``, ``rollback``, ``roll-forward``."""

from collections.abc import Callable
from typing import Any

import rich_click as click

from sage_compat import rolling, rules
from sage_compat.cli.app import EXIT_CODES, ExitCode
from sage_compat.cli.showing import as_json_option, print_json, print_table
from sage_compat.errors import ConfigurationError
from sage_compat.rolling import Rolled
from sage_compat.rules import Mode

__all__ = ["roll_forward", "rollback", "set_"]

dry_run_option = click.option("--dry-run", is_flag=True, help="Change nothing; say what would be done.")
all_option = click.option("--all", "all_", is_flag=True, help="Every queue of this user on this host.")


def _chosen(pattern: str | None, all_: bool) -> str:
    if (pattern is None) == (not all_):
        raise click.UsageError("say which queues: a PATTERN, or --all")
    return "*" if pattern is None else pattern


def _told(done: Rolled, *, as_json: bool) -> int:
    """Print what was done; 1 when something is left."""
    if as_json:
        print_json(done.as_dict())
    else:
        _print(done)
    return ExitCode.FOUND if done.failed or done.not_moved else ExitCode.FINE


def _print(done: Rolled) -> None:
    would = "would be " if done.dry_run else ""
    if done.flips:
        rows: list[list[object]] = [
            [each.name, f"{each.before} → {each.after}", each.moved, f"{each.pause_ms:.1f} ms", each.full_name]
            for each in done.flips
        ]
        print_table(["queue", "way", "held", "took", "full name"], rows)
    click.echo(f"{len(done.flips)} queues {would}moved; {done.pattern!r} is {done.mode} on this host")
    for flip in done.not_moved:
        for each in (flip.not_moved, *flip.not_moved.get("more", ())):
            click.echo(
                f"could not be moved: {flip.full_name}, messages: {each['messages']}; {each['reason']}", err=True
            )
    for name, reason in done.failed.items():
        click.echo(f"stays as it was: {name}: {reason}", err=True)
    if done.configuration is not None:
        click.echo(f"{done.configuration} {'would be ' if would else ''}brought in line")


def _verb(name: str, roll: Callable[..., Rolled], text: str) -> Any:
    @click.command(name, help=text, epilog=f"Exit codes: {EXIT_CODES}")
    @click.argument("pattern", required=False)
    @all_option
    @dry_run_option
    @as_json_option
    def verb(pattern: str | None, all_: bool, dry_run: bool, as_json: bool) -> int:
        return _told(roll(_chosen(pattern, all_), dry_run=dry_run), as_json=as_json)

    return verb


rollback = _verb(
    "rollback",
    rolling.rollback,
    """
    Bring queues back to the old path, in all running programs, at once.

    What the new queues hold is taken from there first, in order. Programs that start later obey, too, and the
    configuration file is brought in line. Doing it again does only what is left to do.

    \b
    Examples:
      sage-compat rollback --all
      sage-compat rollback 'orders*' --dry-run
    """,
)
roll_forward = _verb(
    "roll-forward",
    rolling.roll_forward,
    """
    Bring queues to the new way, in all running programs.

    \b
    Examples:
      sage-compat roll-forward 'orders*'
    """,
)


@click.command("set", epilog=f"Exit codes: {EXIT_CODES}")
@click.argument("pattern")
@click.argument("mode")
@dry_run_option
@as_json_option
def set_(pattern: str, mode: str, dry_run: bool, as_json: bool) -> int:
    """
    Decide the mode of queues for this host, and move those that are open.

    MODE is legacy, shadow, canary, canary:PERCENT, descriptor or strict.

    \b
    Examples:
      sage-compat set 'orders*' shadow
      sage-compat set '*' canary:20
    """  # noqa: D301  (click wants this very character before a block that it must not wrap)
    try:
        rule = rules._rule_of_text(pattern, mode, "MODE")
    except ConfigurationError as error:
        raise click.UsageError(error.reason) from error
    done = rolling.decided(pattern, Mode(rule.mode), by="set", percent=rule.percent, dry_run=dry_run)
    return _told(done, as_json=as_json)
