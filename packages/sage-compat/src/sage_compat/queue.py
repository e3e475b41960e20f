"""The names that old programs import from ``sage.utils.queue``."""

from sage_compat.queue_adapter import (
    QueueWrapper,
    create_queue,
    get_queue_backend_info,
    get_queue_backends,
    get_recommended_queue_backend,
    is_sage_queue_available,
)

__all__ = [
    "QueueWrapper",
    "create_queue",
    "get_queue_backend",
    "get_queue_backend_info",
    "get_queue_backends",
    "get_recommended_queue_backend",
    "is_sage_queue_available",
]


def get_queue_backend() -> str:
    """Return the backend in use; the old package named this function and had none."""
    backend: str = get_queue_backend_info()["current_backend"]
    return backend
