"""One small adapter per peer, so that the same loops can drive every queue of the table.

A `Channel` is one queue in one direction. It is made in the parent before the processes are forked; each process then
asks it for an `End`. Only an end imports the peer's library, so a peer that is missing or broken spoils its own cells of
the table and nothing else. Every adapter uses the fastest documented way through its library that still blocks or
polls correctly: raw bytes where there is a bytes path, hoisted methods, no wrapper call per item where a loop can be
written out, polling without sleeps where a library cannot block.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.metadata
import importlib.util
import multiprocessing
import os
import pickle
import queue
import shutil
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).with_name("floor")))
import build as floor_build  # noqa: E402  (the folder of the bare ring is no package)

FORK = multiprocessing.get_context("fork")
POLL_SECONDS = 10.0  # how long an opening end waits for the other one to appear


@dataclass(frozen=True)
class Shape:
    """What a row needs of a queue: room, the size of one item, and how many ends there are on each side."""

    item_bytes: int = 64
    capacity_bytes: int = 1 << 20
    senders: int = 1
    receivers: int = 1

    @property
    def items(self) -> int:
        """Room in items, for queues whose room is counted so; a power of two."""
        return 1 << max(2, (self.capacity_bytes // (self.item_bytes + 8)).bit_length() - 1)


@dataclass
class End:
    """One side of a channel in one process. What a side cannot do is None; the loops are methods so a peer may differ."""

    put: Any = None
    get: Any = None
    put_many: Any = None
    get_many: Any = None
    put_array: Any = None
    get_array: Any = None  # an array of the receiver's own
    look: Any = None  # look(check): calls check(array) on memory the queue still owns, then gives it back
    pickles: bool = False  # the queue turns objects into bytes itself
    close: Callable[[], object] = lambda: None
    holds: list[Any] = field(default_factory=list)  # what must live as long as the bound methods above
    arrays: list[Any] = field(default_factory=list)  # what an array row sends and expects
    resident_bytes: float = 0.0  # how much memory opening it took, where a row asks

    def send(self, items: Iterable[bytes]) -> None:
        """Put every item, one call each."""
        put = self.put
        for item in items:
            put(item)

    def receive(self, count: int, every: int) -> list[bytes]:
        """Get ``count`` items, one call each, and return every ``every``-th."""
        get, kept = self.get, []
        for _ in repeat(None, count // every):
            for _ in repeat(None, every - 1):
                get()
            kept.append(get())
        return kept

    def stop(self, mark: bytes, receivers: int) -> None:
        """Put one end mark for each receiver."""
        for _ in range(receivers):
            self.put(mark)

    def send_objects(self, values: Iterable[Any]) -> None:
        """Put every value, pickled here unless the queue does it."""
        put, dumps = self.put, pickle.dumps
        if self.pickles:
            for value in values:
                put(value)
        else:
            for value in values:
                put(dumps(value, 5))

    def receive_objects(self, count: int, every: int) -> list[Any]:
        """Get ``count`` values and return every ``every``-th."""
        if self.pickles:
            return self.receive(count, every)
        get, loads, kept = self.get, pickle.loads, []
        for _ in repeat(None, count // every):
            for _ in repeat(None, every - 1):
                loads(get())
            kept.append(loads(get()))
        return kept


class Channel:
    """
    One queue in one direction; the base of every adapter.

    Attributes:
        name: How the table calls it.
        distribution: What to install when it is missing; None for the standard library.
        module: What an end imports.
        first: Which side opens first.
    """

    name = ""
    distribution: str | None = None
    module: str | None = None
    first = "receiver"

    def __init__(self, folder: Path, shape: Shape) -> None:
        self.folder, self.shape = folder, shape

    def sender(self, index: int) -> End:
        """Open the writing side in this process."""
        raise NotImplementedError(f"{self.name} has no sender")

    def receiver(self, index: int) -> End:
        """Open the reading side in this process."""
        raise NotImplementedError(f"{self.name} has no receiver")

    def both(self) -> End:
        """Open both sides in this process, as one end."""
        sides = {"receiver": self.receiver, "sender": self.sender}
        opened = {side: sides[side](0) for side in (self.first, *(set(sides) - {self.first}))}
        end, source = opened["receiver"], opened["sender"]
        end.put, end.put_many, end.put_array = source.put, source.put_many, source.put_array
        end.holds.append(source)
        close_receiver = end.close
        end.close = lambda: (close_receiver(), source.close())
        return end

    def remove(self) -> None:
        """Delete, in the parent, what this queue leaves outside its folder."""

    @classmethod
    def missing(cls) -> str | None:
        """Why this peer cannot take part, or None when it can."""
        if cls.module is not None and importlib.util.find_spec(cls.module) is None:
            return "not installed"
        return None

    @classmethod
    def version(cls) -> str:
        """The installed version; Python's own for the standard library."""
        if cls.distribution is None:
            return f"Python {sys.version.split()[0]}"
        return importlib.metadata.version(cls.distribution)


