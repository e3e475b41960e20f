"""
A process that times benchmarks on demand, with the wheel of one side: ``python -m sage_sim.gate.driven``.

It reads one order a line on its standard input, and answers each with a line on its standard output::

    {"open": "seq[ring-64B]"}                  {}
    {"run": "seq[ring-64B]", "count": 5000}    {"ns": 101.2, "waited": 0.0}
    {"close": "seq[ring-64B]"}                 {}
    anything that fails                        {"error": "AttributeError: ..."}
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from sage_sim.gate.benchmarks import BENCHMARKS, Timed, waited_ns
from sage_sim.lifeline import die_with

LOOPS = 3
"""A sample is the fastest of so many loops: what slows one of them down is rarely what is measured."""


def sampled(timed: Timed, count: int) -> dict[str, float]:
    """Time a few short loops; what was spent waiting for a core counts over all of them."""
    loops, waited = [], waited_ns() + timed.waited()
    for _ in range(LOOPS):
        loops.append(timed.run(count))
    waited = waited_ns() + timed.waited() - waited
    return {"ns": min(loops) / count, "waited": waited / max(sum(loops), 1)}


def main() -> None:
    """Answer orders until there are no more."""
    import sage_qd

    conductor, namespace = int(sys.argv[1]), sys.argv[2]
    die_with(conductor)
    opened: dict[str, Timed] = {}
    _answer({"from": sage_qd.__file__})
    for line in sys.stdin:
        try:
            _answer(_obeyed(json.loads(line), opened, namespace))
        except Exception as error:  # noqa: BLE001  (an old wheel may lack anything; who asked decides what that means)
            _answer({"error": f"{type(error).__name__}: {error}"})
    for timed in reversed(opened.values()):  # a later one's second process has the pipes of earlier ones open
        timed.close()


def _obeyed(order: dict[str, Any], opened: dict[str, Timed], namespace: str) -> dict[str, Any]:
    match order:
        case {"open": name}:
            opened[name] = BENCHMARKS[name].make(f"{namespace}/gate-{os.getpid()}-{list(BENCHMARKS).index(name)}")
            return {}
        case {"run": name, "count": count}:
            return sampled(opened[name], count)
        case {"close": name}:
            opened.pop(name).close()
            return {}
    raise ValueError(f"unknown order {order!r}")


def _answer(fields: dict[str, Any]) -> None:
    print(json.dumps(fields), flush=True)


if __name__ == "__main__":
    main()
