"""Puts a broken queue under every worker of a run: PLANT says how the 100th put of each of them goes wrong."""

import os
import sys
from typing import Any

HUNDREDTH, NEXT = 100, 101


def plant(how: str) -> None:
    from sage_qd.queues.sage_ring import SageQueue

    make = SageQueue.__init__

    def broken(self: Any, *arguments: Any, **settings: Any) -> None:
        make(self, *arguments, **settings)
        put, seen = self.put, []

        def broken_put(message: object) -> None:
            seen.append(message)
            if len(seen) == HUNDREDTH and how in ("lose", "swap"):
                return
            put(message)
            if len(seen) == HUNDREDTH and how == "double":
                put(message)
            if len(seen) == NEXT and how == "swap":
                put(seen[-2])

        self.put = broken_put

    SageQueue.__init__ = broken  # type: ignore[method-assign]


if "PLANT" in os.environ and "sage_sim.worker" in sys.orig_argv:
    plant(os.environ["PLANT"])