def until(ready: Callable[[], Any], what: str) -> Any:
    """Poll until ``ready()`` is true and return that; the bound is `POLL_SECONDS`."""
    limit = time.monotonic() + POLL_SECONDS
    while time.monotonic() < limit:
        found = ready()
        if found:
            return found
        os.sched_yield()
    raise TimeoutError(f"{what} within {POLL_SECONDS} s")


# -- the bare reference ------------------------------------------------------------------------------------------------


class Floor(Channel):
    """The bare ring of ``floor/``: what a ring could cost without locks, types, checks and recovery."""

    name = "floor"

    def open(self) -> Any:
        """Open the ring's file; the first to come makes it."""
        return floor_build.load().Ring(str(self.folder / "floor"), self.shape.capacity_bytes)

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
            floor_build.load()
        except floor_build.FloorBuildError as failure:
            return f"failed: {failure}"
        return None


# -- the standard library ----------------------------------------------------------------------------------------------


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


class ThreadQueue(Channel):
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


# -- from the registry -------------------------------------------------------------------------------------------------


def same(message: bytes) -> bytes:
    """Leave a message as it is: the codec of queues that would otherwise pickle."""
    return message


class FasterFifo(Channel):
    """faster-fifo with its pickling switched off ("raw")."""

    name, distribution, module = "faster-fifo raw", "faster-fifo", "faster_fifo"

    def __init__(self, folder: Path, shape: Shape) -> None:
        super().__init__(folder, shape)
        library = importlib.import_module("faster_fifo")
        self.queue = library.Queue(max_size_bytes=shape.capacity_bytes, loads=bytes, dumps=same)

    def sender(self, index: int) -> End:
        return End(put=self.queue.put, put_many=self.queue.put_many)

    def receiver(self, index: int) -> End:
        get_many = self.queue.get_many
        return End(get=self.queue.get, get_many=lambda most: get_many(max_messages_to_get=most))


class Zmq(Channel):
    """pyzmq PUSH/PULL over ipc. With several ends each sender deals its items to all receivers in turn."""

    name, distribution, module = "pyzmq ipc", "pyzmq", "zmq"

    def address(self, index: int) -> str:
        """Where receiver ``index`` listens."""
        return f"ipc://{self.folder}/zmq-{index}"

    def open(self, kind: str) -> tuple[Any, Any]:
        """A context and a socket with room for as many items as the other queues have."""
        zmq = importlib.import_module("zmq")
        context = zmq.Context()
        opened = context.socket(getattr(zmq, kind))
        opened.set_hwm(self.shape.items)
        return context, opened

    def sender(self, index: int) -> End:
        made = [self.open("PUSH") for _ in range(self.shape.receivers)]
        for at, (_, opened) in enumerate(made):
            opened.connect(self.address(at))
        end = ZmqEnd(close=lambda: [context.destroy() for context, _ in made])
        end.puts = [opened.send for _, opened in made]
        end.put = end.puts[0]
        send = end.put
        end.put_array = lambda array: send(array, copy=False)
        return end

    def receiver(self, index: int) -> End:
        context, opened = self.open("PULL")
        opened.bind(self.address(index))
        receive = opened.recv

        def get_array() -> Any:
            numpy = importlib.import_module("numpy")
            return numpy.frombuffer(receive(copy=False).buffer, dtype=numpy.float64).copy()

        return End(get=receive, get_array=get_array, close=lambda: context.destroy(linger=0), holds=[opened])


@dataclass
class ZmqEnd(End):
    """A sender of several sockets."""

    puts: list[Any] = field(default_factory=list)

    def send(self, items: Iterable[bytes]) -> None:
        if len(self.puts) == 1:
            return super().send(items)
        puts = self.puts
        turn = 0
        for item in items:
            puts[turn](item)
            turn = turn + 1 if turn + 1 < len(puts) else 0
        return None

    def stop(self, mark: bytes, receivers: int) -> None:
        for put in self.puts:
            put(mark)


