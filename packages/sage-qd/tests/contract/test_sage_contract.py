"""The contract, for queues on the ring, with every codec that carries objects and with every mode."""

import gc
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from sage_qd import SageQueueDescriptor
from sage_qd import ring as rings
from sage_qd.testing import DescriptorContract, ProcessContract, QueueContract

NAMESPACE = f"contract-{uuid.uuid4().hex}"


@pytest.fixture(scope="module", autouse=True)
def clean_namespace() -> Iterator[None]:
    """Nothing may be left in the namespace, and the folder goes."""
    yield
    gc.collect()
    for folder in rings.directory().glob(NAMESPACE):
        assert list(folder.iterdir()) == []
        folder.rmdir()


class TestSageQueue(QueueContract):
    def make_descriptor(self, **settings: Any) -> SageQueueDescriptor:
        return SageQueueDescriptor(namespace=NAMESPACE, **settings)


class TestSageQueueWithMessagePack(QueueContract):
    def make_descriptor(self, **settings: Any) -> SageQueueDescriptor:
        return SageQueueDescriptor(namespace=NAMESPACE, codec="msgpack", **settings)


class TestSageQueueWithChecksumsAndSpilling(QueueContract):
    def make_descriptor(self, **settings: Any) -> SageQueueDescriptor:
        return SageQueueDescriptor(namespace=NAMESPACE, checksum=True, spill_threshold=64, **settings)


class TestSageQueueThatIsKept(QueueContract):
    @pytest.fixture(autouse=True)
    def kept(self) -> Iterator[list[SageQueueDescriptor]]:
        self.made: list[SageQueueDescriptor] = []
        yield self.made
        for descriptor in self.made:
            descriptor.destroy()

    def make_descriptor(self, **settings: Any) -> SageQueueDescriptor:
        descriptor = SageQueueDescriptor(namespace=NAMESPACE, auto_cleanup=False, **settings)
        self.made.append(descriptor)
        return descriptor


class TestSageQueueDescriptor(DescriptorContract):
    def make_descriptor(self, **settings: Any) -> SageQueueDescriptor:
        return SageQueueDescriptor(**settings)


class TestSageQueueBetweenProcesses(ProcessContract):
    def make_descriptor(self, **settings: Any) -> SageQueueDescriptor:
        return SageQueueDescriptor(namespace=NAMESPACE, **settings)


class TestSageQueueBetweenProcessesWithMessagePack(ProcessContract):
    def make_descriptor(self, **settings: Any) -> SageQueueDescriptor:
        return SageQueueDescriptor(namespace=NAMESPACE, codec="msgpack", **settings)
