"""Every kind of queue as a contender, opened from its descriptor, and what each one is compared with."""

from __future__ import annotations

import importlib
import os
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from channels import Channel, End, OneEnded, Shape
from ours import SageQueue
from references import MultiprocessingQueue
from topologies import Job, Outcome, Role, Topology, expect, now, payloads


def name_of(folder: Path) -> str:
    """A queue name that no other crew has."""
    return "-".join(folder.parts[-3:])


class SageDescriptor(SageQueue):
    """The verbs of an open descriptor: the facade over the ring."""

    name = "sage-qd descriptor"

    def both(self) -> End:
        opened = self.descriptor.open()
        return End(put=self.descriptor.put, get=self.descriptor.get, close=opened.close, holds=[opened])


class LocalQueue(OneEnded):
    """The queue between threads, opened from its descriptor."""

    name, distribution, module = "sage-qd local", "sage-qd", "sage_qd"

    def both(self) -> End:
        opened = importlib.import_module("sage_qd").LocalQueueDescriptor(name_of(self.folder)).open()
        return End(put=opened.put, get=opened.get, pickles=True, close=opened.close, holds=[opened])


class ShmQueue(Channel):
    """The portable queue between processes, opened from its descriptor."""

    name, distribution, module = "sage-qd shm", "sage-qd", "sage_qd"

    def __init__(self, folder: Path, shape: Shape) -> None:
        super().__init__(folder, shape)
        self.descriptor = importlib.import_module("sage_qd").SharedMemoryQueueDescriptor(
            name_of(folder), capacity_bytes=shape.capacity_bytes
        )
        self.kept = self.descriptor.open()

    def sender(self, index: int) -> End:
        opened = self.descriptor.attach()
        return End(put=opened.put, put_many=opened.put_many, pickles=True, close=opened.close, holds=[opened])

    def receiver(self, index: int) -> End:
        opened = self.descriptor.attach()
        return End(get=opened.get, get_many=opened.get_many, pickles=True, close=opened.close, holds=[opened])

    def remove(self) -> None:
        self.kept.close()


class ListsThroughQueue(MultiprocessingQueue):
    """``multiprocessing.Queue``, which has no batches: a list is one item, as users help themselves."""

    name = "multiprocessing.Queue of lists"

    def sender(self, index: int) -> End:
        return End(put_many=self.queue.put, pickles=True)

    def receiver(self, index: int) -> End:
        get = self.queue.get
        return End(get_many=lambda most: get(), pickles=True)


# -- a queue at a server -----------------------------------------------------------------------------------------------


@dataclass
class ServedEnd(End):
    """An end whose queue lives in another process."""

    server: int = 0


class RpcQueue(Channel):
    """A queue at a server of its own process, which lives as long as the channel."""

    name, distribution, module = "sage-qd rpc and its server", "pyzmq", "zmq"

    def __init__(self, folder: Path, shape: Shape) -> None:
        super().__init__(folder, shape)
        with ExitStack() as stack:
            served = importlib.import_module("rpc_channels").served("local")
            self.server, self.port = stack.enter_context(served)
            self.kept = stack.pop_all()

    def open(self) -> Any:
        """This process's handle."""
        return importlib.import_module("sage_qd").RPCQueueDescriptor("bench", port=self.port).open()

    def sender(self, index: int) -> End:
        opened = self.open()
        return End(put=opened.put, close=opened.close, holds=[opened])

    def receiver(self, index: int) -> End:
        opened = self.open()
        return ServedEnd(get=opened.get, close=opened.close, holds=[opened], server=self.server.pid)

    def remove(self) -> None:
        self.kept.close()


# -- the idle consumer -------------------------------------------------------------------------------------------------


def idle(seconds: float) -> Topology:
    """A receiver blocked on an empty queue: CPU time of its process, and of the server if there is one, in ms."""

    def send(ends: Sequence[End], job: Job) -> Outcome:
        time.sleep(seconds)
        ends[0].put(payloads(64)[0])
        return {}

    def receive(ends: Sequence[End], job: Job) -> Outcome:
        return blocked(ends[0])

    return Topology("spsc", (Role(((0, "sender", 0),), send), Role(((0, "receiver", 0),), receive)), idle_figure)


def idle_thread(seconds: float) -> Topology:
    """The same for a queue between threads: one thread waits for another, which sleeps."""

    def work(ends: Sequence[End], job: Job) -> Outcome:
        other = threading.Timer(seconds, ends[0].put, args=(payloads(64)[0],))
        other.start()
        outcome = blocked(ends[0])
        other.join()
        return outcome

    return Topology("seq", (Role(((0, "both", 0),), work),), idle_figure)


def blocked(end: End) -> Outcome:
    """Get one item; what that took of the processor, here and in the server."""
    server = end.server if isinstance(end, ServedEnd) else 0
    before, served_before = time.process_time_ns(), spent_by(server)
    item = end.get()
    spent, served = time.process_time_ns() - before, spent_by(server) - served_before
    expect(item == payloads(64)[0], "the item that ends the wait is a different one")
    return {"ended": now(), "spent": spent, "served": served}


def idle_figure(job: Job, outcomes: Sequence[Outcome], shape: Shape) -> dict[str, float]:
    """Milliseconds of processor time in all processes that the waiting needs."""
    return {"value": (outcomes[-1]["spent"] + outcomes[-1]["served"]) / 1e6}


def spent_by(process: int) -> int:
    """Nanoseconds of processor time of all threads of a process; 0 for no process."""
    if not process:
        return 0
    threads = os.listdir(f"/proc/{process}/task")
    return sum(int(Path(f"/proc/{process}/task/{one}/schedstat").read_text().split()[0]) for one in threads)


KINDS: dict[str, type[Channel]] = {
    kind.name: kind for kind in (SageDescriptor, LocalQueue, ShmQueue, RpcQueue, ListsThroughQueue)
}
