"""
What is measured, by name: topology and load, as in ``spsc[ring-64B]``.

``seq`` puts and gets in one thread, where nobody waits for anybody; ``spsc`` streams to a second process, ``pingpong``
sends one item there and back. This runs beside the wheel that is measured, which may be older than these lines: it
imports that, the standard library, and the queues of others that are compared with.
"""

from __future__ import annotations

import importlib
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from itertools import repeat
from pathlib import Path
from time import monotonic_ns
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

CAPACITY_BYTES = 1 << 20
SMALL = b"x" * 64
LARGE = b"y" * (64 << 10)
TUPLE = ("job", 17, {"user": "ada", "retries": 3})
BATCH = 100
_CLOSED = (OSError, EOFError)
_SECONDS_TO_LEAVE = 5.0


class WrongResultError(Exception):
    """What came out is not what went in."""


@dataclass(frozen=True, kw_only=True)
class Timed:
    """
    A benchmark, open.

    Attributes:
        run: Does so many operations and returns their nanoseconds; its result was compared.
        close: Ends it.
        waited: Nanoseconds so far in which the second process was ready and had no core.
    """

    run: Callable[[int], int]
    close: Callable[[], object]
    waited: Callable[[], int] = lambda: 0


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """
    One that can be opened.

    Attributes:
        name: Topology and load.
        make: Opens it; takes a name that nobody else uses.
        processes: How many it takes.
        count: Operations are done in multiples of that.
        needs: The module of a queue of others; None for ours.
    """

    name: str
    make: Callable[[str], Timed]
    processes: int = 1
    count: int = 1
    needs: str | None = None

    @property
    def missing(self) -> str | None:
        """The module that it needs and that is not installed."""
        return self.needs if self.needs is not None and find_spec(self.needs) is None else None


def waited_ns(process: str = "self") -> int:
    """For how long a process has been ready without a core; 0 where the kernel does not count it."""
    try:
        return int(Path("/proc", process, "schedstat").read_text().split()[1])
    except FileNotFoundError:
        return 0


# -- In one thread ----------------------------------------------------------------------------------------------------


def _alone(put: Callable[[Any], object], get: Callable[[], Any], item: Any, close: Callable[[], object]) -> Timed:
    """Put one item and get it, over and over."""

    def run(count: int) -> int:
        began = monotonic_ns()
        for _ in repeat(None, count):
            put(item)
            found = get()
        ended = monotonic_ns()
        _compare(found, item)
        return ended - began

    return Timed(run=run, close=close)


