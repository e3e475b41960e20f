"""The queues of a run: the only module that knows which kinds of queue there are, and how each of them is opened."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol, cast

from sage_qd import (
    BaseQueueDescriptor,
    Queue,
    RayQueueDescriptor,
    RPCQueueDescriptor,
    SageQueueDescriptor,
    SharedMemoryQueueDescriptor,
    clean_shared_memory,
    resolve_descriptor,
)
from sage_qd.queues.shm_places import folder as shm_folder
from sage_qd.ring import clean_segments, list_segments
from sage_sim import ray_cluster
from sage_sim.foreign import FOREIGN, ForeignQueue
from sage_sim.promises import DESCRIPTORS, Home, home, is_durable
from sage_sim.ray_queues import DurableChannel
from sage_sim.topology import Edge

NAMESPACE = "sage-sim"
KINDS = (*DESCRIPTORS, *FOREIGN)


class Taken(Protocol):
    """A message on trial, as of :class:`sage_qd.Lease`."""

    @property
    def value(self) -> Any: ...  # noqa: D102
    @property
    def attempt(self) -> int: ...  # noqa: D102
    def ack(self) -> None: ...  # noqa: D102


class Channel(Protocol):
    """What a process of a run needs of a queue; all queues of the project have it, and the adapters of others."""

    def put(self, item: Any) -> None: ...  # noqa: D102
    def lease(self, block: bool = True, timeout: float | None = None) -> Taken: ...  # noqa: D102
    def shutdown(self) -> Any: ...  # noqa: D102
    def close(self) -> None: ...  # noqa: D102


@dataclass(frozen=True, kw_only=True)
class Server:
    """Where the queues of the RPC kind are: the server of a run, or the proxy before it."""

    port: int
    server_key: str | None = None
    key_file: str | None = None


def descriptor_of(
    run_id: str, name: str, edge: Edge, server: Server | None, nodes: Sequence[str] = ()
) -> BaseQueueDescriptor:
    """
    The descriptor of one queue of an edge.

    Args:
        run_id: Of the run, so that two of them do not meet.
        name: Of the queue.
        edge: What it has to be.
        server: For the RPC kind.
        nodes: The ids of those of the run's own Ray cluster.

    Raises:
        ValueError: A setting is unknown or out of its limits.
        TypeError: A setting has the wrong type.
    """
    queue_id, more = f"{run_id}.{name}", dict(edge.settings)
    if edge.kind == "sage_queue":
        return SageQueueDescriptor(
            queue_id, namespace=NAMESPACE, capacity_bytes=edge.capacity_bytes, maxsize=edge.max_items, **more
        )
    if edge.kind == "shm_queue":
        return SharedMemoryQueueDescriptor(queue_id, capacity_bytes=edge.capacity_bytes, maxsize=edge.max_items, **more)
    if edge.kind == "ray_queue":
        more |= {"node_id": nodes[edge.node]} if nodes else {}
        return RayQueueDescriptor(queue_id=queue_id, maxsize=max(edge.max_items, 1), **more)
    if server is None:
        raise ValueError(f"queue {name!r} needs a server")
    keys: dict[str, Any] = {} if server.server_key is None else {"server_key": server.server_key}
    if server.key_file is not None:
        keys |= {"key_file": server.key_file, "codec": "pickle", "allow_pickle": True}
    return RPCQueueDescriptor(queue_id, port=server.port, maxsize=edge.max_items or 1024, **keys | more)


def describe(run_id: str, name: str, edge: Edge, server: Server | None = None, nodes: Sequence[str] = ()) -> str:
    """One queue of an edge as text, for `create` and `open_queue`; kinds of others have no more than their name."""
    if edge.kind in FOREIGN:
        return json.dumps({"foreign": edge.kind, "name": name})
    return descriptor_of(run_id, name, edge, server, nodes).to_json()


def create(descriptor: str, edge: Edge) -> Channel:
    """
    Make the queue that a descriptor names.

    Raises:
        BackendUnavailableError: The library of the kind is not installed.
        SageQueueError: It could not be made.
        OSError: Likewise.
    """
    if "foreign" in (fields := json.loads(descriptor)):
        return FOREIGN[fields["foreign"]].create(max_items=edge.max_items, capacity_bytes=edge.capacity_bytes)
    named = resolve_descriptor(fields)
    if home(edge) is Home.ACTOR and is_durable(edge):
        return DurableChannel(named, owns=True)
    make = getattr(named, "create", None)
    return cast(Channel, named.open(create=True) if make is None else make())


def open_queue(descriptor: str, edge: Edge, carried: Mapping[str, ForeignQueue]) -> Channel:
    """
    Open the queue that another process made.

    Args:
        descriptor: What `describe` returned.
        edge: Whose it is.
        carried: Queues of other kinds, which came along with the process; by name.
    """
    fields = json.loads(descriptor)
    if "foreign" in fields:
        return carried[fields["name"]]
    named = resolve_descriptor(fields)
    if home(edge) is Home.ACTOR and is_durable(edge):
        return DurableChannel(named, owns=False)
    return cast(Channel, named.open(create=False))


def is_own(channel: object) -> bool:
    """Whether it is a queue of this project."""
    return isinstance(channel, Queue)


def missing_library(kind: str) -> str | None:
    """What has to be installed for a kind; None when nothing is missing. It is looked for, and not loaded."""
    wanted = dict.fromkeys(("ray_queue", "ray_util_queue"), ("ray", "ray"))
    wanted |= {"rpc_queue": ("zmq", "pyzmq"), "faster_fifo": ("faster_fifo", "faster-fifo")}
    if kind not in wanted:
        return None
    module, distribution = wanted[kind]
    if find_spec(module) is not None:
        return None
    return f"queues of the kind {kind} need {distribution}: pip install {distribution}"


def use_own_folder() -> None:
    """
    Keep the portable queues of this process and its children in a folder of their own, apart from those of programs.

    So that what runs left behind can be told from queues of others, and removed. The second time, and in a program that
    was started from one of ours, it only sees to it that the folder is there.
    """
    place = Path(os.environ.get("SAGE_QD_SHM_FOLDER") or "/dev/shm")
    if place.name != (own := f"sage-sim-{os.geteuid()}"):
        place /= own
    place.mkdir(mode=0o700, exist_ok=True)
    os.environ["SAGE_QD_SHM_FOLDER"] = str(place)


def segments_of(run_id: str) -> list[str]:
    """Paths of what a run has left in shared memory."""
    rings = [info.path for info in list_segments(NAMESPACE) if info.name.startswith(f"{run_id}.")]
    place = shm_folder()
    portable = sorted(str(path) for path in place.glob(f"*{run_id}.*")) if place.is_dir() else []
    return rings + portable


def remove_leftovers() -> list[str]:
    """Remove what runs left behind that were killed themselves, and return the paths; live runs are not touched."""
    use_own_folder()
    return [*clean_segments(NAMESPACE), *clean_shared_memory(), *ray_cluster.remove_leftovers()]
