"""What a task knows: plain data that goes to its process, and what is made from it there."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

from sage_qd.descriptors.base import BaseQueueDescriptor
from sage_qd.runtime.connection import Connection
from sage_qd.runtime.graph import ErrorPolicy, Partition

__all__ = ["DeliveryLevel", "RuntimeContext", "Snapshots"]

DeliveryLevel = Literal["at_most_once", "at_least_once", "exactly_once"]


class Snapshots(Protocol):
    """Where one task keeps its snapshot."""

    def write(self, state: Any) -> None:
        """Put a snapshot in place of the one before it, in one step."""

    def read(self) -> Any:
        """Return the snapshot, or None when there is none yet."""


@dataclass(kw_only=True)
class RuntimeContext:
    """
    The context of one task. Pickled, it is plain data: descriptors travel, open queues do not.

    Attributes:
        name: The task.
        job: The job, which is part of the names of all its queues.
        parallel_index: Which instance this is.
        parallelism: How many there are.
        stop_signal_num: How many stop signals the task waits for; known before any task is made.
        input_indices: The input of the operator that each path feeds, by path.
        delivery: What a kill may do to packets.
        on_error: What becomes of a packet on which the operator raises.
        restarts: How often the task is started again after it was killed.
        batch_size: Most packets in one message.
        linger: Seconds that a packet may wait for others.
        overflow: What happens to packets for which there is no room.
        connections: The paths that start here, with the partition of their group.
        snapshots: Where the task keeps its snapshot; None for no snapshots.
        dead_letters: Where packets go that were skipped; None for nowhere.
        lanes: The queues of single paths, where the job has one for each.
    """

    name: str
    job: str
    parallel_index: int = 0
    parallelism: int = 1
    stop_signal_num: int = 0
    input_indices: list[int] = field(default_factory=list)
    delivery: DeliveryLevel = "at_most_once"
    on_error: ErrorPolicy = field(default_factory=ErrorPolicy)
    restarts: int = 0
    batch_size: int = 512
    linger: float = 0.005
    overflow: Literal["block", "drop"] = "block"
    connections: list[tuple[Connection, Partition]] = field(default_factory=list)
    snapshots: Snapshots | None = None
    dead_letters: BaseQueueDescriptor | None = None
    lanes: list[BaseQueueDescriptor] = field(default_factory=list)
    _input: BaseQueueDescriptor | None = None
    _pool: Mapping[str, BaseQueueDescriptor] = field(default_factory=dict)
    _services: tuple[str, ...] = ()
    _client: Any = field(default=None, repr=False)

    def set_input_queue_descriptor(self, descriptor: BaseQueueDescriptor) -> None:
        """Say from which queue the task takes its packets."""
        self._input = descriptor

    def get_input_queue_descriptor(self) -> BaseQueueDescriptor | None:
        """Return the descriptor of the queue from which the task takes its packets; a source has none."""
        return self._input

    def set_queue_descriptor_pool(self, pool: Mapping[str, BaseQueueDescriptor]) -> None:
        """Give the task the descriptors of its job, by name."""
        self._pool = pool

    def get_queue_descriptor(self, queue_id: str) -> BaseQueueDescriptor | None:
        """Return a descriptor of the job by name, such as ``input_map_0``; None when there is no such one."""
        return self._pool.get(queue_id)

    def set_service_names(self, names: tuple[str, ...]) -> None:
        """Say which services the job has."""
        self._services = tuple(names)

    @property
    def service_names(self) -> tuple[str, ...]:
        """The services of the job."""
        return self._services

    def call_service(
        self, service_name: str, *args: Any, method: str = "__call__", timeout: float = 30.0, **kwargs: Any
    ) -> Any:
        """
        Call a service of the job and wait for its answer.

        Args:
            service_name: As it was added to the environment.
            *args: For the method.
            method: The method of the service's object.
            timeout: Seconds to wait.
            **kwargs: For the method.

        Raises:
            KeyError: The job has no such service.
            TimeoutError: No answer came in time.
            RuntimeError: The service raised; the text ends with its traceback.
        """
        return self.call_service_async(service_name, *args, method=method, timeout=timeout, **kwargs).result()

    def call_service_async(
        self, service_name: str, *args: Any, method: str = "__call__", timeout: float = 30.0, **kwargs: Any
    ) -> Any:
        """
        Call a service; return a :class:`~sage_qd.runtime.services.ServiceCall`, whose ``result()`` waits.

        Raises:
            KeyError: The job has no such service.
            TimeoutError: The service had no room for another request in time.
        """
        if service_name not in self._services:
            known = f"it has: {', '.join(self._services)}" if self._services else "it has none; see add_service()"
            raise KeyError(f"job {self.job!r} has no service {service_name!r}; {known}")
        if self._client is None:
            from sage_qd.runtime.services import ServiceClient

            self._client = ServiceClient(self)
        return self._client.call(service_name, method, args, kwargs, timeout)

    def as_attached(self) -> "RuntimeContext":
        """Return the same context with descriptors of its own, for another process: they open queues anew."""
        connections = [
            (replace(each, target_queue_descriptor=_anew(each.target_queue_descriptor)), partition)
            if each.target_queue_descriptor is not None
            else (each, partition)
            for each, partition in self.connections
        ]
        return replace(
            self,
            connections=connections,
            lanes=[_anew(each) for each in self.lanes],
            dead_letters=None if self.dead_letters is None else _anew(self.dead_letters),
            _input=None if self._input is None else _anew(self._input),
            _pool=_AttachedPool(self._pool),
            _client=None,
        )

    def close(self) -> None:
        """Give up what was opened for services."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_client": None}


class _AttachedPool(Mapping[str, BaseQueueDescriptor]):
    """The descriptors of a job for another process: made anew one at a time, as few tasks ask for many."""

    def __init__(self, pool: Mapping[str, BaseQueueDescriptor]) -> None:
        self._pool = pool
        self._made: dict[str, BaseQueueDescriptor] = {}

    def __getitem__(self, name: str) -> BaseQueueDescriptor:
        if name not in self._made:
            self._made.setdefault(name, _anew(self._pool[name]))
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._pool)

    def __len__(self) -> int:
        return len(self._pool)


def _anew(descriptor: BaseQueueDescriptor) -> BaseQueueDescriptor:
    return BaseQueueDescriptor.from_dict(descriptor.to_dict())
