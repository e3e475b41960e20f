"""
Services: objects that any task of a job may call, through queues.

A service takes requests from its own queue, and puts each answer into the queue of the caller, whose descriptor the
request brings along. Names of these queues carry the job and the caller, so that no job and no task gets the answer to
another one's question.
"""

import threading
import traceback
import uuid
from collections import deque
from dataclasses import dataclass, field
from time import monotonic, time
from typing import TYPE_CHECKING, Any, Final

from sage_qd.descriptors.base import BaseQueueDescriptor
from sage_qd.errors import Empty, Full, QueueClosedError, ShutDown

if TYPE_CHECKING:
    from collections.abc import Callable

    from sage_qd.runtime.context import RuntimeContext

__all__ = ["ServiceCall", "ServiceClient", "ServiceRequest", "ServiceResponse", "serve"]

SLICE_SECONDS: Final = 0.25
"""How long one of several waiting threads reads the answers for all before another one may."""
RETRY_SECONDS: Final = 0.01
"""How long a service that has answers for which there is no room waits for a request before it tries again."""
MOST_WAITING: Final = 1000
"""Answers for one caller that wait for room."""


@dataclass(frozen=True, kw_only=True)
class ServiceRequest:
    """
    What a service is asked.

    Attributes:
        request_id: No other request has it.
        service_name: Who is asked.
        method_name: Which method of it.
        args: For the method.
        kwargs: For the method.
        timeout: Seconds after which nobody waits for the answer any more.
        timestamp: When it was sent, in seconds since 1970.
        response_queue: Where the answer goes.
    """

    request_id: str
    service_name: str
    method_name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    timeout: float
    timestamp: float = field(default_factory=time)
    response_queue: BaseQueueDescriptor


@dataclass(frozen=True, kw_only=True)
class ServiceResponse:
    """What a service answers: a result, or the text of its error."""

    request_id: str
    result: Any = None
    error: str | None = None


def serve(service: object, requests: Any) -> None:
    """
    Answer requests until the queue is shut down.

    A method that raises answers its caller, and the service goes on. A request whose time is over is dropped. A caller
    that is gone, or does not read its answers, costs nobody else their answer.
    """
    answers = _Answers()
    while True:
        try:
            request = requests.get(timeout=RETRY_SECONDS if answers.are_waiting else None)
        except ShutDown:
            return
        except Empty:
            answers.send_waiting()
            continue
        if time() <= request.timestamp + request.timeout:
            answers.send(request, _answer(service, request))
        answers.send_waiting()


class _Answers:
    """The ways back to the callers; what has no room waits here, until its time is over."""

    def __init__(self) -> None:
        self._queues: dict[str, Any] = {}
        self._waiting: dict[str, deque[tuple[float, ServiceResponse]]] = {}

    @property
    def are_waiting(self) -> bool:
        """Whether an answer waits for room."""
        return bool(self._waiting)

    def send(self, request: ServiceRequest, response: ServiceResponse) -> None:
        """Let an answer wait for :meth:`send_waiting`; of too many for one caller, the oldest is lost."""
        name = request.response_queue.queue_id
        try:
            if name not in self._queues:
                self._queues[name] = request.response_queue.open(create=False)
        except Exception:  # noqa: BLE001  (whatever it is, the caller is gone)
            return
        waiting = self._waiting.setdefault(name, deque(maxlen=MOST_WAITING))
        waiting.append((request.timestamp + request.timeout, response))

    def send_waiting(self) -> None:
        """Send what there is room for."""
        for name, waiting in list(self._waiting.items()):
            while waiting and self._has_left(name, waiting):
                waiting.popleft()
            if not waiting:
                del self._waiting[name]

    def _has_left(self, name: str, waiting: "deque[tuple[float, ServiceResponse]]") -> bool:
        """Whether the first answer that waits need not wait any more; one that cannot be sent becomes an error."""
        until, response = waiting[0]
        if time() > until:
            return True
        try:
            self._queues[name].put_nowait(response)
        except Full:
            return False
        except Exception:  # noqa: BLE001  (it cannot be pickled, is too large, or the caller is gone)
            if response.error is None:
                failed = ServiceResponse(request_id=response.request_id, error=traceback.format_exc())
                waiting[0] = (until, failed)
                return self._has_left(name, waiting)
        return True


