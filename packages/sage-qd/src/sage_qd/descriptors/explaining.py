"""
Why a kind was taken or not: needs against kinds, each answer with its reason, as a table and as JSON.

The JSON is stable; ``version`` changes when a member changes its meaning or goes::

    {"version": 1, "queue_id": "jobs", "queue_type": "auto", "needs": {"reach": "processes of one host"},
     "message_bytes": 64, "choice": "sage_queue", "would_change": ["..."], "kinds": [
        {"kind": "sage_queue", "fits": true, "missing": null, "reach": "processes of one host", "cost_ns": 2003.2,
         "wake_us": 40.0, "cost_source": "built-in", "answers": [{"need": "reach", "met": true, "reason": "..."}]}]}
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from sage_qd.descriptors.base import BaseQueueDescriptor
from sage_qd.descriptors.costs import Cost, costs
from sage_qd.descriptors.needs import Answer, Needs, answers_of, needs_of
from sage_qd.descriptors.parsing import canonical_json
from sage_qd.descriptors.registry import known_queue_types, queue_kind
from sage_qd.errors import BackendUnavailableError, DescriptorError, NoBackendError
from sage_qd.queues.base import Reach

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["Explanation", "Verdict", "choose", "explained", "rank", "verdicts_on"]

VERSION: Final = 1
AUTO: Final = "auto"
_HEADS: Final = ("kind", "taken", "cost", "why")
_FARTHEST_LAST: Final = (Reach.THREADS, Reach.PROCESSES, Reach.HOSTS)
_NEARER: Final = {Reach.HOSTS: Reach.PROCESSES, Reach.PROCESSES: Reach.THREADS}


@dataclass(frozen=True)
class Verdict:
    """
    What is to be said of one kind.

    Attributes:
        kind: Its name.
        answers: Whether it meets each need, with the reason; empty for a kind that cannot be looked at here.
        missing: What keeps its queues from being opened here; None when nothing does.
        cost: What a message costs with it; None when nothing is known of that.
        reach: How far its queues reach; None when nothing is known of that.
    """

    kind: str
    answers: tuple[Answer, ...]
    missing: str | None
    cost: Cost | None
    reach: Reach | None

    @property
    def fits(self) -> bool:
        """Whether it meets all needs and can be used here."""
        return self.missing is None and self.meets

    @property
    def meets(self) -> bool:
        """Whether it meets all needs, here or elsewhere."""
        return bool(self.answers) and all(answer.met for answer in self.answers)

    def reason(self) -> str:
        """Why it can be taken or not, in one sentence."""
        against = [f"{answer.need}: {answer.reason}" for answer in self.answers if not answer.met]
        if self.missing is not None:
            against.insert(0, self.missing)
        return "; ".join(against) or "it meets every need"


@dataclass(frozen=True)
class Explanation:
    """
    Needs against kinds, and the choice; made by :meth:`BaseQueueDescriptor.explain`.

    It prints as a table. ``choice`` is the kind that is taken, or None when none meets the needs, ``would_change`` says
    in sentences what would lead to another one, and ``verdicts`` has the details.
    """

    queue_id: str
    queue_type: str
    needs: Needs
    message_bytes: int
    verdicts: tuple[Verdict, ...]
    choice: str | None
    would_change: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the explanation as data; see :mod:`sage_qd.descriptors.explaining` for the members."""
        return {
            "version": VERSION,
            "queue_id": self.queue_id,
            "queue_type": self.queue_type,
            "needs": self.needs.declared(),
            "message_bytes": self.message_bytes,
            "kinds": [self._shown(verdict) for verdict in self.verdicts],
            "choice": self.choice,
            "would_change": list(self.would_change),
        }

    def to_json(self) -> str:
        """Return the explanation as canonical JSON."""
        return canonical_json(self.to_dict()).decode()

    def error(self) -> NoBackendError:
        """The exception that says that no kind meets the needs."""
        needs = [f"{name} ({wanted})" for name, wanted in self.needs.declared().items()]
        return NoBackendError(needs=needs, rejected={each.kind: each.reason() for each in self.verdicts})

    def _shown(self, verdict: Verdict) -> dict[str, Any]:
        cost = verdict.cost
        return {
            "kind": verdict.kind,
            "fits": verdict.fits,
            "missing": verdict.missing,
            "reach": None if verdict.reach is None else verdict.reach.value,
            "answers": [answer._asdict() for answer in verdict.answers],
            "cost_ns": None if cost is None else cost.nanoseconds(self.message_bytes),
            "wake_us": None if cost is None else cost.wake_us,
            "cost_source": None if cost is None else cost.source,
        }

    def __str__(self) -> str:
        lines = [_HEADS, *self._rows()]
        widths = [max(len(line[at]) for line in lines) for at in range(len(_HEADS) - 1)]
        table = [
            "  ".join([*map(str.ljust, line[:-1], widths), line[-1]]).rstrip()
            for line in [lines[0], tuple("-" * width for width in (*widths, len(_HEADS[-1]))), *lines[1:]]
        ]
        return "\n".join([self._title(), "", *table, "", *self._conclusion()])

    def __rich__(self) -> "Table":
        from rich.table import Table  # only rich itself calls this

        table = Table(title=self._title(), caption="\n".join(self._conclusion()), caption_justify="left")
        for head in _HEADS:
            table.add_column(head, overflow="fold")
        for row in self._rows():
            table.add_row(*row, style="bold" if row[0] == self.choice else None)
        return table

    def _title(self) -> str:
        needs = ", ".join(f"{name}: {wanted}" for name, wanted in self.needs.declared().items())
        return f"{self.queue_id!r} ({self.queue_type}) needs {needs}"

    def _rows(self) -> Iterator[tuple[str, ...]]:
        for verdict in self.verdicts:
            taken = "taken" if verdict.kind == self.choice else "could be" if verdict.fits else "no"
            cost = "?" if verdict.cost is None else _time(verdict.cost.nanoseconds(self.message_bytes))
            yield verdict.kind, taken, cost, verdict.reason()

    def _conclusion(self) -> list[str]:
        taken = "no kind meets all needs" if self.choice is None else f"taken: {self.choice}"
        sources = sorted({each.cost.source for each in self.verdicts if each.cost is not None})
        cost = f"cost: a message of {self.message_bytes:,} bytes, put and got; source: {', '.join(sources) or 'none'}"
        return [taken, *(f"would change it: {text}" for text in self.would_change), cost]


