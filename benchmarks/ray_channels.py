"""
Ray queues against ``ray.util.queue``, in one run on a cluster of two nodes of this machine; prints rows and ratios.

``python benchmarks/ray_channels.py`` needs ``sage-qd[ray]``; `bench_queues.py` runs it with ``--json``. *Home* is one
process that puts and gets item by item on the node of the queue's actor; *across* is one that puts and gets batches on
the other node; *idle* is the processor time of this process during a ``get`` that waits in vain, in milliseconds.
"""

import argparse
import json
import time
from collections.abc import Callable
from queue import Empty
from statistics import median
from typing import Any

from ray_cluster import cluster

BATCH = 500
SECONDS = 1.0
IDLE_SECONDS = 5.0


def rate(step: Callable[[], int]) -> float:
    """Items a second of a step that says how many it moved; the first step is not counted."""
    step()
    moved, start = 0, time.perf_counter()
    while time.perf_counter() - start < SECONDS:
        moved += step()
    return moved / (time.perf_counter() - start)


def one_by_one(queue: Any, count: int) -> int:
    for number in range(count):
        queue.put(number)
        queue.get()
    return count


def ours_in_batches(queue: Any) -> int:
    queue.put_many(range(BATCH * 20))
    taken = 0
    while taken < BATCH * 20:
        taken += len(queue.get_many(BATCH))
    return taken


def theirs_in_batches(queue: Any) -> int:
    items = list(range(BATCH))
    queue.put_nowait_batch(items)
    return len(queue.get_nowait_batch(BATCH))


def idle(queue: Any) -> float:
    """Milliseconds of this process's processor time while it waits for an item that does not come."""
    before = time.process_time_ns()
    try:
        queue.get(timeout=IDLE_SECONDS)
    except Empty:
        return (time.process_time_ns() - before) / 1e6
    raise AssertionError("an item came out of an empty queue")


def measured(there: str, rounds: int) -> dict[str, list[float]]:
    """Every figure ``rounds`` times, ours and theirs in turn."""
    import ray
    from ray.util.queue import Queue
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    from sage_qd import RayQueueDescriptor

    def theirs(node: str) -> Any:
        strategy = NodeAffinitySchedulingStrategy(node, soft=False)
        return Queue(actor_options={"num_cpus": 0, "scheduling_strategy": strategy})

    peers = theirs(ray.get_runtime_context().get_node_id()), theirs(there)
    rows: dict[str, list[float]] = {}
    with RayQueueDescriptor("home").open() as home, RayQueueDescriptor("across", node_id=there).open() as across:
        steps: dict[str, Callable[[], int]] = {
            "home, ours": lambda: one_by_one(home, 10_000),
            "home, ray.util.queue": lambda: one_by_one(peers[0], 50),
            "across, ours": lambda: ours_in_batches(across),
            "across, ray.util.queue": lambda: theirs_in_batches(peers[1]),
        }
        for _ in range(rounds):
            for name, step in steps.items():
                rows.setdefault(name, []).append(rate(step))
        rows["idle, ours"] = [idle(home)]
    for peer in peers:
        peer.shutdown(force=True)
    return rows


def main() -> None:
    """Start a cluster, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print every figure, as one line of JSON")
    parser.add_argument("--rounds", type=int, default=1, help="how often each row is measured")
    options = parser.parse_args()
    with cluster(nodes=2):
        import ray

        here = ray.get_runtime_context().get_node_id()
        rows = measured(next(found["NodeID"] for found in ray.nodes() if found["NodeID"] != here), options.rounds)
    if options.json:
        print(json.dumps(rows))
        return
    medians = {name: median(values) for name, values in rows.items()}
    for name, value in medians.items():
        print(f"{name:26} {value:12,.0f} {'ms of 5 s' if name.startswith('idle') else 'items/s'}")
    for place in ("home", "across"):
        print(f"{place:26} {medians[f'{place}, ours'] / medians[f'{place}, ray.util.queue']:12,.1f} x")


if __name__ == "__main__":
    main()
