"""The contract, for Ray queues: on the home node and from another node, with two codecs."""

from typing import Any

import pytest

from sage_qd import RayQueueDescriptor
from sage_qd.testing import DescriptorContract, QueueContract


class TestRayQueueAtHome(QueueContract):
    def make_descriptor(self, **settings: Any) -> RayQueueDescriptor:
        return RayQueueDescriptor(**settings)

    def test_the_handle_is_at_home(self, queue: Any) -> None:
        assert queue.at_home


class TestRayQueueFromAnotherNode(QueueContract):
    @pytest.fixture(autouse=True)
    def elsewhere(self, other_node: str) -> None:
        self.home = other_node

    def make_descriptor(self, **settings: Any) -> RayQueueDescriptor:
        return RayQueueDescriptor(node_id=self.home, **settings)

    def test_the_handle_is_not_at_home(self, queue: Any) -> None:
        assert not queue.at_home


class TestRayQueueDescriptor(DescriptorContract):
    def make_descriptor(self, **settings: Any) -> RayQueueDescriptor:
        return RayQueueDescriptor(**settings)
