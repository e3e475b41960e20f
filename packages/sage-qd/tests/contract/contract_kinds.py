"""The queue kinds that the general contract tests run on; a new kind is one more entry in `KINDS`."""

import gc
import importlib.util
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import sage_qd
from sage_qd import Capabilities, LocalQueueDescriptor, SageQueueDescriptor, SharedMemoryQueueDescriptor
from sage_qd import ring as rings

NAMESPACE = f"standard-{uuid.uuid4().hex}"


@dataclass(frozen=True)
class Kind:
    """
    How tests come by queues of one kind.

    Attributes:
        name: As in ``queue_type``.
        make_descriptor: Makes a descriptor from settings; ``maxsize`` is one of them.
        queue_class: The public name of the class of its queues; looked up only where what the kind needs is installed.
        needs: Modules without which the kind is skipped.
        surroundings: What must be there while tests run, such as a server.
        start_methods: How processes are started that are handed a queue; none for a kind that reaches threads only.
    """

    name: str
    make_descriptor: Callable[..., Any]
    queue_class: str
    needs: tuple[str, ...] = ()
    surroundings: Callable[[], AbstractContextManager[Any]] = nullcontext
    start_methods: tuple[str, ...] = ("fork", "spawn")

    @property
    def missing(self) -> list[str]:
        """What the kind needs and is not installed."""
        return [module for module in self.needs if importlib.util.find_spec(module) is None]

    @property
    def title(self) -> str:
        """The name as a part of the name of a class."""
        return "".join(map(str.capitalize, self.name.split("_")))

    @property
    def capabilities(self) -> Capabilities:
        """What the kind declares."""
        declared: Capabilities = getattr(sage_qd, self.queue_class).capabilities
        return declared

    def open(self, maxsize: int) -> Any:
        """Open a new, empty queue."""
        return self.make_descriptor(maxsize=maxsize).open()


@contextmanager
def clean_namespace() -> Iterator[None]:
    """Nothing may be left in the namespace, and the folder goes."""
    yield
    gc.collect()
    for folder in rings.directory().glob(NAMESPACE):
        assert list(folder.iterdir()) == []
        folder.rmdir()


def make_sage_descriptor(**settings: Any) -> SageQueueDescriptor:
    return SageQueueDescriptor(namespace=NAMESPACE, **settings)


def make_message_pack_descriptor(**settings: Any) -> SageQueueDescriptor:
    return SageQueueDescriptor(namespace=NAMESPACE, codec="msgpack", **settings)


_server: dict[str, Any] = {}


@contextmanager
def rpc_server() -> Iterator[None]:
    """The server that the descriptors below name."""
    from contract_server import server_process

    with server_process("local") as where:
        _server.update(where)
        yield


def make_rpc_descriptor(**settings: Any) -> Any:
    return sage_qd.RPCQueueDescriptor(**_server | settings)


KINDS = (
    Kind("local_queue", LocalQueueDescriptor, "LocalQueue", start_methods=()),
    Kind("sage_queue", make_sage_descriptor, "SageQueue", surroundings=clean_namespace),
    Kind("shm_queue", SharedMemoryQueueDescriptor, "SharedMemoryQueue"),
    Kind("rpc_queue", make_rpc_descriptor, "RPCQueue", needs=("zmq",), surroundings=rpc_server),
    Kind("sage_queue_message_pack", make_message_pack_descriptor, "SageQueue", surroundings=clean_namespace),
)
