"""
Queues of others, behind the few calls that a run makes: to be compared, with exactly what they promise and no more.

They know no lease and no end. A message is gone when it is taken, so a consumer that is killed loses the one in its
hands; and the end is a mark that the conductor puts for each consumer. They cannot be opened by name, either: the
objects are carried to each process when it is started, with the descriptors that belong to them.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import queue
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from io import BytesIO
from multiprocessing import context, reduction
from typing import Any
from uuid import uuid4

from sage_qd import BackendUnavailableError, Empty, ShutDown
from sage_sim import ray_cluster

_END = "sage-sim: end"
_ITEMS = 1024


@dataclass(frozen=True)
class Handed:
    """A message that left its queue when it was taken; `ack` has nothing left to do."""

    value: Any
    attempt: int = 0

    def ack(self) -> None:
        """Nothing: it is gone already."""


class ForeignQueue:
    """
    A queue with ``put``, ``get`` and ``qsize`` as in the standard library.

    Args:
        inner: The queue.

    Attributes:
        consumers: How many processes take from it; each needs a mark of the end. Set by the conductor.
    """

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.consumers = 1
        self._marks = 0
        self._ended = False

    def put(self, item: Any) -> None:
        """Append a message, waiting for room."""
        while True:
            try:
                self._inner.put(item, True, 1.0)
            except queue.Full:
                continue
            return

    def lease(self, block: bool = True, timeout: float | None = None) -> Handed:
        """
        Take a message.

        Raises:
            Empty: There was none in time.
            ShutDown: This consumer has seen the end.
        """
        while not self._ended:
            try:
                item = self._inner.get(block, 1.0 if timeout is None else timeout)
            except queue.Empty:
                if not block or timeout is not None:
                    raise Empty from None
                continue
            if item == _END:
                self._ended = True
                break
            return Handed(item)
        raise ShutDown

    def shutdown(self) -> None:
        """Put the mark of the end, one for each consumer, as far as there is room; call it again until `has_ended`."""
        while self._marks < self.consumers:
            try:
                self._inner.put(_END, False)
            except queue.Full:
                return
            self._marks += 1

    @property
    def has_ended(self) -> bool:
        """Whether there is a mark for each consumer."""
        return self._marks >= self.consumers

    def drop(self) -> None:
        """Leave without waiting for what was put here: whoever might have taken it is gone."""
        if hasattr(self._inner, "cancel_join_thread"):
            self._inner.cancel_join_thread()
        if hasattr(self._inner, "close"):
            self._inner.close()

    def close(self) -> None:
        """Leave in good order: what was put is handed over first."""
        if hasattr(self._inner, "close"):
            self._inner.close()
        if hasattr(self._inner, "join_thread"):
            self._inner.join_thread()

    @staticmethod
    def create_multiprocessing(max_items: int, capacity_bytes: int) -> ForeignQueue:
        """A ``multiprocessing.Queue``; it has no bound in bytes."""
        return ForeignQueue(multiprocessing.get_context("spawn").Queue(max_items or _ITEMS))

    @staticmethod
    def create_faster_fifo(max_items: int, capacity_bytes: int) -> ForeignQueue:
        """
        A ``faster_fifo.Queue``, bounded in bytes.

        Raises:
            BackendUnavailableError: It is not installed.
        """
        try:
            library = import_module("faster_fifo")
        except ImportError as error:
            raise BackendUnavailableError(
                backend="faster_fifo", missing=str(error), install="pip install faster-fifo"
            ) from error
        return ForeignQueue(library.Queue(max_size_bytes=capacity_bytes))

    @staticmethod
    def create_ray_util_queue(max_items: int, capacity_bytes: int) -> ForeignQueue:
        """A ``ray.util.queue.Queue`` in the cluster that was joined; it has no bound in bytes."""
        return ForeignQueue(ray_cluster.PeerQueue(f"sage-sim-{uuid4().hex}", max_items or _ITEMS, makes=True))


@dataclass(frozen=True)
class Maker:
    """How a kind is made, by its bounds."""

    create_with: Callable[[int, int], ForeignQueue]

    def create(self, *, max_items: int, capacity_bytes: int) -> ForeignQueue:
        """Make one; each kind takes the bound that it has."""
        return self.create_with(max_items, capacity_bytes)


FOREIGN = {
    "multiprocessing": Maker(ForeignQueue.create_multiprocessing),
    "faster_fifo": Maker(ForeignQueue.create_faster_fifo),
    "ray_util_queue": Maker(ForeignQueue.create_ray_util_queue),
}
"""By the name that an edge uses."""


received: dict[int, int] = {}
"""In a process to which queues were carried: under which number each descriptor arrived, by that of its sender."""


@dataclass(frozen=True)
class Inherited:
    """A descriptor that a child has, under another number."""

    descriptor: int

    def detach(self) -> int:
        """Hand over one for the queue to keep."""
        return os.dup(received[self.descriptor])


class Luggage:
    """
    Queues on their way into a process that is about to be started.

    The library hands its locks and pipes only to a child that it starts itself; this stands in for its starter, and
    collects the descriptors that the child has to inherit.

    Args:
        queues: By name.

    Attributes:
        packed: What the child gives to `unpacked`.
        descriptors: What it has to inherit; see `received`.
    """

    def __init__(self, queues: dict[str, ForeignQueue]) -> None:
        found: list[int] = []
        self._found = found
        buffer = BytesIO()
        context.set_spawning_popen(self)  # type: ignore[arg-type]  # what it calls is here
        try:
            reduction.ForkingPickler(buffer, pickle.HIGHEST_PROTOCOL).dump(queues)
        finally:
            context.set_spawning_popen(None)
        self.packed = buffer.getvalue()
        self.descriptors = sorted(set(found))

    def duplicate_for_child(self, descriptor: int) -> int:
        """Called for each descriptor that the child needs."""
        self._found.append(descriptor)
        return descriptor

    @staticmethod
    def DupFd(descriptor: int) -> Inherited:  # noqa: N802  (the library's name)
        """Called with what `duplicate_for_child` returned; what arrives in the child."""
        return Inherited(descriptor)


def unpacked(packed: bytes) -> dict[str, ForeignQueue]:
    """The queues that came along with this process."""
    found: dict[str, ForeignQueue] = pickle.loads(packed)
    return found
