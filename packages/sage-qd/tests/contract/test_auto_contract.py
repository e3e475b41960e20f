"""The contract, for queues that were chosen by what they must be able to do."""

from typing import Any

import pytest

from sage_qd import AutoQueueDescriptor
from sage_qd.testing import DescriptorContract, ProcessContract, QueueContract


class TestAutoQueueBetweenThreads(QueueContract):
    def make_descriptor(self, **settings: Any) -> AutoQueueDescriptor:
        return AutoQueueDescriptor(reach="threads", **settings)


class TestAutoQueue(QueueContract):
    def make_descriptor(self, **settings: Any) -> AutoQueueDescriptor:
        return AutoQueueDescriptor(survives_crash=True, **settings)


class TestAutoQueueBetweenProcesses(ProcessContract):
    def make_descriptor(self, **settings: Any) -> AutoQueueDescriptor:
        return AutoQueueDescriptor(**settings)


class TestAutoQueueDescriptor(DescriptorContract):
    """Opening chooses, and what was chosen is what travels; the rest is as for every descriptor."""

    def make_descriptor(self, **settings: Any) -> AutoQueueDescriptor:
        return AutoQueueDescriptor(**settings)

    def test_opening_does_not_change_the_value(self, descriptor: Any) -> None:
        before = (descriptor.metadata, hash(descriptor))

        descriptor.open()

        assert (descriptor.metadata, hash(descriptor)) == before
        assert descriptor.to_dict() == descriptor.resolve().to_dict()
        descriptor.close()

    def test_the_queue_knows_the_descriptor_of_its_instance(self, descriptor: Any) -> None:
        queue = descriptor.open()

        assert queue.descriptor == descriptor.resolve()
        assert queue.descriptor.instance is not None
        queue.close()

    def test_the_kind_declares_what_its_queues_can_do(self, descriptor: Any) -> None:
        assert descriptor.capabilities is None
        assert descriptor.open().capabilities == descriptor.resolve().capabilities
        descriptor.close()

    def test_the_kind_explains_itself(self, descriptor: Any) -> None:
        assert descriptor.explain().queue_type == "auto"
        assert not descriptor.is_resolved


def test_the_overridden_rules_exist() -> None:
    own = [name for name in vars(TestAutoQueueDescriptor) if name.startswith("test_")]

    assert own
    assert all(hasattr(DescriptorContract, name) for name in own)
    with pytest.raises(TypeError, match="make_descriptor"):
        DescriptorContract()  # type: ignore[abstract]  # who subclasses it and forgets that is told at once
