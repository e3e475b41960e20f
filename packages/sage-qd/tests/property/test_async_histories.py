"""Calls in asyncio that wait and are cancelled, between calls that do not wait: each message is got once."""

import asyncio
import gc
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, precondition, rule

from sage_qd import Empty, Full, LocalQueueDescriptor, SageQueueDescriptor, ShutDown
from sage_qd import ring as rings
from sage_qd.testing.watching import PATIENCE_SECONDS

NAMESPACE = f"property-async-{uuid.uuid4().hex}"


@pytest.fixture(scope="module", autouse=True)
def clean_namespace() -> Iterator[None]:
    """Nothing may be left in the namespace, and the folder goes."""
    yield
    gc.collect()
    for folder in rings.directory().glob(NAMESPACE):
        assert list(folder.iterdir()) == []
        folder.rmdir()


class AsyncMachine(RuleBasedStateMachine):
    """
    Tasks that put and get, some of them waiting, in an event loop that runs only inside of the rules.

    Which of the waiting calls is served first is not promised, so the model is a bag: whatever was put is in the
    queue, or was got, once. And nobody waits for what is there: once the loop had its time, a get waits on an empty
    queue only, and a put on a full one.
    """

    calls: Bundle[Any] = Bundle("calls")

    make_descriptor: ClassVar[Callable[..., Any]]
    """Makes a descriptor of the kind under test; an argument of the subclass."""

    def __init_subclass__(cls, *, make: Callable[..., Any]) -> None:
        super().__init_subclass__()
        cls.make_descriptor = make

    @initialize(maxsize=st.sampled_from([0, 1, 2]))
    def open(self, maxsize: int) -> None:
        self.runner = asyncio.Runner()
        self.queue = type(self).make_descriptor(queue_id=f"async-{uuid.uuid4().hex}", maxsize=maxsize).open()
        self.getting: set[asyncio.Task[Any]] = set()
        self.putting: dict[asyncio.Task[Any], int] = {}
        self.accepted: Counter[int] = Counter()
        self.got: Counter[int] = Counter()
        self.last = 0

    def teardown(self) -> None:
        if not hasattr(self, "queue"):
            return
        self.cancel_all([*self.getting, *self.putting])
        while not self.queue.empty():
            self.got[self.queue.get_nowait()] += 1
        assert self.got == self.accepted
        self.queue.close()
        self.runner.close()

    # -- Running the loop ---------------------------------------------------------------------------------------------

    def run(self, until: Callable[[], bool]) -> None:
        """Let the loop run until the condition holds, and note what came back."""

        async def turn() -> None:
            async with asyncio.timeout(PATIENCE_SECONDS):
                while not until():
                    await asyncio.sleep(0.0005)

        self.runner.run(turn())
        self.note()

    def note(self) -> None:
        """Note the calls that came back."""
        for task in [task for task in self.getting if task.done()]:
            self.getting.remove(task)
            if not task.cancelled() and not isinstance(task.exception(), ShutDown | Empty):
                self.got[task.result()] += 1
        for task in [task for task in self.putting if task.done()]:
            value = self.putting.pop(task)
            if not task.cancelled() and not isinstance(task.exception(), ShutDown | Full):
                task.result()
                self.accepted[value] += 1

    def start(self, call: Any) -> asyncio.Task[Any]:
        """Make a task, and let it come to its first wait."""

        async def begin() -> asyncio.Task[Any]:
            task = asyncio.ensure_future(call())
            await asyncio.sleep(0)
            return task

        return self.runner.run(begin())

    def cancel_all(self, tasks: list[asyncio.Task[Any]]) -> None:
        for task in tasks:
            task.cancel()
        self.run(lambda: all(task.done() for task in tasks))

    # -- Rules --------------------------------------------------------------------------------------------------------

    @rule(target=calls, timeout=st.sampled_from([None, None, 0.001]))
    def aget(self, timeout: float | None) -> Any:
        task = self.start(lambda: self.queue.aget(timeout))
        self.getting.add(task)
        self.note()
        return task

    @rule(target=calls, timeout=st.sampled_from([None, None, 0.001]))
    def aput(self, timeout: float | None) -> Any:
        self.last += 1
        task = self.start(lambda: self.queue.aput(self.last, timeout))
        self.putting[task] = self.last
        self.note()
        return task

    @rule(task=consumes(calls))
    def cancel(self, task: Any) -> None:
        self.cancel_all([task])

    @rule(task=consumes(calls))
    def cancel_and_forget(self, task: Any) -> None:
        """The loop sees to it when it runs the next time."""
        task.cancel()

    @rule()
    def put_nowait(self) -> None:
        self.last += 1
        try:
            self.queue.put_nowait(self.last)
        except (Full, ShutDown):
            return
        self.accepted[self.last] += 1

    @rule()
    def get_nowait(self) -> None:
        try:
            self.got[self.queue.get_nowait()] += 1
        except (Empty, ShutDown):
            return

    @rule()
    def settle(self) -> None:
        """Nobody waits for what is there."""
        self.run(
            lambda: all(task.done() for task in self.getting) or (self.queue.empty() and not self.queue.is_shutdown)
        )
        self.run(
            lambda: all(task.done() for task in self.putting) or (self.queue.full() and not self.queue.is_shutdown)
        )

    @precondition(lambda self: self.last > 5)
    @rule()
    def shutdown(self) -> None:
        self.queue.shutdown()


class AsyncLocalMachine(AsyncMachine, make=LocalQueueDescriptor):
    """A machine of this kind."""


class AsyncSageMachine(AsyncMachine, make=lambda **settings: SageQueueDescriptor(namespace=NAMESPACE, **settings)):
    """A machine of this kind."""


FEW = settings(max_examples=100, stateful_step_count=50, deadline=None)
TestAsyncLocalQueue = AsyncLocalMachine.TestCase
TestAsyncLocalQueue.settings = FEW
TestAsyncSageQueue = AsyncSageMachine.TestCase
TestAsyncSageQueue.settings = FEW
