"""
A queue on the side of the server: payloads stay opaque, and nothing that waits holds up the loop.

The server's own handle speaks in items as the wire has them. On a ring it takes the place of the codec, so processes of
the host that open the ring with its codec meet ordinary messages. Kinds that hold objects hold ``bytes`` or
:class:`Opaque`. In any other kind, an item is ``bytes`` with its tag in front.

Calls that must wait are parked here and tried again when something changed. Changes that came through this server are
known; those by others (processes on the ring, threads of this process) are waited for by one thread for each side,
which lives while somebody is parked.
"""

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import fields
from typing import Any, Final, Protocol

from sage_qd.codecs import codec_name
from sage_qd.errors import ProtocolError, QueueNotFoundError, UntrustedPayloadError
from sage_qd.queues.base import Queue, QueueFigures
from sage_qd.queues.rpc.wire import Item
from sage_qd.ring import Leases

__all__ = ["ASKED", "Hosted", "HostedDescriptor", "Opaque", "Parked"]

SLICE_SECONDS: Final = 0.25
"""How long the watching thread waits before it looks whether anybody is still parked."""
PAUSE_SECONDS: Final = 0.02
"""How long it rests when there was something, but not what the first one in line needs: room, but too little."""
PICKLE_TAGS: Final = frozenset((1, 129))
ASKED: Final = ("peek", "clear", "qsize", "empty", "full", "stats", "shutdown", "seal", "successor", "maxsize")
"""Methods that a client may call by name. They do not wait."""
_LARGEST_TAG: Final = 255
_TURN: Final = 256
"""Messages that a ring leases in one turn, whatever is asked for."""


class HostedDescriptor(Protocol):
    """What the server needs of a descriptor."""

    @property
    def queue_id(self) -> str:
        """The name, any text."""

    def open(self, create: bool | None = None) -> Any:
        """Open the queue, which is made when it is missing."""

    def attach(self) -> Any:
        """Return another handle of the queue."""

    def close(self) -> None:
        """Give up what :meth:`open` returned."""


class Opaque(bytes):
    """A message that is no ``bytes``, as its codec wrote it."""

    tag: int

    @classmethod
    def of(cls, tag: int, payload: Any) -> "Opaque":
        """Put a tag on a payload; copies it."""
        made = cls(payload)
        made.tag = tag
        return made


class _Passing:
    """Stands in for the codec of a ring: items pass as they are."""

    @staticmethod
    def encode(item: Opaque) -> tuple[int, tuple[bytes]]:
        return item.tag, (item,)

    @staticmethod
    def decode(tag: int, payload: Any) -> bytes:
        return bytes(payload) if tag == 0 else Opaque.of(tag, payload)


class Parked(Protocol):
    """A request that may have to wait."""

    answered: bool
    may_wait: bool

    def attempt(self) -> bool:
        """Try, without waiting; True when there is an answer, which was given."""

    def expire(self) -> None:
        """Answer for good: the time is up."""


