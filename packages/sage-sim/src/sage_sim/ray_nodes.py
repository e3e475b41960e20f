"""
The Ray cluster of a run: ``python -m sage_sim.ray_nodes``, started by the conductor and by nobody else.

All nodes are on this host, on the loopback, and their processes are below this one. It kills those of one node when it
is told to, and all of them when the conductor ends it, or ends; then it removes what they left. What it leaves itself
when it is killed, `ray_cluster.remove_leftovers` finds.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import dataclass
from types import FrameType

from sage_sim import ray_cluster
from sage_sim.lifeline import EXIT_STOPPED, die_with
from sage_sim.nurse import take_orphans


@dataclass(frozen=True, kw_only=True)
class Noding:
    """
    What there has to be; its only argument, as JSON.

    Attributes:
        conductor: Process id of the parent.
        ready: File descriptor on which to tell the address, the folder, and the id of each node.
        nodes: How many.
    """

    conductor: int
    ready: int
    nodes: int


def main() -> None:
    """Keep the nodes until the conductor ends it, or ends."""
    noding = Noding(**json.loads(sys.argv[1]))
    die_with(noding.conductor)
    take_orphans(True)
    with ray_cluster.own_folder() as folder:
        nodes = ray_cluster.Nodes(folder)
        try:
            nodes.start(noding.nodes)
            signal.signal(signal.SIGTERM, _leave)  # Ray has put a handler of its own there
            told = {"address": nodes.address, "folder": str(folder), "ids": nodes.ids}
            os.write(noding.ready, json.dumps(told).encode() + b"\n")
            for line in sys.stdin:
                nodes.kill(json.loads(line)["kill"])
                print("done", flush=True)
        finally:
            nodes.end()


def _leave(_signal: int, _frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(EXIT_STOPPED)


if __name__ == "__main__":
    main()
