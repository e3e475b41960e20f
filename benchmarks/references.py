"""The bare ring and the standard library's queues: what ours is compared with on every machine."""

from __future__ import annotations

import queue
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from channels import FORK, Channel, End, OneEnded, Shape

sys.path.insert(0, str(Path(__file__).with_name("floor")))
import floor_build

FLOOR_FLAGS: tuple[str, ...] = floor_build.FLAGS


def bare_ring() -> ModuleType:
    """The module of the bare ring, compiled first where that is needed."""
    return floor_build.load()


class Floor(Channel):
    """The bare ring of ``floor/``: what a ring could cost without locks, types, checks and recovery."""

    name = "floor"

    def open(self) -> Any:
        """Open the ring's file; the first to come makes it."""
        return bare_ring().Ring(str(self.folder / "floor"), self.shape.capacity_bytes)

    def sender(self, index: int) -> End:
        ring = self.open()
        return End(put=ring.put, put_many=ring.put_many)

    def receiver(self, index: int) -> End:
        ring = self.open()
        return End(get=ring.get, get_many=ring.get_many)

    def both(self) -> End:
        ring = self.open()
        return End(put=ring.put, get=ring.get, put_many=ring.put_many, get_many=ring.get_many)

    @classmethod
    def missing(cls) -> str | None:
        try:
            bare_ring()
        except floor_build.FloorBuildError as failure:
            return f"failed: {failure}"
        return None


class MultiprocessingQueue(Channel):
    """``multiprocessing.Queue`` as everybody makes it: without a bound."""

    name = "multiprocessing.Queue"

    def __init__(self, folder: Path, shape: Shape) -> None:
        super().__init__(folder, shape)
        self.queue: Any = FORK.Queue()

    def sender(self, index: int) -> End:
        return End(put=self.queue.put, put_array=self.queue.put, pickles=True)

    def receiver(self, index: int) -> End:
        return End(get=self.queue.get, get_array=self.queue.get, pickles=True)

    def remove(self) -> None:
        self.queue.close()


class MultiprocessingPipe(Channel):
    """``multiprocessing.Pipe`` with its bytes calls."""

    name = "multiprocessing.Pipe"

    def __init__(self, folder: Path, shape: Shape) -> None:
        super().__init__(folder, shape)
        self.source, self.target = FORK.Pipe(duplex=False)

    def sender(self, index: int) -> End:
        return End(put=self.target.send_bytes)

    def receiver(self, index: int) -> End:
        return End(get=self.source.recv_bytes)

    def remove(self) -> None:
        self.source.close()
        self.target.close()


class ThreadQueue(OneEnded):
    """``queue.Queue``: threads only, so only in the rows of one process."""

    name = "queue.Queue"
    kind: Any = queue.Queue

    def both(self) -> End:
        made = self.kind()
        return End(put=made.put, get=made.get, pickles=True)


class SimpleQueue(ThreadQueue):
    """``queue.SimpleQueue``, written in C: hands references over and copies nothing."""

    name = "queue.SimpleQueue"
    kind = queue.SimpleQueue
