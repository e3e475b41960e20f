"""
What can be said about a run: pure functions from a history to findings.

A queue is judged alone, hop by hop: what was put must be taken, once, in order. The whole is judged item by item, from
source to sink. A put that a kill cut off may or may not have happened: it is *maybe*, and both are right. A second
delivery is right when it is marked as such and somebody died before it; a second delivery without a mark never is.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

from sage_sim.accounts import EXAMPLES_AT_MOST, Account
from sage_sim.eventlog import EXIT_DAMAGED, EXIT_NO_ROOM, Kind
from sage_sim.history import History, Process

FAST_ENOUGH = "fast enough"
"""The one check that a load which is too high breaks."""


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


def check_keys(history: History, key: Callable[[int, int], int]) -> Finding:
    """
    One key, one consumer: where the key of an item decides who takes it, all items of a key go to one slot.

    Args:
        history: What happened.
        key: The key of an item, from its origin and sequence.
    """
    slots = {process.number: process.name.rpartition(".")[0] for process in history.processes}
    keyed = {at: edge.edge or edge.name for at, edge in enumerate(history.edges) if edge.keyed}
    homes: dict[tuple[str, int], str] = {}
    broken: list[str] = []
    strays = 0
    for one in history.read():
        if one.edge not in keyed or one.kind != Kind.TAKE:
            continue
        which, slot = (keyed[one.edge], key(one.origin, one.sequence)), slots[one.process]
        home = homes.setdefault(which, slot)
        if slot != home:
            strays += 1
            if len(broken) < EXAMPLES_AT_MOST:
                broken.append(f"key {which[1]} of edge {which[0]}: taken by {home}, and by {slot}")
    return Finding(
        check="one consumer for each key",
        verdict=Verdict.INVALID if strays else Verdict.VALID,
        sentence=f"{len(homes):,} keys, {strays:,} messages at a second consumer",
        examples=tuple(broken),
    )


def check_redeliveries(history: History, books: Sequence[Account], cuts: int = 0) -> Finding:
    """
    Redelivery only after a death: a killed consumer held one lease at most, of whichever queue, which explains one
    redelivery after it.

    Args:
        history: What happened.
        books: Of each queue.
        cuts: How often the way to a server was cut: each may have taken a lease from every consumer, and nothing is
            said about moments.
    """
    deaths: dict[str, list[int]] = defaultdict(list)
    for one in history.processes:
        if one.status not in (0, None):
            deaths[one.role].append(one.killed_ns or one.start_ns)
    again: dict[str, list[int]] = defaultdict(list)
    for step in history.read():
        if step.kind == Kind.TAKE and step.attempt:
            again[history.edges[step.edge].target].append(step.begin_ns)
    slots = Counter(role for _, role in {(one.name.rpartition(".")[0], one.role) for one in history.processes})
    broken = []
    for role, taken in sorted(again.items()):
        dead = sorted(deaths[role])
        early = 0 if cuts else sum(at < death for at, death in zip(sorted(taken), dead, strict=False))
        if len(taken) > len(dead) + cuts * slots[role]:
            names = ", ".join(edge.name for edge in history.edges if edge.target == role)
            broken.append(f"{names}: {len(taken):,} redeliveries after {len(dead):,} deaths")
        elif early:
            broken.append(f"{role}: {early:,} of {len(taken):,} redeliveries came before the death that explains them")
    total = sum(account.redelivered for account in books)
    away = f", the server out of reach {cuts:,} times" if cuts else ""
    return Finding(
        check="redelivery only after a death",
        verdict=Verdict.INVALID if broken else Verdict.VALID,
        sentence=f"{total:,} redeliveries, {sum(map(len, deaths.values())):,} deaths{away}",
        examples=tuple(broken[:EXAMPLES_AT_MOST]),
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
            + (": no room on the disk" if no_room else ""),
            examples=tuple(_fate(process) for process in failed[:EXAMPLES_AT_MOST]),
        )
    return Finding(
        check=check,
        verdict=Verdict.VALID,
        sentence=f"{len(history.processes):,} processes, {killed:,} killed on purpose",
    )


def check_faults(
    history: History, asked: Sequence[str] = ("kill",), kinds: Sequence[str] = (), *, seconds: float = 0.0
) -> Finding:
    """
    Faults that were asked for did happen: otherwise the run proves nothing about them.

    Args:
        history: What happened; it knows the kills that struck.
        asked: Kinds of faults that were to happen.
        kinds: Those that did, apart from kills.
        seconds: How long the run took.
    """
    check = "faults struck"
    struck = Counter(kinds)
    struck["kill"] = sum(process.was_killed for process in history.processes)
    missed = [kind for kind in asked if not struck[kind]]
    if missed:
        return Finding(
            check=check,
            verdict=Verdict.UNKNOWN,
            sentence=f"no {' and no '.join(missed)} in the {seconds:.1f} s of the run; let it go on for longer, with "
            f"--duration in place of --items, or say when, as in {missed[0]}@{seconds / 2:.1g}",
        )
    return Finding(check=check, verdict=Verdict.VALID, sentence=", ".join(f"{struck[kind]:,} {kind}" for kind in asked))


def check_damage(history: History, damaged: str, users: Collection[str]) -> Finding:
    """
    Damage is noticed: every process that uses the damaged queue ends because of it, and says so.

    Sources and those who take from it always use it. Who stands in the middle and puts into it may wait for something
    to pass on: it is not blind as long as it put nothing after others had noticed, and is in no put that never ends.

    Args:
        history: What happened.
        damaged: Name of the queue that was damaged, or is gone.
        users: The slots whose processes use it.
    """
    check = "damage noticed"
    place, edge = next((at, edge) for at, edge in enumerate(history.edges) if edge.name == damaged)
    at_work = [one for one in history.processes if one.name.rpartition(".")[0] in users and one.status != 0]
    noticed = [one for one in at_work if one.status == EXIT_DAMAGED or one.was_killed]
    first_ns = min((one.exit_ns or 0 for one in noticed), default=0)
    putting = {
        one.process for one in history.read() if one.edge == place and (not one.end_ns or one.begin_ns > first_ns)
    }
    always = history.source_roles | {edge.target}
    late = [one for one in at_work if one not in noticed]
    blind = [one for one in late if one.role in always or one.number in putting]
    idle = f", {len(late) - len(blind):,} had nothing to put there" if len(late) > len(blind) else ""
    return Finding(
        check=check,
        verdict=Verdict.INVALID if blind or not noticed else Verdict.VALID,
        sentence=f"{len(noticed):,} of {len(at_work):,} processes at {damaged} ended and said why{idle}",
        examples=tuple(f"{one.name} did not notice" for one in blind[:EXAMPLES_AT_MOST]),
    )


def check_gates(
    rate: float, p99_ms: float | None, *, lowest_rate: float | None, highest_p99_ms: float | None
) -> Finding:
    """
    Fast enough, where the topology says how fast that is.

    Args:
        rate: Items per second that reached the end.
        p99_ms: What 99 % of the items did not exceed, in milliseconds; None without any.
        lowest_rate: The least that will do; None for any.
        highest_p99_ms: The most that will do; None for any.
    """
    broken = []
    if lowest_rate is not None and rate < lowest_rate:
        broken.append(f"{rate:,.0f} items/s, below {lowest_rate:,.0f}")
    if highest_p99_ms is not None and (p99_ms is None or p99_ms > highest_p99_ms):
        broken.append(f"p99 {'unknown' if p99_ms is None else f'{p99_ms:,.3f} ms'}, above {highest_p99_ms:,.3f} ms")
    return Finding(
        check=FAST_ENOUGH,
        verdict=Verdict.INVALID if broken else Verdict.VALID,
        sentence="; ".join(broken) or f"{rate:,.0f} items/s, p99 {0 if p99_ms is None else p99_ms:,.3f} ms",
    )


def check_progress(items: Account) -> Finding:
    """Something happened at all."""
    return Finding(
        check="items arrived",
        verdict=Verdict.VALID if items.taken else Verdict.UNKNOWN,
        sentence=f"{items.taken:,} different items" if items.taken else "no item reached a sink, so nothing is proven",
    )


def check_leftovers(things: Sequence[str], processes: Sequence[str]) -> Finding:
    """Nothing is left behind: no segment, descriptor, thread or process."""
    left = (*things, *processes)
    return Finding(
        check="nothing left behind",
        verdict=Verdict.INVALID if left else Verdict.VALID,
        sentence=f"{len(things):,} segments, descriptors and threads, {len(processes):,} processes",
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
