"""The queues of the package registry, one small adapter each.

Every adapter uses the fastest documented way through its library that still blocks or polls correctly: raw bytes where
there is a bytes path, hoisted methods, no wrapper call per item where a loop can be written out, polling without sleeps
where a library cannot block.
"""

from __future__ import annotations

import ctypes
import importlib
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from channels import POLL_SECONDS, Channel, End, PollingEnd, Shape, TryingEnd, until
from references import Floor, MultiprocessingPipe, MultiprocessingQueue, SimpleQueue, ThreadQueue


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

        def get() -> Any:
            while True:
                item = pop()
                if item is not None:
                    return item

        def get_many(most: int) -> Any:
            while True:
                items = pop_many(most)
                if items:
                    return items

        return PollingEnd(get=get, get_many=get_many, holds=[ring], try_get=pop)


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
                    publish(item)
                    break
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
                except refused:
                    give_way()
                    continue
                memmove(sample.payload_ptr, address, length)
                if sample.assume_init().send():
                    return
                give_way()  # it reached nobody: the subscriber's buffer was full for too long

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

        return End(get=get, get_array=get_array, look=look, close=subscriber.delete, holds=[node, service, subscriber])


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
