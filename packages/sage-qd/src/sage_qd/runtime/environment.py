"""
The environment: where a job runs, and the fluent way to write one.

::

    env = LocalEnvironment("words")
    counts = env.from_collection(lines).flatmap(str.split).keyby(lambda word: word).reduce(lambda n, _: n + 1)
"""

import os
import uuid
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Literal

from sage_qd.descriptors.strategy import QueueCreationStrategy
from sage_qd.runtime.context import DeliveryLevel
from sage_qd.runtime.dispatcher import Dispatcher
from sage_qd.runtime.graph import (
    ErrorPolicy,
    ExecutionGraph,
    Input,
    Partition,
    ServiceNode,
    Transformation,
)
from sage_qd.runtime.operators import (
    CoMapOperator,
    CountOperator,
    FilterOperator,
    FlatMapOperator,
    JoinOperator,
    KeyByOperator,
    MapOperator,
    Operator,
    ReduceOperator,
    SinkOperator,
    SourceOperator,
)
from sage_qd.runtime.router import BATCH_SIZE, LINGER_SECONDS

__all__ = [
    "ConnectedStreams",
    "DataStream",
    "Environment",
    "LocalEnvironment",
    "ProcessEnvironment",
    "RemoteEnvironment",
    "Result",
]

Platform = Literal["local", "process", "remote"]