class Hosted:
    """
    One queue that a server hosts.

    Args:
        descriptor: Names the queue. The server opens a handle of its own.
        wake: Called from the watching threads: look at this queue again.
        kept: Whether the queue stays when no client has it open.
        allow_pickle: Whether pickles may pass through. They are never opened here.

    Raises:
        UntrustedPayloadError: The queue's messages are pickles, and those may not pass.
    """

    def __init__(
        self, descriptor: HostedDescriptor, wake: Callable[["Hosted"], None], *, kept: bool, allow_pickle: bool
    ) -> None:
        self.name: Final = descriptor.queue_id
        self.kept: Final = kept
        self.handles = 0
        self.takers: deque[Parked] = deque()
        self.putters: deque[Parked] = deque()
        self._allow_pickle = allow_pickle
        self._wake = wake
        self.queue: Queue[Any] = _own_handle(descriptor)
        self._ring = getattr(self.queue, "ring", None)
        self._is_framed = self._ring is None and not self.queue.capabilities.same_object
        if self._ring is not None:
            self.codec: str | None = codec_name(self._ring.codec)
            self._ring.set_codec(_Passing.encode, _Passing.decode)
        else:
            self.codec = None
        self.instance: str | None = getattr(self.queue, "instance", None)
        self._watches = {side: _Watch(self, wait) for side, wait in self._waits().items()}
        if self.codec == "pickle" and not allow_pickle:
            self.close()
            raise UntrustedPayloadError(codec="pickle", allowed=["msgpack", "json", "raw"])

    def _waits(self) -> dict[bool, Callable[[float], bool]]:
        return {True: lambda seconds: self.queue.wait_room(seconds), False: lambda s: self.queue.wait_message(s)}

    # -- Items --------------------------------------------------------------------------------------------------------

    def taken_in(self, items: list[Item]) -> list[bytes]:
        """
        Return items as the queue holds them.

        Raises:
            UntrustedPayloadError: One is a pickle, and those may not pass.
            ProtocolError: A tag is none.
        """
        if not self._is_framed:
            return [item if type(item) is bytes else self._tagged(*item) for item in items]
        return [b"\0" + item if isinstance(item, bytes) else self._framed(*item) for item in items]

    def given_out(self, message: bytes) -> Item:
        """Return what the queue holds as an item."""
        if self._is_framed:
            return message[1:] if message[0] == 0 else (message[0], message[1:])
        if type(message) is bytes:
            return message
        return (message.tag, bytes(message)) if isinstance(message, Opaque) else bytes(message)

    def lease_many(self, count: int, most_bytes: int) -> Leases | None:
        """Lease what goes in one turn; None where queues cannot. What is left over is for ``lease`` of the queue."""
        return None if self._ring is None else self._ring.lease_many(min(count, _TURN), most_bytes)

    def _tagged(self, tag: int, payload: bytes) -> bytes:
        self._check_tag(tag)
        return payload if tag == 0 else Opaque.of(tag, payload)

    def _framed(self, tag: int, payload: bytes) -> bytes:
        self._check_tag(tag)
        return bytes((tag,)) + payload

    def _check_tag(self, tag: int) -> None:
        if tag in PICKLE_TAGS and not self._allow_pickle:
            raise UntrustedPayloadError(codec="pickle", allowed=["msgpack", "json", "raw"])
        if not 0 <= tag <= _LARGEST_TAG:
            raise ProtocolError(peer="the client", reason=f"a message has the tag {tag}")

    def check_codec(self, codec: str) -> None:
        """
        Refuse a client that would not understand what is in the queue, or that others would not understand.

        Raises:
            UntrustedPayloadError: The queue has messages of another codec.
        """
        if codec == "pickle" and not self._allow_pickle:
            raise UntrustedPayloadError(codec="pickle", allowed=["msgpack", "json", "raw"])
        if self.codec is not None and codec != self.codec:
            raise UntrustedPayloadError(codec=self.codec, allowed=[codec])

    # -- What does not wait -------------------------------------------------------------------------------------------

    def ask(self, verb: str, argument: Any) -> Any:
        """Call one of the methods in :data:`ASKED` and return its answer as plain data."""
        if verb not in ASKED:
            raise ProtocolError(peer="the client", reason=f"there is no verb {verb!r:.40}")
        if verb == "maxsize":
            return self.queue.maxsize
        if (verb == "shutdown") != isinstance(argument, bool) or (verb == "seal") != isinstance(argument, str):
            raise ProtocolError(peer="the client", reason=f"{verb} has another argument")
        method = getattr(self.queue, verb)
        answer = method() if argument is None else method(argument)
        if verb == "peek":
            return self.given_out(answer)
        if verb == "stats":
            return {each.name: getattr(answer, each.name) for each in fields(QueueFigures)}
        return answer

    @property
    def largest_message(self) -> int | None:
        """Bytes of the largest message that fits; None where nothing says so."""
        return None if self._ring is None else int(self._ring.max_message_bytes)

    # -- What waits ---------------------------------------------------------------------------------------------------

    def try_or_park(self, parked: Parked, *, for_room: bool) -> bool:
        """Answer a request now, or keep it; True when it is kept. Who waits already comes first."""
        line = self.putters if for_room else self.takers
        if not (line and parked.may_wait) and parked.attempt():
            return False
        if not parked.may_wait:
            parked.expire()
            return False
        line.append(parked)
        self._watches[for_room].look()
        return True

    def forget(self, parked: Parked) -> None:
        """Take an answered request out of its line."""
        for line in (self.putters, self.takers):
            if parked in line:
                line.remove(parked)

    def retry(self) -> None:
        """Try everything that is parked, in its order, as long as that gets anywhere."""
        helped, moved = False, True
        while moved:
            moved = self._advance(self.takers)
            moved = self._advance(self.putters) or moved
            helped = helped or moved
        for for_room, line in ((True, self.putters), (False, self.takers)):
            if line:
                self._watches[for_room].look(in_vain=not helped)
            else:
                self._watches[for_room].rest()

    @staticmethod
    def _advance(line: deque[Parked]) -> bool:
        """Try a line from its head; True when somebody was answered."""
        moved = False
        while line:
            head = line[0]
            if not head.attempt():
                return moved
            if line and line[0] is head:
                line.popleft()
            moved = True
        return moved

    def changed(self) -> None:
        """Called from a watching thread: there is something for a side."""
        self._wake(self)

    # -- Ending -------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Give up the queue; a ring that is to be kept stays."""
        for watch in self._watches.values():
            watch.end()
        self.queue.close()


