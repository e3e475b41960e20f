"""What queues do between processes, told as tests: every way to start a process, and the death of one."""

# ruff: noqa: D102  (the name of a test is its documentation)

import multiprocessing
import os
import signal
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from typing import Any

import pytest

from sage_qd.errors import Empty, QueueNotFoundError, ShutDown
from sage_qd.queues.base import Queue, Reach
from sage_qd.testing.watching import PATIENCE_SECONDS, background, wait_for

__all__ = ["ProcessContract"]

START_METHODS = ("fork", "spawn", "forkserver")


class ProcessContract(ABC):
    """The contract of kinds that reach other processes; subclass it and say how to make a descriptor."""

    @abstractmethod
    def make_descriptor(self, **settings: Any) -> Any:
        """
        Return a descriptor of the kind under test.

        Args:
            **settings: ``queue_id``, and ``maxsize`` where a test needs a bound.
        """

    @pytest.fixture
    def requests(self) -> Iterator[Queue[Any]]:
        """An empty queue to the children."""
        yield from self._opened()

    @pytest.fixture
    def answers(self) -> Iterator[Queue[Any]]:
        """An empty queue from the children."""
        yield from self._opened()

    @pytest.fixture
    def start(self) -> Iterator[Callable[..., BaseProcess]]:
        """Start a process: method, function of this module, arguments. What still runs afterwards is killed."""
        started: list[BaseProcess] = []

        def starter(method: str, call: Callable[..., None], *arguments: Any) -> BaseProcess:
            if method not in multiprocessing.get_all_start_methods():
                pytest.skip(f"this system cannot start processes by {method}")
            process: BaseProcess = multiprocessing.get_context(method).Process(target=call, args=arguments)  # type: ignore[attr-defined]
            process.start()
            started.append(process)
            return process

        yield starter
        for process in started:
            if process.is_alive():
                process.kill()
            process.join()

    def _opened(self) -> Iterator[Queue[Any]]:
        descriptor = self.make_descriptor(queue_id=f"contract-{uuid.uuid4().hex}")
        queue: Queue[Any] = descriptor.open()
        if queue.capabilities.reach is Reach.THREADS:
            queue.close()
            pytest.skip("this kind stays in its process")
        yield queue
        descriptor.close()

    @pytest.mark.parametrize("method", START_METHODS)
    def test_a_queue_travels_as_an_argument(self, requests: Any, answers: Any, start: Any, method: str) -> None:
        child = start(method, echo, requests, answers)

        requests.put_many([b"bytes", ["objects", 1], None])
        requests.shutdown()

        assert [answers.get(timeout=PATIENCE_SECONDS) for _ in range(3)] == [b"bytes", ["objects", 1], None]
        child.join(PATIENCE_SECONDS)
        assert child.exitcode == 0

    @pytest.mark.parametrize("method", START_METHODS)
    def test_a_descriptor_travels_as_an_argument(self, requests: Any, answers: Any, start: Any, method: str) -> None:
        child = start(method, echo_by_descriptor, requests.descriptor, answers.descriptor)

        requests.put("hello")
        requests.shutdown()

        assert answers.get(timeout=PATIENCE_SECONDS) == "hello"
        child.join(PATIENCE_SECONDS)
        assert child.exitcode == 0

    @pytest.mark.parametrize("method", START_METHODS)
    def test_text_travels_as_an_argument(self, requests: Any, answers: Any, start: Any, method: str) -> None:
        texts = (requests.descriptor.to_json(), answers.descriptor.to_json())
        child = start(method, echo_by_text, *texts)

        requests.put("hello")
        requests.shutdown()

        assert answers.get(timeout=PATIENCE_SECONDS) == "hello"
        child.join(PATIENCE_SECONDS)
        assert child.exitcode == 0

    @pytest.mark.parametrize("method", ["spawn", "forkserver"])
    def test_a_lazy_descriptor_that_nobody_opened_makes_no_queue(self, answers: Any, start: Any, method: str) -> None:
        lazy = answers.descriptor.derive(f"contract-{uuid.uuid4().hex}")

        start(method, try_to_open, lazy, answers)

        assert answers.get(timeout=PATIENCE_SECONDS) == "QueueNotFoundError"

    @pytest.mark.parametrize("method", START_METHODS)
    def test_processes_lose_and_double_nothing_and_keep_each_producers_order(
        self, requests: Any, answers: Any, start: Any, method: str
    ) -> None:
        consumers = [start(method, collect, requests, answers) for _ in range(2)]
        producers = [start(method, produce, requests, producer, 300) for producer in range(2)]
        for producer in producers:
            producer.join(PATIENCE_SECONDS)
            assert producer.exitcode == 0
        requests.shutdown()

        taken = [answers.get(timeout=PATIENCE_SECONDS) for _ in consumers]

        assert sorted(message for one in taken for message in one) == [
            [producer, number] for producer in range(2) for number in range(300)
        ]
        for one in taken:
            for who in range(2):
                numbers = [number for producer, number in one if producer == who]
                assert numbers == sorted(numbers)

    @pytest.mark.parametrize("method", START_METHODS)
    def test_shutdown_reaches_waiting_calls_of_other_processes(
        self, requests: Any, answers: Any, start: Any, method: str
    ) -> None:
        start(method, wait_for_shutdown, requests, answers)
        assert answers.get(timeout=PATIENCE_SECONDS) == "waiting"

        requests.shutdown()

        assert answers.get(timeout=PATIENCE_SECONDS) == "ShutDown"

    @pytest.mark.parametrize("method", START_METHODS)
    def test_a_childs_exit_leaves_the_queue(self, requests: Any, answers: Any, start: Any, method: str) -> None:
        child = start(method, put_one, requests, "from a child")
        child.join(PATIENCE_SECONDS)

        assert requests.get(timeout=0) == "from a child"
        requests.put("still works")
        assert requests.get(timeout=0) == "still works"

    def test_a_killed_consumer_that_waited_does_not_stop_the_others(
        self, requests: Any, answers: Any, start: Any
    ) -> None:
        if not requests.capabilities.survives_crash:
            pytest.skip("this kind has no survives_crash")
        child = start("spawn", wait_for_shutdown, requests, answers)
        assert answers.get(timeout=PATIENCE_SECONDS) == "waiting"
        getter = background(requests.get)

        os.kill(child.pid, signal.SIGKILL)
        child.join(PATIENCE_SECONDS)
        requests.put("for the living")

        assert getter.result() == "for the living"

    def test_a_message_leased_by_a_killed_process_is_delivered_again(
        self, requests: Any, answers: Any, start: Any
    ) -> None:
        if not (requests.capabilities.survives_crash and requests.capabilities.lease):
            pytest.skip("this kind has no survives_crash and lease")
        requests.put_many(["held", "younger"])
        child = start("spawn", hold_a_lease, requests, answers)
        assert answers.get(timeout=PATIENCE_SECONDS) == "held"

        os.kill(child.pid, signal.SIGKILL)
        child.join(PATIENCE_SECONDS)
        wait_for(lambda: _sees_again(requests), "the dead process's message came back")

        lease = requests.lease(timeout=PATIENCE_SECONDS)
        assert (lease.value, lease.redelivered) == ("held", True)
        lease.ack()
        assert requests.get(timeout=0) == "younger"


