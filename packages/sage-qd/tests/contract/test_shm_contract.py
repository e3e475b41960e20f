"""The contract, for queues in shared memory without compiled code, with every codec that carries objects."""

import gc
from collections.abc import Iterator
from typing import Any

import pytest

from sage_qd import SharedMemoryQueueDescriptor
from sage_qd.queues import shm_places
from sage_qd.testing import DescriptorContract, ProcessContract, QueueContract


def files() -> set[str]:
    """What lies in the folder."""
    folder = shm_places.folder()
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


@pytest.fixture(scope="module", autouse=True)
def nothing_is_left() -> Iterator[None]:
    """The folder must be as it was; forked servers of multiprocessing keep an environment, so it is the usual one."""
    before = files()
    yield
    gc.collect()
    assert files() <= before


class TestSharedMemoryQueue(QueueContract):
    def make_descriptor(self, **settings: Any) -> SharedMemoryQueueDescriptor:
        return SharedMemoryQueueDescriptor(**settings)


class TestSharedMemoryQueueWithMessagePack(QueueContract):
    def make_descriptor(self, **settings: Any) -> SharedMemoryQueueDescriptor:
        return SharedMemoryQueueDescriptor(codec="msgpack", **settings)


class TestSharedMemoryQueueBetweenProcessesWithMessagePack(ProcessContract):
    def make_descriptor(self, **settings: Any) -> SharedMemoryQueueDescriptor:
        return SharedMemoryQueueDescriptor(codec="msgpack", **settings)


class TestSharedMemoryQueueDescriptor(DescriptorContract):
    def make_descriptor(self, **settings: Any) -> SharedMemoryQueueDescriptor:
        return SharedMemoryQueueDescriptor(**settings)


class TestSharedMemoryQueueBetweenProcesses(ProcessContract):
    def make_descriptor(self, **settings: Any) -> SharedMemoryQueueDescriptor:
        return SharedMemoryQueueDescriptor(**settings)
