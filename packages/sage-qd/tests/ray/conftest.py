"""One Ray cluster of two nodes for the whole run, on this machine; nothing of it is left."""

import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

# Read by Ray when it is imported, and inherited by its processes.
os.environ.update(
    RAY_USAGE_STATS_ENABLED="0",
    RAY_enable_metrics_collection="0",
    RAY_AUTH_MODE="token",
    RAY_AUTH_TOKEN=uuid.uuid4().hex * 2,  # or Ray would write one into the home directory
    RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0",
    RAY_DEDUP_LOGS="0",
)

NODE: dict[str, Any] = {
    "num_cpus": 2,
    "object_store_memory": 100_000_000,
    "include_dashboard": False,
}


@pytest.fixture(scope="session")
def cluster() -> Iterator[Any]:
    # The path of a socket may have 107 characters, and Ray appends about 90.
    folder = tempfile.mkdtemp(prefix="r", dir="/tmp")
    os.environ["RAY_TMPDIR"] = folder
    Path(folder, "ray").mkdir()
    ray = pytest.importorskip("ray", reason="Ray cannot be installed here")
    from ray.cluster_utils import Cluster

    started = Cluster(initialize_head=True, head_node_args=NODE)
    try:
        started.add_node(**NODE)
        ray.init(address=started.address, logging_level="error", log_to_driver=False)
        started.wait_for_nodes()
        yield started
    finally:
        ray.shutdown()
        started.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def other_node(cluster: Any) -> str:
    """Return the id of the node on which the test is not."""
    import ray

    here = ray.get_runtime_context().get_node_id()
    (there,) = [node["NodeID"] for node in ray.nodes() if node["Alive"] and node["NodeID"] != here]
    return str(there)


@pytest.fixture(scope="session", autouse=True)
def nothing_is_left(cluster: Any) -> Iterator[None]:
    """Look for rings that outlive their actors."""
    from sage_qd import clean_ray
    from sage_qd import ring as rings
    from sage_qd.testing import wait_for

    yield
    clean_ray(discard=True)
    folder = Path(rings.directory(), "ray")
    wait_for(lambda: bool(rings.clean_segments("ray")) or not folder.exists() or not any(folder.iterdir()), "rings go")