def _answer(service: object, request: ServiceRequest) -> ServiceResponse:
    try:
        method: Callable[..., Any] = getattr(service, request.method_name)
        return ServiceResponse(request_id=request.request_id, result=method(*request.args, **request.kwargs))
    except Exception:  # noqa: BLE001  (it is the caller's to hear)
        return ServiceResponse(request_id=request.request_id, error=traceback.format_exc())


class ServiceCall:
    """A request under way."""

    def __init__(self, client: "ServiceClient", request: ServiceRequest, deadline: float) -> None:
        self._client = client
        self._request = request
        self._deadline = deadline

    def result(self) -> Any:
        """
        Wait for the answer, for as long as the call's own timeout says.

        Raises:
            TimeoutError: It did not come.
            RuntimeError: The service raised; the text ends with its traceback.
        """
        response = self._client.await_answer(self._request.request_id, self._deadline)
        asked = f"{self._request.service_name}.{self._request.method_name}"
        if response is None:
            raise TimeoutError(f"service {asked} did not answer within {self._request.timeout:g} s")
        if response.error is not None:
            raise RuntimeError(f"service {asked} raised:\n{response.error}")
        return response.result


class ServiceClient:
    """
    Calls services for one task, from any of its threads.

    Of the threads that wait, one at a time reads the answers and hands the others theirs.
    """

    def __init__(self, ctx: "RuntimeContext") -> None:
        self._ctx = ctx
        self._queues: dict[str, Any] = {}
        descriptor = ctx.get_queue_descriptor(f"service_response_{ctx.name}")
        if descriptor is None:
            raise KeyError(f"task {ctx.name!r} has no queue for answers of services")
        self._descriptor = descriptor
        self._responses = descriptor.attach()
        self._changed = threading.Condition()
        self._is_read = False
        self._arrived: dict[str, ServiceResponse] = {}
        self._awaited: set[str] = set()

    def call(
        self, service_name: str, method: str, args: tuple[Any, ...], kwargs: dict[str, Any], timeout: float
    ) -> ServiceCall:
        """Send a request; see :meth:`RuntimeContext.call_service_async`."""
        deadline = monotonic() + timeout
        request = ServiceRequest(
            request_id=uuid.uuid4().hex,
            service_name=service_name,
            method_name=method,
            args=args,
            kwargs=kwargs,
            timeout=timeout,
            response_queue=self._descriptor,
        )
        with self._changed:
            queue = self._queues.get(service_name)
            if queue is None:
                descriptor = self._ctx.get_queue_descriptor(f"service_request_{service_name}")
                if descriptor is None:
                    raise KeyError(f"service {service_name!r} has no queue for requests")
                queue = self._queues[service_name] = descriptor.attach()
            self._awaited.add(request.request_id)
        try:
            queue.put(request, timeout=timeout)
        except BaseException as error:
            with self._changed:
                self._awaited.discard(request.request_id)
            if isinstance(error, Full):
                raise TimeoutError(f"service {service_name}.{method} took no request within {timeout:g} s") from error
            raise
        return ServiceCall(self, request, deadline)

    def await_answer(self, request_id: str, deadline: float) -> ServiceResponse | None:
        """Wait for one answer; None when the time is over."""
        with self._changed:
            while request_id not in self._arrived:
                left = deadline - monotonic()
                if left <= 0:
                    self._awaited.discard(request_id)
                    return None
                if self._is_read:
                    self._changed.wait(left)
                else:
                    self._read(min(left, SLICE_SECONDS))
            self._awaited.discard(request_id)
            return self._arrived.pop(request_id)

    def _read(self, seconds: float) -> None:
        """Read one answer for whoever waits for it, without the lock, which is held at the start and at the end."""
        self._is_read = True
        self._changed.release()
        response = None
        try:
            response = self._responses.get(timeout=seconds)
        except Empty:
            response = None
        finally:
            self._changed.acquire()
            self._is_read = False
            if response is not None and response.request_id in self._awaited:  # else nobody waits for it any more
                self._arrived[response.request_id] = response
            self._changed.notify_all()

    def close(self) -> None:
        """Close the queues."""
        for queue in (*self._queues.values(), self._responses):
            try:
                queue.close()
            except QueueClosedError:
                continue
