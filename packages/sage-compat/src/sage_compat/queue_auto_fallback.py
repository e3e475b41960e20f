"""Which backend is taken when none is named, as old programs ask for it. Nothing is made or started to find out."""

from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from sage_compat.backends import environment_type, is_distributed, is_ray_installed, ring_missing
from sage_compat.old_behaviour import has_quirk
from sage_compat.ray_line import ray_missing

__all__ = [
    "BackendCapabilities",
    "QueueBackendSelector",
    "QueueBackendType",
    "get_optimal_queue_backend",
    "get_queue_backend_info_detailed",
]


class QueueBackendType(Enum):
    """The backends, from the first choice to the last."""

    SAGE_QUEUE = "sage_queue"
    RAY_QUEUE = "ray_queue"
    PYTHON_QUEUE = "python_queue"


@dataclass
class BackendCapabilities:
    """
    What a backend can do.

    Attributes:
        supports_distributed: Between hosts.
        supports_multiprocess: Between processes.
        high_performance: Whether it is fast.
        memory_mapped: Whether it lies in mapped memory.
        requires_ray: Whether it needs a Ray cluster.
        requires_extension: Whether it needs compiled code.
    """

    supports_distributed: bool = False
    supports_multiprocess: bool = False
    high_performance: bool = False
    memory_mapped: bool = False
    requires_ray: bool = False
    requires_extension: bool = False


_SAGE, _RAY, _PYTHON = QueueBackendType
_CAPABILITIES: Final = {
    _SAGE: BackendCapabilities(
        supports_multiprocess=True, high_performance=True, memory_mapped=True, requires_extension=True
    ),
    _RAY: BackendCapabilities(
        supports_distributed=True, supports_multiprocess=True, high_performance=True, requires_ray=True
    ),
    _PYTHON: BackendCapabilities(),
}


class QueueBackendSelector:
    """Chooses among the backends; what it found out is kept until :meth:`clear_cache`."""

    def __init__(self) -> None:
        self.backend_capabilities = dict(_CAPABILITIES)
        self._cached_availability: dict[QueueBackendType, dict[str, Any]] = {}

    def check_backend_availability(self, backend: QueueBackendType) -> dict[str, Any]:
        """Return ``available``, ``working``, ``error`` and ``capabilities`` of a backend."""
        if backend not in self._cached_availability:
            self._cached_availability[backend] = self._checked(backend) | {
                "capabilities": self.backend_capabilities[backend]
            }
        return self._cached_availability[backend]

    def _checked(self, backend: QueueBackendType) -> dict[str, Any]:
        if has_quirk("probing_creates"):
            return _probed(backend)
        if backend is _SAGE:
            missing = ring_missing()
            return {"available": missing is None, "working": missing is None, "error": missing}
        if backend is _RAY:
            missing = ray_missing()
            return {"available": is_ray_installed(), "working": missing is None, "error": missing}
        return {"available": True, "working": True, "error": None}

    def select_optimal_backend(self, requirements: dict[str, bool] | None = None) -> QueueBackendType:
        """
        Return the first backend that works here.

        Args:
            requirements: ``distributed``: whether hosts must be reached; found out when it is not said.
        """
        distributed = (requirements or {}).get("distributed", is_distributed())
        for backend in (_RAY, _PYTHON) if distributed else (_SAGE, _RAY, _PYTHON):
            found = self.check_backend_availability(backend)
            if distributed and not found["capabilities"].supports_distributed:
                continue
            if found["available"] and found["working"]:
                return backend
        return _PYTHON

    def get_fallback_chain(self, preferred_backend: QueueBackendType) -> list[QueueBackendType]:
        """Return what is tried after a backend."""
        if preferred_backend is _SAGE:
            return [_RAY, _PYTHON]
        if preferred_backend is _RAY:
            return [_PYTHON] if is_distributed() else [_SAGE, _PYTHON]
        return []

    def clear_cache(self) -> None:
        """Forget what was found out."""
        self._cached_availability.clear()


def _probed(backend: QueueBackendType) -> dict[str, Any]:
    """Find out by making a queue, as old versions did."""
    from sage_compat.queue_adapter import create_queue

    try:
        queue = create_queue(backend.value, name="test_availability", maxsize=10)
        queue.put("test")
        queue.get()
        queue.close()
    except Exception as error:  # noqa: BLE001  (any failure is the answer)
        return {"available": True, "working": False, "error": f"Runtime error: {error}"}
    return {"available": True, "working": True, "error": None}


_selector: Final = QueueBackendSelector()


def get_optimal_queue_backend(requirements: dict[str, bool] | None = None) -> str:
    """Return the name of the backend that is taken when none is named."""
    _selector.clear_cache()  # Ray may have been started meanwhile
    return _selector.select_optimal_backend(requirements).value


def get_queue_backend_info_detailed() -> dict[str, Any]:
    """Return ``environment``, ``backends`` (by name, as ``check_backend_availability`` says it) and ``recommended``."""
    selector = QueueBackendSelector()
    found = {backend.value: selector.check_backend_availability(backend) for backend in QueueBackendType}
    return {
        "environment": {
            "type": environment_type(),
            "distributed": is_distributed(),
            "ray_available": found["ray_queue"]["available"],
            "sage_extension_available": found["sage_queue"]["available"],
        },
        "backends": found,
        "recommended": selector.select_optimal_backend().value,
    }
