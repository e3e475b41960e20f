"""One queue in full: settings, counters, latencies, who uses it and how, and files of large messages."""

import os
from dataclasses import asdict
from typing import Any, Final

from sage_qd.codecs import codec_name
from sage_qd.descriptors import BaseQueueDescriptor
from sage_qd.errors import NotShareableError, QueueNotFoundError
from sage_qd.monitor import portable
from sage_qd.monitor.processes import label_of, process_of_thread, sleeps
from sage_qd.monitor.rings import KIND, SeenRing, seen_ring, seen_rings, where_named
from sage_qd.monitor.states import QueueState, state_of
from sage_qd.ring.spill import SpillFiles

__all__ = ["SCHEMA", "inspect_queue", "inspect_ring"]

SCHEMA: Final = "sage-qd.inspection/1"
QUANTILES: Final = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p999": 0.999, "max": 1.0}


def inspect_queue(name: str) -> dict[str, Any]:
    """
    Inspect the queue that a text names, as JSON-ready data.

    A queue between the processes of this host is looked at from outside. Of other kinds, which can only be asked, the
    queue is opened (never made) for its ``stats()``.

    Args:
        name: A queue id or ``namespace/queue id`` of a queue of this host; of any queue a URI, or a descriptor as JSON.

    Raises:
        QueueNotFoundError: There is no such queue.
        ValueError: The name fits several queues; or it is a descriptor that cannot be read (`DescriptorError`).
        SageQueueError: It cannot be inspected; says why.
    """
    if name.lstrip().startswith("{") or "://" in name:
        return _inspect_descriptor(_descriptor(name))
    rings = [ring for ring in seen_rings() if name in (ring.queue_id, ring.name)]
    states = [state for state in portable.list_states() if name == state.queue_id]
    if len(rings) + len(states) > 1:
        found = [f"{KIND} {ring.name}" for ring in rings] + [f"{state.kind} {state.name}" for state in states]
        raise ValueError(f"{name!r} fits {len(found)} queues: {', '.join(found)}; give namespace/name, or a URI")
    if not rings and not states:
        raise QueueNotFoundError(name=name)
    return inspect_ring(rings[0]) if rings else _inspect_state(states[0])


def _inspect_state(state: QueueState) -> dict[str, Any]:
    """What is known of a queue of whatever kind."""
    return {"schema": SCHEMA, **state.as_dict()}


def _descriptor(text: str) -> BaseQueueDescriptor:
    if text.lstrip().startswith("{"):
        return BaseQueueDescriptor.from_json(text)
    return BaseQueueDescriptor.from_uri(text)


def _inspect_descriptor(descriptor: BaseQueueDescriptor) -> dict[str, Any]:
    if not descriptor.can_serialize:
        raise NotShareableError(
            what=f"a queue of kind {descriptor.queue_type!r}", instead="ask it inside its process: queue.stats()"
        )
    if descriptor.queue_type == KIND:
        namespace = descriptor.metadata["namespace"]
        path = where_named(descriptor.queue_id, namespace)
        if not path.exists():
            raise QueueNotFoundError(name=descriptor.queue_id)
        return inspect_ring(seen_ring(str(path), descriptor.queue_id, namespace))
    if descriptor.queue_type == portable.KIND:
        states = [state for state in portable.list_states() if state.queue_id == descriptor.queue_id]
        if not states:
            raise QueueNotFoundError(name=descriptor.queue_id)
        return _inspect_state(states[0])
    queue = descriptor.attach()
    where = descriptor.to_json() if descriptor.uri_scheme is None else descriptor.to_uri()
    try:
        state = state_of(queue, kind=descriptor.queue_type, queue_id=descriptor.queue_id, where=where)
    finally:
        queue.close()
    return _inspect_state(state)


def inspect_ring(ring: SeenRing) -> dict[str, Any]:
    """Everything that is known of a ring, as JSON-ready data; without ``settings`` and the rest when it is damaged."""
    base: dict[str, Any] = {"schema": SCHEMA, **ring.state().as_dict()}
    sight = ring.sight
    if sight is None:
        return base
    stats = sight.stats
    return base | {
        "settings": {
            "max_items": sight.max_items,
            "capacity_bytes": stats.capacity_bytes,
            "spill_threshold": sight.spill_threshold,
            "single_producer": sight.single_producer,
            "single_consumer": sight.single_consumer,
            "checksum": sight.checksum,
            "codec": codec_name(sight.codec),
            "kept": sight.kept,
        },
        "created_ns": sight.created_ns,
        "resizes": sight.resizes,
        "counters": {name: value for name, value in asdict(stats).items() if name != "histogram"},
        "latency_ns": {name: stats.latency_ns(share) for name, share in QUANTILES.items()},
        "latency_samples": stats.samples,
        "locks": {
            "put": _owner(stats.put_lock_owner),
            "get": _owner(stats.get_lock_owner),
        },
        "participants": _participants(ring),
        "users": _users(ring),
        "spill_files": _spill_files(ring.path),
    }


def _owner(tid: int) -> dict[str, Any] | None:
    """Who is inside this side at this moment."""
    if not tid:
        return None
    pid = process_of_thread(tid)
    return {"tid": tid, "pid": pid, "label": label_of(pid) if pid is not None else "", "gone": pid is None}


def _participants(ring: SeenRing) -> list[dict[str, Any]]:
    """Handles with leases or roles."""
    assert ring.sight is not None
    sight = ring.sight
    roles = {sight.producer_role: "producer", sight.consumer_role: "consumer"}
    return [
        {
            "pid": each.pid,
            "label": label_of(each.pid),
            "leases": each.leases if sight.leases_counted else None,
            "role": roles.get(each.slot),
            "closed": each.start_ticks == 0,
            "gone": process_of_thread(each.pid) is None,
        }
        for each in sight.participants
    ]


def _users(ring: SeenRing) -> list[dict[str, Any]]:
    """Processes that have it mapped, and what their threads wait for there."""
    asleep, unreadable = sleeps(ring.users)
    return [
        {
            "pid": user.pid,
            "label": label_of(user.pid),
            "waits": None
            if user.pid in unreadable
            else [{"tid": each.tid, "for": each.what} for each in asleep if each.pid == user.pid],
        }
        for user in ring.users
    ]


def _spill_files(path: str) -> list[dict[str, Any]]:
    """Files of messages too large for the ring."""
    found = []
    for name in sorted(SpillFiles(path).listed()):
        try:
            found.append({"path": name, "size_bytes": os.stat(name, follow_symlinks=False).st_size})
        except FileNotFoundError:
            continue  # its message was taken meanwhile
    return found
