"""
A process that does countable work between marks: ``python -m sage_sim.gate.marked NAMESPACE FEW MANY NAME...``.

A mark is a call of ``getppid``, which nothing else here makes, and which every tool sees: it is a function of the C
library to valgrind, and a system call to strace. For each benchmark there is one before FEW operations, one before
MANY, and one after them; the difference of the two counts, over the difference of the numbers, is what one operation
costs.
"""

from __future__ import annotations

import gc
import os
import sys

from sage_sim.gate.benchmarks import BENCHMARKS

WARM_UP = 50
"""Operations before the first mark: the interpreter has then made of its bytecode what it will."""


def main() -> None:
    """Do the work."""
    namespace, few, many, *names = sys.argv[1:]
    gc.disable()  # or it runs once in so many operations, on one side of a mark or the other
    for at, name in enumerate(names):
        benchmark = BENCHMARKS[name]
        timed = benchmark.make(f"{namespace}/gate-{os.getpid()}-{at}")
        timed.run(WARM_UP * benchmark.count)
        os.getppid()
        timed.run(int(few) * benchmark.count)
        os.getppid()
        timed.run(int(many) * benchmark.count)
        os.getppid()
        timed.close()


if __name__ == "__main__":
    main()
