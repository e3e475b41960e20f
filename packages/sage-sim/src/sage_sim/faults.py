"""What is broken on purpose, when, and where: planned, or at random moments that follow from the seed alone."""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from random import Random

RATE = 2.0
RATE_AT_MOST = 100.0
PROCESS_KINDS = ("kill", "kill-inside", "stop", "slow", "limit-files", "limit-memory")
"""Those that hit one process."""
PROXY_KINDS = ("cut", "delay", "throttle", "loss", "silence")
"""Those that a proxy does on the way to the server of RPC queues."""
PEER_KINDS = (*PROXY_KINDS, "unplug")
"""All that hit that way."""
EDGE_KINDS = ("damage", "kill-actor")
"""Those that hit one queue of an edge."""
LASTING_KINDS = ("damage", "kill-node")
"""Those after which nothing goes on as before, so that they come at a moment, once."""
KINDS = (*PROCESS_KINDS, *PEER_KINDS, "full", *LASTING_KINDS, "kill-actor")
SECONDS = {"stop": 0.3} | dict.fromkeys(("slow", *PEER_KINDS, "full"), 0.5)
"""How long each lasts when nobody says, for those that are healed again."""
AMOUNTS = {"slow": 5.0, "delay": 20.0, "throttle": 1_000_000.0, "loss": 10.0, "damage": 1280.0}
"""
When nobody says: milliseconds for each message, milliseconds for each piece of data, bytes per second, per cent of the
pieces, and bytes.
"""
_FORM = re.compile(
    r"(?P<kind>[a-z-]+)(?::(?P<rate>[0-9.]+)|@(?P<at>[0-9.]+))?(?:=(?P<target>[A-Za-z0-9_.-]+))?"
    r"(?:/(?P<seconds>[0-9.]+))?(?:\*(?P<amount>[0-9.]+))?"
)


@dataclass(frozen=True, kw_only=True)
class Fault:
    """
    One way to break things, once at a planned moment or again and again at random ones.

    Attributes:
        kind: One of `KINDS`. ``kill``: SIGKILL, and a new process. ``kill-inside``: the same, between two stores of
            the ring, in a build with fault points. ``stop``: SIGSTOP, then SIGCONT. ``slow``: a consumer that takes its
            time. ``limit-files``, ``limit-memory``: no further descriptor, hardly any further memory. ``cut``,
            ``delay``, ``throttle``, ``loss``, ``silence``: the way to the server of RPC queues; in silence everything
            is lost, and nobody is told. ``unplug``: the loopback is down, in a network of the run's own. ``full``: no
            room left where segments are. ``damage``: the head of a queue's memory is overwritten. ``kill-actor``: the
            actor dies that owns a Ray queue. ``kill-node``: so does a node of the run's own Ray cluster, with all that
            is on it.
        rate: How often a second on average, at independent moments; None when it is planned.
        at: Seconds after the sources were let go; None when it is random.
        target: Whom it hits: a role, one of its slots as ``reader-0``, an edge for ``damage`` and ``kill-actor``, a
            node as ``node-1`` for ``kill-node``; None for anybody.
        seconds: How long it lasts.
        amount: How much of it, see `AMOUNTS`.
    """

    kind: str
    rate: float | None = None
    at: float | None = None
    target: str | None = None
    seconds: float = 0.0
    amount: float = 0.0

    def __str__(self) -> str:
        when = f":{self.rate:g}" if self.rate is not None else f"@{self.at:g}"
        target = f"={self.target}" if self.target is not None else ""
        lasts = f"/{self.seconds:g}" if self.seconds != SECONDS.get(self.kind, 0.0) else ""
        much = f"*{self.amount:g}" if self.amount != AMOUNTS.get(self.kind, 0.0) else ""
        return f"{self.kind}{when}{target}{lasts}{much}"

    def problem(self) -> str | None:
        """What is wrong with it in itself, in a sentence; None when nothing is."""
        if self.kind not in KINDS:
            return f"unknown faults {self.kind!r}{_hint(self.kind)}; known are: {', '.join(KINDS)}"
        if (self.rate is None) == (self.at is None):
            return f"{self.kind!r} needs either a rate or a moment"
        if self.rate is not None and not 0 < self.rate <= RATE_AT_MOST:
            return f"the rate of {self.kind!r} must be above 0 and at most {RATE_AT_MOST:g} a second, not {self.rate:g}"
        if self.kind == "loss" and self.amount > 100:
            return f"'loss' is in per cent, at most 100, not {self.amount:g}"
        if self.kind in LASTING_KINDS and self.rate is not None:
            return f"{self.kind!r} needs a moment: nothing goes on after it"
        return None


