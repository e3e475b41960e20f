"""
Queues between threads, processes and hosts, named by plain data.

Import every name from here; the modules below are private in their layout. A name is loaded when it is first used, so
importing this package loads the exceptions and nothing else.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sage_qd.errors import *  # noqa: F403  (errors.__all__ is exactly the list of public exceptions)
from sage_qd.errors import __all__ as _error_names

if TYPE_CHECKING:
    from sage_qd.descriptors import (
        AutoQueueDescriptor,
        BaseQueueDescriptor,
        Explanation,
        LocalQueueDescriptor,
        Migration,
        PythonQueueDescriptor,
        QueueCreationStrategy,
        QueueDescriptor,
        QueueDescriptorPool,
        RayQueueDescriptor,
        RPCQueueDescriptor,
        SageQueueDescriptor,
        Setting,
        SharedMemoryQueueDescriptor,
        SHMQueueDescriptor,
        ShmQueueDescriptor,
        clean_ray,
        known_queue_types,
        migrate,
        register_queue_type,
        resolve_descriptor,
    )
    from sage_qd.queues import Capabilities, Delivery, Lease, Ordering, Queue, QueueFigures, QueueStats, Reach
    from sage_qd.queues.local import LocalQueue
    from sage_qd.queues.ray_queue import RayQueue
    from sage_qd.queues.rpc.keys import KeyPair, allow_hosts, generate_keys, read_allow_list, read_key_file
    from sage_qd.queues.rpc.queue import RPCQueue
    from sage_qd.queues.rpc.server import QueueServer, ServerLimits, serve
    from sage_qd.queues.sage_ring import SageQueue
    from sage_qd.queues.selecting import wait
    from sage_qd.queues.shared_memory import SharedMemoryQueue
    from sage_qd.queues.shm_segment import clean_shared_memory

__version__ = "0.1.0"

_PLACES = {
    "AutoQueueDescriptor": "sage_qd.descriptors",
    "BaseQueueDescriptor": "sage_qd.descriptors",
    "Capabilities": "sage_qd.queues",
    "Delivery": "sage_qd.queues",
    "Explanation": "sage_qd.descriptors",
    "KeyPair": "sage_qd.queues.rpc.keys",
    "Lease": "sage_qd.queues",
    "LocalQueue": "sage_qd.queues.local",
    "LocalQueueDescriptor": "sage_qd.descriptors",
    "Migration": "sage_qd.descriptors",
    "Ordering": "sage_qd.queues",
    "PythonQueueDescriptor": "sage_qd.descriptors",
    "Queue": "sage_qd.queues",
    "QueueCreationStrategy": "sage_qd.descriptors",
    "QueueDescriptor": "sage_qd.descriptors",
    "QueueDescriptorPool": "sage_qd.descriptors",
    "QueueFigures": "sage_qd.queues",
    "QueueServer": "sage_qd.queues.rpc.server",
    "QueueStats": "sage_qd.queues",
    "RPCQueue": "sage_qd.queues.rpc.queue",
    "RPCQueueDescriptor": "sage_qd.descriptors",
    "RayQueue": "sage_qd.queues.ray_queue",
    "RayQueueDescriptor": "sage_qd.descriptors",
    "Reach": "sage_qd.queues",
    "SHMQueueDescriptor": "sage_qd.descriptors",
    "SageQueue": "sage_qd.queues.sage_ring",
    "SageQueueDescriptor": "sage_qd.descriptors",
    "ServerLimits": "sage_qd.queues.rpc.server",
    "Setting": "sage_qd.descriptors",
    "SharedMemoryQueue": "sage_qd.queues.shared_memory",
    "SharedMemoryQueueDescriptor": "sage_qd.descriptors",
    "ShmQueueDescriptor": "sage_qd.descriptors",
    "clean_shared_memory": "sage_qd.queues.shm_segment",
    "clean_ray": "sage_qd.descriptors",
    "known_queue_types": "sage_qd.descriptors",
    "migrate": "sage_qd.descriptors",
    "register_queue_type": "sage_qd.descriptors",
    "resolve_descriptor": "sage_qd.descriptors",
    "wait": "sage_qd.queues.selecting",
    "allow_hosts": "sage_qd.queues.rpc.keys",
    "generate_keys": "sage_qd.queues.rpc.keys",
    "read_allow_list": "sage_qd.queues.rpc.keys",
    "read_key_file": "sage_qd.queues.rpc.keys",
    "serve": "sage_qd.queues.rpc.server",
}

__all__ = [
    "AutoQueueDescriptor",
    "BaseQueueDescriptor",
    "Capabilities",
    "Delivery",
    "Explanation",
    "KeyPair",
    "Lease",
    "LocalQueue",
    "LocalQueueDescriptor",
    "Migration",
    "Ordering",
    "PythonQueueDescriptor",
    "Queue",
    "QueueCreationStrategy",
    "QueueDescriptor",
    "QueueDescriptorPool",
    "QueueFigures",
    "QueueServer",
    "QueueStats",
    "RPCQueue",
    "RPCQueueDescriptor",
    "RayQueue",
    "RayQueueDescriptor",
    "Reach",
    "SHMQueueDescriptor",
    "SageQueue",
    "SageQueueDescriptor",
    "ServerLimits",
    "Setting",
    "SharedMemoryQueue",
    "SharedMemoryQueueDescriptor",
    "ShmQueueDescriptor",
    "__version__",
    "clean_shared_memory",
    "clean_ray",
    "known_queue_types",
    "migrate",
    "register_queue_type",
    "resolve_descriptor",
    "wait",
    "allow_hosts",
    "generate_keys",
    "read_allow_list",
    "read_key_file",
    "serve",
    *_error_names,
]


def __getattr__(name: str) -> Any:
    """Load a name when it is first used."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_PLACES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_PLACES})
