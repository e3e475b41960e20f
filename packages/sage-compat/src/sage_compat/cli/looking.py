"""Verbs that change nothing: ``status``, ``explain``, ``doctor``."""

from typing import Any

import rich_click as click

from sage_compat import control, records, rules
from sage_compat.cli.app import EXIT_CODES, ExitCode
from sage_compat.cli.showing import as_json_option, print_json, print_table, terminal
from sage_compat.rules import decide
from sage_qd import SageQueueError

__all__ = ["doctor", "explain", "status"]


@click.command(epilog=f"Exit codes: {EXIT_CODES}")
@as_json_option
def status(as_json: bool) -> None:
    """
    Show every old queue of this user on this host: its mode, the way it takes, and how much it holds.

    \b
    Examples:
      sage-compat status
      sage-compat status --json | jq '.queues[] | select(.kind == "legacy_queue")'
    """  # noqa: D301  (click wants this very character before a block that it must not wrap)
    found = [_state_of(record) for record in records.all_records()]
    if as_json:
        rows = [_rule_of(rule) for rule in rules.standing()]
        print_json(
            {"schema": "sage-compat.status/1", "generation": control.generation(), "standing": rows, "queues": found}
        )
        return
    print_table(
        ["queue", "mode", "kind", "messages", "in use", "full name"],
        [
            [*(each[key] for key in ("name", "mode", "kind", "messages")), _in_words(each["in_use"]), each["full_name"]]
            for each in found
        ],
    )
    for rule in rules.standing():
        terminal().print(f"decided for this host: {rule.match!r} is {rule.mode} ({rule.place})")


def _in_words(truth: bool) -> str:
    return "yes" if truth else "no"


def _state_of(record: records.Record) -> dict[str, Any]:
    messages: int | str
    try:
        messages = records.held(record)
    except (SageQueueError, OSError) as error:
        messages = type(error).__name__
    return {
        "name": record.name,
        "full_name": record.full_name,
        "mode": str(decide(record.name).mode),
        "kind": record.descriptors[-1].queue_type if record.chain else "none",
        "messages": messages,
        "in_use": records.is_in_use(record.full_name),
        "abandoned": record.abandoned,
    }


def _rule_of(rule: rules.Rule) -> dict[str, Any]:
    return {"match": rule.match, "mode": str(rule.mode), "percent": rule.percent, "by": rule.place}


@click.command(epilog=f"Exit codes: {EXIT_CODES}")
@click.argument("name")
@as_json_option
def explain(name: str, as_json: bool) -> None:
    """
    Say which mode a queue has, and which rule says so.

    \b
    Examples:
      sage-compat explain orders
      SAGE_COMPAT_RULES='orders*=shadow' sage-compat explain orders
    """  # noqa: D301  (as above)
    decision = decide(name)
    if as_json:
        print_json(decision.as_dict())
        return
    way = "new" if decision.is_new else "old"
    click.echo(f"{name}: {decision.mode}, its messages take the {way} way")
    click.echo(f"  {decision.reason}")
    for rule in decision.others:
        click.echo(f"  not asked any more: {rule.match!r} is {rule.mode} in {rule.place}")


@click.command(epilog=f"Exit codes: {EXIT_CODES}")
@as_json_option
def doctor(as_json: bool) -> int:
    """
    Check the configuration and the machine, and look for queues that nobody uses any more.

    \b
    Examples:
      sage-compat doctor
    """  # noqa: D301  (as above)
    checks = [_configuration_check(), _ring_check(), _leftover_check()]
    if as_json:
        print_json({"schema": "sage-compat.doctor/1", "checks": checks})
    else:
        print_table(["", "check", "found"], [[each["level"], each["name"], each["found"]] for each in checks])
    return ExitCode.FOUND if any(each["level"] == "fail" for each in checks) else ExitCode.FINE


def _check(level: str, name: str, found: str) -> dict[str, str]:
    return {"level": level, "name": name, "found": found}


def _configuration_check() -> dict[str, str]:
    from sage_compat.configuration import current
    from sage_compat.errors import ConfigurationError

    try:
        rules.check()
        return _check("ok", "configuration", current().place)
    except ConfigurationError as error:
        return _check("fail", "configuration", str(error))


def _ring_check() -> dict[str, str]:
    from sage_compat.backends import ring_missing

    missing = ring_missing()
    found = "rings can be made" if missing is None else f"queues stay on the old path: {missing}"
    return _check("ok" if missing is None else "warn", "the new way", found)


def _leftover_check() -> dict[str, str]:
    left = [record.full_name for record in records.all_records() if not records.is_in_use(record.full_name)]
    if not left:
        return _check("ok", "left behind", "nothing")
    advice = "python -m sage_compat.sage_queue_manager cleanup"
    return _check("warn", "left behind", f"{', '.join(left)}; {advice} removes them with their messages")