@dataclass(frozen=True, kw_only=True)
class Faults:
    """All faults of a run; as text, what the user would write."""

    each: tuple[Fault, ...]

    def __str__(self) -> str:
        return ",".join(map(str, self.each))

    def has(self, *kinds: str) -> bool:
        """Whether one of these kinds is among them."""
        return any(fault.kind in kinds for fault in self.each)


@dataclass(frozen=True, kw_only=True)
class Strike:
    """One blow of a plan."""

    after_seconds: float
    """Since the sources were let go."""
    fault: Fault
    slot: str
    """Who is hit; nobody, when no process is at work in that slot at the moment. Empty for what hits no process."""


def completed(kind: str, **fields: float | str | None) -> Fault:
    """A fault of which everything left open is decided."""
    given = {name: value for name, value in fields.items() if value is not None}
    if "rate" not in given and "at" not in given:
        given["rate"] = RATE
    given.setdefault("seconds", SECONDS.get(kind, 0.0))
    given.setdefault("amount", AMOUNTS.get(kind, 0.0))
    return Fault(kind=kind, **given)  # type: ignore[arg-type]


def parse_faults(text: str) -> Faults:
    """
    Read what the user wrote: one or more, separated by commas, of ``KIND[:RATE|@MOMENT][=TARGET][/SECONDS][*AMOUNT]``.

    Raises:
        ValueError: It is something else; tells all that is wrong, and what is known.
    """
    found, wrong = [], []
    for one in text.split(","):
        try:
            found.append(_parsed(one))
        except ValueError as error:
            wrong.append(str(error))
    if wrong:
        raise ValueError("; ".join(wrong))
    return Faults(each=tuple(found))


def _parsed(text: str) -> Fault:
    found = _FORM.fullmatch(text)
    if found is None:
        raise ValueError(
            f"unknown faults {text!r}{_hint(re.split('[:@=/*]', text)[0])}; known are: {', '.join(KINDS)}, each as "
            "KIND[:RATE|@MOMENT][=TARGET][/SECONDS][*AMOUNT]"
        )
    fields: dict[str, float | str | None] = {"target": found["target"]}
    for name in ("rate", "at", "seconds", "amount"):
        if found[name] is not None:
            try:
                fields[name] = float(found[name])
            except ValueError:
                raise ValueError(f"{found[name]!r} is not a number, in {text!r}") from None
    fault = completed(found["kind"], **fields)
    if problem := fault.problem():
        raise ValueError(problem)
    return fault


def _hint(word: str) -> str:
    close = get_close_matches(word, KINDS, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def strikes(faults: Faults, seed: int, slots: Sequence[str]) -> Iterator[Strike]:
    """
    The plan, in the order of time; without end when one of the faults is random.

    Random ones have exponential gaps (a Poisson process), and hit all slots that their target names with equal chance.
    """
    plans = (_of_one(fault, f"faults/{seed}/{at}", slots) for at, fault in enumerate(faults.each))
    return heapq.merge(*plans, key=lambda strike: strike.after_seconds)


def _of_one(fault: Fault, seed: str, slots: Sequence[str]) -> Iterator[Strike]:
    random = Random(seed)
    hit = targets(fault, slots) if fault.kind in PROCESS_KINDS else [""]
    if fault.at is not None:
        yield Strike(after_seconds=fault.at, fault=fault, slot=random.choice(hit))
        return
    moment = 0.0
    while True:
        moment += random.expovariate(fault.rate or RATE)
        yield Strike(after_seconds=moment, fault=fault, slot=random.choice(hit))


def targets(fault: Fault, slots: Sequence[str]) -> list[str]:
    """
    The slots that a fault may hit.

    Raises:
        ValueError: There are none of that name.
    """
    if fault.target is None:
        return list(slots)
    found = [slot for slot in slots if fault.target in (slot, slot.rpartition("-")[0])]
    if not found:
        raise ValueError(f"{fault.kind!r} shall hit {fault.target!r}, which is neither a role nor one of its processes")
    return found
