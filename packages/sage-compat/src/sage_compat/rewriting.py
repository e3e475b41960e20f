"""Bringing the configuration file in line with a decision, so that restarts obey it; the rest of it stays as it was."""

import tomllib
from pathlib import Path
from typing import Any

from sage_compat.configuration import OWN_NAME, find_file
from sage_compat.places import replace_file
from sage_compat.rules import Mode, Rule

__all__ = ["with_rule"]


def with_rule(rule: Rule, *, dry_run: bool = False) -> Path | None:
    """
    Let a rule be the first in the configuration file; one with the same pattern is replaced.

    Returns:
        The file that was, or would be, changed; None when it says so already or there is none.

    Raises:
        OSError: It cannot be written.
        ValueError: The result would be no TOML; nothing was written.
    """
    path = find_file()
    if path is None:
        return None
    import tomlkit  # only now: a rollback where there is no file should not wait for it

    before = path.read_text("utf-8")
    document: Any = tomlkit.parse(before)
    section = _section(document, is_own=path.name == OWN_NAME)
    entry = tomlkit.table()
    entry["match"] = rule.match
    entry["mode"] = str(rule.mode)
    if rule.mode is Mode.CANARY:
        entry["percent"] = rule.percent
    entry["note"] = f"by sage-compat {rule.place}"
    rules = section.get("rules", [])
    if rules and _says(rules[0], rule):
        return None
    made = tomlkit.aot()
    made.append(entry)
    for other in rules:
        if rule.match != "*" and other["match"] == rule.match:
            continue
        made.append(_as_table(other))
    section.pop("rules", None)
    section["rules"] = made
    after = tomlkit.dumps(document)
    tomllib.loads(after)
    if not dry_run:
        replace_file(path.resolve(), after, keeps_mode=True)
    return path


def _section(document: Any, *, is_own: bool) -> Any:
    """Where our settings stand; what is written on one line becomes a table, which rules can follow."""
    if is_own or "tool" not in document:
        return document
    tool = document["tool"]
    tool["sage-compat"] = _as_table(tool.get("sage-compat", {}))
    return tool["sage-compat"]


def _as_table(entry: Any) -> Any:
    import tomlkit

    if isinstance(entry, tomlkit.items.Table):
        return entry
    made = tomlkit.table()
    for name, value in entry.items():
        made[name] = value
    return made


def _says(entry: Any, rule: Rule) -> bool:
    return (entry["match"], entry["mode"], entry.get("percent", 100)) == (rule.match, str(rule.mode), rule.percent)
