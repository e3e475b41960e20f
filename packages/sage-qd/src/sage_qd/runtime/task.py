"""
A task: one instance of a step at work, from its first packet to its stop signals.

The loop is the same wherever it runs; :class:`LocalTask` runs it in a thread, ``ProcessTask`` in a process.
"""

import threading
import traceback
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from time import monotonic
from typing import Any, Final, NamedTuple

from sage_qd.descriptors.base import BaseQueueDescriptor
from sage_qd.descriptors.local import LocalQueueDescriptor
from sage_qd.errors import Full, ShutDown
from sage_qd.runtime.context import RuntimeContext
from sage_qd.runtime.counters import Counters
from sage_qd.runtime.delivery import COMMIT_SECONDS, Inbox
from sage_qd.runtime.operators import Operator, OperatorError, Outputs, SourceOperator
from sage_qd.runtime.packets import Packet
from sage_qd.runtime.router import BaseRouter

__all__ = ["BaseTask", "Failure", "LocalTask", "users_code"]


LARGEST_SLICE: Final = 1 << 16
IDLE_SECONDS: Final = 0.5
"""How long a task that owes nothing sleeps at a time; a packet wakes it, and so does the end of the job."""
LAST_ITEM_SECONDS: Final = 1.0
"""How long a source that was told to stop waits for an item that its iterator is about to give."""
CHUNKS_AHEAD: Final = 3
"""Most batches that are taken from an iterator before the first of them is sent."""


class Failure(NamedTuple):
    """What ended a task: the error, and its traceback as text, for those in other processes."""

    task: str
    error: BaseException
    trace: str


@contextmanager
def users_code() -> Iterator[None]:
    """Let a ShutDown that the user's code raises be an error: only one of the job's own queues means its end."""
    try:
        yield
    except ShutDown as cause:
        raise RuntimeError("the operator's own queue was shut down") from cause


