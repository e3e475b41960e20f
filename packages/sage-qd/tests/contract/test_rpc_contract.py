"""The contract, for queues at a server: another process, on loopback, with CURVE on both sides."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

pytest.importorskip("zmq", reason="needs pip install 'sage-qd[rpc]'")

from sage_qd import RPCQueueDescriptor, generate_keys
from sage_qd.testing import DescriptorContract, ProcessContract, QueueContract

SERVER = """
import sys
from sage_qd import LocalQueueDescriptor, SageQueueDescriptor, read_allow_list, read_key_file, serve

kind, namespace, key, clients = sys.argv[1:]

def make(name, maxsize):
    if kind == "local":
        return LocalQueueDescriptor(name, maxsize=maxsize)
    return SageQueueDescriptor(name, maxsize=maxsize, namespace=namespace, codec=kind)

serve(
    make=make,
    keys=read_key_file(key),
    clients=read_allow_list(clients),
    allow_pickle=True,
    ready=lambda server: print(server.port, flush=True),
)
"""


class AtAServer:
    """Makes descriptors of queues that a server process makes for us."""

    kind = "local"
    settings: ClassVar[dict[str, Any]] = {}
    where: ClassVar[dict[str, Any]]

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def server(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
        folder: Path = tmp_path_factory.mktemp("keys")
        keys = generate_keys(folder / "server")
        generate_keys(folder / "client")
        arguments = [cls.kind, f"rpc-contract-{os.getpid()}", folder / "server", folder / "client.pub"]
        process = subprocess.Popen(
            [sys.executable, "-c", SERVER, *map(str, arguments)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        port = int(process.stdout.readline())
        cls.where = {"port": port, "server_key": keys.public, "key_file": str(folder / "client")}
        yield
        process.terminate()
        assert process.wait(60) == 0
        process.stdout.close()

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
