"""The rows of `bench_queues.py` whose contenders are whole programs: servers, a Ray cluster, fresh interpreters."""

from __future__ import annotations

import importlib
import importlib.util
import json
import signal
import subprocess
import sys
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from administration import IDLE_SECONDS
from arena import Arena, Measured, take_turns
from channels import SMALL, Channel
from crew import Crew, CrewError
from kinds import LocalQueue, RpcQueue, ShmQueue, idle, idle_thread
from ours import SageQueue
from references import MultiprocessingQueue, ThreadQueue
from topologies import Job

ROUNDS = 3  # of rows whose contenders start several processes each time
NOT_INSTALLED = "not installed"


# -- a server ----------------------------------------------------------------------------------------------------------


def over_a_socket() -> list[Measured]:
    """Thousands of 64-byte messages a second over a loopback socket; see rpc_channels.py."""
    names = ("sage-qd rpc, streamed", "sage-qd rpc, batches", "bare PUSH/PULL", "manager")
    if importlib.util.find_spec("zmq") is None:
        return [Measured(name, problem=NOT_INSTALLED) for name in names]
    rpc = importlib.import_module("rpc_channels")
    ways = (
        partial(rpc.ours, 60_000, kind="ring", encrypted=True),
        partial(rpc.ours, 100_000, kind="ring", encrypted=True, ack="auto"),
        partial(rpc.bare, 200_000),
        partial(rpc.managed, 5_000),
    )

    def thousands(way: Any) -> dict[str, float]:
        return {"value": way() / 1e3}

    return take_turns({name: partial(thousands, way) for name, way in zip(names, ways, strict=True)}, ROUNDS)


# -- Ray ---------------------------------------------------------------------------------------------------------------

RAY_SECONDS = 240.0


def on_ray(place: str) -> list[Measured]:
    """Thousands of items a second at ``home`` or ``across``; see ray_channels.py."""
    return [
        ray_figures("sage-qd ray", f"{place}, ours", 1e3),
        ray_figures("ray.util.queue", f"{place}, ray.util.queue", 1e3),
    ]


def ray_figures(name: str, key: str, per: float, script: str = "ray_channels.py") -> Measured:
    """One line made of what a program says that starts a cluster of its own."""
    said = ray_program(script)
    if isinstance(said, str):
        return Measured(name, problem=said)
    return Measured(name, {"value": [value / per for value in said[key]]})


@lru_cache(maxsize=2)
def ray_program(script: str) -> dict[str, list[float]] | str:
    """Run a program once, in a process of its own; its figures, or why there are none."""
    if importlib.util.find_spec("ray") is None:
        return NOT_INSTALLED
    words = [sys.executable, str(Path(__file__).with_name(script)), "--json", "--rounds", str(ROUNDS)]
    program = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        said, errors = program.communicate(timeout=RAY_SECONDS)
    except subprocess.TimeoutExpired:
        program.send_signal(signal.SIGINT)  # so that it stops its cluster
        program.communicate()
        return f"hung: no figures within {RAY_SECONDS:.0f} s"
    if program.returncode:
        return f"failed: {(errors.strip().splitlines() or ['no words'])[-1]}"
    figures: dict[str, list[float]] = json.loads(said.strip().splitlines()[-1])
    return figures


# -- the idle consumer -------------------------------------------------------------------------------------------------


def idle_consumers(arena: Arena) -> list[Measured]:
    """All kinds at the same time, some processes each, since a sleeper does not disturb the others."""
    kinds: list[type[Channel]] = [SageQueue, LocalQueue, ShmQueue, RpcQueue, MultiprocessingQueue, ThreadQueue]
    measured = [Measured(kind.name, problem=kind.missing()) for kind in kinds]
    crews: list[tuple[Measured, Crew]] = []
    try:
        for one, kind in zip(measured, kinds, strict=True):
            topology = (idle_thread if issubclass(kind, LocalQueue | ThreadQueue) else idle)(IDLE_SECONDS)
            for _ in range(0 if one.problem else ROUNDS):
                try:
                    crews.append((one, Crew(kind, topology, SMALL, arena.new_folder())))
                except CrewError as failure:
                    one.problem = str(failure)
        for _, crew in crews:
            crew.begin(Job(1))
        for one, crew in crews:
            try:
                one.add(crew.finish(Job(1)))
            except CrewError as failure:
                one.problem = str(failure)
    finally:
        for _, crew in reversed(crews):  # later crews were forked with what earlier ones had open
            crew.close()
    return [*measured, ray_figures("sage-qd ray", "idle, ours", 1.0)]


# -- importing ---------------------------------------------------------------------------------------------------------

IMPORT_ROUNDS = 9
IMPORT = "import time; start = time.perf_counter_ns(); import {0}; print(time.perf_counter_ns() - start)"


def imports() -> list[Measured]:
    """Milliseconds to import modules in an interpreter that has just started."""
    modules = {
        "sage-qd": "sage_qd",
        "sage-qd ring": "sage_qd.ring",
        "sage-qd monitor": "sage_qd.monitor",
        "sage-qd command line": "sage_qd.cli.app",
        "multiprocessing.queues": "multiprocessing.queues",
        "asyncio": "asyncio",
    }

    def once(module: str) -> dict[str, float]:
        words = [sys.executable, "-c", IMPORT.format(module)]
        return {"value": int(subprocess.run(words, capture_output=True, check=True).stdout) / 1e6}

    return take_turns({name: partial(once, module) for name, module in modules.items()}, IMPORT_ROUNDS)
