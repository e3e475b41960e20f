"""
Rollback and roll-forward: the decision for this host, for those that run and for those to come.

A decision is written down first (``standing.json``, in one step), so that whoever starts from then on obeys it; then
the queues of running programs are moved, one by one; then the generation tells everybody; then the configuration file
is brought in line. Doing it again does only what is left to do.
"""

import json
import time
from dataclasses import dataclass, field
from typing import Any, Final

from sage_compat import control, records, rules
from sage_compat.moves import Flip, flip
from sage_compat.places import folder, locked_file, replace_file
from sage_compat.rewriting import with_rule
from sage_compat.rules import Mode, Rule, matches
from sage_qd import SageQueueError

__all__ = ["Rolled", "decided", "roll_forward", "rollback"]

SCHEMA: Final = "sage-compat.rolled/1"


@dataclass(kw_only=True)
class Rolled:
    """
    What a decision did.

    Attributes:
        pattern: Whose queues it is about.
        mode: Their mode from now on.
        dry_run: Whether nothing was done, but told.
        flips: What was done to each queue.
        failed: What could not be done, by full name, with the reason.
        configuration: The file that was brought in line; None when there is none.
        seconds: How long it took until every running program was told.
    """

    pattern: str
    mode: str
    dry_run: bool = False
    flips: list[Flip] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    configuration: str | None = None
    seconds: float = 0.0

    @property
    def not_moved(self) -> list[Flip]:
        """Flips that left messages behind."""
        return [each for each in self.flips if each.not_moved]

    def as_dict(self) -> dict[str, Any]:
        """The same as a document."""
        return {
            "schema": SCHEMA,
            "pattern": self.pattern,
            "mode": self.mode,
            "dry_run": self.dry_run,
            "flips": [each.as_dict() for each in self.flips],
            "failed": self.failed,
            "configuration": self.configuration,
            "seconds": self.seconds,
        }


def rollback(pattern: str = "*", *, dry_run: bool = False) -> Rolled:
    """
    Bring queues back to the old path, in all running programs of this user on this host.

    Messages still in the new queues are taken from there first, in order; what is put from now on takes the old path.
    Programs that start later obey, too. Where a new queue cannot be reached or sealed, its users go over all the same,
    and the result says what could not be moved.

    Args:
        pattern: Whose queues, as in a rule.
        dry_run: Change nothing; say what would be done.

    Raises:
        ConfigurationError: The pattern is no regular expression.
    """
    return decided(pattern, Mode.LEGACY, by="rollback", dry_run=dry_run)


def roll_forward(pattern: str = "*", *, dry_run: bool = False) -> Rolled:
    """Bring queues to the new way, in all running programs of this user on this host; see :func:`rollback`."""
    return decided(pattern, Mode.DESCRIPTOR, by="roll-forward", dry_run=dry_run)


def decided(pattern: str, mode: Mode, *, by: str, percent: int = 100, dry_run: bool = False) -> Rolled:
    """
    Make a decision for this host.

    Args:
        pattern: Whose queues.
        mode: Their mode from now on.
        by: Which command made it.
        percent: In mode ``canary``.
        dry_run: Change nothing.
    """
    started = time.monotonic()
    matches(pattern, "")  # a pattern that is none is told before anything is done
    done = Rolled(pattern=pattern, mode=str(mode), dry_run=dry_run)
    rule = Rule(match=pattern, mode=mode, percent=percent, place=by)
    if not dry_run:
        _write_down(rule)
    for record in records.all_records():
        if mode is Mode.STRICT or not matches(pattern, record.name):
            continue  # strict is about calls; what is open stays where it is
        is_new = rules._decision(record.name, [rule]).is_new
        try:
            found = flip(record.full_name, is_new=is_new, dry_run=dry_run)
        except (SageQueueError, OSError) as error:
            done.failed[record.full_name] = f"{type(error).__name__}: {error}"
        else:
            done.flips += [found] if found is not None and found.changed else []
    if not dry_run:
        control.bump()
    done.seconds = time.monotonic() - started
    try:
        changed = with_rule(rule, dry_run=dry_run)
    except (OSError, ValueError) as error:
        done.failed["the configuration file"] = f"{type(error).__name__}: {error}"
    else:
        done.configuration = None if changed is None else str(changed)
    return done


def _write_down(rule: Rule) -> None:
    path = folder() / rules.STANDING
    with locked_file(path.with_suffix(".lock")):
        before = json.loads(path.read_text("utf-8")) if path.exists() else []
        entry = {
            "match": rule.match,
            "mode": str(rule.mode),
            "percent": rule.percent,
            "by": rule.place,
        }
        kept = [] if rule.match == "*" else [each for each in before if each["match"] != rule.match]
        replace_file(path, json.dumps([entry, *kept], indent=1))


def forget_decisions() -> None:
    """Take back all decisions for this host; queues stay where they are until the next one."""
    path = folder() / rules.STANDING
    with locked_file(path.with_suffix(".lock")):
        path.unlink(missing_ok=True)
    control.bump()
