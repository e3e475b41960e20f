"""
The backends that old programs name, and which one is taken when none is named.

Nothing is made and nothing is started to find that out.
"""

import importlib.util
import os
import sys
import uuid
import warnings
from collections.abc import Mapping
from typing import Any, Final

from sage_compat.errors import LegacyCallError, ReachWarning
from sage_compat.old_behaviour import has_quirk
from sage_compat.places_of_calls import place_of_call
from sage_compat.ray_line import RayLine, ray_missing
from sage_compat.rules import Mode, decide
from sage_compat.sage_queue import DEFAULT_MAXSIZE, SageQueue
from sage_compat.thread_line import ThreadLine
from sage_qd import SageQueueDescriptor

__all__ = ["BACKENDS", "environment_type", "full_backend_name", "is_distributed", "make_queue", "ring_missing"]

BACKENDS: Final = ("sage_queue", "ray_queue", "python_queue")
_SHORT: Final = {
    "sage": "sage_queue",
    "sage_mmap_queue": "sage_queue",
    "ray": "ray_queue",
    "python": "python_queue",
}
_DESCRIPTORS: Final = {
    "sage_queue": "SageQueueDescriptor",
    "ray_queue": "RayQueueDescriptor",
    "python_queue": "LocalQueueDescriptor",
}
_OF_SAGE: Final = ("maxsize", "auto_cleanup", "namespace", "enable_multi_tenant")


def full_backend_name(backend: str) -> str:
    """
    Return the full name of a backend.

    Raises:
        ValueError: ``Unknown backend: …``.
    """
    full = _SHORT.get(backend, backend)
    if full not in BACKENDS:
        raise ValueError(f"Unknown backend: {backend}")
    return full


def ring_missing() -> str | None:
    """Return what keeps rings from being made here; None when nothing does."""
    return SageQueueDescriptor.missing_here()


def environment_type() -> str:
    """Return where the program runs: ``ray``, ``kubernetes``, ``slurm`` or ``local``."""
    ray = sys.modules.get("ray")
    if ray is not None and ray.is_initialized():
        return "ray"
    if "KUBERNETES_SERVICE_HOST" in os.environ:
        return "kubernetes"
    return "slurm" if "SLURM_JOB_ID" in os.environ else "local"


def is_distributed() -> bool:
    """Whether queues have to reach other hosts."""
    return environment_type() != "local"


def is_ray_installed() -> bool:
    """Whether Ray can be imported; it is not imported for this."""
    return importlib.util.find_spec("ray") is not None


def make_queue(backend: str, kwargs: Mapping[str, Any]) -> Any:
    """
    Make a queue of a backend.

    Args:
        backend: Its full name.
        kwargs: As ``create_queue`` takes them; what the backend has no use for is ignored, as ever.

    Raises:
        LegacyCallError: The mode of the queue is ``strict``.
    """
    name = kwargs.get("name")
    decision = decide(name or backend)
    if decision.mode is Mode.STRICT:
        raise LegacyCallError(place_of_call(), "create_queue(...)", _replacement(backend, kwargs))
    if backend == "sage_queue":
        queue = SageQueue.__new__(SageQueue)
        taken = {key: kwargs[key] for key in _OF_SAGE if key in kwargs}
        queue._begin(name or f"anonymous-{uuid.uuid4().hex[:8]}", **taken)
        return queue
    maxsize = kwargs.get("maxsize", 0)
    if backend == "python_queue":
        return ThreadLine(name or backend, maxsize)
    missing = ray_missing()
    if missing is None:
        return RayLine(name or backend, maxsize)
    return _instead_of_ray(missing, maxsize)


def _instead_of_ray(missing: str, maxsize: int) -> Any:
    """A queue that reaches less far than Ray's, with one loud warning."""
    if has_quirk("silent_fallback"):
        return ThreadLine("ray_queue", maxsize)
    warnings.warn(
        f"a Ray queue was asked for and {missing}; this is a queue between the processes of this host instead. "
        "Call ray.init() first, or ask for backend='sage'",
        ReachWarning,
        stacklevel=2,
    )
    queue = SageQueue.__new__(SageQueue)
    queue._begin(f"instead-of-ray-{uuid.uuid4().hex[:8]}", DEFAULT_MAXSIZE)
    return queue


def _replacement(backend: str, kwargs: Mapping[str, Any]) -> str:
    said = [] if "name" not in kwargs else [f"queue_id={kwargs['name']!r}"]
    if "maxsize" in kwargs:
        said.append(f"{'capacity_bytes' if backend == 'sage_queue' else 'maxsize'}={kwargs['maxsize']!r}")
    return f"sage_qd.{_DESCRIPTORS[backend]}({', '.join(said)}).open()"
