"""What is asked of a connection: where a server is, which queue is meant, and calls that wait for their answers."""

import threading
from collections.abc import Callable
from time import monotonic
from typing import Any

from sage_qd.queues.rpc import wire
from sage_qd.queues.rpc.keys import KeyPair
from sage_qd.queues.waiting import TRY_ONCE, remaining

__all__ = ["Address", "Call", "Handle", "put_request", "seconds_until"]


class Address:
    """Where a server is and who we are to it; equal ones share a connection."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        server_key: str | None = None,
        keys: KeyPair | None = None,
        connection_timeout: float = 30.0,
        retry_count: int = 3,
    ) -> None:
        self.host = host
        self.port = port
        self.server_key = server_key
        self.keys = keys
        self.connection_timeout = connection_timeout
        self.retry_count = retry_count

    @property
    def endpoint(self) -> str:
        """For errors and status: ``rpc://host:port``."""
        return f"rpc://{self._place}"

    @property
    def socket_address(self) -> str:
        """For the socket."""
        return f"tcp://127.0.0.1:{self.port}" if self.host == "localhost" else f"tcp://{self._place}"

    @property
    def _place(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def key(self) -> tuple[Any, ...]:
        """What makes two addresses the same."""
        ours = None if self.keys is None else self.keys.public
        return self.host, self.port, self.server_key, ours, self.connection_timeout, self.retry_count


class Handle:
    """A queue that is open on a connection, and how to open it again at a server that has forgotten it."""

    def __init__(self, name: str, maxsize: int, codec: str) -> None:
        self.name = name
        self.maxsize = maxsize
        self.codec = codec
        self.instance: str | None = None
        self.remote: int | None = None
        self.lost: BaseException | None = None


class Call:
    """
    A request and the thread that waits for its answer.

    Args:
        handle: Whose queue it is about; None for opening one.
        make: Makes the request from its number and the server's number of the handle.
        is_repeatable: Whether carrying it out twice does no harm.
        size: Bytes of the items in it.
        on_end: Called in the thread of the connection when there is an answer; it must not wait.
    """

    __slots__ = (
        "_lock",
        "epoch",
        "error",
        "handle",
        "is_flying",
        "is_repeatable",
        "make",
        "number",
        "on_end",
        "sent",
        "since",
        "size",
        "value",
        "was_given_up",
    )

    def __init__(
        self,
        handle: Handle | None,
        make: Callable[[int, int], wire.Request],
        *,
        is_repeatable: bool = False,
        size: int = 0,
        on_end: "Callable[[Call], None] | None" = None,
    ) -> None:
        self.handle = handle
        self.make = make
        self.is_repeatable = is_repeatable
        self.size = size
        self.on_end = on_end
        self.number = 0
        self.sent = 0
        self.epoch = 0
        self.is_flying = False
        self.since = monotonic()
        self.value: Any = None
        self.error: BaseException | None = None
        self.was_given_up = False
        self._lock = threading.Lock()
        self._lock.acquire()

    def wait(self) -> Any:
        """Wait for the answer: return it, or raise it."""
        self._lock.acquire()
        if self.error is not None:
            raise self.error
        return self.value

    def end(self, value: Any, error: BaseException | None = None) -> None:
        """Give the answer, once."""
        self.value, self.error = value, error
        self._lock.release()
        if self.on_end is not None:
            self.on_end(self)


def put_request(batch: list[wire.Item], deadline: float) -> Callable[[int, int], wire.Put]:
    """Makes the request to put items, with what is left until the deadline when it is sent."""
    return lambda number, handle: wire.Put(number, handle, batch, seconds_until(deadline))


def seconds_until(deadline: float) -> float | None:
    """What is left until a deadline, as the wire has it."""
    if deadline == TRY_ONCE:
        return wire.TRY
    left = remaining(deadline)
    return left if left is None or left > 0 else wire.TRY
