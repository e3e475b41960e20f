"""The other processes of a run: the server of RPC queues, the proxy before it, and a Ray cluster of its own."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sage_sim import ray_cluster
from sage_sim.channels import Server
from sage_sim.host import Hosting
from sage_sim.nurse import SetupError
from sage_sim.proxy import Proxying
from sage_sim.ray_nodes import Noding
from sage_sim.topology import node_name

_SECONDS_TO_BEGIN = 60.0
_SECONDS_TO_LEAVE = 5.0
_NODE_SECONDS_TO_BEGIN, _NODES_SECONDS_TO_LEAVE = 60.0, 30.0


class Companion:
    """
    A process that serves those of the crew, and tells where.

    Args:
        module: What it runs.
        words: Where what it writes on its standard error goes.
        seconds_to_begin: How long it may take.
        seconds_to_leave: Likewise, before it is ended by force.
    """

    def __init__(
        self,
        module: str,
        words: Path,
        *,
        seconds_to_begin: float = _SECONDS_TO_BEGIN,
        seconds_to_leave: float = _SECONDS_TO_LEAVE,
    ) -> None:
        self._module = module
        self._words = words
        self._seconds_to_begin = seconds_to_begin
        self._seconds_to_leave = seconds_to_leave

    def start(self, task: Hosting | Proxying | Noding, ready: tuple[int, int]) -> dict[str, Any]:
        """
        Start it, and return what it tells.

        Raises:
            SetupError: It ended, or said nothing.
        """
        told, tell = ready
        try:
            with self._words.open("xb") as words:
                self.child = subprocess.Popen(
                    [sys.executable, "-P", "-m", self._module, json.dumps(asdict(task))],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=words,
                    pass_fds=(tell,),
                    process_group=0,
                )
        except OSError as error:
            raise SetupError(f"{self._module} could not be started: {error}") from error
        finally:
            os.close(tell)
        with selectors.DefaultSelector() as selector, os.fdopen(told, "rb") as lines:
            selector.register(lines, selectors.EVENT_READ)
            line = lines.readline() if selector.select(self._seconds_to_begin) else b""
        if not line:
            self.end()
            raise SetupError(f"{self._module} did not begin\n{self._words.read_text(errors='replace')}".rstrip())
        answer: dict[str, Any] = json.loads(line)
        return answer

    def order(self, **order: object) -> None:
        """Tell it to do something, and wait until it has."""
        assert self.child.stdin is not None
        assert self.child.stdout is not None
        self.child.stdin.write(json.dumps(order).encode() + b"\n")
        self.child.stdin.flush()
        self.child.stdout.readline()

    def end(self) -> None:
        """End it, in good order if it can."""
        self.child.terminate()
        try:
            self.child.wait(self._seconds_to_leave)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()
        for stream in (self.child.stdin, self.child.stdout):
            if stream is not None:
                stream.close()


def start_server(folder: Path, *, with_keys: bool) -> tuple[Companion, Server]:
    """Start the server of a run, whose folder also gets its keys."""
    told, tell = os.pipe2(os.O_CLOEXEC)
    companion = Companion("sage_sim.host", folder / "server.stderr")
    keys = str(folder / "keys") if with_keys else None
    answer = companion.start(Hosting(conductor=os.getpid(), ready=tell, keys=keys), (told, tell))
    return companion, Server(
        port=answer["port"],
        server_key=answer["key"],
        key_file=None if keys is None else str(Path(keys, "client")),
    )


def start_proxy(folder: Path, server: Server) -> tuple[Companion, Server]:
    """Start a proxy before a server; the way through it is the second result."""
    told, tell = os.pipe2(os.O_CLOEXEC)
    companion = Companion("sage_sim.proxy", folder / "proxy.stderr")
    answer = companion.start(Proxying(conductor=os.getpid(), ready=tell, port=server.port), (told, tell))
    return companion, Server(port=answer["port"], server_key=server.server_key, key_file=server.key_file)


class Nodes:
    """
    The Ray cluster of a run, on this host.

    Args:
        folder: For what it writes on its standard error.
        count: How many nodes it has; the first one is the head, and the processes of the run are on it.

    Raises:
        SetupError: It could not be started.
    """

    def __init__(self, folder: Path, count: int) -> None:
        told, tell = os.pipe2(os.O_CLOEXEC)
        self._companion = Companion(
            "sage_sim.ray_nodes",
            folder / "nodes.stderr",
            seconds_to_begin=_NODE_SECONDS_TO_BEGIN * count,
            seconds_to_leave=_NODES_SECONDS_TO_LEAVE,
        )
        answer = self._companion.start(Noding(conductor=os.getpid(), ready=tell, nodes=count), (told, tell))
        self.address: str = answer["address"]
        self.ids: list[str] = answer["ids"]
        self.folder = Path(answer["folder"])
        self._dead: set[int] = set()
        self._lock = ray_cluster.hold(self.folder)

    @property
    def others(self) -> list[str]:
        """The nodes that live and can be killed: all but the head."""
        return [node_name(at) for at in range(1, len(self.ids)) if at not in self._dead]

    def kill(self, name: str) -> None:
        """Kill all processes of a node."""
        at = next(at for at in range(len(self.ids)) if node_name(at) == name)
        self._companion.order(kill=at)
        self._dead.add(at)

    def unnoticed(self) -> bool:
        """Whether Ray takes a node to be alive that was killed."""
        return bool(self._dead) and not ray_cluster.living_nodes().isdisjoint(self.ids[at] for at in self._dead)

    def end(self) -> None:
        """End it, with all that is in it."""
        os.close(self._lock)
        self._companion.end()