def _alone_in_batches(ring: Any, item: bytes) -> Timed:
    batch = [item] * BATCH

    def run(count: int) -> int:
        put_many, get_many = ring.put_many, ring.get_many
        began = monotonic_ns()
        for _ in repeat(None, count // BATCH):
            put_many(batch)
            found = get_many(BATCH)
        ended = monotonic_ns()
        _compare(list(found), batch)
        return ended - began

    return Timed(run=run, close=ring.close)


def _compare(found: object, expected: object) -> None:
    if found != expected:
        raise WrongResultError(f"{expected!r:.60} was put, and {found!r:.60} came out")


def _new_ring() -> Any:
    return importlib.import_module("sage_qd.ring").create(anonymous=True, capacity_bytes=CAPACITY_BYTES)


def _ring_alone(name: str, item: bytes) -> Timed:
    ring = _new_ring()
    return _alone(ring.put, ring.get, item, ring.close)


def _ring_in_batches(name: str) -> Timed:
    return _alone_in_batches(_new_ring(), SMALL)


def _descriptor(kind: str, name: str) -> Any:
    package = importlib.import_module("sage_qd")
    if kind == "local_queue":
        return package.LocalQueueDescriptor(name, maxsize=1024)
    if kind == "shm_queue":
        return package.SharedMemoryQueueDescriptor(name, capacity_bytes=CAPACITY_BYTES)
    namespace, _, own = name.partition("/")
    return package.SageQueueDescriptor(own, namespace=namespace, capacity_bytes=CAPACITY_BYTES)


def _queue_alone(kind: str, item: Any, name: str) -> Timed:
    queue = _descriptor(kind, name if kind == "sage_queue" else name.replace("/", ".")).open()
    return _alone(queue.put, queue.get, item, queue.close)


# -- With a second process --------------------------------------------------------------------------------------------


def _forking() -> Any:
    """Imported where it is used: under valgrind each import takes a second of what `marked` takes."""
    return importlib.import_module("multiprocessing").get_context("fork")


@dataclass
class Partner:
    """
    The second process, on another core.

    Args:
        serve: What it does when it is told how many items come; returns the last one.
        ours: Closed here at the end.
    """

    serve: Callable[[int], Any]
    ours: Callable[[], object]

    def __post_init__(self) -> None:
        context = _forking()
        self._connection, theirs = context.Pipe()
        self._cores = sorted(os.sched_getaffinity(0))
        self._process = context.Process(target=self._work, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()

    def _work(self, connection: Connection) -> None:
        """Until the other side is gone."""
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        self._connection.close()
        os.sched_setaffinity(0, {self._cores[1]})
        try:
            while True:
                found = self.serve(connection.recv())
                connection.send((monotonic_ns(), found))
        except _CLOSED:
            return

    def timed(self, send: Callable[[int], int | None], item: Any) -> Timed:
        """
        Time from the first put to the last get.

        Args:
            send: Puts so many items; returns when it ended where that counts, and not when the partner did.
            item: What the last one has to be.
        """

        def run(count: int) -> int:
            os.sched_setaffinity(0, {self._cores[0]})
            self._connection.send(count)
            began = monotonic_ns()
            own_end = send(count)
            if not self._connection.poll(60.0):
                raise WrongResultError("an item never arrived")
            ended, found = self._connection.recv()
            os.sched_setaffinity(0, self._cores)
            _compare(found, item)
            return (own_end or ended) - began

        return Timed(run=run, close=self._end, waited=lambda: waited_ns(str(self._process.pid)))

    def _end(self) -> None:
        self._connection.close()
        self._process.join(_SECONDS_TO_LEAVE)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self.ours()


def _streamed(put: Callable[[Any], object], get: Callable[[], Any], item: Any, close: Callable[[], object]) -> Timed:
    def serve(count: int) -> Any:
        for _ in repeat(None, count):
            found = get()
        return found

    def send(count: int) -> None:
        for _ in repeat(None, count):
            put(item)

    return Partner(serve, close).timed(send, item)


def _ring_streamed(name: str) -> Timed:
    ring = _new_ring()
    return _streamed(ring.put, ring.get, SMALL, ring.close)


def _queue_streamed(kind: str, item: Any, name: str) -> Timed:
    """The second process opens its own end when the first item comes."""
    descriptor = _descriptor(kind, name if kind == "sage_queue" else name.replace("/", "."))
    queue, theirs = descriptor.open(), list[Any]()

    def get() -> Any:
        if not theirs:
            theirs.append(descriptor.open())
        return theirs[0].get()

    return _streamed(queue.put, get, item, queue.close)


def _ring_pingpong(name: str) -> Timed:
    there, back = _new_ring(), _new_ring()

    def serve(count: int) -> Any:
        for _ in repeat(None, count):
            found = there.get()
            back.put(found)
        return found

    def send(count: int) -> int:
        for _ in repeat(None, count):
            there.put(SMALL)
            back.get()
        return monotonic_ns()

    return Partner(serve, lambda: (there.close(), back.close())).timed(send, SMALL)


# -- Others -----------------------------------------------------------------------------------------------------------


def _multiprocessing_streamed(name: str) -> Timed:
    queue = _forking().Queue()
    return _streamed(queue.put, queue.get, SMALL, queue.close)


def _faster_fifo_streamed(name: str) -> Timed:
    queue = importlib.import_module("faster_fifo").Queue(CAPACITY_BYTES)
    return _streamed(lambda item: queue.put(item, True, 60.0), lambda: queue.get(True, 60.0), SMALL, queue.close)


def _zmq_streamed(name: str) -> Timed:
    """Each process has a context of its own: the library does not survive a fork."""
    zmq = importlib.import_module("zmq")
    address = f"ipc://@{name}"  # in the abstract namespace of sockets, where nothing is left behind
    ends: list[Any] = []

    def opened(kind: int, connect: bool) -> Any:
        if not ends:
            socket = zmq.Context().socket(kind)
            socket.linger = 0
            (socket.connect if connect else socket.bind)(address)
            ends.append(socket)
        return ends[0]

    def close() -> None:
        for socket in ends:
            socket.close()

    return _streamed(
        lambda item: opened(zmq.PUSH, True).send(item), lambda: opened(zmq.PULL, False).recv(), SMALL, close
    )


def _ray_alone(name: str) -> Timed:
    """One node, started for it: the library needs tens of seconds for that."""
    ray = importlib.import_module("ray")
    ray.init(num_cpus=1, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    queue = importlib.import_module("ray.util.queue").Queue()

    def close() -> None:
        queue.shutdown()
        ray.shutdown()

    return _alone(queue.put, queue.get, TUPLE, close)


# -- All of them ------------------------------------------------------------------------------------------------------

OURS: Sequence[Benchmark] = (
    Benchmark(name="seq[ring-64B]", make=partial(_ring_alone, item=SMALL)),
    Benchmark(name="seq[ring-64KiB]", make=partial(_ring_alone, item=LARGE)),
    Benchmark(name="seq[ring-64B-batches]", make=_ring_in_batches, count=BATCH),
    Benchmark(name="seq[sage_queue-64B]", make=partial(_queue_alone, "sage_queue", SMALL)),
    Benchmark(name="seq[sage_queue-tuple]", make=partial(_queue_alone, "sage_queue", TUPLE)),
    Benchmark(name="seq[shm_queue-tuple]", make=partial(_queue_alone, "shm_queue", TUPLE)),
    Benchmark(name="seq[local_queue-tuple]", make=partial(_queue_alone, "local_queue", TUPLE)),
    Benchmark(name="spsc[ring-64B]", make=_ring_streamed, processes=2),
    Benchmark(name="spsc[sage_queue-tuple]", make=partial(_queue_streamed, "sage_queue", TUPLE), processes=2),
    Benchmark(name="spsc[shm_queue-tuple]", make=partial(_queue_streamed, "shm_queue", TUPLE), processes=2),
    Benchmark(name="pingpong[ring-64B]", make=_ring_pingpong, processes=2),
)
OTHERS: Sequence[Benchmark] = (
    Benchmark(name="spsc[multiprocessing.Queue-64B]", make=_multiprocessing_streamed, processes=2),
    Benchmark(name="spsc[faster_fifo-64B]", make=_faster_fifo_streamed, processes=2, needs="faster_fifo"),
    Benchmark(name="spsc[pyzmq-64B]", make=_zmq_streamed, processes=2, needs="zmq"),
    Benchmark(name="seq[ray.util.queue-tuple]", make=_ray_alone, needs="ray"),
)
BENCHMARKS = {benchmark.name: benchmark for benchmark in (*OURS, *OTHERS)}
