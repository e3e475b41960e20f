"""Services and those that call them, without a job around them."""

import os
import threading
from collections.abc import Callable, Iterator
from time import monotonic
from typing import Any

import pytest

from sage_qd import SageQueueDescriptor
from sage_qd.runtime import RuntimeContext
from sage_qd.runtime.services import serve
from sage_qd.testing import background, wait_for


class Adder:
    def add(self, item: int) -> int:
        return item + 1

    def lock(self) -> Any:
        return threading.Lock()


class Place:
    """One service, or only its queue, and the contexts of two tasks that call it."""

    def __init__(self, requests: int = 100, answers: int = 100) -> None:
        name = f"services-{os.getpid()}"
        self.requests = SageQueueDescriptor(f"{name}-requests", maxsize=requests)
        self.answers = [SageQueueDescriptor(f"{name}-answers-{number}", maxsize=answers) for number in range(2)]
        for descriptor in (self.requests, *self.answers):
            descriptor.open()
        self.callers = []
        for number, answer in enumerate(self.answers):
            ctx = RuntimeContext(name=f"task_{number}", job="job")
            ctx.set_service_names(("adder",))
            ctx.set_queue_descriptor_pool(
                {"service_request_adder": self.requests, f"service_response_task_{number}": answer}
            )
            self.callers.append(ctx)
        self._serving: Any = None

    def serve(self) -> None:
        self._serving = background(serve, Adder(), self.requests.open())

    def close(self) -> None:
        self.requests.open().shutdown(immediate=True)
        if self._serving is not None:
            self._serving.result()
        for ctx in self.callers:
            ctx.close()
        for descriptor in (self.requests, *self.answers):
            descriptor.destroy()


@pytest.fixture
def make() -> Iterator[Callable[..., Place]]:
    made: list[Place] = []

    def place(**settings: Any) -> Place:
        made.append(Place(**settings))
        return made[-1]

    yield place
    for each in made:
        each.close()


def test_an_answer_that_cannot_be_pickled_is_told(make: Callable[..., Place]) -> None:
    place = make()
    place.serve()

    with pytest.raises(RuntimeError, match=r"service adder\.lock raised:(.|\n)*cannot pickle"):
        place.callers[0].call_service("adder", method="lock", timeout=60)


def test_answers_that_nobody_reads_hold_up_nobody_else(make: Callable[..., Place]) -> None:
    place = make(answers=5)
    place.serve()
    lazy, busy = place.callers
    calls = [lazy.call_service_async("adder", number, method="add", timeout=3600) for number in range(20)]

    assert busy.call_service("adder", 1, method="add", timeout=60) == 2
    assert [call.result() for call in calls] == list(range(1, 21))


def test_a_request_for_which_there_is_no_room_is_a_timeout_and_is_forgotten(make: Callable[..., Place]) -> None:
    place = make(requests=2)
    ctx = place.callers[0]
    for number in range(2):
        ctx.call_service_async("adder", number, method="add", timeout=60)

    with pytest.raises(TimeoutError, match=r"service adder\.add took no request within 0\.05 s"):
        ctx.call_service("adder", 1, method="add", timeout=0.05)

    assert len(ctx._client._awaited) == 2


def test_the_time_of_a_call_runs_from_its_start(make: Callable[..., Place]) -> None:
    place = make(requests=1)
    ctx, queue = place.callers[0], place.requests.open()
    ctx.call_service_async("adder", 0, method="add", timeout=60)
    waiting = background(lambda: ctx.call_service_async("adder", 1, method="add", timeout=60))
    wait_for(lambda: len(ctx._client._awaited) == 2, "it is about to wait for room")
    room_came = monotonic()
    queue.get()

    assert waiting.result()._deadline < room_came + 60
