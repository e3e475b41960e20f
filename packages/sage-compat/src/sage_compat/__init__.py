"""
The old queue interface on top of sage-qd, with a way back at every step.

``create_queue`` and the modules beside it are what old programs call. A name is loaded when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sage_qd import __version__

if TYPE_CHECKING:
    from sage_compat.errors import ConfigurationError, LegacyCallError, ReachWarning
    from sage_compat.installing import install
    from sage_compat.old_behaviour import quirks
    from sage_compat.queue_adapter import (
        QueueWrapper,
        create_queue,
        get_queue_backend_info,
        get_queue_backends,
        get_recommended_queue_backend,
        is_sage_queue_available,
    )
    from sage_compat.rolling import roll_forward, rollback
    from sage_compat.rules import Decision, Mode, explain, set_mode
    from sage_compat.sage_queue import SageQueue, SageQueueRef

_PLACES = {
    "ConfigurationError": "errors",
    "Decision": "rules",
    "LegacyCallError": "errors",
    "Mode": "rules",
    "QueueWrapper": "queue_adapter",
    "ReachWarning": "errors",
    "SageQueue": "sage_queue",
    "SageQueueRef": "sage_queue",
    "create_queue": "queue_adapter",
    "explain": "rules",
    "get_queue_backend_info": "queue_adapter",
    "get_queue_backends": "queue_adapter",
    "get_recommended_queue_backend": "queue_adapter",
    "install": "installing",
    "is_sage_queue_available": "queue_adapter",
    "quirks": "old_behaviour",
    "roll_forward": "rolling",
    "rollback": "rolling",
    "set_mode": "rules",
}

__all__ = [
    "ConfigurationError",
    "Decision",
    "LegacyCallError",
    "Mode",
    "QueueWrapper",
    "ReachWarning",
    "SageQueue",
    "SageQueueRef",
    "__version__",
    "create_queue",
    "explain",
    "get_queue_backend_info",
    "get_queue_backends",
    "get_recommended_queue_backend",
    "install",
    "is_sage_queue_available",
    "quirks",
    "roll_forward",
    "rollback",
    "set_mode",
]


def __getattr__(name: str) -> Any:
    """Load a name when it is first used."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_PLACES})