class BaseTask:
    """
    One instance of a step.

    Args:
        runtime_context: What the task knows; its descriptors lead to queues that exist.
        operator_factory: Makes the operator.
        counters: Where the task counts; of its own if not given.
    """

    def __init__(
        self,
        runtime_context: RuntimeContext,
        operator_factory: Callable[[], Operator],
        counters: Counters | None = None,
    ) -> None:
        self.ctx = runtime_context
        self.name = runtime_context.name
        self.counters = Counters.single() if counters is None else counters
        self.input_queue_descriptor = self.ctx.get_input_queue_descriptor()
        self._factory = operator_factory
        self._operator: Operator | None = None
        self._router: BaseRouter | None = None
        self._inbox: Inbox | None = None
        self._position = 0
        self._slice = 1  # packets that the operator gets at once; grows while it is fast
        self._has_finished = False
        self._stopping = threading.Event()

    def _create_default_queue_descriptor(self) -> BaseQueueDescriptor:
        """Return a descriptor for a task that was given none: it takes packets from threads of this process only."""
        return LocalQueueDescriptor(f"{self.ctx.job}.input_{self.name}", maxsize=64)

    def get_input_buffer(self) -> Any:
        """Return the open input queue."""
        if self.input_queue_descriptor is None:
            self.input_queue_descriptor = self._create_default_queue_descriptor()
        return self.input_queue_descriptor.open()

    def put_packet(self, packet: Packet, timeout: float | None = None) -> None:
        """Put one packet into the input queue from outside; see :meth:`Queue.put` for the errors."""
        self.get_input_buffer().put(packet, timeout=timeout)

    @property
    def router(self) -> BaseRouter:
        """The way out."""
        if self._router is None:
            self._router = BaseRouter(
                self.name,
                batch_size=self.ctx.batch_size,
                linger=self.ctx.linger,
                overflow=self.ctx.overflow,
                counters=self.counters,
            )
            for connection, partition in self.ctx.connections:
                self._router.add_connection(connection, partition)
        return self._router

    def add_connection(self, connection: Any, partition: Any = "round_robin") -> None:
        """Add a path; before the task runs."""
        self.ctx.connections.append((connection, partition))

    def figures(self) -> dict[str, int]:
        """Return what the task has counted, by name."""
        return self.counters.as_dict()

    def stop(self) -> None:
        """Ask the task to end: a source after the batch under way; other tasks end with their input."""
        self.counters.told_to_stop = 1  # which a process that was forked sees, too
        self._stopping.set()

    def _is_told_to_stop(self) -> bool:
        return self._stopping.is_set() or self.counters.told_to_stop > 0

    # -- The loop -----------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """
        Work to the end. Returns when all input was seen, everything was sent, and the stop signals, too.

        Raises:
            ShutDown: The job was stopped.
            Exception: The operator raised, and its policy is ``fail``.
        """
        operator = self._operator = self._factory()
        router = self.router
        self._restore(operator, router)
        with users_code():
            operator.open(self.ctx)
        try:
            if not self._has_finished:
                if isinstance(operator, SourceOperator):
                    self._pour(operator, router)
                else:
                    self._work(operator, router)
                with users_code():
                    left = operator.finish()
                # In a snapshot: what finish() returned must not be sent again; under at_most_once it may be lost.
                if self.ctx.delivery == "at_most_once":
                    router.flush()
                    self._has_finished = True
                    self._commit()
                router.send(*left)
                router.flush()
                self._has_finished = True
                self._commit()
            router.stop()
            if self._inbox is not None:
                self._inbox.end()
            self.counters.out = router.sent
        finally:
            operator.close()
            self.ctx.close()

    def _work(self, operator: Operator, router: BaseRouter) -> None:
        inbox, counters, indices = self._inbox, self.counters, self.ctx.input_indices
        if inbox is None:
            raise ValueError(f"task {self.name!r} has no input")
        # Nothing is held under at_most_once, so nothing is ever due; what the state took in is kept all the same.
        keeps = self.ctx.snapshots is not None and self.ctx.delivery == "at_most_once" and operator.state() is not None
        since: float | None = None
        while not inbox.is_over:
            is_owing = inbox.is_holding or router.is_holding or since is not None
            batch = inbox.take(self.ctx.linger if is_owing else IDLE_SECONDS)
            if batch is None:
                router.flush()
                if inbox.is_holding or since is not None:
                    self._commit()
                    since = None
                continue
            path, _, payloads, keys = batch
            counters.taken += len(payloads)
            self._send_results(operator, router, payloads, keys, indices[path] if path >= 0 else 0)
            if keeps and since is None:
                since = monotonic()
            if inbox.is_due or (since is not None and monotonic() - since >= COMMIT_SECONDS):
                router.flush()
                self._commit()
                since = None

    def _send_results(
        self, operator: Operator, router: BaseRouter, payloads: list[Any], keys: list[Any] | None, index: int
    ) -> None:
        """
        Run the operator on a batch, in slices short enough that results do not wait for more than ``linger``.

        An operator that takes a second for a packet would keep the results of a whole batch back otherwise.
        """
        start, bound = 0, self.ctx.linger
        while start < len(payloads):
            began = monotonic()
            end = min(start + self._slice, len(payloads))
            whole = end - start == len(payloads)
            part = payloads if whole else payloads[start:end]
            part_keys = keys if whole or keys is None else part if keys is payloads else keys[start:end]
            router.send(*self._processed(operator, part, part_keys, index))
            self.counters.out = router.sent
            took = monotonic() - began
            is_slow = took > bound / 4
            router.flush(due_only=not is_slow)
            if not is_slow:
                self._slice = min(2 * self._slice, LARGEST_SLICE)
            elif took > bound:
                self._slice = max((end - start) // 4, 1)
            start = end

    def _processed(self, operator: Operator, payloads: list[Any], keys: list[Any] | None, index: int) -> Outputs:
        """Run the operator on a batch, with the policy for errors."""
        results: list[Any] = []
        result_keys: list[Any] = []
        has_keys = False
        tries = 0
        while True:
            try:
                with users_code():
                    found, found_keys = operator.process(payloads, keys, index)
            except OperatorError as error:
                found, found_keys = error.done
                at = error.at
                cause = error.__cause__
            else:
                at, cause = len(payloads), None
            if not results and cause is None:
                return found, found_keys
            results += found
            has_keys = has_keys or found_keys is not None
            result_keys += found_keys if found_keys is not None else []
            if cause is None:
                return results, result_keys if has_keys else None
            self.counters.errors += 1
            tries = tries + 1 if at == 0 else 1
            payloads, keys = payloads[at:], None if keys is None else keys[at:]
            if tries > self.ctx.on_error.retries:
                if self.ctx.on_error.kind == "fail":
                    with users_code():
                        raise cause
                self._skip(payloads[0], cause)
                payloads, keys, tries = payloads[1:], None if keys is None else keys[1:], 0

    def _skip(self, payload: Any, cause: BaseException) -> None:
        self.counters.skipped += 1
        if self.ctx.dead_letters is not None:
            text = "".join(traceback.format_exception(cause))
            try:
                self.ctx.dead_letters.open(create=False).put_nowait((self.name, payload, text))
            except Full:
                self.counters.dropped += 1  # nobody reads them

    def _pour(self, source: SourceOperator, router: BaseRouter) -> None:
        """Send the items of a source; one that is slow sends each as soon as ``linger`` has passed."""
        with users_code():
            items = source.read(self.ctx, self._position)
        counters, size = self.counters, self.ctx.batch_size
        # What was sent must not be sent again, or what was not sent must be: so the snapshot comes before, or behind.
        is_ahead = self.ctx.snapshots is not None and self.ctx.delivery == "at_most_once"
        last = monotonic()
        chunks = _chunks(items, size, self.ctx.linger, self._is_told_to_stop)
        del items
        with closing(chunks):
            for chunk in chunks:
                self._position += len(chunk)
                if is_ahead:
                    self._commit()
                router.send(chunk, None)
                if len(chunk) < size:
                    router.flush()
                counters.taken += len(chunk)
                counters.out = router.sent
                if self.ctx.snapshots is not None and not is_ahead and monotonic() - last >= COMMIT_SECONDS:
                    router.flush()
                    self._commit()
                    last = monotonic()

    # -- Snapshots ----------------------------------------------------------------------------------------------------

    def _commit(self) -> None:
        """The outputs are where they belong: take a snapshot, then settle what they were made of."""
        if self._operator is not None and self.ctx.snapshots is not None:
            inbox = None if self._inbox is None else self._inbox.state()
            state = (self._has_finished, self._position, inbox, self.router.state(), self._operator.state())
            self.ctx.snapshots.write(state)
        if self._inbox is not None:
            self._inbox.settle()

    def _restore(self, operator: Operator, router: BaseRouter) -> None:
        if self.ctx.stop_signal_num:
            self._inbox = Inbox(
                [self.get_input_buffer(), *self._lanes()],
                self.ctx.delivery,
                self.ctx.stop_signal_num,
                keeps_stops=self.ctx.snapshots is not None,
            )
            if self.ctx.delivery == "exactly_once":
                self._inbox.await_predecessor()
        if self.ctx.snapshots is None or (found := self.ctx.snapshots.read()) is None:
            return
        self._has_finished, self._position, inbox, sent, state = found
        router.restore(sent)
        if self._inbox is not None and inbox is not None:
            self._inbox.restore(inbox)
        if state is not None:
            operator.restore(state)

    def _lanes(self) -> list[Any]:
        """Queues of single paths, where the job has them."""
        return [descriptor.open(create=False) for descriptor in self.ctx.lanes]


def _chunks(items: Any, size: int, linger: float, is_stopping: Callable[[], bool]) -> Generator[list[Any], None, None]:
    """
    Cut into batches, until told to stop; of an iterator, no item waits longer than ``linger`` for the next one.

    What was taken from an iterator is given before the end, so that nothing of it is lost.
    """
    if hasattr(items, "__getitem__"):
        for start in range(0, len(items), size):
            yield list(items[start : start + size])
            if is_stopping():
                return
        return
    pump = _Pump(items, size)
    del items
    try:
        while not is_stopping():
            chunk = pump.next(linger)
            if chunk is None:
                return
            if chunk:
                yield chunk
        pump.stop()
        while chunk := pump.next(LAST_ITEM_SECONDS):
            yield chunk
    finally:
        pump.stop()


class _Pump:
    """Reads an iterator in a thread of its own, so that what it has given can be sent while it waits for more."""

    def __init__(self, items: Any, size: int) -> None:
        self._items = items
        self._size = size
        self._given: list[Any] = []
        self._changed = threading.Condition(threading.Lock())
        self._error: BaseException | None = None
        self._has_ended = False
        self._is_stopping = False
        threading.Thread(target=self._run, name="sage-qd-source", daemon=True).start()

    def _run(self) -> None:
        items, self._items = self._items, None
        try:
            for item in items:
                with self._changed:
                    self._given.append(item)
                    if len(self._given) % self._size == 0:
                        self._changed.notify()
                    while len(self._given) >= CHUNKS_AHEAD * self._size and not self._is_stopping:
                        self._changed.wait()
                    if self._is_stopping:
                        break
        except BaseException as error:  # noqa: BLE001  (the thread that takes the items raises it)
            self._error = error
        del items  # a generator that nobody else holds is closed here
        with self._changed:
            self._has_ended = True
            self._changed.notify()

    def next(self, linger: float) -> list[Any] | None:
        """Return what there is, after ``linger`` at the latest; None at the end. What was given before comes first."""
        with self._changed:
            self._changed.wait_for(lambda: self._has_ended or len(self._given) >= self._size, linger)
            chunk, self._given = self._given[: self._size], self._given[self._size :]
            self._changed.notify()
        if self._has_ended and not chunk:
            if self._error is not None:
                with users_code():
                    raise self._error
            return None
        return chunk

    def stop(self) -> None:
        """Take no further item; one that the iterator is about to give is still taken."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify()


class LocalTask(BaseTask):
    """A task in a thread of this process."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._thread: threading.Thread | None = None
        self.failure: Failure | None = None

    def start_running(self) -> None:
        """Start the thread."""
        thread = threading.Thread(target=self._guarded, name=f"sage-qd-{self.name}", daemon=True)
        thread.start()
        self._thread = thread

    def _guarded(self) -> None:
        try:
            self.run()
        except ShutDown:
            return
        except BaseException as error:  # noqa: BLE001  (whatever it is, the job ends with it)
            self.failure = Failure(self.name, error, traceback.format_exc())

    @property
    def is_running(self) -> bool:
        """Whether the thread has not ended."""
        return self._thread is not None and self._thread.is_alive()

    def join(self, timeout: float | None = None) -> None:
        """Wait for the end of the thread."""
        if self._thread is not None:
            self._thread.join(timeout)

    def cleanup(self) -> None:
        """Give up the queue of the task; twice is once."""
        self.ctx.close()
