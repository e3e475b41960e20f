"""The door to Ray: joins the cluster that is there, or starts one for a run, whose nodes can be killed."""

from __future__ import annotations

import fcntl
import os
import secrets
import select
import shutil
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import psutil

from sage_qd import SageQueueError
from sage_qd.ring import attach, list_segments

_SECONDS_TO_ANSWER = 5.0
_ACTORS = "sage-qd/"
"""As the names of actors that own queues begin."""
_FOLDERS = Path("/tmp")  # wherever temporary files go: the path of a socket may have 107 characters, and Ray adds 80
_NOTED = "rings"
"""The file in the folder of a cluster that says which rings its queues have: they outlive actors that are killed."""
_NAMESPACE = "ray"
"""Of those rings."""
_SECONDS_TO_DIE = 10.0
_NODE: dict[str, Any] = {
    "num_cpus": 0,  # actors of queues need none, and Ray starts a spare worker for each
    "object_store_memory": 80_000_000,  # hardly more than the least that it takes; used only as far as it is needed
    "include_dashboard": False,
    "node_ip_address": "127.0.0.1",
}
_HEAD: dict[str, Any] = {"_system_config": {"health_check_initial_delay_ms": 1000, "health_check_period_ms": 500}}
"""Ask each node more often whether it lives; how long a busy one may take to answer stays as it is."""

_ON_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""Ray's name for not to replace 127.0.0.1 by an address that others reach."""


def join() -> None:
    """
    Join the cluster that ``RAY_ADDRESS`` names, or the one on this host.

    Raises:
        OSError: There is none.
    """
    import ray

    address = os.environ.get("RAY_ADDRESS") or "auto"
    host, _, port = address.rpartition(":")
    if host and port.isdigit() and "/" not in host:  # Ray itself would try for minutes
        socket.create_connection((host, int(port)), _SECONDS_TO_ANSWER).close()
    ray.init(
        address=address,
        namespace="sage-sim",
        log_to_driver=False,
        logging_level="error",
        configure_logging=False,
    )
    ray._private.worker._worker_logs_enabled = False  # or Ray would print into our output that a node is dead


def leave() -> None:
    """Leave it."""
    import ray

    ray.shutdown()
    ray._private.worker._worker_logs_enabled = True


def kill_actor(queue_id: str, namespace: str) -> bool:
    """Kill the process of the actor that owns a queue; whether there was one. A durable one is started again by Ray."""
    import ray

    try:
        actor = ray.get_actor(f"{_ACTORS}{queue_id}", namespace)
    except ValueError:
        return False
    ray.kill(actor, no_restart=False)
    return True


def living_nodes() -> set[str]:
    """The ids of the nodes that Ray takes to be alive."""
    import ray

    return {node["NodeID"] for node in ray.nodes() if node["Alive"]}


class PeerQueue:
    """
    A ``ray.util.queue.Queue``, found by the name of its actor in every process that has joined the cluster.

    Args:
        name: Of the actor.
        maxsize: Its bound in messages.
        makes: Whether to make it, and to end it with `close`; otherwise it is looked for when it is first used.
    """

    def __init__(self, name: str, maxsize: int, *, makes: bool = False) -> None:
        self._name, self._maxsize, self._makes = name, maxsize, makes
        self._queue: Any = None
        if makes:
            from ray.util.queue import Queue

            self._queue = Queue(maxsize, actor_options={"name": name, "num_cpus": 0})

    def __reduce__(self) -> tuple[Any, ...]:
        """Its name travels."""
        return PeerQueue, (self._name, self._maxsize)

    def put(self, item: Any, block: bool, timeout: float | None = None) -> None:
        """As in the standard library."""
        self._found().put(item, block, timeout)

    def get(self, block: bool, timeout: float | None = None) -> Any:
        """As in the standard library."""
        return self._found().get(block, timeout)

    def close(self) -> None:
        """End it, if it was made here."""
        if self._makes:
            self._queue.shutdown(force=True)

    def _found(self) -> Any:
        if self._queue is None:
            import ray
            from ray.util.queue import Queue

            self._queue = Queue.__new__(Queue)  # its own way would make another actor
            self._queue.maxsize, self._queue.actor = self._maxsize, ray.get_actor(self._name)
        return self._queue


# -- A cluster of our own ---------------------------------------------------------------------------------------------


def prepare() -> None:
    """
    Have Ray stay on the loopback, and let nobody in who does not know a word that only we and our children know.

    It is so for the rest of the life of this process. Where the environment says already whom Ray lets in, that holds.

    Raises:
        RuntimeError: This process has loaded Ray already, which reads it then.
    """
    if _ON_LOOPBACK.items() <= os.environ.items():
        return
    if "ray" in sys.modules:
        raise RuntimeError("this process has loaded Ray already, so it is too late to keep it on the loopback")
    os.environ |= _ON_LOOPBACK
    if "RAY_AUTH_MODE" not in os.environ:
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}


