"""
The times of two wheels, measured in turn until there is a verdict.

Every round has processes of its own: where memory lies makes one process slower than another of the same code, for all
of its life. Addresses are not random, where the system allows that, and what moves them in a round moves those of all
sides alike (Mytkowicz et al., "Producing wrong data without doing anything obviously wrong", 2009).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import monotonic

from sage_sim.gate.benchmarks import BENCHMARKS
from sage_sim.gate.findings import Finding
from sage_sim.gate.rounds import SIDES, Ending, Limits, Round, Timing, judged, measured, settled
from sage_sim.gate.rules import Rules
from sage_sim.gate.sides import Side, SideError

LAYER = "time"
_LOOP_NS = {1: 3e6, 2: 10e6}
"""How long one loop is meant to take, by number of processes: long enough for the clock, short enough for many."""
_MOST = 1 << 22
_PAGE = 4096


@dataclass
class Timings:
    """
    What was found, and all that it was found from.

    Attributes:
        findings: The verdicts.
        rounds: Every round of the last try, by benchmark.
    """

    findings: list[Finding] = field(default_factory=list)
    rounds: dict[str, list[Round]] = field(default_factory=dict)


@dataclass(kw_only=True)
class Timer:
    """
    Times benchmarks.

    Attributes:
        folders: Where the wheels are, by side; `again` is the same as `base`.
        rules: What is too slow.
        namespace: Of the queues.
        words: A file for what the processes write on their standard error.
        seed: Decides the order of sides, and the draws of the bootstrap.
        seconds: How long rounds may begin: half of it for the first try, half for the second.
        say: Told what is done.
    """

    folders: Mapping[str, Path]
    rules: Rules
    namespace: str
    words: Path
    seed: int
    seconds: float
    say: Callable[[str], None]

    def all(self, names: Sequence[str]) -> Timings:
        """
        Time each benchmark; what does not pass is tried once more.

        Raises:
            HungError: One does not answer.
        """
        found = Timings()
        first = self._try(names, found)
        again = [name for name, timing in first.items() if timing.ending is not Ending.PASS]
        if again:
            self.say(f"once more: {', '.join(again)}")
        second = self._try(again, found)
        for name, timing in first.items():
            last = settled(timing, second[name]) if name in second else timing
            figures = {"rounds": last.rounds, "disturbed": last.disturbed, "head": last.head, "guard": last.guard}
            found.findings.append(Finding(layer=LAYER, name=name, ending=last.ending, why=last.why, figures=figures))
        return found

    def _try(self, names: Sequence[str], found: Timings) -> dict[str, Timing]:
        """A verdict for each; what one leaves of its time is for those that come after it."""
        timings: dict[str, Timing] = {}
        until = monotonic() + self.seconds / 2
        for left, name in zip(range(len(names), 0, -1), names, strict=True):
            self.say(f"time of {name}")
            try:
                timings[name], found.rounds[name] = self._one(name, (until - monotonic()) / left)
            except SideError as error:
                ending = Ending.REGRESSION if error.side == "head" else Ending.INCONCLUSIVE
                timings[name] = Timing(ending=ending, why=f"{error.side}: {error}", rounds=0, disturbed=0)
        return timings

    def _one(self, name: str, seconds: float) -> tuple[Timing, list[Round]]:
        """Until there is a verdict."""
        draw, limits, until = random.Random(f"{self.seed} {name}"), self.limits(name), monotonic() + seconds
        with Side("base", self.folders["base"], namespace=self.namespace, words=self.words) as side:
            side.open(name)
            count = sized(side, name)
        rounds, timing = list[Round](), None
        while timing is None:
            rounds.append(self._round(name, count, draw, limits.waiting))
            if monotonic() > until:
                limits = replace(limits, most=len(rounds))
            timing = judged(rounds, limits, self.seed)
        return timing, rounds

    def _round(self, name: str, count: int, draw: random.Random, waiting: float) -> Round:
        with ExitStack() as stack:
            sides = {side: stack.enter_context(one) for side, one in self._started(draw)}
            for one in sides.values():
                one.open(name)
            return measured(draw, lambda side: sides[side].sample(name, count), waiting)

    def _started(self, draw: random.Random) -> Iterator[tuple[str, Side]]:
        """New processes, whose environments are equally long, as the paths of their wheels need not be."""
        length = draw.randrange(_PAGE) + max(len(str(folder)) for folder in self.folders.values())
        for side in draw.sample(SIDES, len(SIDES)):
            folder = self.folders[side]
            padding = length - len(str(folder))
            yield side, Side(side, folder, namespace=self.namespace, words=self.words, padding=padding)

    def limits(self, name: str) -> Limits:
        """Of one benchmark."""
        alone = BENCHMARKS[name].processes == 1
        return Limits(
            slower=self.rules.one_process if alone else self.rules.processes,
            least=self.rules.rounds_at_least,
            most=self.rules.rounds_at_most,
            confidence=self.rules.confidence,
            waiting=self.rules.waiting,
        )


def sized(side: Side, name: str) -> int:
    """How many operations make a loop that is long enough."""
    benchmark = BENCHMARKS[name]
    count, wanted = benchmark.count, _LOOP_NS[benchmark.processes]
    while count < _MOST:
        spent = side.sample(name, count).ns * count
        if spent >= wanted / 2:
            break
        growth = min(16.0, wanted / max(spent, 1.0))
        count = max(int(count * growth) // benchmark.count, 2 * count // benchmark.count) * benchmark.count
    return count