def _sees_again(queue: Any) -> bool:
    """Whether the oldest message is the one that came back; a look gives the queue the chance to notice the death."""
    lease = queue.lease(timeout=PATIENCE_SECONDS)
    try:
        return bool(lease.value == "held")  # a look at the younger one, and giving it back, marks that one, too
    finally:
        lease.nack()


# -- What the children do; at the top of a module, so that every start method finds it ---------------------------------


def echo(requests: Any, answers: Any) -> None:
    """Send everything back until the shutdown."""
    for message in requests:
        answers.put(message)


def echo_by_descriptor(requests: Any, answers: Any) -> None:
    """As :func:`echo`, from descriptors."""
    with requests.attach() as incoming, answers.attach() as outgoing:
        echo(incoming, outgoing)


def echo_by_text(requests: str, answers: str) -> None:
    """As :func:`echo`, from JSON."""
    from sage_qd.descriptors import BaseQueueDescriptor

    echo_by_descriptor(BaseQueueDescriptor.from_json(requests), BaseQueueDescriptor.from_json(answers))


def try_to_open(descriptor: Any, answers: Any) -> None:
    """Say how opening ended."""
    try:
        descriptor.open()
    except QueueNotFoundError as error:
        answers.put(type(error).__name__)
    else:
        answers.put("opened")


def produce(queue: Any, producer: int, count: int) -> None:
    """Put numbered messages."""
    for number in range(count):
        queue.put([producer, number])


def collect(queue: Any, answers: Any) -> None:
    """Take everything until the shutdown, then send the list."""
    answers.put(list(queue))


def wait_for_shutdown(queue: Any, answers: Any) -> None:
    """Wait for a message that never comes, and say how it ended."""
    answers.put("waiting")
    try:
        queue.get(timeout=PATIENCE_SECONDS)
    except (Empty, ShutDown) as error:
        answers.put(type(error).__name__)


def put_one(queue: Any, message: Any) -> None:
    """Put one message and exit."""
    queue.put(message)


def hold_a_lease(queue: Any, answers: Any) -> None:
    """Lease a message, say which, and never settle it."""
    lease = queue.lease(timeout=PATIENCE_SECONDS)
    answers.put(lease.value)
    signal.pause()