class Environment:
    """
    One job: its steps, its services, and how it is run.

    Args:
        name: Of the job, for people. Queues carry it together with a random part, so two jobs never meet.
        platform: ``local`` runs each task in a thread of this process, ``process`` each in a process of its own,
            ``remote`` each in an actor of the Ray cluster that this process is in.
        delivery: What a killed task may do to packets: ``at_most_once`` may lose those it had in hand,
            ``at_least_once`` may repeat them, ``exactly_once`` does neither, for operators that do the same again with
            the same packets.
        restarts: How often a killed task is started again, then the job fails; a step or service may say otherwise for
            itself. Threads cannot be killed, and are never started again.
        batch_size: Most packets in one message between tasks.
        linger: Seconds that a packet may wait for others to travel with.
        overflow: ``block`` slows a task down whose receiver is slow; ``drop`` loses packets, and counts them.
        lanes: ``shared`` gives each task one queue, ``per_edge`` one for each path to it; not under ``exactly_once``.
        strategy: Makes what chooses the kinds of the job's queues, from the name that is part of theirs: the class
            :class:`~sage_qd.QueueCreationStrategy`, one derived from it, or a function that returns such an object.
    """

    def __init__(
        self,
        name: str = "job",
        *,
        platform: Platform = "local",
        delivery: DeliveryLevel = "at_most_once",
        restarts: int = 0,
        batch_size: int = BATCH_SIZE,
        linger: float = LINGER_SECONDS,
        overflow: Literal["block", "drop"] = "block",
        lanes: Literal["shared", "per_edge"] = "shared",
        strategy: Callable[[str], QueueCreationStrategy] = QueueCreationStrategy,
    ) -> None:
        _check_choice("platform", platform, ("local", "process", "remote"))
        _check_choice("delivery", delivery, ("at_most_once", "at_least_once", "exactly_once"))
        _check_choice("overflow", overflow, ("block", "drop"))
        _check_choice("lanes", lanes, ("shared", "per_edge"))
        if overflow == "drop" and delivery != "at_most_once":
            raise ValueError(f"overflow='drop' loses packets, and delivery={delivery!r} may not")
        if lanes == "per_edge" and delivery == "exactly_once":
            raise ValueError(
                "lanes='per_edge' does not keep the order in which packets of several paths came, which"
                " delivery='exactly_once' needs to do the same again; use lanes='shared'"
            )
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}")
        if type(restarts) is not int or restarts < 0:
            raise ValueError(f"restarts must be 0 or more, not {restarts!r}")
        if linger <= 0:
            raise ValueError(f"linger must be more than 0 seconds, not {linger}")
        self.name = name
        self.job = f"{name}.{uuid.uuid4().hex[:12]}"
        self.platform: Platform = platform
        self.delivery: DeliveryLevel = delivery
        self.restarts = restarts
        self.batch_size = batch_size
        self.linger = linger
        self.overflow: Literal["block", "drop"] = overflow
        self.lanes: Literal["shared", "per_edge"] = lanes
        self.strategy = strategy
        self.node_ids: Sequence[str] = ()
        self.dispatcher: Dispatcher | None = None
        self._steps: list[Transformation] = []
        self._services: list[ServiceNode] = []

    # -- Writing ------------------------------------------------------------------------------------------------------

    def from_collection(
        self, items: Iterable[Any], *, name: str | None = None, parallelism: int = 1, restarts: int | None = None
    ) -> "DataStream":
        """Start with a list, a range, or anything else that can be iterated; instances share the items."""
        return self.from_source(items, name=name, parallelism=parallelism, restarts=restarts)

    def from_source(
        self,
        source: Iterable[Any] | Callable[[], Iterable[Any]],
        *,
        name: str | None = None,
        parallelism: int = 1,
        restarts: int | None = None,
    ) -> "DataStream":
        """
        Start with a source.

        Args:
            source: An iterable, or a function that returns one in the task's own process.
            name: Of the step.
            parallelism: How many instances run; of n, each takes every n-th item.
            restarts: How often an instance is started again after it was killed; None for as often as the job says.
        """
        if not callable(source):
            iter(source)  # a TypeError here rather than in the task
        made = partial(SourceOperator, source)
        return self._added("source", made, name, parallelism, [], is_source=True, restarts=restarts)

    def add_service(self, name: str, factory: Callable[[], object], *, restarts: int | None = None) -> None:
        """
        Add a service: ``factory()`` is called where the service runs; tasks call the methods of the result.

        Args:
            name: By which tasks call it.
            factory: Makes the object, anew when the service is started again; the call in hand gets no answer then.
            restarts: How often it is started again after it was killed; None for as often as the job says.
        """
        if not callable(factory):
            raise TypeError(f"a service is given as a class or function that makes it, not {factory!r:.80}")
        self._services.append(ServiceNode(name, factory, restarts))

    def _added(
        self,
        kind: str,
        factory: Callable[[], Operator],
        name: str | None,
        parallelism: int,
        inputs: list[Input],
        on_error: str = "fail",
        **settings: Any,
    ) -> "DataStream":
        taken = {step.name for step in self._steps}
        if name is None:
            name, number = kind, 2
            while name in taken:
                name, number = f"{kind}{number}", number + 1
        step = Transformation(
            name=name,
            factory=factory,
            parallelism=parallelism,
            inputs=inputs,
            on_error=ErrorPolicy.of(on_error),
            **settings,
        )
        self._steps.append(step)
        return DataStream(self, step)

    # -- Running ------------------------------------------------------------------------------------------------------

    def submit(self) -> Dispatcher:
        """
        Start the job; returns at once. Use ``wait`` of what is returned.

        Raises:
            GraphError: The steps do not make a graph.
            RuntimeError: It was submitted already.
        """
        if self.dispatcher is not None:
            raise RuntimeError(f"job {self.name!r} was submitted already; make another environment for another run")
        self.dispatcher = Dispatcher(ExecutionGraph(self._steps, self._services), self)
        self.dispatcher.submit()
        self.dispatcher.start()
        return self.dispatcher

    def execute(self, timeout: float | None = None) -> Dispatcher:
        """
        Run the job to its end.

        Raises:
            TimeoutError: It had not ended after ``timeout`` seconds, and was stopped.
            Exception: What ended the job: the first error of a task.
        """
        dispatcher = self.submit()
        try:
            if not dispatcher.wait(timeout):
                raise TimeoutError(f"job {self.name!r} had not ended after {timeout:g} s, and was stopped")
        finally:
            dispatcher.stop()
        return dispatcher

    def stop(self) -> None:
        """Stop the job, if it runs."""
        if self.dispatcher is not None:
            self.dispatcher.stop()


