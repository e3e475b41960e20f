"""What all tests of a queue kind stand on: how to make a descriptor, and queues opened from one."""

import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import pytest

from sage_qd.queues.base import Capabilities, Queue

__all__ = ["OpensQueues", "put_undecodable"]


class _Undecodable:
    """Can be pickled, but not unpickled."""

    def __reduce__(self) -> Any:
        return int, ("no number",)


def put_undecodable(queue: Queue[Any]) -> None:
    """Put a message that its codec encodes and cannot decode; skip the test where there is no such message."""
    if queue.capabilities.same_object:
        pytest.skip("this kind hands over the object itself")
    try:
        queue.put(_Undecodable())
    except TypeError:  # no pickles, so it is msgspec
        import msgspec

        queue.put(msgspec.Raw(b"\xc1"))  # the one byte that neither MessagePack nor JSON begins with


class OpensQueues(ABC):
    """Opens queues for tests; a subclass says how to make a descriptor."""

    @abstractmethod
    def make_descriptor(self, **settings: Any) -> Any:
        """
        Return a descriptor of the kind under test.

        Args:
            **settings: ``queue_id``, and ``maxsize`` where a test needs a bound.
        """

    @pytest.fixture
    def descriptor(self) -> Iterator[Any]:
        """A descriptor with a name of its own, closed afterwards."""
        descriptor = self.make_descriptor(queue_id=f"contract-{uuid.uuid4().hex}")
        yield descriptor
        descriptor.close()

    @pytest.fixture
    def queue(self, descriptor: Any) -> Queue[Any]:
        """An empty queue without a bound in messages."""
        queue: Queue[Any] = descriptor.open()
        return queue

    @pytest.fixture
    def small(self) -> Iterator[Queue[Any]]:
        """An empty queue for two messages."""
        descriptor = self.make_descriptor(queue_id=f"contract-{uuid.uuid4().hex}", maxsize=2)
        yield descriptor.open()
        descriptor.close()

    @staticmethod
    def need(queue: Queue[Any], capability: str) -> Capabilities:
        """Skip the test when the kind does not declare a capability."""
        if not getattr(queue.capabilities, capability):
            pytest.skip(f"this kind has no {capability}")
        return queue.capabilities
