"""How many times as fast ours are as queues of others: head and peer in turn, in one process, with wide margins."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from time import monotonic

from sage_sim.gate.benchmarks import BENCHMARKS
from sage_sim.gate.findings import Finding
from sage_sim.gate.rounds import Ending
from sage_sim.gate.rules import Shape
from sage_sim.gate.sides import Side, SideError
from sage_sim.gate.statistics import Interval, interval
from sage_sim.gate.timing import sized

LAYER = "shape"
_LEAST, _MOST = 5, 20


@dataclass(kw_only=True)
class Shaper:
    """
    Compares with others.

    Attributes:
        folder: Where the wheel of head is.
        namespace: Of the queues.
        words: A file for what the process writes on its standard error.
        seed: Decides the draws of the bootstrap.
        seconds: How long rounds of one comparison may begin.
        say: Told what is done.
    """

    folder: Path
    namespace: str
    words: Path
    seed: int
    seconds: float
    say: Callable[[str], None]

    def one(self, shape: Shape) -> Finding:
        """
        Compare once, and once more if that was no pass.

        Raises:
            HungError: The process does not answer.
        """
        name = f"{shape.subject} / {shape.against}"
        if (module := BENCHMARKS[shape.against].missing) is not None:
            return Finding(layer=LAYER, name=name, ending=Ending.LEFT_OUT, why=f"{module} is not installed")
        cores = len(os.sched_getaffinity(0))
        if cores < BENCHMARKS[shape.subject].processes:
            return Finding(layer=LAYER, name=name, ending=Ending.CANNOT, why=f"it needs two cores; there is {cores}")
        self.say(f"shape of {name}")
        ending, why, times = self._try(shape)
        if ending is not Ending.PASS:
            self.say("once more")
            ending, why, times = self._try(shape)
        figures = {"times": times, "ratio": shape.ratio, "margin": shape.margin, "why": shape.why}
        return Finding(layer=LAYER, name=name, ending=ending, why=why, figures=figures)

    def _try(self, shape: Shape) -> tuple[Ending, str, Interval | None]:
        pair, until, now = (shape.subject, shape.against), monotonic() + self.seconds, shape.subject
        try:
            with Side("head", self.folder, namespace=self.namespace, words=self.words) as side:
                counts, ratios = dict[str, int](), list[float]()
                for now in pair:
                    side.open(now)
                    counts[now] = sized(side, now)
                while True:
                    ns = []
                    for now in (*pair, *reversed(pair)):
                        ns.append(side.sample(now, counts[now]).ns)
                    ratios.append(sqrt(ns[1] * ns[2] / (ns[0] * ns[3])))
                    if len(ratios) >= _LEAST:
                        found = interval(ratios, seed=self.seed)
                        ending, why = shaped(found, shape)
                        if ending is not Ending.INCONCLUSIVE or len(ratios) >= _MOST or monotonic() > until:
                            return ending, why, found
        except SideError as error:
            ending = Ending.REGRESSION if now == shape.subject else Ending.INCONCLUSIVE
            return ending, f"{now}: {error}", None


def shaped(found: Interval, shape: Shape) -> tuple[Ending, str]:
    """What a ratio of speeds says: it fails where all of its interval is below what the margin leaves."""
    bound = shape.ratio / shape.margin
    told = f"{found.ratio:.3g} times as fast; {shape.ratio:g}, and at least {bound:.3g}, are right"
    if found.high < bound:
        return Ending.REGRESSION, told
    return (Ending.PASS if found.low >= bound else Ending.INCONCLUSIVE), told
