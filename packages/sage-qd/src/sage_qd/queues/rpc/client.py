"""
One connection of a process to a server: a thread that owns the socket, and the calls of all other threads.

A call is put into a line and waited for on a lock of its own; the thread packs what is in line into one frame, so calls
of many threads share it. A broken connection is made again. The server remembers what it answered, so calls under way
are sent again under their numbers and carried out once. A server that does not know this client any more has forgotten:
calls that could have had an effect then end with :class:`~sage_qd.OutcomeUnknownError`, the others are sent anew.

The connection belongs to the process that made it: sockets and threads do not survive a fork.
"""

import atexit
import os
import secrets
import threading
import weakref
from collections import deque
from math import inf
from time import monotonic
from typing import Any, Final

from sage_qd.errors import (
    AuthenticationError,
    OutcomeUnknownError,
    ProtocolError,
    QueueClosedError,
    QueueLostError,
    QueueUnavailableError,
    SageQueueError,
)
from sage_qd.queues.rpc import wire
from sage_qd.queues.rpc.calls import Address, Call, Handle
from sage_qd.queues.rpc.faults import raised
from sage_qd.queues.rpc.sockets import ClientSocket, Doorbell

__all__ = ["Connection", "connection_to", "release"]

_TICK_SECONDS: Final = 0.5
_PING_SECONDS: Final = 1.0
_DEAD_SECONDS: Final = 15.0
_ATTEMPT_SECONDS: Final = 5.0
_FIRST_PAUSE_SECONDS: Final = 0.02
_LONGEST_PAUSE_SECONDS: Final = 0.5
_COMPANY_SECONDS: Final = 0.002
"""An ack waits so long at most for a request to go with: taking one by one then costs one frame each, not two."""
_HANDSHAKES_THAT_MAY_FAIL: Final = 5
_ENTRIES_OF_A_FRAME: Final = 1024


