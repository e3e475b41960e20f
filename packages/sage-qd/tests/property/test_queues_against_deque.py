"""Any history of one thread on a queue gives what the same history gives on a ``collections.deque``."""

import gc
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from time import monotonic
from typing import Any, ClassVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
)

from sage_qd import Empty, Full, LocalQueueDescriptor, NotShareableError, SageQueueDescriptor, ShutDown
from sage_qd import ring as rings

NAMESPACE = f"property-{uuid.uuid4().hex}"
MESSAGES = st.one_of(
    st.none(),
    st.integers(-(2**40), 2**40),
    st.text(max_size=5),
    st.binary(max_size=40),
    st.lists(st.booleans(), max_size=3),
    st.integers(200, 3000).map(lambda size: b"L" * size),
)


@pytest.fixture(scope="module", autouse=True)
def clean_namespace() -> Iterator[None]:
    """Nothing may be left in the namespace, and the folder goes."""
    yield
    gc.collect()
    for folder in rings.directory().glob(NAMESPACE):
        assert list(folder.iterdir()) == []
        folder.rmdir()


class QueueMachine(RuleBasedStateMachine):
    """
    The queue under test beside its model: what waits, oldest first, and what is out on lease.

    Each waiting entry is ``[place, attempt, message]``; places are given in the order of the puts.
    """

    leases: Bundle[Any] = Bundle("leases")

    make_descriptor: ClassVar[Callable[..., Any]]
    """Makes a descriptor of the kind under test; an argument of the subclass."""

    def __init_subclass__(cls, *, make: Callable[..., Any]) -> None:
        super().__init_subclass__()
        cls.make_descriptor = make

    @initialize(maxsize=st.sampled_from([0, 1, 3]))
    def open(self, maxsize: int) -> None:
        self.descriptor = type(self).make_descriptor(queue_id=f"property-{uuid.uuid4().hex}", maxsize=maxsize)
        self.queue = self.descriptor.open()
        self.other = self.descriptor.attach()
        self.waiting: deque[list[Any]] = deque()
        self.leased: dict[int, list[Any]] = {}
        self.places = 0
        self.dropped = 0
        self.is_shut = False
        self.is_shut_immediately = False

    def teardown(self) -> None:
        if hasattr(self, "queue"):
            self.queue.close()
            self.other.close()

    # -- The model ----------------------------------------------------------------------------------------------------

    @property
    def has_room(self) -> bool:
        return not self.queue.maxsize or len(self.waiting) + len(self.leased) < self.queue.maxsize

    @property
    def is_over(self) -> bool:
        return self.is_shut_immediately or (self.is_shut and not self.waiting and not self.leased)

    def note_put(self, message: Any) -> None:
        self.waiting.append([self.places, 0, message])
        self.places += 1

    def give_back(self, entry: list[Any]) -> None:
        entry[1] += 1
        if self.is_shut_immediately:
            self.dropped += 1
        else:
            self.waiting = deque(sorted([*self.waiting, entry], key=lambda waiting: waiting[0]))

    # -- Rules --------------------------------------------------------------------------------------------------------

    @rule(message=MESSAGES)
    def put(self, message: Any) -> None:
        if self.is_shut:
            with pytest.raises(ShutDown):
                self.queue.put_nowait(message)
        elif not self.has_room:
            with pytest.raises(Full):
                self.queue.put_nowait(message)
        else:
            self.queue.put_nowait(message)
            self.note_put(message)

    @rule(messages=st.lists(MESSAGES, max_size=5))
    def put_many(self, messages: list[Any]) -> None:
        room = self.queue.maxsize - len(self.waiting) - len(self.leased) if self.queue.maxsize else len(messages)
        if not messages:
            assert self.queue.put_many(messages, timeout=0) == 0
        elif self.is_shut:
            with pytest.raises(ShutDown):
                self.queue.put_many(messages, timeout=0)
        elif not room:
            with pytest.raises(Full):
                self.queue.put_many(messages, timeout=0)
        else:
            assert self.queue.put_many(messages, timeout=0) == min(room, len(messages))
            for message in messages[:room]:
                self.note_put(message)

    @rule(from_other=st.booleans())
    def get(self, from_other: bool) -> None:
        queue = self.other if from_other else self.queue
        if self.is_over:
            with pytest.raises(ShutDown):
                queue.get_nowait()
        elif not self.waiting:
            with pytest.raises(Empty):
                queue.get_nowait()
        else:
            assert queue.get_nowait() == self.waiting.popleft()[2]

    @rule(count=st.integers(1, 6), linger=st.sampled_from([0, 0.001]))
    def get_many(self, count: int, linger: float) -> None:
        if self.is_over:
            with pytest.raises(ShutDown):
                self.queue.get_many(count, timeout=0, linger=linger)
        elif not self.waiting:
            with pytest.raises(Empty):
                self.queue.get_many(count, timeout=0, linger=linger)
        else:
            start = monotonic()
            taken = self.queue.get_many(count, timeout=0, linger=linger)
            had_time = monotonic() - start < linger
            assert (min(count, len(self.waiting)) if had_time else 1) <= len(taken) <= count
            assert taken == [self.waiting.popleft()[2] for _ in taken]

    @rule(from_other=st.booleans())
    def wait_message(self, from_other: bool) -> None:
        queue = self.other if from_other else self.queue
        assert queue.wait_message(timeout=0) == (bool(self.waiting) or self.is_over)

    @rule(from_other=st.booleans())
    def wait_room(self, from_other: bool) -> None:
        queue = self.other if from_other else self.queue
        assert queue.wait_room(timeout=0) == (self.has_room or self.is_shut)

    @rule()
    def peek(self) -> None:
        if self.is_over:
            with pytest.raises(ShutDown):
                self.queue.peek()
        elif not self.waiting:
            with pytest.raises(Empty):
                self.queue.peek()
        else:
            assert self.queue.peek() == self.waiting[0][2]

    @precondition(lambda self: self.waiting and not self.is_over)
    @rule(target=leases)
    def lease(self) -> Any:
        lease = self.queue.lease(block=False)
        entry = self.waiting.popleft()
        assert (lease.value, lease.attempt, lease.redelivered) == (entry[2], entry[1], entry[1] > 0)
        self.leased[entry[0]] = entry
        return lease, entry

    @precondition(lambda self: self.waiting and not self.is_over)
    @rule(target=leases)
    def view(self) -> Any:
        if not self.queue.capabilities.views:
            with pytest.raises(NotShareableError):
                self.queue.view(block=False)
            return multiple()
        lease = self.queue.view(block=False)
        entry = self.waiting.popleft()
        self.leased[entry[0]] = entry
        assert (in_place(lease.value), lease.attempt) == (entry[2], entry[1])
        return lease, entry

    @rule(held=consumes(leases))
    def ack(self, held: Any) -> None:
        lease, entry = held
        lease.ack()
        del self.leased[entry[0]]

    @rule(held=consumes(leases))
    def nack(self, held: Any) -> None:
        lease, entry = held
        lease.nack()
        del self.leased[entry[0]]
        self.give_back(entry)

    @precondition(lambda self: not self.is_shut_immediately)
    @rule()
    def clear(self) -> None:
        assert self.queue.clear() == len(self.waiting)
        self.dropped += len(self.waiting)
        self.waiting.clear()

    @precondition(lambda self: not self.is_shut and self.places > 3)
    @rule(immediate=st.booleans())
    def shutdown(self, immediate: bool) -> None:
        expected = len(self.waiting) if immediate else 0
        assert self.other.shutdown(immediate) == expected
        self.is_shut = True
        if immediate:
            self.is_shut_immediately = True
            self.dropped += expected
            self.waiting.clear()

    @precondition(lambda self: not self.queue.capabilities.movable)
    @rule()
    def seal(self) -> None:
        """A kind that cannot be moved says so, and goes on; what sealing does is tested with migration."""
        with pytest.raises(NotShareableError):
            self.queue.seal("{}")

    @rule()
    def reattach(self) -> None:
        self.other.close()
        self.other = self.descriptor.attach()

    @invariant()
    def figures_agree(self) -> None:
        if not hasattr(self, "queue") or self.is_shut_immediately:
            return
        stats = self.queue.stats()
        assert self.queue.qsize() == self.other.qsize() == stats.depth == len(self.waiting)
        assert self.queue.empty() == (not self.waiting)
        assert self.queue.is_shutdown == self.is_shut
        assert stats.leased == len(self.leased)
        assert stats.puts == self.places
        assert stats.gets == self.places - len(self.waiting) - len(self.leased)
        assert stats.dropped == self.dropped
        if self.queue.maxsize:
            assert self.queue.full() == (not self.has_room)