class LocalEnvironment(Environment):
    """An environment whose tasks are threads of this process."""

    def __init__(self, name: str = "job", **settings: Any) -> None:
        super().__init__(name, platform="local", **settings)


class ProcessEnvironment(Environment):
    """
    An environment whose tasks are processes, forked from this one: functions need not be pickled, packets do.

    Raises:
        OSError: This system cannot fork.
    """

    def __init__(self, name: str = "job", **settings: Any) -> None:
        if not hasattr(os, "fork"):
            raise OSError("tasks in processes need os.fork(); use LocalEnvironment here")
        super().__init__(name, platform="process", **settings)


class RemoteEnvironment(Environment):
    """
    An environment whose tasks are actors of a Ray cluster, which ``ray.init()`` has connected this process to.

    Functions travel to other nodes by Ray's own pickler: lambdas do, modules that the nodes do not have do not.

    Args:
        name: Of the job.
        node_ids: Ray's ids of the nodes on which tasks are placed, in turn; none for where Ray likes.
        **settings: As for :class:`Environment`.
    """

    def __init__(self, name: str = "job", *, node_ids: Sequence[str] = (), **settings: Any) -> None:
        super().__init__(name, platform="remote", **settings)
        self.node_ids = tuple(node_ids)


class DataStream:
    """
    What comes out of a step, to be sent on to others. Every method adds a step and returns its output.

    Packets that were given a key keep it, and all of one key go to one instance of each step that follows.
    """

    def __init__(
        self, env: Environment, step: Transformation, partition: Partition | None = None, is_keyed: bool = False
    ) -> None:
        self._env = env
        self._step = step
        self._partition = partition
        self._is_keyed = is_keyed

    def _input(self) -> Input:
        return Input(self._step, self._partition or ("hash" if self._is_keyed else "round_robin"))

    def _then(self, kind: str, factory: Callable[[], Operator], settings: dict[str, Any]) -> "DataStream":
        return _added_after([self], kind, factory, settings)

    def map(self, function: Callable[[Any], Any], **settings: Any) -> "DataStream":
        """
        One result for each packet; None is dropped.

        Args:
            function: A callable, or a class of :class:`BaseFunction`.
            **settings: ``name``; ``parallelism``, 1 by default; ``buffer_size`` in batches; ``on_error``: ``fail`` ends
                the job, ``skip`` makes a dead letter of the packet, ``retry(n)`` tries again before that; ``restarts``,
                how often an instance is started again after it was killed, as often as the job says by default.
        """
        return self._then("map", partial(MapOperator, function), settings)

    def flatmap(self, function: Callable[[Any], Iterable[Any]], **settings: Any) -> "DataStream":
        """Any number of results for each packet; see :meth:`map`."""
        return self._then("flatmap", partial(FlatMapOperator, function), settings)

    def filter(self, function: Callable[[Any], Any], **settings: Any) -> "DataStream":
        """Only packets for which the function is true; see :meth:`map`."""
        return self._then("filter", partial(FilterOperator, function), settings)

    def keyby(self, function: Callable[[Any], Any], **settings: Any) -> "DataStream":
        """Give each packet a key; the steps that follow get all packets of one key in one instance."""
        found = self._then("keyby", partial(KeyByOperator, function), settings)
        found._is_keyed = True
        return found

    def reduce(
        self,
        function: Callable[[Any, Any], Any],
        *,
        first: Callable[[Any], Any] | None = None,
        at_end: bool = False,
        **settings: Any,
    ) -> "DataStream":
        """
        Keep a value for each key, and emit ``(key, value)`` after each packet.

        Args:
            function: Makes the next value of the value and a packet.
            first: Makes the first value of a key from its first packet, which is the value itself otherwise.
            at_end: Emit the last values only, when all input has been seen.
            **settings: See :meth:`map`.
        """
        settings["is_by_key"] = True
        return self._then("reduce", partial(ReduceOperator, function, at_end, first), settings)

    def sum(self, *, at_end: bool = False, **settings: Any) -> "DataStream":
        """Add up the packets of each key; see :meth:`reduce`."""
        return self.reduce(_add, at_end=at_end, **settings)

    def count(self, *, at_end: bool = False, **settings: Any) -> "DataStream":
        """Count the packets of each key; see :meth:`reduce`."""
        settings["is_by_key"] = True
        return self._then("count", partial(CountOperator, at_end), settings)

    def broadcast(self) -> "DataStream":
        """Send every packet to every instance of the next step."""
        return DataStream(self._env, self._step, "broadcast", self._is_keyed)

    def partition(self, function: Callable[[Any, Any, int], int]) -> "DataStream":
        """Choose the instance of the next step: ``function(payload, key, instances) -> index``."""
        return DataStream(self._env, self._step, function, self._is_keyed)

    def connect(self, other: "DataStream") -> "ConnectedStreams":
        """Take this and another stream together."""
        return ConnectedStreams(self._env, self, other)

    def join(self, other: "DataStream", function: Callable[[Any, Any], Any], **settings: Any) -> "DataStream":
        """Pair the packets of two keyed streams that have the same key; see :meth:`map`."""
        settings["is_by_key"] = True
        return ConnectedStreams(self._env, self, other)._then("join", partial(JoinOperator, function), settings)

    def sink(self, function: Callable[[Any], object], **settings: Any) -> "DataStream":
        """Call a function for each packet; see :meth:`map`."""
        return self._then("sink", partial(SinkOperator, function), settings)

    def print(self, **settings: Any) -> "DataStream":
        """Print each packet."""
        return self.sink(print, **settings)

    def collect(self) -> "Result":
        """Hand the packets to the driver: a list, when the job has ended."""
        stream = self._env._added("collect", MapOperator, None, 1, [self._input()], is_result=True)
        return Result(self._env, stream._step.name)


