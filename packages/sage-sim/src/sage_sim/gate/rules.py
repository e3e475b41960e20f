"""What a change may cost, as ``[regression]`` of ``benchmarks/gates.toml`` says it."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from sage_sim.files import FileError, Mistake, mistake_at, mistakes, parsed
from sage_sim.scenario import Part

TABLE = "regression"
Share = Annotated[float, Field(gt=0, le=10)]
Reason = Annotated[str, Field(min_length=1)]


class Pinned(Part):
    """
    A benchmark that has to be there.

    Attributes:
        name: As in `sage_sim.gate.benchmarks`.
        system_calls: How many one operation may make; None where nobody counts.
        why: Needed where there may be any.
    """

    name: str
    system_calls: float | None = Field(default=0, ge=0)
    why: str = ""


class Retired(Part):
    """A benchmark that used to be there, and why it went."""

    name: str
    why: Reason


class Shape(Part):
    """
    How much faster one of ours has to be than a queue of somebody else, in the same run.

    Attributes:
        subject: Ours.
        against: Theirs.
        ratio: What it is: so many times as fast.
        margin: It fails only where it is so many times below that.
        why: The reason.
    """

    subject: str
    against: str
    ratio: Annotated[float, Field(gt=0)]
    margin: Annotated[float, Field(ge=1)]
    why: Reason


class Rules(Part):
    """
    All of them.

    Attributes:
        one_process: How much slower a benchmark of one process may get: 0.07 is 7 %.
        processes: The same where there are more.
        instructions: How many more instructions an operation may take; and how many more bytes it may copy.
        allocations: How many more calls of the allocator an operation may make.
        confidence: Of the intervals.
        rounds_at_least: Before anything is decided.
        rounds_at_most: After which nothing more is tried.
        waiting: Share of a round without a core that makes it worthless.
        benchmarks: What has to be there.
        retired: What no longer has to.
        shapes: What has to be faster than others.
    """

    one_process: Share
    processes: Share
    instructions: Share
    allocations: Annotated[float, Field(ge=0)]
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    rounds_at_least: int = Field(default=10, ge=5)
    rounds_at_most: int = Field(default=40, ge=5)
    waiting: Share = 0.1
    benchmarks: tuple[Pinned, ...] = Field(min_length=1)
    retired: tuple[Retired, ...] = ()
    shapes: tuple[Shape, ...] = ()

    def problems(self, known: set[str]) -> Iterator[tuple[tuple[str | int, ...], str]]:
        """What is wrong with the whole, and where; `known` are the names that can be measured."""
        if self.rounds_at_most < self.rounds_at_least:
            yield ("rounds_at_most",), f"{self.rounds_at_most} is less than rounds_at_least, {self.rounds_at_least}"
        seen: set[str] = set()
        for at, pinned in enumerate(self.benchmarks):
            if pinned.name in seen:
                yield ("benchmarks", at, "name"), f"{pinned.name!r} is there twice"
            if pinned.system_calls and not pinned.why:
                yield ("benchmarks", at, "system_calls"), "a call of the system needs a reason: why = ..."
            seen.add(pinned.name)
        for at, gone in enumerate(self.retired):
            if gone.name in seen:
                yield ("retired", at, "name"), f"{gone.name!r} is also among the benchmarks"
        for at, shape in enumerate(self.shapes):
            for end in ("subject", "against"):
                if (name := getattr(shape, end)) not in known:
                    yield ("shapes", at, end), f"there is no benchmark {name!r}; known are: {', '.join(sorted(known))}"


def read_rules(path: Path, known: set[str]) -> Rules:
    """
    Read them.

    Args:
        path: The file.
        known: Names of what can be measured.

    Raises:
        FileError: It is wrong; has all that is wrong with it, not just the first.
        OSError: It cannot be read.
    """
    raw, lines = parsed(path)
    if TABLE not in raw:
        raise FileError(path, [Mistake(line=None, place=TABLE, text="is missing: nothing says what is too slow")])
    try:
        rules = Rules.model_validate(raw[TABLE])
    except ValidationError as error:
        found = mistakes(error, Rules, lines, (TABLE,))
        raise FileError(path, sorted(found, key=lambda mistake: mistake.line or 0)) from None
    wrong = [mistake_at((TABLE, *place), text, lines) for place, text in rules.problems(known)]
    if wrong:
        raise FileError(path, wrong)
    return rules


def pinned_in(text: str) -> set[str]:
    """Names that an older version of the file pins; none where it is no such file."""
    try:
        table = tomllib.loads(text).get(TABLE, {})
        return {str(one["name"]) for one in table.get("benchmarks", ())}
    except (tomllib.TOMLDecodeError, AttributeError, KeyError, TypeError):
        return set()


def vanished(rules: Rules, known: set[str], before: set[str]) -> list[str]:
    """
    What is wrong with the set of benchmarks: a name that is pinned and that nobody can measure, or that was dropped.

    Args:
        rules: Of head.
        known: Names of what can be measured.
        before: Names that base pins.
    """
    pinned, retired = {one.name for one in rules.benchmarks}, {one.name for one in rules.retired}
    gone = [f"{name} is pinned, and there is no such benchmark" for name in sorted(pinned - known)]
    dropped = sorted(before - pinned - retired)
    return gone + [f"{name} is pinned by base, and no longer here; say why under retired" for name in dropped]
