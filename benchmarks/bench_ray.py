"""
Ray queues against ``ray.util.queue``, in one run on a cluster of two nodes of this machine; prints rows and ratios.

``python benchmarks/bench_ray.py`` needs ``sage-qd[ray]``. *Home* is one process that puts and gets item by item on the
node of the queue's actor; *across* is one that puts and gets batches on the other node.
"""

import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

BATCH = 500
SECONDS = 2.0


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


def measured(there: str) -> dict[str, float]:
    import ray
    from ray.util.queue import Queue
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    from sage_qd import RayQueueDescriptor

    rows = {}
    with RayQueueDescriptor("home").open() as queue:
        rows["home, ours"] = rate(lambda: one_by_one(queue, 10_000))
    with RayQueueDescriptor("across", node_id=there).open() as queue:
        rows["across, ours"] = rate(lambda: ours_in_batches(queue))
    here = ray.get_runtime_context().get_node_id()
    for name, node, step in (
        ("home", here, lambda queue: one_by_one(queue, 50)),
        ("across", there, theirs_in_batches),
    ):
        strategy = NodeAffinitySchedulingStrategy(node, soft=False)
        peer = Queue(actor_options={"num_cpus": 0, "scheduling_strategy": strategy})
        rows[f"{name}, ray.util.queue"] = rate(lambda step=step, peer=peer: step(peer))
        peer.shutdown(force=True)
    return rows


def main() -> None:
    """Start a cluster, measure, print."""
    folder = tempfile.mkdtemp(prefix="r", dir="/tmp")  # Ray appends about 90 characters, and a socket may have 107
    Path(folder, "ray").mkdir()
    os.environ.update(
        RAY_TMPDIR=folder,
        RAY_USAGE_STATS_ENABLED="0",
        RAY_enable_metrics_collection="0",
        RAY_AUTH_MODE="token",
        RAY_AUTH_TOKEN=uuid.uuid4().hex * 2,
        RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0",
    )
    import ray
    from ray.cluster_utils import Cluster

    node: dict[str, Any] = {"num_cpus": 2, "object_store_memory": 100_000_000, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    try:
        cluster.add_node(**node)
        ray.init(address=cluster.address, logging_level="error", log_to_driver=False)
        cluster.wait_for_nodes()
        here = ray.get_runtime_context().get_node_id()
        rows = measured(next(found["NodeID"] for found in ray.nodes() if found["NodeID"] != here))
    finally:
        ray.shutdown()
        cluster.shutdown()
        shutil.rmtree(folder, ignore_errors=True)
    for name, value in rows.items():
        print(f"{name:26} {value:12,.0f} items/s")
    for place in ("home", "across"):
        print(f"{place:26} {rows[f'{place}, ours'] / rows[f'{place}, ray.util.queue']:12,.1f} x")


if __name__ == "__main__":
    main()