class Cloudtoid(Channel):
    """cloudtoid-interprocess: receives block; a send into a full queue can only be tried again."""

    name, distribution, module = "cloudtoid", "cloudtoid-interprocess", "cloudtoid_interprocess"

    def __init__(self, folder: Path, shape: Shape) -> None:
        super().__init__(folder, shape)
        self.queue_name = f"sageqd-{folder.parent.name}-{folder.name}"

    def arguments(self) -> tuple[str, int, str]:
        """Name, room and folder, as both classes want them."""
        return self.queue_name, self.shape.capacity_bytes, str(self.folder)

    def sender(self, index: int) -> End:
        publisher = importlib.import_module(self.module or "").Publisher(*self.arguments())
        end = TryingEnd(close=publisher.close)
        end.use(publisher.try_send)
        return end

    def receiver(self, index: int) -> End:
        subscriber = importlib.import_module(self.module or "").Subscriber(*self.arguments())
        return End(get=subscriber.receive, close=subscriber.close)

    def remove(self) -> None:
        for left in Path("/dev/shm").glob(f"sem.*{self.queue_name}*"):
            left.unlink(missing_ok=True)


@dataclass
class TryingEnd(End):
    """A sender that can only try: False means full, and it tries again after giving its core away once."""

    try_put: Any = None

    def use(self, try_put: Callable[[bytes], bool]) -> None:
        """Set how to try, and ``put`` for the loops that send one item at a time."""
        self.try_put, give_way = try_put, os.sched_yield

        def put(item: bytes) -> None:
            while not try_put(item):
                give_way()

        self.put = put

    def send(self, items: Iterable[bytes]) -> None:
        try_put, give_way = self.try_put, os.sched_yield
        for item in items:
            while not try_put(item):
                give_way()


class Subetha(Channel):
    """subetha-ipc ``SpscRing``: slots of 64 bytes, and both sides poll."""

    name, distribution, module = "subetha polling", "subetha-ipc", "subetha"

    def open(self, how: str) -> Any:
        """Create the ring's file, or open it."""
        kind = importlib.import_module("subetha").SpscRing
        path = str(self.folder / "subetha")
        return kind(path, self.shape.items) if how == "create" else kind.open(path, self.shape.items)

    def sender(self, index: int) -> End:
        ring = self.open("open")
        end = TryingEnd(holds=[ring])
        end.use(ring.push)
        push_many, give_way = ring.push_many, os.sched_yield

        def put_many(items: list[bytes]) -> None:
            done = push_many(items)
            while done < len(items):
                give_way()
                done += push_many(items[done:])

        end.put_many = put_many
        return end

    def receiver(self, index: int) -> End:
        ring = self.open("create")
        pop, pop_many = ring.pop, ring.pop_many

        def get() -> bytes:
            while True:
                item = pop()
                if item is not None:
                    return item

        def get_many(most: int) -> list[bytes]:
            while True:
                items = pop_many(most)
                if items:
                    return items

        return PollingEnd(get=get, get_many=get_many, holds=[ring], try_get=pop)