class ConnectedStreams:
    """Two streams for one step."""

    def __init__(self, env: Environment, *streams: DataStream) -> None:
        for stream in streams:
            if stream._env is not env:
                raise ValueError(f"the streams belong to two jobs: {env.name!r} and {stream._env.name!r}")
        self._env = env
        self._streams = streams

    def _then(self, kind: str, factory: Callable[[], Operator], settings: dict[str, Any]) -> DataStream:
        return _added_after(self._streams, kind, factory, settings)

    def comap(self, first: Callable[[Any], Any], second: Callable[[Any], Any], **settings: Any) -> DataStream:
        """One function for the packets of each stream; see :meth:`DataStream.map`."""
        return self._then("comap", partial(CoMapOperator, first, second), settings)


class Result:
    """What a stream handed to the driver."""

    def __init__(self, env: Environment, name: str) -> None:
        self._env = env
        self._name = f"{name}_0"

    @property
    def items(self) -> list[Any]:
        """The packets that have arrived; all of them when the job has ended."""
        dispatcher = self._env.dispatcher
        return [] if dispatcher is None else list(dispatcher.results.get(self._name, []))


def _added_after(
    streams: Sequence[DataStream], kind: str, factory: Callable[[], Operator], settings: dict[str, Any]
) -> DataStream:
    """Add a step behind streams: what comes out of it has keys where all of them have."""
    name, parallelism = settings.pop("name", None), settings.pop("parallelism", 1)
    inputs = [stream._input() for stream in streams]
    found = streams[0]._env._added(kind, factory, name, parallelism, inputs, **settings)
    found._is_keyed = all(stream._is_keyed for stream in streams)
    return found


def _add(total: Any, value: Any) -> Any:
    return total + value


def _check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, not {value!r}")