def explained(descriptor: BaseQueueDescriptor) -> Explanation:
    """Explain a descriptor of a concrete kind; that of ``auto`` declares its needs and calls :func:`choose`."""
    needs = needs_of(descriptor)
    verdicts = verdicts_on(needs)
    own = next((each for each in verdicts if each.kind == descriptor.queue_type), None)
    choice = descriptor.queue_type if own is not None and own.fits else None
    return Explanation(
        queue_id=descriptor.queue_id,
        queue_type=descriptor.queue_type,
        needs=needs,
        message_bytes=DEFAULT_MESSAGE_BYTES,
        verdicts=verdicts,
        choice=choice,
        would_change=tuple(_other_kinds(verdicts, descriptor.queue_type, DEFAULT_MESSAGE_BYTES)),
    )


DEFAULT_MESSAGE_BYTES: Final = 64


def choose(
    queue_id: str, needs: Needs, message_bytes: int = DEFAULT_MESSAGE_BYTES, taken: str | None = None
) -> Explanation:
    """
    Choose the best of the kinds that meet all needs and can be used here; see :func:`rank`.

    Args:
        queue_id: The name of the queue, for the explanation.
        needs: What it must be able to do.
        message_bytes: Size of a typical message, for the cost.
        taken: The kind that was chosen earlier, which stays.
    """
    verdicts = verdicts_on(needs)
    choice = _best(verdicts, message_bytes) if taken is None else taken
    return Explanation(
        queue_id=queue_id,
        queue_type=AUTO,
        needs=needs,
        message_bytes=message_bytes,
        verdicts=verdicts,
        choice=choice,
        would_change=(
            *_fewer_needs(needs, choice, message_bytes),
            *_installations(verdicts, choice, message_bytes),
        ),
    )


