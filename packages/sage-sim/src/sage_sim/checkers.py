"""
What can be said about a run: pure functions from a history to findings.

A queue is judged alone, hop by hop: what was put must be taken, once, in order. The whole is judged item by item, from
source to sink. A put that a kill cut off may or may not have happened: it is *maybe*, and both are right. A second
delivery is right when it is marked as such and somebody died before it; a second delivery without a mark never is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum

from sage_sim.eventlog import DAMAGED, EXIT_NO_ROOM, REPEATED, Kind
from sage_sim.history import History, Process

EXAMPLES_AT_MOST = 5
_NEVER, _BEGUN, _CONFIRMED = 0, 1, 2


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


# -- Accounts: what happened, in numbers ------------------------------------------------------------------------------


class _Marks:
    """A small number for each place in a sequence without gaps."""

    def __init__(self) -> None:
        self._marks = bytearray()

    def __getitem__(self, place: int) -> int:
        return self._marks[place] if place < len(self._marks) else 0

    def raise_to(self, place: int, mark: int) -> None:
        self._reach(place)
        self._marks[place] = max(self._marks[place], mark)

    def count(self, place: int) -> None:
        """Add one, up to 255: by then the exact number does not matter."""
        self._reach(place)
        self._marks[place] += self._marks[place] < 255

    def _reach(self, place: int) -> None:
        if place >= len(self._marks):
            self._marks.extend(bytes(max(place + 1 - len(self._marks), len(self._marks) // 2, 64)))

    def __len__(self) -> int:
        return len(self._marks.rstrip(b"\0"))


class _Ledger:
    """What is known of all puts of one sender, or of all items of one origin."""

    def __init__(self) -> None:
        self.put = _Marks()
        self.first_hand = _Marks()
        self.second_hand = _Marks()
        self.acked = _Marks()

    def places(self) -> Iterator[tuple[int, int, int, int, int]]:
        """Each place with: how it was put, takes without a mark, takes with one, takes that were acked."""
        for place in range(max(len(self.put), len(self.first_hand), len(self.second_hand))):
            yield place, self.put[place], self.first_hand[place], self.second_hand[place], self.acked[place]

    def skipped(self) -> Iterator[int]:
        """Places before the last put that were never put nor taken: numbers are given without gaps."""
        for place in range(len(self.put)):
            if not self.put[place] and not self.first_hand[place] and not self.second_hand[place]:
                yield place


@dataclass(kw_only=True)
class Account:
    """
    The books of one queue, or of the whole way from sources to sinks.

    Attributes:
        confirmed: Puts that returned.
        maybe: Puts that a kill or stop cut off.
        maybe_arrived: Those of them that were taken nevertheless.
        taken: Different messages taken at least once.
        missing: Confirmed, or left out by the sender, and never taken: lost, or still in the queue when the run did not
            end by itself.
        duplicated: Takes too many, without a mark that explains them.
        redelivered: Takes marked as a further one.
        unexpected: Taken, but never put.
        reordered: Taken after a younger message of the same sender, by the same process, without a mark.
        damaged: Takes of a payload that was not what it had to be.
        produced: How many different messages each sender, or items each origin, put.
        first_ns: When the first put began.
        last_ns: When the last take ended.
    """

    confirmed: int = 0
    maybe: int = 0
    maybe_arrived: int = 0
    taken: int = 0
    missing: int = 0
    duplicated: int = 0
    redelivered: int = 0
    unexpected: int = 0
    reordered: int = 0
    damaged: int = 0
    produced: dict[int, int] = field(default_factory=dict)
    first_ns: int = 0
    last_ns: int = 0
    examples: dict[str, list[str]] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """From the first put to the last take."""
        return max(self.last_ns - self.first_ns, 0) / 1e9

    @property
    def rate(self) -> float:
        """Different messages taken per second."""
        return self.taken / self.seconds if self.seconds else 0.0

    def note(self, figure: str, example: str) -> None:
        """Count one, and keep the first few as examples."""
        setattr(self, figure, getattr(self, figure) + 1)
        kept = self.examples.setdefault(figure, [])
        if len(kept) < EXAMPLES_AT_MOST:
            kept.append(example)

    def close(self, ledgers: dict[int, _Ledger], describe: str) -> None:
        """Draw up the sums; `describe` says how one message is named in examples."""
        for who, ledger in sorted(ledgers.items()):
            self.produced[who] = len(ledger.put)
            for place, put, first_hand, second_hand, acked in ledger.places():
                if not put and not first_hand and not second_hand:
                    continue
                name = describe.format(who=who, place=place)
                arrived = first_hand + second_hand > 0
                self.confirmed += put == _CONFIRMED
                self.maybe += put == _BEGUN
                self.maybe_arrived += put == _BEGUN and arrived
                self.taken += arrived
                self.redelivered += second_hand
                if not arrived and put == _CONFIRMED:
                    self.note("missing", name)
                if arrived and put == _NEVER:
                    self.note("unexpected", name)
                for _ in range(max(first_hand - 1, acked - 1, 0)):
                    self.note("duplicated", name)
            for place in ledger.skipped():
                self.note("missing", f"{describe.format(who=who, place=place)}, which its sender left out")


def edge_accounts(history: History) -> list[Account]:
    """The books of each queue, in the order of the edges: hop by hop."""
    accounts = [Account() for _ in history.edges]
    ledgers: list[dict[int, _Ledger]] = [{} for _ in history.edges]
    youngest: dict[tuple[int, int, int], int] = {}
    for begin, end, _, hop, _, sender, edge, attempt, flags, kind, process in history.read():
        account = accounts[edge]
        ledger = ledgers[edge].get(sender)
        if ledger is None:
            ledger = ledgers[edge][sender] = _Ledger()
        if kind == Kind.PUT:
            ledger.put.raise_to(hop, _CONFIRMED if end else _BEGUN)
            if not account.first_ns or begin < account.first_ns:
                account.first_ns = begin
            continue
        account.last_ns = max(account.last_ns, end or begin)
        if flags & DAMAGED:
            account.note("damaged", f"message {hop} of process {sender}")
        if end:
            ledger.acked.count(hop)
        if attempt:
            ledger.second_hand.count(hop)
            continue
        ledger.first_hand.count(hop)
        line = (process, edge, sender)
        last = youngest.get(line, -1)
        if hop > last:
            youngest[line] = hop
        elif hop < last:
            account.note("reordered", f"message {hop} of process {sender} after {last}, in process {process}")
    for account, ledger_of in zip(accounts, ledgers, strict=True):
        account.close(ledger_of, "message {place} of process {who}")
    return accounts


def item_account(history: History) -> Account:
    """
    The books of the whole way: what the sources put against what the sinks took, item by item.

    A take at a sink is marked when the message says that an earlier copy may exist, or when it is a redelivery.
    """
    account = Account()
    ledgers: dict[int, _Ledger] = {}
    role_of = {process.number: process.role for process in history.processes}
    sources, sinks = history.source_roles, history.sink_roles
    for begin, end, sequence, _, origin, _, _, attempt, flags, kind, process in history.read():
        role = role_of.get(process)
        if role not in sources and role not in sinks:
            continue
        ledger = ledgers.get(origin)
        if ledger is None:
            ledger = ledgers[origin] = _Ledger()
        if kind == Kind.PUT:
            ledger.put.raise_to(sequence, _CONFIRMED if end else _BEGUN)
            if not account.first_ns or begin < account.first_ns:
                account.first_ns = begin
            continue
        account.last_ns = max(account.last_ns, end or begin)
        if attempt or flags & REPEATED:
            ledger.second_hand.count(sequence)
        else:
            ledger.first_hand.count(sequence)
    account.close(ledgers, "item {place} of source {who}")
    return account


# -- Findings: which rules held ---------------------------------------------------------------------------------------


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