@dataclass
class PollingEnd(End):
    """A receiver that asks until there is something; written out so that asking costs no second call."""

    try_get: Any = None

    def receive(self, count: int, every: int) -> list[bytes]:
        try_get, kept = self.try_get, []
        for _ in repeat(None, count // every):
            for _ in repeat(None, every):
                while True:
                    item = try_get()
                    if item is not None:
                        break
            kept.append(item)
        return kept


class Mmbus(Channel):
    """mmbus without its write-ahead log; a full bus raises, and the sender tries again."""

    name, distribution, module, first = "mmbus", "mmbus", "mmbus", "sender"

    def bus(self) -> Any:
        """This process's view of the bus."""
        return importlib.import_module("mmbus").Bus(
            "bench",
            base_dir=str(self.folder),
            capacity=self.shape.items,
            slot_size=self.shape.item_bytes,
            wal_enabled=False,
        )

    def sender(self, index: int) -> End:
        full = importlib.import_module("mmbus").BusFullError
        bus = self.bus()
        topic = bus.topic("items")
        publish, publish_many, give_way = topic.publish, topic.publish_many, os.sched_yield

        def put(item: bytes) -> None:
            while True:
                try:
                    return publish(item)
                except full:
                    give_way()

        def put_many(items: list[bytes]) -> None:
            while items:
                try:
                    items = items[publish_many(items) :]
                except full:
                    give_way()

        return End(put=put, put_many=put_many, holds=[bus, topic])

    def receiver(self, index: int) -> End:
        bus = self.bus()
        subscription = bus.subscribe("items", timeout_secs=POLL_SECONDS)
        return End(get=subscription.recv, get_many=subscription.recv_batch, holds=[bus, subscription])


class Iceoryx2(Channel):
    """iceoryx2 publish-subscribe of byte slices, nothing dropped; the receiver polls and gives its core away."""

    name, distribution, module = "iceoryx2", "iceoryx2", "iceoryx2"
    SLOTS = 4

    def __init__(self, folder: Path, shape: Shape) -> None:
        super().__init__(folder, shape)
        self.prefix = f"sageqd_{folder.parent.name}_{folder.name}_".replace("-", "_")

    def remove(self) -> None:
        for left in Path("/dev/shm").glob(f"{self.prefix}*"):
            left.unlink(missing_ok=True)

    def service(self) -> tuple[Any, Any]:
        """The library, and this channel's node and service, whose files carry a prefix of this run."""
        library = importlib.import_module("iceoryx2")
        library.set_log_level(library.LogLevel.Fatal)
        settings = library.config.default()
        settings.global_cfg.prefix = library.FileName.new(self.prefix)
        settings.global_cfg.root_path = library.Path.new(f"{self.folder}/")
        node = library.NodeBuilder.new().config(settings).create(library.ServiceType.Ipc)
        service = (
            node.service_builder(library.ServiceName.new("items"))
            .publish_subscribe(library.Slice[ctypes.c_uint8])
            .enable_safe_overflow(False)
            .subscriber_max_buffer_size(self.SLOTS)
            .open_or_create()
        )
        return library, (node, service)

    def sender(self, index: int) -> End:
        library, (node, service) = self.service()
        patient = library.BackpressureStrategy.RetryUntilDelivered
        builder = service.publisher_builder().backpressure_strategy(patient)
        publisher = builder.initial_max_slice_len(self.shape.item_bytes).create()
        until(lambda: service.dynamic_config.number_of_subscribers, "a subscriber appeared")
        publisher.update_connections()
        give_way, memmove, refused = os.sched_yield, ctypes.memmove, library.LoanError

        def publish(address: Any, length: int) -> None:
            while True:
                try:
                    sample = publisher.loan_slice_uninit(length)
                    break
                except refused:
                    give_way()
            memmove(sample.payload_ptr, address, length)
            reached = sample.assume_init().send()
            if reached != 1:
                raise RuntimeError(f"a sample reached {reached} subscribers")

        return End(
            put=lambda item: publish(item, len(item)),
            put_array=lambda array: publish(array.ctypes.data, array.nbytes),
            close=publisher.delete,
            holds=[node, service, publisher],
        )

    def receiver(self, index: int) -> End:
        _, (node, service) = self.service()
        subscriber = service.subscriber_builder().buffer_size(self.SLOTS).create()
        numpy = importlib.import_module("numpy")
        receive, give_way = subscriber.receive, os.sched_yield

        def sample() -> Any:
            while True:
                found = receive()
                if found is not None:
                    return found
                give_way()

        def get() -> bytes:
            found = sample()
            item = bytes(found.payload().as_memory_view())
            found.delete()
            return item

        def get_array() -> Any:
            found = sample()
            array = numpy.frombuffer(found.payload().as_memory_view(), dtype=numpy.float64).copy()
            found.delete()
            return array

        def look(check: Callable[[Any], None]) -> None:
            found = sample()
            check(numpy.frombuffer(found.payload().as_memory_view(), dtype=numpy.float64))
            found.delete()

        return End(
            get=get, get_array=get_array, look=look, close=subscriber.delete, holds=[node, service, subscriber]
        )


PEERS: dict[str, type[Channel]] = {
    kind.name: kind
    for kind in (
        Floor,
        MultiprocessingQueue,
        MultiprocessingPipe,
        ThreadQueue,
        SimpleQueue,
        FasterFifo,
        Zmq,
        Cloudtoid,
        Subetha,
        Mmbus,
        Iceoryx2,
    )
}


def remove_folder(folder: Path) -> None:
    """Delete a run's folder and everything the peers left in it."""
    shutil.rmtree(folder, ignore_errors=True)
