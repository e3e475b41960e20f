"""Errors at opening a Ray queue, and cleaning from the command line."""

import subprocess
import sys
import uuid
from typing import Any

import pytest

from sage_qd import (
    GeometryMismatchError,
    QueueNotFoundError,
    RayQueueDescriptor,
    clean_ray,
)

OPEN_WITHOUT_CLUSTER = """
import ray
from sage_qd import QueueUnavailableError, RayQueueDescriptor
try:
    RayQueueDescriptor("jobs").open()
except QueueUnavailableError as error:
    assert "call ray.init() first" in str(error), error
    assert not ray.is_initialized()
    print("told")
"""


def sage_qd(*words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "sage_qd", *words],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_without_a_cluster_it_is_told_and_none_is_started() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", OPEN_WITHOUT_CLUSTER], capture_output=True, text=True, timeout=120, check=False
    )

    assert (ended.stdout, ended.returncode) == ("told\n", 0), ended.stderr


def test_a_queue_that_is_not_there_is_told(cluster: Any) -> None:
    descriptor = RayQueueDescriptor(f"nobody-{uuid.uuid4().hex}")

    with pytest.raises(QueueNotFoundError, match=descriptor.queue_id):
        descriptor.open(create=False)


def test_another_namespace_is_another_queue(cluster: Any) -> None:
    name = uuid.uuid4().hex
    with RayQueueDescriptor(name, namespace="first").open() as queue:
        queue.put(1)
        with pytest.raises(QueueNotFoundError):
            RayQueueDescriptor(name, namespace="second").open(create=False)


def test_other_settings_are_told(cluster: Any) -> None:
    descriptor = RayQueueDescriptor(uuid.uuid4().hex, maxsize=3)
    with descriptor.open(), pytest.raises(GeometryMismatchError, match="maxsize"):
        RayQueueDescriptor(descriptor.queue_id, maxsize=4).open()


def test_clean_names_what_it_would_end_and_ends_it(cluster: Any) -> None:
    namespace = f"clean-{uuid.uuid4().hex}"
    empty, full = (RayQueueDescriptor(name, namespace=namespace, detached=True) for name in ("empty", "full"))
    for descriptor in (empty, full):
        descriptor.open()
    full.put("message")
    for descriptor in (empty, full):
        descriptor.close()
    words = ("clean", "--ray", cluster.address, "--namespace", namespace)

    assert clean_ray(namespace, dry_run=True) == [f"{namespace}/empty"]
    assert f"would remove {namespace}/empty\n1 queues would be removed" in sage_qd(*words, "--dry-run").stdout
    refused = sage_qd(*words)
    assert (refused.returncode, "say --yes" in refused.stderr) == (2, True)
    assert f"removed {namespace}/empty\n1 queues removed" in sage_qd(*words, "--yes").stdout
    assert f"removed {namespace}/full\n1 queues removed" in sage_qd(*words, "--yes", "--kept").stdout
    assert clean_ray(namespace, discard=True) == []


def test_a_cluster_that_is_not_there_is_told(cluster: Any) -> None:
    ended = sage_qd("clean", "--ray", "127.0.0.1:1", "--yes")

    assert ended.returncode == 4
    assert "the Ray cluster at '127.0.0.1:1'" in ended.stderr


def test_an_address_is_refused_where_ray_runs_already(cluster: Any) -> None:
    with pytest.raises(RuntimeError, match="initialised here already"):
        clean_ray(address=cluster.address)