class Connection:
    """
    The calls of a process to one server.

    Args:
        address: Where it is.
    """

    def __init__(self, address: Address) -> None:
        self.address = address
        self.pid = os.getpid()
        self.users = 0
        self.server_id: str | None = None
        self.epoch = 0
        self.largest_frame = wire.LARGEST_FRAME
        self.connections = 0
        self._client = secrets.token_bytes(16)
        self._mutex = threading.Lock()
        self._puts: deque[Call] = deque()
        self._others: deque[Call | wire.Request] = deque()
        self._calls: dict[int, Call] = {}
        self._ended: list[int] = []  # the server need not keep the answers; told when they overtook an older call
        self._dropped: deque[tuple[Handle, int, int]] = deque()
        self._handles: set[Handle] = set()
        self._next = 1
        self._flying = 0
        self._flying_bytes = 0
        self._credits, self._credit_bytes = 1, 0
        self._bell = Doorbell()
        self._is_rung = False
        self._closing = False
        self._over: SageQueueError | None = None
        self._failures = 0
        self._heard = self._told = self._lost_at = monotonic()
        self._attempt_at = 0.0
        self._acks_awaited_until = 0.0
        self._pause = _FIRST_PAUSE_SECONDS
        self._state = "down"
        self._has_connected = False
        self._reason = "it does not answer"
        self._stuck: bytes | None = None
        self._socket = ClientSocket(
            address.socket_address,
            server_key=address.server_key,
            pair=None if address.keys is None else (address.keys.public, address.keys.secret),
            largest_frame=wire.LARGEST_FRAME,
            bell=self._bell,
        )
        self._thread = threading.Thread(target=self._run, name="sage-qd-rpc", daemon=True)
        self._thread.start()
        _open_connections.add(self)

    # -- Called by any thread -----------------------------------------------------------------------------------------

    def call(self, call: Call) -> Any:
        """Submit a call and wait for its answer; one that is interrupted is given up."""
        self.submit(call)
        try:
            return call.wait()
        except BaseException:
            if call.error is None:
                self.give_up(call)
            raise

    def submit(self, call: Call) -> None:
        """Put a call into line."""
        with self._mutex:
            if self._over is not None:
                raise self._over
            call.number = self._next
            self._next += 1
            self._calls[call.number] = call
            (self._puts if call.size else self._others).append(call)
        self._ring()

    def settle(self, handle: Handle, epoch: int, lease: int, acked: int) -> None:
        """
        Ack the first messages of a lease and give back the others, without waiting for an answer.

        Leases of a session that is over are gone anyway.
        """
        with self._mutex:
            if epoch == self.epoch and handle.remote is not None:
                self._others.append(wire.Settle(0, handle.remote, lease, acked))
            is_awaited = self._acks_awaited_until > monotonic()
        if not is_awaited:
            self._ring()

    def settle_from_finalizer(self, handle: Handle, epoch: int, lease: int) -> None:
        """Give back a lease that was dropped. A finalizer may run in any place, so no lock is taken here."""
        self._dropped.append((handle, epoch, lease))
        self._ring()

    def end_calls_of(self, handle: Handle, error: SageQueueError) -> None:
        """End what still waits on a handle that was closed."""
        with self._mutex:
            calls = [call for call in self._calls.values() if call.handle is handle]
        for call in calls:
            self._end(call, None, error)

    def give_up(self, call: Call) -> None:
        """Nobody waits for this call any more; what it took is given back."""
        with self._mutex:
            if call.number not in self._calls:
                self._give_back(call)
            elif not call.sent:
                del self._calls[call.number]  # it is not sent any more
                self._ended.append(call.number)
            else:
                call.was_given_up = True
                self._others.append(wire.Cancel(call.number))
        self._ring()

    def add_handle(self, handle: Handle) -> None:
        """Open this handle again when the server forgot it."""
        with self._mutex:
            self._handles.add(handle)

    def remove_handle(self, handle: Handle) -> None:
        """The opposite of :meth:`add_handle`."""
        with self._mutex:
            self._handles.discard(handle)

    def forget(self, handle: Handle) -> None:
        """Close a handle at the server when the connection is back, if the session is then the same."""
        with self._mutex:
            if self._over is None and self._state != "up" and handle.remote is not None:
                call = Call(handle, wire.CloseHandle, is_repeatable=True)
                call.since = inf
                call.number = self._next
                self._next += 1
                self._calls[call.number] = call
                self._others.append(call)

    def _ring(self) -> None:
        if not self._is_rung:
            self._is_rung = True
            self._bell.ring()

    @property
    def is_up(self) -> bool:
        """Whether the server answers, as far as is known."""
        return self._state == "up"

    @property
    def is_over(self) -> bool:
        """Whether the thread has ended, so that another connection is needed."""
        return self._over is not None

    def status(self) -> dict[str, Any]:
        """Figures for people and monitors; no secrets."""
        with self._mutex:
            return {
                "endpoint": self.address.endpoint,
                "state": self._state,
                "connected": self.is_up,
                "encrypted": self.address.server_key is not None,
                "server_id": self.server_id,
                "connections": self.connections,
                "in_flight": len(self._calls),
                "silent_seconds": round(monotonic() - self._heard, 3),
                "reason": None if self.is_up else self._reason,
            }

    def close(self) -> None:
        """Send what is in line, if that goes at once, and end the thread."""
        self._closing = True
        if not self.is_over:
            self._bell.ring()
        if self._thread is not threading.current_thread():
            self._thread.join()
        _open_connections.discard(self)

    # -- The thread ---------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        """Work until closed. Whatever happens here, no call is left waiting."""
        error: SageQueueError = QueueClosedError(name=None)
        try:
            while not self._closing:
                self._socket.poll(self._seconds_to_wait(), for_room=self._stuck is not None)
                self._step()
            self._send_all()
        except Exception as problem:  # noqa: BLE001  (told to every caller, now and later)
            error = QueueUnavailableError(endpoint=self.address.endpoint, reason=f"the connection failed: {problem!r}")
            error.__cause__ = problem
        finally:
            with self._mutex:
                self._closing, self._state, self._over = True, "down", error
            self._fail_all(error)
            self._socket.close()
            self._bell.close()

    def _step(self) -> None:
        self._bell.clear()
        self._is_rung = False  # after it: who rings meanwhile is heard
        for event in self._socket.events():
            self._notice(event)
        while (frame := self._socket.receive()) is not None:
            self._take_frame(frame)
        now = monotonic()
        if self._state == "down" and now >= self._attempt_at and (self._calls or self._handles):
            self._state, self._has_connected = "connecting", False
            self._attempt_at = now + _ATTEMPT_SECONDS
            self._socket.connect()
        elif self._state in ("connecting", "greeting") and now >= self._attempt_at:
            self._lose("it does not answer")
        if self._acks_awaited_until and now >= self._acks_awaited_until:
            with self._mutex:  # who settles after this rings; what was settled before is sent below
                self._acks_awaited_until = 0.0
        if self._state == "up":
            if now - self._heard > _DEAD_SECONDS:
                self._lose(f"it was silent for {_DEAD_SECONDS:.0f} s")
            else:
                self._send_all()
        if self._state != "up":
            self._expire(now)

    def _seconds_to_wait(self) -> float:
        if self._acks_awaited_until:
            return max(self._acks_awaited_until - monotonic() + 0.001, 0)
        return _TICK_SECONDS if self._state == "up" else min(max(self._attempt_at - monotonic() + 0.001, 0), 0.05)

    # -- Being connected ----------------------------------------------------------------------------------------------

    def _notice(self, event: str) -> None:
        if event == "connected":
            self._has_connected = True
        elif event == "up":
            self._failures = 0
            self._state = "greeting"
            self._attempt_at = monotonic() + _ATTEMPT_SECONDS
            hello = wire.Hello(wire.VERSION, self._client, self.epoch > 0)
            self._socket.send(wire.pack(wire.Requests(0, [], [hello])))
        elif event == "refused":
            self._refuse("the server does not let this client's key in")
        elif event == "mismatch":
            self._refuse("one side uses keys and the other does not")
        elif self._state != "down":
            if self._state == "connecting" and self._has_connected:
                self._failures += 1
                if self._failures >= _HANDSHAKES_THAT_MAY_FAIL and self.address.server_key is not None:
                    self._refuse("the server ends the handshake: server_key is not its key, or it uses none")
                    return
            self._lose("the connection broke" if self._state == "up" else "nobody listens there")

    def _lose(self, reason: str) -> None:
        """The connection is gone; try again after a pause."""
        now = monotonic()
        if self._state == "up":
            self._lost_at, self._pause = now, _FIRST_PAUSE_SECONDS
        self._reason = reason
        self._state = "down"
        self._stuck = None
        self._socket.disconnect()
        self._attempt_at = now + self._pause
        self._pause = min(self._pause * 2, _LONGEST_PAUSE_SECONDS)

    def _refuse(self, reason: str) -> None:
        """Fail what waits: with these keys, waiting longer does not help. Later calls fail at the next attempt."""
        self._failures = 0
        self._lose(reason)
        self._fail_all(AuthenticationError(peer=self.address.endpoint, reason=reason))

    def _fail_all(self, error: SageQueueError) -> None:
        with self._mutex:
            calls = list(self._calls.values())
        for call in calls:
            self._end(call, None, error)

    def _expire(self, now: float) -> None:
        """End calls that waited for a connection as long as they may."""
        patience = self.address.connection_timeout
        with self._mutex:
            late = [call for call in self._calls.values() if now - max(call.since, self._lost_at) >= patience]
        for call in late:
            if call.sent and not call.is_repeatable:
                self._end(call, None, self._unknown(call))
            else:
                self._end(call, None, QueueUnavailableError(endpoint=self.address.endpoint, reason=self._reason))

    def _unknown(self, call: Call) -> OutcomeUnknownError:
        return OutcomeUnknownError(request_id=f"{self._client.hex()}:{call.number}")

    def _welcome(self, welcome: wire.Welcome) -> None:
        if welcome.version != wire.VERSION or self._state != "greeting":
            raise ProtocolError(peer=self.address.endpoint, reason="it welcomes us in another version, or twice")
        self.largest_frame = min(welcome.largest_frame, wire.LARGEST_FRAME)
        self._credits, self._credit_bytes = welcome.credits, welcome.credit_bytes
        self._state, self._pause = "up", _FIRST_PAUSE_SECONDS
        self.connections += 1
        self.server_id = welcome.server
        self._send_again(is_resumed=welcome.resumed)

    def _send_again(self, *, is_resumed: bool) -> None:
        """Put calls without an answer back into line, those that may be."""
        with self._mutex:
            self._flying = self._flying_bytes = 0
            self._puts.clear()
            settled = [each for each in self._others if not isinstance(each, Call)]
            self._others.clear()
            if is_resumed:
                self._others.extend(settled)
            else:
                self.epoch += 1
            lost = []
            for call in self._calls.values():  # in the line that was cleared: who submits now comes after them
                call.is_flying = False
                is_safe = call.is_repeatable or (is_resumed and call.sent <= self.address.retry_count)
                if call.was_given_up and (call.size or not is_resumed):
                    self._others.append(wire.Cancel(call.number))
                    lost.append(call)
                elif call.handle is not None and call.handle not in self._handles and not is_resumed:
                    lost.append(call)  # it closes a handle that the server has forgotten
                elif call.sent and not is_safe:
                    lost.append(call)
                else:
                    (self._puts if call.size else self._others).append(call)
            handles = list(self._handles)
            if not is_resumed:
                for handle in handles:
                    handle.remote = None
        if not is_resumed:
            for handle in handles:
                self._reopen(handle)
        for call in lost:
            self._end(call, None, self._unknown(call))

    def _reopen(self, handle: Handle) -> None:
        """Open a queue at a server that has forgotten us; it must be the very same queue."""

        def opened(call: Call) -> None:
            if call.error is None:
                handle.remote = int(call.value["handle"])
            elif not isinstance(call.error, (QueueClosedError, AuthenticationError)):
                handle.lost = QueueLostError(endpoint=f"{self.address.endpoint}/{handle.name}", items_lost=True)
                handle.lost.__cause__ = call.error

        call = Call(None, lambda number, _: wire.OpenHandle(
            number, handle.name, False, 0, handle.codec, handle.instance
        ), is_repeatable=True, on_end=opened)  # fmt: skip
        call.since = inf  # a handle stays as long as somebody has it
        with self._mutex:
            call.number = self._next
            self._next += 1
            self._calls[call.number] = call
            self._others.append(call)

    # -- Frames -------------------------------------------------------------------------------------------------------

    def _take_frame(self, frame: bytes) -> None:
        try:
            answers = wire.unpack_answers(frame, self.address.endpoint)
            self._heard = monotonic()
            for answer in answers.entries:
                self._take_answer(answer)
        except SageQueueError as error:
            self._lose(str(error))

    def _take_answer(self, answer: wire.Answer) -> None:
        if isinstance(answer, wire.Done | wire.Taken):
            if (call := self._calls.get(answer.number)) is not None:
                self._end(call, answer.value if isinstance(answer, wire.Done) else answer)
        elif isinstance(answer, wire.Failed):
            if (call := self._calls.get(answer.number)) is not None:
                self._end(call, None, raised(answer.fault, answer.values, self.address.endpoint))
        elif isinstance(answer, wire.Welcome):
            self._welcome(answer)
        elif isinstance(answer, wire.Bye):
            self._lose(str(raised(answer.fault, answer.values, self.address.endpoint)))

    def _end(self, call: Call, value: Any, error: BaseException | None = None) -> None:
        """Give a call its answer."""
        with self._mutex:
            if self._calls.pop(call.number, None) is None:
                return
            self._ended.append(call.number)
            if call.is_flying:
                self._flying -= 1
                self._flying_bytes -= call.size
            call.value, call.epoch = value, self.epoch
            if type(value) is wire.Taken and not call.was_given_up:
                self._acks_awaited_until = monotonic() + _COMPANY_SECONDS
            if call.was_given_up:
                self._give_back(call)
        call.end(value, error)

    def _give_back(self, call: Call) -> None:
        """Return what came for somebody who does not wait any more. The mutex is held."""
        handle, taken = call.handle, call.value
        if not isinstance(taken, wire.Taken) or not taken.lease or handle is None or handle.remote is None:
            return
        if call.epoch == self.epoch:
            self._others.append(wire.Settle(0, handle.remote, taken.lease, 0))

    def _send_all(self) -> None:
        """Send what is in line, as far as the credits go."""
        if self._state != "up":
            return
        while self._dropped:
            handle, epoch, lease = self._dropped.popleft()
            self.settle(handle, epoch, lease, 0)
        if self._stuck is not None:
            if not self._socket.send(self._stuck):
                return
            self._stuck = None
        while (entries := self._next_entries()) or monotonic() - self._told > _PING_SECONDS:
            with self._mutex:
                done = next(iter(self._calls), self._next)
                ended = [number for number in self._ended if number > done]
                self._ended.clear()
            frame = wire.pack(wire.Requests(done, ended, entries or [wire.Ping()]))
            self._told = monotonic()
            if not self._socket.send(frame):
                self._stuck = frame
                return

    def _next_entries(self) -> list[wire.Request]:
        """Take requests of one frame out of line; items have a credit of their own, so they never hold up the rest."""
        entries: list[wire.Request] = []
        held: list[Call | wire.Request] = []
        held_puts: list[Call] = []
        ended: list[tuple[Call, BaseException]] = []
        size = 0
        with self._mutex:
            while self._others and len(entries) < _ENTRIES_OF_A_FRAME:
                each = self._others.popleft()
                if isinstance(each, Call):
                    if self._flying >= self._credits or (each.handle and each.handle.remote is None):
                        if each.handle and each.handle.lost:
                            ended.append((each, each.handle.lost))
                        else:
                            held.append(each)
                        continue
                    if each.number in self._calls:
                        entries.append(self._made(each))
                else:
                    entries.append(each)
            self._others.extendleft(reversed(held))
            while self._puts and len(entries) < _ENTRIES_OF_A_FRAME and size < wire.BATCH_BYTES:
                call = self._puts[0]
                if call.handle and call.handle.lost:
                    ended.append((self._puts.popleft(), call.handle.lost))
                    continue
                has_room = self._flying_bytes == 0 or self._flying_bytes + call.size <= self._credit_bytes
                if self._flying >= self._credits or not has_room or (entries and size + call.size > wire.BATCH_BYTES):
                    break
                self._puts.popleft()
                if call.handle and call.handle.remote is None:
                    held_puts.append(call)
                elif call.number in self._calls:
                    entries.append(self._made(call))
                    size += call.size
            self._puts.extendleft(reversed(held_puts))
        for call, error in ended:
            self._end(call, None, error)
        return entries

    def _made(self, call: Call) -> wire.Request:
        call.sent += 1
        call.is_flying = True
        self._flying += 1
        self._flying_bytes += call.size
        return call.make(call.number, (call.handle and call.handle.remote) or 0)


