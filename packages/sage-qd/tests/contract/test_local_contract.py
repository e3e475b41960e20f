"""The contract, for queues between threads."""

from typing import Any

from sage_qd import LocalQueueDescriptor
from sage_qd.testing import DescriptorContract, ProcessContract, QueueContract


class TestLocalQueue(QueueContract):
    def make_descriptor(self, **settings: Any) -> LocalQueueDescriptor:
        return LocalQueueDescriptor(**settings)


class TestLocalQueueDescriptor(DescriptorContract):
    def make_descriptor(self, **settings: Any) -> LocalQueueDescriptor:
        return LocalQueueDescriptor(**settings)


class TestPromotedLocalQueue(ProcessContract):
    """A queue between threads, after it was moved to where processes reach it."""

    def make_descriptor(self, **settings: Any) -> Any:
        local = LocalQueueDescriptor(**settings)
        shareable = local.to_serializable_descriptor()
        shareable.put("keeps the queue open")
        assert local.get() == "keeps the queue open"
        return shareable
