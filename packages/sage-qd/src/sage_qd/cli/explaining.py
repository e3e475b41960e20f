"""Why a kind of queue is taken or not: ``explain``."""

from difflib import get_close_matches
from typing import Any

import rich_click as click

from sage_qd.cli.endings import EXIT_CODES, ExitCode
from sage_qd.cli.output import as_json_option, terminal
from sage_qd.descriptors import AutoQueueDescriptor, BaseQueueDescriptor, Setting

__all__ = ["explain"]

NEEDS = {setting.written_name: setting for setting in AutoQueueDescriptor.settings}


@click.command(epilog=f"Exit codes: {EXIT_CODES}")
@click.argument("words", nargs=-1, required=True, metavar="DESCRIPTOR | NEED...")
@as_json_option
def explain(words: tuple[str, ...], as_json: bool) -> int:
    """
    Show for every kind whether it meets the needs, with reasons, costs and the choice.

    DESCRIPTOR is a URI or JSON. A NEED is name=value, or a name alone for what is wanted: reach, producers, consumers,
    max_items, max_bytes, ack, views, joins, same_object, survives_crash, durable, ordering, endpoint, message_bytes.
    Costs are those that sage-qd calibrate measured here, else built-in estimates. The exit code is 1 when no kind fits.

    \b
    Examples:
      sage-qd explain reach=processes ack survives_crash
      sage-qd explain reach=hosts message_bytes=1000000 --json
      sage-qd explain 'sage://team/jobs?max_items=1000'
    """  # noqa: D301  (click wants this very character before a block that it must not wrap)
    found = _descriptor(words).explain()
    if as_json:
        click.echo(found.to_json())
    else:
        terminal().print(found)
    return ExitCode.FINE if found.choice is not None else ExitCode.FOUND


def _descriptor(words: tuple[str, ...]) -> BaseQueueDescriptor:
    first = words[0].lstrip()
    if first.startswith("{") or "://" in first:
        if len(words) > 1:
            raise click.UsageError("a descriptor stands alone: its needs are in it")
        return BaseQueueDescriptor.from_json(first) if first.startswith("{") else BaseQueueDescriptor.from_uri(first)
    needs: dict[str, Any] = dict(map(_need, words))
    if len(needs) < len(words):
        raise click.UsageError("a need is given twice")
    return AutoQueueDescriptor("any", **needs)


def _need(word: str) -> tuple[str, Any]:
    """Take ``name=value`` apart; a slip is answered with the name that was meant."""
    name, equals, text = word.partition("=")
    setting: Setting | None = NEEDS.get(name)
    if setting is None:
        close = get_close_matches(name, NEEDS, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise click.UsageError(f"unknown need {name!r:.80}.{hint} Known are: {', '.join(NEEDS)}.")
    if not equals and setting.type is not bool:
        raise click.UsageError(f"{name} needs a value: {name}=...")
    try:
        return setting.name, setting.read(text if equals else "true")
    except ValueError as error:
        raise click.UsageError(str(error)) from error
