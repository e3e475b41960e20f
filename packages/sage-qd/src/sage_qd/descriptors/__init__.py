"""
Plain data that names a queue: can be printed, compared, pickled, put into JSON, and opened in any process.

The built-in kinds are imported here, so that reading a descriptor imports nothing more.
"""

from sage_qd.descriptors.auto import AutoQueueDescriptor
from sage_qd.descriptors.base import BaseQueueDescriptor, resolve_descriptor
from sage_qd.descriptors.explaining import Explanation
from sage_qd.descriptors.local import LocalQueueDescriptor, PythonQueueDescriptor
from sage_qd.descriptors.migration import Migration, migrate
from sage_qd.descriptors.pool import QueueDescriptorPool
from sage_qd.descriptors.ray import RayQueueDescriptor, clean_ray
from sage_qd.descriptors.registry import known_queue_types, register_queue_type
from sage_qd.descriptors.rpc import RPCQueueDescriptor
from sage_qd.descriptors.sage import SageQueueDescriptor
from sage_qd.descriptors.settings import Setting
from sage_qd.descriptors.shared_memory import SharedMemoryQueueDescriptor, SHMQueueDescriptor, ShmQueueDescriptor
from sage_qd.descriptors.strategy import QueueCreationStrategy

QueueDescriptor = BaseQueueDescriptor
"""The name of the class in earlier releases."""

__all__ = [
    "AutoQueueDescriptor",
    "BaseQueueDescriptor",
    "Explanation",
    "LocalQueueDescriptor",
    "Migration",
    "PythonQueueDescriptor",
    "QueueCreationStrategy",
    "QueueDescriptor",
    "QueueDescriptorPool",
    "RPCQueueDescriptor",
    "RayQueueDescriptor",
    "SHMQueueDescriptor",
    "SageQueueDescriptor",
    "Setting",
    "SharedMemoryQueueDescriptor",
    "ShmQueueDescriptor",
    "clean_ray",
    "known_queue_types",
    "migrate",
    "register_queue_type",
    "resolve_descriptor",
]
