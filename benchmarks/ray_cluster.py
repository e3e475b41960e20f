"""A Ray cluster on this machine for one program, with nothing of it left."""

import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NODE: dict[str, Any] = {"num_cpus": 2, "object_store_memory": 100_000_000, "include_dashboard": False}


@contextmanager
def cluster(*, nodes: int) -> Iterator[None]:
    """Start so many nodes, connect to them, and end them all."""
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

    started = Cluster(initialize_head=True, head_node_args=NODE)
    try:
        for _ in range(nodes - 1):
            started.add_node(**NODE)
        ray.init(address=started.address, logging_level="error", log_to_driver=False)
        started.wait_for_nodes()
        yield
    finally:
        ray.shutdown()
        started.shutdown()
        shutil.rmtree(folder, ignore_errors=True)
