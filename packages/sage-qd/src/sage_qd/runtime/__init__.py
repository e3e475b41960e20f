"""
The dataflow runtime: programs of steps, run as threads, processes or actors that speak through queues.

Write a job with :class:`LocalEnvironment`, :class:`ProcessEnvironment` or :class:`RemoteEnvironment`; the same text
runs in all three.
"""

from typing import TYPE_CHECKING, Any

from sage_qd.runtime.connection import Connection, EnhancedConnection
from sage_qd.runtime.context import RuntimeContext
from sage_qd.runtime.dispatcher import Dispatcher, JobState
from sage_qd.runtime.environment import (
    ConnectedStreams,
    DataStream,
    Environment,
    LocalEnvironment,
    ProcessEnvironment,
    RemoteEnvironment,
    Result,
)
from sage_qd.runtime.graph import ErrorPolicy, ExecutionGraph, GraphNode, Input, ParallelEdge, Transformation
from sage_qd.runtime.operators import BaseFunction, FileSource
from sage_qd.runtime.packets import Packet, StopSignal, stable_hash
from sage_qd.runtime.process_task import ProcessTask
from sage_qd.runtime.router import BaseRouter
from sage_qd.runtime.task import BaseTask, LocalTask

if TYPE_CHECKING:
    from sage_qd.runtime.ray_task import RayTask as RayTask

__all__ = [
    "BaseFunction",
    "BaseRouter",
    "BaseTask",
    "ConnectedStreams",
    "Connection",
    "DataStream",
    "Dispatcher",
    "EnhancedConnection",
    "Environment",
    "ErrorPolicy",
    "ExecutionGraph",
    "FileSource",
    "GraphNode",
    "Input",
    "JobState",
    "LocalEnvironment",
    "LocalTask",
    "Packet",
    "ParallelEdge",
    "ProcessEnvironment",
    "ProcessTask",
    "RemoteEnvironment",
    "Result",
    "RuntimeContext",
    "StopSignal",
    "Transformation",
    "stable_hash",
]


def __getattr__(name: str) -> Any:
    """Load ``RayTask`` when it is used; it is not in ``__all__``, because it needs Ray."""
    if name == "RayTask":
        from sage_qd.runtime.dispatcher import ray_task

        return ray_task().RayTask
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