def _own_handle(descriptor: HostedDescriptor) -> Queue[Any]:
    """Open a handle of our own, making the queue if need be; what its owner has open stays as it is."""
    try:
        queue: Queue[Any] = descriptor.attach()
    except QueueNotFoundError:
        descriptor.open()
        queue = descriptor.attach()
        descriptor.close()
    queue.follow(None)  # each client follows for itself, where it can: this handle must not change under the server
    return queue


class _Watch:
    """A thread that waits on one side of a queue while somebody is parked there."""

    def __init__(self, hosted: Hosted, wait: Callable[[float], bool]) -> None:
        self._hosted = hosted
        self._wait = wait
        self._changed = threading.Condition()
        self._wanted = False
        self._has_fired = self._rests = False
        self._runs = False
        self._ended = False

    def look(self, *, in_vain: bool = False) -> None:
        """Wait on, for one change; ``in_vain`` says that the last one, if there was one, helped nobody."""
        with self._changed:
            self._wanted = True
            self._rests = in_vain and self._has_fired
            self._has_fired = False
            if not self._runs:
                self._runs = True
                threading.Thread(target=self._run, name="sage-qd-rpc-watch", daemon=True).start()
            self._changed.notify()

    def rest(self) -> None:
        """Nobody is parked any more."""
        if self._wanted:
            with self._changed:
                self._wanted = False

    def end(self) -> None:
        """Stop; the thread goes at the end of its slice."""
        with self._changed:
            self._ended = True
            self._wanted = False
            self._changed.notify()

    def _run(self) -> None:
        while self._is_wanted():
            try:
                ready = self._wait(SLICE_SECONDS)
            except Exception:  # noqa: BLE001  (the parked request meets the same when it is tried, and tells of it)
                ready = True
            if ready:
                with self._changed:
                    self._wanted, self._has_fired = False, True
                self._hosted.changed()

    def _is_wanted(self) -> bool:
        """Wait until somebody is parked; False when nobody was for a while: the thread ends."""
        with self._changed:
            while not self._wanted:
                if self._ended or (not self._changed.wait(1.0) and not self._wanted):
                    self._runs = False
                    return False
            if self._rests:
                self._rests = False
                self._changed.wait_for(lambda: self._ended, PAUSE_SECONDS)
            return True
