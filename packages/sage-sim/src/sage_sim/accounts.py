"""
The books of a run: each queue alone, hop by hop, and the whole way from source to sink, item by item.

A put that a kill cut off may or may not have happened: it is *maybe*.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from sage_sim.eventlog import DAMAGED, REPEATED, SETTLING, Kind
from sage_sim.history import History

EXAMPLES_AT_MOST = 5
SAMPLED = 64
"""One in so many messages of a sender is timed in each queue."""
_NEVER, _BEGUN, _CONFIRMED = 0, 1, 2
_SUMS = (
    "confirmed",
    "maybe",
    "maybe_arrived",
    "taken",
    "missing",
    "duplicated",
    "redelivered",
    "unexpected",
    "reordered",
    "damaged",
    "timed",
)


@dataclass(kw_only=True)
class Account:
    """
    The books of one queue, or of the whole way from sources to sinks.

    Attributes:
        confirmed: Puts that returned.
        maybe: Puts that a kill or stop cut off.
        maybe_arrived: Those of them that were taken nevertheless.
        taken: Different messages taken at least once.
        missing: Confirmed, or left out by the sender, and never taken, or never settled by anybody who took it: lost,
            or under way when the run did not end by itself.
        duplicated: Takes too many, without a mark that explains them.
        redelivered: Takes marked as a further one.
        unexpected: Taken, but never put.
        reordered: Taken after a younger message of the same sender, by the same process, without a mark.
        damaged: Takes of a payload that was not what it had to be.
        produced: How many different messages each sender, or items each origin, put.
        first_ns: When the first put began; where there is a warm-up, the first after it.
        last_ns: When the last take ended.
        timed: Different messages taken after the warm-up.
        waits_ns: How long messages took, in no order: in a queue, from the call of put until they were taken, of every
            64th message of each sender; on the whole way, from the moment they were due until they were settled.
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
    timed: int = 0
    waits_ns: array[int] = field(default_factory=lambda: array("q"))
    examples: dict[str, list[str]] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """From the first put to the last take."""
        return max(self.last_ns - self.first_ns, 0) / 1e9

    @property
    def rate(self) -> float:
        """Different messages taken per second, after the warm-up."""
        return self.timed / self.seconds if self.seconds else 0.0

    def waits(self, *quantiles: float) -> list[int | None]:
        """For each quantile, what that share of the messages did not exceed, in nanoseconds; None without any."""
        ordered = sorted(self.waits_ns)
        last = len(ordered) - 1
        return [ordered[round(quantile * last)] if ordered else None for quantile in quantiles]

    def note(self, figure: str, example: str) -> None:
        """Count one, and keep the first few as examples."""
        setattr(self, figure, getattr(self, figure) + 1)
        kept = self.examples.setdefault(figure, [])
        if len(kept) < EXAMPLES_AT_MOST:
            kept.append(example)

    def close(self, ledgers: dict[int, _Ledger], describe: str, history: History, *, whole_way: bool = False) -> None:
        """
        Draw up the sums.

        Args:
            ledgers: Of each sender, or of each origin.
            describe: How one message is named in examples.
            history: What happened.
            whole_way: Whether these are the books from source to sink, of items that may have copies.
        """
        for who, ledger in sorted(ledgers.items()):
            copies = history.arrivals_of(who) if whole_way else 1
            self.produced[who] = -(-len(ledger.put) // copies)
            for place, put, first_hand, second_hand, acked, settled in ledger.places():
                if not put and not first_hand and not second_hand:
                    continue
                name = _named(describe, who, place, copies)
                arrived = first_hand + second_hand > 0
                self.confirmed += put == _CONFIRMED
                self.maybe += put == _BEGUN
                self.maybe_arrived += put == _BEGUN and arrived
                self.taken += arrived
                self.redelivered += second_hand
                if not arrived and put == _CONFIRMED:
                    self.note("missing", name)
                if arrived and not settled and history.drained:
                    self.note("missing", f"{name}, which was taken, not settled, and not given back")
                if arrived and put == _NEVER:
                    self.note("unexpected", name)
                for _ in range(max(first_hand - 1, acked - 1, 0)):
                    self.note("duplicated", name)
            for place in ledger.skipped():
                self.note("missing", f"{_named(describe, who, place, copies)}, which its sender left out")


def _named(describe: str, who: int, place: int, copies: int) -> str:
    number, copy = divmod(place, copies)
    return describe.format(who=who, place=number) + (f", copy {copy}" if copies > 1 else "")


def merged(accounts: Iterable[Account]) -> Account:
    """The sum of several accounts, such as those of all queues of an edge."""
    total = Account()
    for account in accounts:
        for figure in _SUMS:
            setattr(total, figure, getattr(total, figure) + getattr(account, figure))
        total.produced |= account.produced
        total.waits_ns.extend(account.waits_ns)
        total.last_ns = max(total.last_ns, account.last_ns)
        if account.first_ns and (not total.first_ns or account.first_ns < total.first_ns):
            total.first_ns = account.first_ns
        for figure, examples in account.examples.items():
            kept = total.examples.setdefault(figure, [])
            kept += examples[: EXAMPLES_AT_MOST - len(kept)]
    return total


def edge_accounts(history: History) -> list[Account]:
    """The books of each queue, in the order of the edges: hop by hop."""
    accounts = [Account() for _ in history.edges]
    ledgers: list[dict[int, _Ledger]] = [{} for _ in history.edges]
    youngest: dict[tuple[int, int, int], int] = {}
    began: dict[tuple[int, int, int], int] = {}
    got: dict[tuple[int, int, int], int] = {}
    from_ns = history.from_ns
    for begin, end, _, _, hop, _, sender, edge, attempt, flags, _, kind, process in history.read():
        account = accounts[edge]
        ledger = ledgers[edge].get(sender)
        if ledger is None:
            ledger = ledgers[edge][sender] = _Ledger()
        if kind == Kind.PUT:
            ledger.put.raise_to(hop, _CONFIRMED if end else _BEGUN)
            if begin >= from_ns and (not account.first_ns or begin < account.first_ns):
                account.first_ns = begin
            if not hop % SAMPLED:
                began[edge, sender, hop] = begin
            continue
        account.last_ns = max(account.last_ns, end if end > SETTLING else begin)
        if not hop % SAMPLED and not attempt:
            got[edge, sender, hop] = begin
        if flags & DAMAGED:
            account.note("damaged", f"message {hop} of process {sender}")
        if end:
            ledger.settled.count(hop)
        if end > SETTLING:
            ledger.acked.count(hop)
        if attempt:
            ledger.second_hand.count(hop)
            continue
        ledger.first_hand.count(hop)
        account.timed += begin >= from_ns
        line = (process, edge, sender)
        last = youngest.get(line, -1)
        if hop > last:
            youngest[line] = hop
        elif hop < last:
            account.note("reordered", f"message {hop} of process {sender} after {last}, in process {process}")
    for key, taken_ns in got.items():
        begun_ns = began.get(key, 0)
        if begun_ns >= from_ns and begun_ns:
            accounts[key[0]].waits_ns.append(max(taken_ns - begun_ns, 0))
    for account, ledger_of in zip(accounts, ledgers, strict=True):
        account.close(ledger_of, "message {place} of process {who}", history)
    return accounts


def item_account(history: History) -> Account:
    """
    The books of the whole way: what the sources put against what the sinks took, item by item.

    A take at a sink is marked when the message says that an earlier copy may exist, or when it is a redelivery.
    """
    account = Account()
    ledgers: dict[int, _Ledger] = {}
    entries, exits, from_ns = history.entries, history.exits, history.from_ns
    weights = [edge.weight for edge in history.edges]
    for begin, end, due, sequence, _, origin, _, edge, attempt, flags, lane, kind, _ in history.read():
        if edge not in (entries if kind == Kind.PUT else exits):
            continue
        place = sequence * history.arrivals_of(origin) + lane
        ledger = ledgers.get(origin)
        if ledger is None:
            ledger = ledgers[origin] = _Ledger()
        if kind == Kind.PUT:
            for copy in range(weights[edge]):
                ledger.put.raise_to(place + copy, _CONFIRMED if end else _BEGUN)
            if begin >= from_ns and (not account.first_ns or begin < account.first_ns):
                account.first_ns = begin
            continue
        account.last_ns = max(account.last_ns, end if end > SETTLING else begin)
        if end:
            ledger.settled.count(place)
        if attempt or flags & REPEATED:
            ledger.second_hand.count(place)
            continue
        ledger.first_hand.count(place)
        account.timed += begin >= from_ns
        if due and due >= from_ns:
            account.waits_ns.append((end if end > SETTLING else begin) - due)
    account.close(ledgers, "item {place} of source {who}", history, whole_way=True)
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
        self.settled = _Marks()

    def places(self) -> Iterator[tuple[int, int, int, int, int, int]]:
        """Each place with: how it was put, takes without a mark, with one, those that were acked, or perhaps were."""
        for place in range(max(len(self.put), len(self.first_hand), len(self.second_hand))):
            marks = self.put, self.first_hand, self.second_hand, self.acked, self.settled
            put, first_hand, second_hand, acked, settled = (mark[place] for mark in marks)
            yield place, put, first_hand, second_hand, acked, settled

    def skipped(self) -> Iterator[int]:
        """Places before the last put that were never put nor taken: numbers are given without gaps."""
        for place in range(len(self.put)):
            if not self.put[place] and not self.first_hand[place] and not self.second_hand[place]:
                yield place