# -- One connection for all that may share it --------------------------------------------------------------------------

_pool: Final[dict[tuple[Any, ...], Connection]] = {}
_pool_mutex = threading.Lock()
_open_connections: "weakref.WeakSet[Connection]" = weakref.WeakSet()


def connection_to(address: Address, *, is_shared: bool) -> Connection:
    """Return a connection; release it with :func:`release`."""
    if not is_shared:
        made = Connection(address)
        made.users = 1
        return made
    with _pool_mutex:
        found = _pool.get(address.key)
        if found is None or found.is_over:
            found = _pool[address.key] = Connection(address)
        found.users += 1
        return found


def release(connection: Connection) -> None:
    """Give up a connection; the last user closes it."""
    with _pool_mutex:
        connection.users -= 1
        if connection.users:
            return
        if _pool.get(connection.address.key) is connection:
            del _pool[connection.address.key]
    connection.close()


def _forget_everything() -> None:
    """In a forked child: the threads and sockets are the parent's."""
    global _pool_mutex
    _pool_mutex = threading.Lock()
    _inherited.extend(_open_connections)
    _pool.clear()
    _open_connections.clear()


def _flush_at_exit() -> None:
    """Send acks that are still in line."""
    for connection in list(_open_connections):
        connection.close()


_inherited: Final[list[Connection]] = []
"""Connections of the parent, kept so that their sockets are never closed from here."""

atexit.register(_flush_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_everything)
