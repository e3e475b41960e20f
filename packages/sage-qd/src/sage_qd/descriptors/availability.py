"""
Whether queues of a kind can be opened in this process: what is missing here, in words, or None.

Asking imports nothing heavy. Ray is looked for among the modules that the program itself has loaded, since a Ray that
was not started cannot carry a queue, and starting it is the program's decision.
"""

import sys
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from types import MappingProxyType
from typing import Final

__all__ = ["missing_for"]


def missing_for(queue_type: str) -> str | None:
    """Return what a built-in kind lacks here; None when it lacks nothing, or is not built in."""
    probe = _PROBES.get(queue_type)
    return None if probe is None else probe()


def _missing_for_the_ring() -> str | None:
    if not sys.platform.startswith("linux"):
        return f"the ring needs Linux, and this is {sys.platform}"
    try:
        import sage_qd.ring  # noqa: F401  (whether this works is the question)
    except ImportError as error:
        return f"the compiled ring cannot be imported ({error})"
    return None


def _missing_for_ray() -> str | None:
    ray = sys.modules.get("ray")
    if ray is None and find_spec("ray") is None:
        return "Ray is not installed: pip install 'sage-qd[ray]'"
    if ray is None or not ray.is_initialized():
        return "Ray is not started: call ray.init() first"
    return None


def _missing_for_rpc() -> str | None:
    return None if find_spec("zmq") is not None else "pyzmq is not installed: pip install 'sage-qd[rpc]'"


def _missing_for_shared_memory() -> str | None:
    return None if find_spec("fcntl") is not None else f"it needs a POSIX system, and this is {sys.platform}"


_PROBES: Final[Mapping[str, Callable[[], str | None]]] = MappingProxyType(
    {
        "ray_queue": _missing_for_ray,
        "rpc_queue": _missing_for_rpc,
        "sage_queue": _missing_for_the_ring,
        "shm_queue": _missing_for_shared_memory,
    }
)
