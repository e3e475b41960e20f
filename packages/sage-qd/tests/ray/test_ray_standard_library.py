"""
CPython's own tests of queues against Ray queues; what may differ is listed in sage_qd.testing.deviations.

Its tests of ``multiprocessing.Queue`` start processes themselves, by fork too; those of a cluster are started by Ray.
"""

from typing import Any

import pytest

from sage_qd import RayQueueDescriptor
from sage_qd.queues.abilities import RAY
from sage_qd.testing import standard_queue_tests, standard_simple_queue_tests

pytest.importorskip("test.test_queue", reason="this Python was installed without its tests")

_elsewhere: dict[str, str] = {}


@pytest.fixture(scope="module", autouse=True)
def elsewhere(other_node: str) -> None:
    """Say which node is the other one; classes of unittest take no fixtures."""
    _elsewhere["node_id"] = other_node


def at_home(maxsize: int) -> Any:
    return RayQueueDescriptor(maxsize=maxsize).open()


def across(maxsize: int) -> Any:
    return RayQueueDescriptor(maxsize=maxsize, **_elsewhere).open()


class TestRayQueueAtHomeAsQueue(standard_queue_tests(at_home, RAY)):  # type: ignore[misc]
    pass


class TestRayQueueAtHomeAsSimpleQueue(standard_simple_queue_tests(at_home, RAY)):  # type: ignore[misc]
    pass


class TestRayQueueAcrossNodesAsQueue(standard_queue_tests(across, RAY)):  # type: ignore[misc]
    pass


class TestRayQueueAcrossNodesAsSimpleQueue(standard_simple_queue_tests(across, RAY)):  # type: ignore[misc]
    pass
