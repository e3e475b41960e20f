"""
Which mode a queue has: rules, where they come from, and which one wins.

From first to last: what ``sage-compat rollback``, ``roll-forward`` and ``set`` decided for this host; what the program
said with :func:`sage_compat.set_mode`; the environment, ``SAGE_COMPAT_RULES`` before ``SAGE_COMPAT_MODE``; the rules of
the configuration file and then its ``mode``; ``legacy``. On each level the first rule that matches the name wins.
"""

import fnmatch
import hashlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Any, Final

from sage_compat import configuration
from sage_compat.errors import ConfigurationError, did_you_mean
from sage_compat.places import folder

__all__ = [
    "Decision",
    "Mode",
    "Rule",
    "decide",
    "explain",
    "forget_modes",
    "matches",
    "mode_of",
    "set_mode",
    "standing",
]

MODE_VARIABLE: Final = "SAGE_COMPAT_MODE"
RULES_VARIABLE: Final = "SAGE_COMPAT_RULES"
STANDING: Final = "standing.json"


class Mode(StrEnum):
    """Which way the messages of a queue take."""

    LEGACY = "legacy"
    """The old path."""
    SHADOW = "shadow"
    """The old path, and a copy of some messages to a new queue, to compare."""
    CANARY = "canary"
    """The new queue for a stable share of the names, the old path for the others."""
    DESCRIPTOR = "descriptor"
    """The new queue."""
    STRICT = "strict"
    """None: an old call raises."""


def mode_of(text: str, place: str) -> Mode:
    """
    Return the mode that a text names.

    Raises:
        ConfigurationError: There is no such mode.
    """
    try:
        return Mode(text)
    except ValueError:
        raise ConfigurationError(
            place, f"unknown mode {text!r}; {did_you_mean(str(text), [str(mode) for mode in Mode])}"
        ) from None


@dataclass(frozen=True, kw_only=True)
class Rule:
    """
    What holds for the queues whose names match.

    Attributes:
        match: A pattern of ``fnmatch``, or a regular expression after ``re:``.
        mode: Their mode.
        percent: In mode ``canary``, how many of a hundred names take the new way.
        place: Where the rule stands.
    """

    match: str
    mode: Mode
    percent: int = 100
    place: str = ""


@dataclass(frozen=True, kw_only=True)
class Decision:
    """
    The mode of one queue, and why.

    Attributes:
        name: The queue.
        mode: Its mode.
        is_new: Whether its messages take the new way.
        rule: The rule that won; None when nothing matched.
        others: Rules further down that match as well.
    """

    name: str
    mode: Mode
    is_new: bool
    rule: Rule | None
    others: tuple[Rule, ...] = ()

    @property
    def reason(self) -> str:
        """Why, in a sentence."""
        if self.rule is None:
            return "no rule matches, so it is legacy"
        said = f"{self.rule.match!r} in {self.rule.place} matches first"
        if self.mode is Mode.CANARY:
            side = "new" if self.is_new else "old"
            said += (
                f"; its name falls on {_share_of(self.name)} of 100, and {self.rule.percent} take the new way: {side}"
            )
        return said

    def as_dict(self) -> dict[str, Any]:
        """The decision as a document."""
        return {
            "schema": "sage-compat.explain/1",
            "name": self.name,
            "mode": str(self.mode),
            "path": "new" if self.is_new else "old",
            "reason": self.reason,
            "rule": None if self.rule is None else asdict(self.rule),
            "others": [asdict(rule) for rule in self.others],
        }


@lru_cache(maxsize=256)
def _compiled(match: str, place: str) -> re.Pattern[str]:
    if match.startswith("re:"):
        try:
            return re.compile(match[3:])
        except re.error as error:
            raise ConfigurationError(place, f"{match[3:]!r} is no regular expression: {error}") from None
    return re.compile(fnmatch.translate(match))


def matches(match: str, name: str, place: str = "pattern") -> bool:
    """Whether a pattern is about a name; one of ``fnmatch`` matches all of it, one after ``re:`` its beginning."""
    return _compiled(match, place).match(name) is not None


