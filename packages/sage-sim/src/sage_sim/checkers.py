"""
What can be said about a run: pure functions from a history to findings.

A queue is judged alone, hop by hop: what was put must be taken, once, in order. The whole is judged item by item, from
source to sink. A put that a kill cut off may or may not have happened: it is *maybe*, and both are right. A second
delivery is right when it is marked as such and somebody died before it; a second delivery without a mark never is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

from sage_sim.accounts import EXAMPLES_AT_MOST, Account
from sage_sim.eventlog import EXIT_NO_ROOM
from sage_sim.history import History, Process


class Verdict(Enum):
    """Of one check, and of a run: its worst check."""

    VALID = "valid"
    UNKNOWN = "unknown"
    INVALID = "invalid"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """
    What one check found.

    Attributes:
        check: The rule, in a few words.
        verdict: Whether it held.
        sentence: The figures behind it.
        examples: Some of what broke it.
    """

    check: str
    verdict: Verdict
    sentence: str
    examples: tuple[str, ...] = ()


def overall(findings: Iterable[Finding]) -> Verdict:
    """The verdict of a run: one broken rule makes it invalid, one open question unknown. Nothing checked is unknown."""
    verdicts = {finding.verdict for finding in findings} or {Verdict.UNKNOWN}
    for worst in (Verdict.INVALID, Verdict.UNKNOWN):
        if worst in verdicts:
            return worst
    return Verdict.VALID


def check_loss(history: History, books: Sequence[Account], items: Account) -> Finding:
    """Nothing lost: every confirmed put was taken, and every item of a source reached a sink."""
    check = "nothing lost"
    missing = sum(account.missing for account in books)
    if missing + items.missing == 0:
        cut_off = sum(account.maybe for account in books)
        arrived = sum(account.maybe_arrived for account in books)
        rest = f"; of {cut_off:,} puts cut off, {arrived:,} took effect" if cut_off else ""
        return Finding(check=check, verdict=Verdict.VALID, sentence=f"{items.taken:,} items arrived{rest}")
    if not history.drained:
        return Finding(
            check=check, verdict=Verdict.UNKNOWN, sentence=f"{missing:,} messages were under way when the run was ended"
        )
    return Finding(
        check=check,
        verdict=Verdict.INVALID,
        sentence=f"{missing:,} messages lost in queues, {items.missing:,} items lost between source and sink",
        examples=_examples("missing", history, books, items),
    )


def check_duplicates(history: History, books: Sequence[Account], items: Account) -> Finding:
    """No duplicate: what was taken twice was marked as redelivered, and not acked before."""
    doubled = sum(account.duplicated for account in books)
    marked = sum(account.redelivered for account in books)
    if doubled + items.duplicated == 0:
        return Finding(
            check="nothing duplicated", verdict=Verdict.VALID, sentence=f"{marked:,} redelivered, each marked as such"
        )
    return Finding(
        check="nothing duplicated",
        verdict=Verdict.INVALID,
        sentence=f"{doubled:,} messages in queues and {items.duplicated:,} items came again without a mark",
        examples=_examples("duplicated", history, books, items),
    )


def check_unexpected(history: History, books: Sequence[Account], items: Account) -> Finding:
    """Nothing unexpected: what was taken had been put, unharmed."""
    strange = sum(account.unexpected for account in books) + items.unexpected
    damaged = sum(account.damaged for account in books)
    if strange + damaged == 0:
        return Finding(
            check="nothing unexpected", verdict=Verdict.VALID, sentence="all that was taken had been put, unharmed"
        )
    return Finding(
        check="nothing unexpected",
        verdict=Verdict.INVALID,
        sentence=f"{strange:,} taken that nobody had put, {damaged:,} damaged",
        examples=_examples("unexpected", history, books, items) + _examples("damaged", history, books, items),
    )


def check_order(history: History, books: Sequence[Account], items: Account) -> Finding:
    """Per-producer order: no process takes an older message of a sender after a younger one, redeliveries apart."""
    reordered = sum(account.reordered for account in books)
    return Finding(
        check="order kept",
        verdict=Verdict.INVALID if reordered else Verdict.VALID,
        sentence=f"{reordered:,} overtaken between one producer and one consumer",
        examples=_examples("reordered", history, books, items),
    )


def check_redeliveries(history: History, books: Sequence[Account]) -> Finding:
    """Redelivery only after a death: a killed consumer held one lease at most, which explains one redelivery."""
    deaths = Counter(process.role for process in history.processes if process.status not in (0, None))
    broken = [
        f"{edge.name}: {account.redelivered:,} redeliveries after {deaths[edge.target]:,} deaths"
        for edge, account in zip(history.edges, books, strict=True)
        if account.redelivered > deaths[edge.target]
    ]
    total = sum(account.redelivered for account in books)
    return Finding(
        check="redelivery only after a death",
        verdict=Verdict.INVALID if broken else Verdict.VALID,
        sentence=f"{total:,} redeliveries, {deaths.total():,} deaths",
        examples=tuple(broken),
    )


def check_deaths(history: History) -> Finding:
    """Every process ended by itself with success, by a planned kill, or because the run was stopped."""
    check, killed = "no process failed", sum(process.was_killed for process in history.processes)
    failed = [process for process in history.processes if process.has_failed]
    if failed:
        no_room = all(process.status == EXIT_NO_ROOM for process in failed)
        return Finding(
            check=check,
            verdict=Verdict.UNKNOWN if no_room else Verdict.INVALID,
            sentence=f"{len(failed):,} of {len(history.processes):,} processes failed"
            + (": no room for the history" if no_room else ""),
            examples=tuple(_fate(process) for process in failed[:EXAMPLES_AT_MOST]),
        )
    return Finding(
        check=check,
        verdict=Verdict.VALID,
        sentence=f"{len(history.processes):,} processes, {killed:,} killed on purpose",
    )


def check_faults(history: History) -> Finding:
    """Faults that were asked for did happen: otherwise the run proves nothing about them."""
    killed = sum(process.was_killed for process in history.processes)
    if not killed:
        return Finding(
            check="faults struck", verdict=Verdict.UNKNOWN, sentence="no process was killed in time; run for longer"
        )
    return Finding(check="faults struck", verdict=Verdict.VALID, sentence=f"{killed:,} kills")


def check_progress(items: Account) -> Finding:
    """Something happened at all."""
    return Finding(
        check="items arrived",
        verdict=Verdict.VALID if items.taken else Verdict.UNKNOWN,
        sentence=f"{items.taken:,} different items" if items.taken else "no item reached a sink, so nothing is proven",
    )


def check_leftovers(segments: Sequence[str], processes: Sequence[str]) -> Finding:
    """Nothing is left behind: no segment, no process."""
    left = (*segments, *processes)
    return Finding(
        check="nothing left behind",
        verdict=Verdict.INVALID if left else Verdict.VALID,
        sentence=f"{len(segments):,} segments and {len(processes):,} processes",
        examples=left[:EXAMPLES_AT_MOST],
    )


def _examples(figure: str, history: History, books: Sequence[Account], items: Account) -> tuple[str, ...]:
    names = [f"queue {edge.name}" for edge in history.edges]
    accounts = zip((*names, "source to sink"), (*books, items), strict=True)
    found = [f"{name}: {example}" for name, account in accounts for example in account.examples.get(figure, ())]
    return tuple(found[:EXAMPLES_AT_MOST])


def _fate(process: Process) -> str:
    if process.status is not None and process.status < 0:
        return f"{process.name} died of signal {-process.status}"
    return f"{process.name} ended with exit code {process.status}"
