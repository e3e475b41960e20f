"""
Queues between threads and processes, named by plain data.

Import every name from here; the modules below are private in their layout. A name is loaded when it is first used, so
importing this package loads the exceptions and nothing else.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sage_qd.errors import *  # noqa: F403  (errors.__all__ is exactly the list of public exceptions)
from sage_qd.errors import __all__ as _error_names

if TYPE_CHECKING:
    from sage_qd.descriptors import (
        BaseQueueDescriptor,
        LocalQueueDescriptor,
        Migration,
        SageQueueDescriptor,
        Setting,
        known_queue_types,
        migrate,
        register_queue_type,
        resolve_descriptor,
    )
    from sage_qd.queues import Capabilities, Delivery, Lease, Ordering, Queue, QueueFigures, QueueStats, Reach
    from sage_qd.queues.local import LocalQueue
    from sage_qd.queues.sage_ring import SageQueue
    from sage_qd.queues.selecting import wait

__version__ = "0.1.0"

_PLACES = {
    "BaseQueueDescriptor": "sage_qd.descriptors",
    "Capabilities": "sage_qd.queues",
    "Delivery": "sage_qd.queues",
    "Lease": "sage_qd.queues",
    "LocalQueue": "sage_qd.queues.local",
    "LocalQueueDescriptor": "sage_qd.descriptors",
    "Migration": "sage_qd.descriptors",
    "Ordering": "sage_qd.queues",
    "Queue": "sage_qd.queues",
    "QueueFigures": "sage_qd.queues",
    "QueueStats": "sage_qd.queues",
    "Reach": "sage_qd.queues",
    "SageQueue": "sage_qd.queues.sage_ring",
    "SageQueueDescriptor": "sage_qd.descriptors",
    "Setting": "sage_qd.descriptors",
    "known_queue_types": "sage_qd.descriptors",
    "migrate": "sage_qd.descriptors",
    "register_queue_type": "sage_qd.descriptors",
    "resolve_descriptor": "sage_qd.descriptors",
    "wait": "sage_qd.queues.selecting",
}

__all__ = [
    "BaseQueueDescriptor",
    "Capabilities",
    "Delivery",
    "Lease",
    "LocalQueue",
    "LocalQueueDescriptor",
    "Migration",
    "Ordering",
    "Queue",
    "QueueFigures",
    "QueueStats",
    "Reach",
    "SageQueue",
    "SageQueueDescriptor",
    "Setting",
    "__version__",
    "known_queue_types",
    "migrate",
    "register_queue_type",
    "resolve_descriptor",
    "wait",
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
