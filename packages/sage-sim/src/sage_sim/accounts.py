"""
The books of a run: each queue alone, hop by hop, and the whole way from source to sink, item by item.

A put that a kill cut off may or may not have happened: it is *maybe*.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from sage_sim.eventlog import DAMAGED, REPEATED, Kind
from sage_sim.history import History

EXAMPLES_AT_MOST = 5
_NEVER, _BEGUN, _CONFIRMED = 0, 1, 2


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