def _share_of(name: str) -> int:
    """Where a name falls among a hundred; the same in every process and at all times."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest()) % 100


# -- Where rules come from ---------------------------------------------------------------------------------------------

_said: Final[list[Rule]] = []


def set_mode(mode: str, pattern: str = "*") -> None:
    """
    Say the mode of the queues whose names match, for this process; what was said last wins.

    It changes those that are open here as well. A rollback on this host goes before it.

    Args:
        mode: ``legacy``, ``shadow``, ``canary``, ``descriptor`` or ``strict``; ``canary:20`` for a fifth of the names.
        pattern: As in the rules of a configuration file.

    Raises:
        ConfigurationError: There is no such mode, or the pattern is none.
    """
    rule = _rule_of_text(pattern, mode, "set_mode()")
    _compiled(pattern, rule.place)
    _said[:] = [rule, *(other for other in _said if other.match != pattern)]
    from sage_compat.lines import apply_modes  # which imports this module

    apply_modes()


def forget_modes() -> None:
    """Take back everything that :func:`set_mode` said."""
    _said.clear()


def standing() -> list[Rule]:
    """What was decided for this host, newest first."""
    path = folder() / STANDING
    try:
        entries = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return []
    return [
        Rule(
            match=entry["match"],
            mode=Mode(entry["mode"]),
            percent=entry["percent"],
            place=f"{entry['by']} on this host",
        )
        for entry in entries
    ]


def all_rules() -> Iterator[Rule]:
    """Every rule, from first to last."""
    yield from standing()
    yield from _said
    yield from _from_environment()
    yield from _from_file()


def _from_environment() -> Iterator[Rule]:
    for number, part in enumerate(filter(None, map(str.strip, os.environ.get(RULES_VARIABLE, "").split(";"))), 1):
        match, equals, mode = part.rpartition("=")
        place = f"{RULES_VARIABLE}, rule {number}"
        if not equals or not match:
            raise ConfigurationError(place, f"{part!r} is no pattern=mode; write it as 'orders*=shadow;*=legacy'")
        yield _rule_of_text(match.strip(), mode.strip(), place)
    if everywhere := os.environ.get(MODE_VARIABLE):
        yield _rule_of_text("*", everywhere, MODE_VARIABLE)


def _from_file() -> Iterator[Rule]:
    config = configuration.current()
    for number, entry in enumerate(config.rules):
        place = f"{config.place}, rules[{number}]"
        yield Rule(
            match=entry["match"],
            mode=mode_of(entry["mode"], f"{place}.mode"),
            percent=_percent(entry.get("percent", 100), f"{place}.percent"),
            place=place,
        )
    if config.mode is not None:
        yield Rule(match="*", mode=mode_of(config.mode, f"{config.place}, mode"), place=f"{config.place}, mode")


def _rule_of_text(match: str, text: str, place: str) -> Rule:
    mode, _, percent = text.partition(":")
    if not percent:
        return Rule(match=match, mode=mode_of(mode, place), place=place)
    if mode != Mode.CANARY or not percent.isdigit():
        raise ConfigurationError(place, f"{text!r} is no mode; only canary has a percentage, as in 'canary:20'")
    return Rule(match=match, mode=Mode.CANARY, percent=_percent(int(percent), place), place=place)


def _percent(value: object, place: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 100:
        raise ConfigurationError(place, f"a percentage is a whole number from 0 to 100, not {value!r}")
    return value


def decide(name: str) -> Decision:
    """
    Return the mode of a queue, and why.

    Raises:
        ConfigurationError: A rule on the way is wrong.
    """
    return _decision(name, [rule for rule in all_rules() if matches(rule.match, name, rule.place)])


explain = decide


def _decision(name: str, found: list[Rule]) -> Decision:
    if not found:
        return Decision(name=name, mode=Mode.LEGACY, is_new=False, rule=None)
    rule = found[0]
    is_new = rule.mode is Mode.DESCRIPTOR or (rule.mode is Mode.CANARY and _share_of(name) < rule.percent)
    return Decision(name=name, mode=rule.mode, is_new=is_new, rule=rule, others=tuple(found[1:]))


def check() -> None:
    """
    Read all rules and all patterns, so that what is wrong is told at the start.

    Raises:
        ConfigurationError: Something is.
    """
    for rule in all_rules():
        _compiled(rule.match, rule.place)