def verdicts_on(needs: Needs) -> tuple[Verdict, ...]:
    """Ask every kind there is."""
    known = costs()
    return tuple(_verdict(name, needs, known.get(name)) for name in known_queue_types() if name != AUTO)


def _verdict(name: str, needs: Needs, cost: Cost | None) -> Verdict:
    try:
        kind = queue_kind(name)
    except (BackendUnavailableError, DescriptorError) as error:
        lacks = (
            f"{error.missing} is missing: {error.install}" if isinstance(error, BackendUnavailableError) else str(error)
        )
        return Verdict(name, (), lacks, cost, None)
    able = kind.capabilities
    return Verdict(name, answers_of(kind, needs), kind.missing_here(), cost, None if able is None else able.reach)


def rank(verdict: Verdict, message_bytes: int) -> tuple[int, float, str]:
    """
    Sort the best kind first: the one that reaches no farther than it must, and of these the cheapest.

    A farther reach costs more than time: a queue between threads carries any object, one between processes only what
    its codec takes, and it keeps a segment or a server busy.
    """
    farness = len(_FARTHEST_LAST) if verdict.reach is None else _FARTHEST_LAST.index(verdict.reach)
    return farness, _nanoseconds(verdict, message_bytes), verdict.kind


def _best(verdicts: tuple[Verdict, ...], message_bytes: int) -> str | None:
    fitting = [each for each in verdicts if each.fits]
    return min(fitting, key=partial(rank, message_bytes=message_bytes)).kind if fitting else None


def _nanoseconds(verdict: Verdict, message_bytes: int) -> float:
    return float("inf") if verdict.cost is None else verdict.cost.nanoseconds(message_bytes)


# -- What would change the choice -------------------------------------------------------------------------------------


def _fewer_needs(needs: Needs, choice: str | None, message_bytes: int) -> Iterator[str]:
    for name in needs.declared():
        relaxed = _without(needs, name)
        if relaxed is None:
            continue
        other = _best(verdicts_on(relaxed), message_bytes)
        if other not in (choice, None):
            what = f"a reach of {relaxed.farthest().value}" if name == "reach" else f"no need of {name}"
            yield f"{what} would give {other}"


def _without(needs: Needs, name: str) -> Needs | None:
    """Return the needs but for one; None where it cannot be left out."""
    if name != "reach":
        unneeded: dict[str, Any] = {name: Needs.__dataclass_fields__[name].default}
        return replace(needs, **unneeded)
    nearer = _NEARER.get(needs.farthest())
    return None if nearer is None else replace(needs, reach=nearer, producers=None, consumers=None)


def _installations(verdicts: tuple[Verdict, ...], choice: str | None, message_bytes: int) -> Iterator[str]:
    """Kinds that would be taken if they could be used here."""
    now = [rank(each, message_bytes) for each in verdicts if each.kind == choice]
    for each in verdicts:
        if each.meets and each.missing is not None and (not now or rank(each, message_bytes) < now[0]):
            yield f"{each.kind} would be taken if it could be used here: {each.missing}"


def _other_kinds(verdicts: tuple[Verdict, ...], own: str, message_bytes: int) -> Iterator[str]:
    """Kinds that meet the needs of a concrete descriptor as well and cost less."""
    now = next((_nanoseconds(each, message_bytes) for each in verdicts if each.kind == own), float("inf"))
    for each in verdicts:
        if each.kind != own and each.fits and _nanoseconds(each, message_bytes) < now:
            yield f"a descriptor of kind {each.kind}, which meets the same needs and is estimated to cost less"


def _time(nanoseconds: float) -> str:
    for limit, divisor, unit in ((1e3, 1, "ns"), (1e6, 1e3, "µs"), (float("inf"), 1e6, "ms")):
        if nanoseconds < limit:
            return f"{nanoseconds / divisor:.3g} {unit}"
    return f"{nanoseconds} ns"