def in_place(value: Any) -> Any:
    """The message that a view shows; only bytes are shown as something else."""
    if isinstance(value, memoryview):
        assert value.readonly
        return bytes(value)
    return value


class LocalMachine(QueueMachine, make=LocalQueueDescriptor):
    """A machine of this kind."""


class SageMachine(
    QueueMachine, make=lambda **settings: SageQueueDescriptor(namespace=NAMESPACE, capacity_bytes=1 << 20, **settings)
):
    """A machine of this kind."""


class SpillingSageMachine(
    QueueMachine,
    make=lambda **settings: SageQueueDescriptor(
        namespace=NAMESPACE, capacity_bytes=1 << 20, spill_threshold=300, checksum=True, **settings
    ),
):
    """A machine of this kind."""


class MessagePackSageMachine(
    QueueMachine, make=lambda **settings: SageQueueDescriptor(namespace=NAMESPACE, codec="msgpack", **settings)
):
    """A machine of this kind."""


FEW = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestLocalQueue = LocalMachine.TestCase
TestLocalQueue.settings = FEW
TestSageQueue = SageMachine.TestCase
TestSageQueue.settings = FEW
TestSpillingSageQueue = SpillingSageMachine.TestCase
TestSpillingSageQueue.settings = FEW
TestMessagePackSageQueue = MessagePackSageMachine.TestCase
TestMessagePackSageQueue.settings = FEW