class Nodes:
    """
    The nodes of a cluster, all on this host; the calling process has no other children.

    Args:
        folder: Where Ray keeps sockets and logs.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._raylets: list[int] = []
        self.address = ""
        self.ids: list[str] = []

    def start(self, count: int) -> None:
        """Start so many; the first one is the head."""
        os.environ.pop("RAY_ADDRESS", None)
        os.environ |= {"RAY_TMPDIR": str(self._folder), "RAY_USAGE_STATS_ENABLED": "0"}
        (self._folder / "ray").mkdir()
        from ray.cluster_utils import Cluster

        cluster = Cluster(initialize_head=True, head_node_args=_NODE | _HEAD)
        nodes = [cluster.head_node, *(cluster.add_node(**_NODE) for _ in range(1, count))]
        self._raylets = [node.all_processes["raylet"][0].process.pid for node in nodes]
        self.ids = [node.node_id for node in nodes]
        self.address = cluster.address

    def kill(self, at: int) -> None:
        """Kill all processes of one node, and wait until they are gone."""
        raylet = psutil.Process(self._raylets[at])
        raylet.suspend()  # so that it starts no more of them, and forgets none
        victims = [os.pidfd_open(process.pid) for process in (*raylet.children(recursive=True), raylet)]
        for victim in victims:
            signal.pidfd_send_signal(victim, signal.SIGKILL)
        for victim in victims:
            select.select([victim], [], [])
            os.close(victim)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:  # Ray waits for a dead raylet that nobody reaps
                pass

    def end(self) -> None:
        """Kill everything, and remove the memory of the queues that were there."""
        with suppress(ChildProcessError):
            while True:
                for process in psutil.Process().children(recursive=True):
                    with suppress(psutil.NoSuchProcess):
                        process.kill()
                os.waitpid(-1, 0)
        _remove_rings(self._folder)


# -- What it leaves ---------------------------------------------------------------------------------------------------


@contextmanager
def own_folder() -> Iterator[Path]:
    """A new folder for a cluster, held as long as this process lives, and removed in the end."""
    while True:
        folder = Path(mkdtemp(prefix=_prefix(), dir=_FOLDERS))
        with suppress(FileNotFoundError):
            lock = hold(folder)
            if folder.exists():
                break  # it was not taken for a leftover before we held it
            os.close(lock)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)
        os.close(lock)


def hold(folder: Path) -> int:
    """Say that the folder of a cluster is no leftover, with a descriptor that has to stay open; death closes it."""
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(lock, fcntl.LOCK_SH)
    return lock


def note_ring(folder: Path, instance: str) -> None:
    """Note in the folder of a cluster that a queue of it has that ring."""
    with (folder / _NOTED).open("a", encoding="ascii") as file:
        file.write(f"{instance}\n")


def remove_leftovers() -> list[str]:
    """End and remove what is left of the clusters of runs that were killed, and return their folders."""
    removed = []
    for folder in sorted(_FOLDERS.glob(f"{_prefix()}*")):
        with suppress(FileNotFoundError, NotADirectoryError, PermissionError):  # gone by now, or of somebody else
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                if os.fstat(lock).st_uid == os.geteuid():
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    if _is_dead(folder):
                        _remove_rings(folder)
                        shutil.rmtree(folder)
                        removed.append(str(folder))
            except BlockingIOError:
                continue  # its run goes on
            finally:
                os.close(lock)
    return removed


def _is_dead(folder: Path) -> bool:
    """Kill all others that have a file of this folder open: they are of a run that is dead. Whether all are gone."""
    theirs = [process for process in psutil.process_iter() if process.pid != os.getpid() and _uses(process, folder)]
    for process in theirs:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    return not psutil.wait_procs(theirs, _SECONDS_TO_DIE)[1]


def _uses(process: psutil.Process, folder: Path) -> bool:
    try:
        return any(Path(file.path).is_relative_to(folder) for file in process.open_files())
    except psutil.Error:  # it is gone, or of somebody else
        return False


def _prefix() -> str:
    return f"sim{os.geteuid()}-"


def _remove_rings(folder: Path) -> None:
    """Remove the rings of the queues of a cluster that is dead."""
    noted = set((folder / _NOTED).read_text(encoding="ascii").split()) if (folder / _NOTED).exists() else set()
    for found in list_segments(_NAMESPACE) if noted else ():
        with suppress(SageQueueError), attach(found.name, namespace=_NAMESPACE) as ring:  # others may be anything
            if ring.instance in noted:
                ring.unlink()
