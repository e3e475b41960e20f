"""The contract, for queues at a server: another process, on loopback, with CURVE on both sides."""

from collections.abc import Iterator
from typing import Any, ClassVar

import pytest

pytest.importorskip("zmq", reason="needs pip install 'sage-qd[rpc]'")

from contract_server import server_process

from sage_qd import RPCQueueDescriptor
from sage_qd.testing import DescriptorContract, ProcessContract, QueueContract


class AtAServer:
    """Makes descriptors of queues that a server process makes for us."""

    kind = "local"
    settings: ClassVar[dict[str, Any]] = {}
    where: ClassVar[dict[str, Any]]

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def server(cls) -> Iterator[None]:
        with server_process(cls.kind) as cls.where:
            yield

    def make_descriptor(self, **settings: Any) -> RPCQueueDescriptor:
        return RPCQueueDescriptor(**self.where | self.settings | settings)


class TestRPCQueue(AtAServer, QueueContract):
    pass


class TestRPCQueueOnARing(AtAServer, QueueContract):
    kind = "msgpack"


class TestRPCQueueOfPicklesThatAcksByItself(AtAServer, QueueContract):
    kind = "pickle"
    settings: ClassVar[dict[str, Any]] = {"codec": "pickle", "allow_pickle": True, "ack": "auto"}


class TestRPCQueueDescriptor(AtAServer, DescriptorContract):
    pass


class TestRPCQueueBetweenProcesses(AtAServer, ProcessContract):
    pass


class TestRPCQueueOnARingBetweenProcesses(AtAServer, ProcessContract):
    kind = "msgpack"
