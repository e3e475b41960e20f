"""
Following a queue that was moved: how a handle finds the successor, and becomes a handle of it.

A queue is moved by sealing it (:meth:`Queue.seal`): from that one step on every put goes to the successor, and every
get once the old queue is drained. A handle that meets the seal opens the successor, once, and repeats the call there;
from then on its verbs are those of the successor. A bound method of the old queue that somebody kept goes on working:
it meets the seal again each time.

The old handle stays open beside the new one, so that the old name leads here for as long as somebody follows. Once
moved, a name stays moved: whoever closes last leaves the sealed queue behind while the successor exists.
"""

import threading
from collections.abc import Callable, Sequence
from functools import wraps
from time import monotonic
from typing import Any, Final, TypeVar

from sage_qd.errors import (
    Full,
    MessageTooLargeError,
    QueueClosedError,
    QueueMovedError,
    QueueNotFoundError,
    ShutDown,
)
from sage_qd.queues.base import Queue
from sage_qd.queues.waiting import remaining

__all__ = ["Follower", "Succession", "follows"]

T = TypeVar("T")
Q = TypeVar("Q", bound=type)

_PUTTING: Final = ("put", "put_nowait", "put_many", "wait_room", "full")
_TAKING: Final = (
    "get",
    "get_nowait",
    "get_many",
    "lease",
    "receive",
    "view",
    "peek",
    "wait_message",
    "qsize",
    "empty",
    "stats",
)
_OTHERS: Final = ("clear", "shutdown", "task_done", "join")
_LOOKING: Final[dict[str, Callable[[Any], bool]]] = {
    "qsize": lambda seen: seen == 0,
    "empty": bool,
    "stats": lambda seen: seen.depth + seen.leased == 0,
}
"""Verbs that look at what is to be taken, and whether what they saw is nothing."""
_TIMED: Final = {
    "put": 2,
    "put_many": 1,
    "get": 1,
    "get_many": 2,
    "lease": 1,
    "receive": 1,
    "view": 1,
    "wait_message": 0,
    "wait_room": 0,
}
"""Where the timeout stands among the arguments of a verb that waits."""


class Succession:
    """
    The way from one handle to that of the successor, which may have a way of its own, and so on.

    A chain of moves is gone through in a loop, and all its handles then have the verbs of its end: after a thousand
    moves a call costs what it costs after one.

    Args:
        queue: The handle; its verbs are replaced once it followed.
        open_successor: Opens the queue of a descriptor's JSON; with False only if it exists.
    """

    def __init__(self, queue: Any, open_successor: Callable[[str, bool], Any]) -> None:
        self._queue = queue
        self._open = open_successor
        self._mutex = threading.Lock()
        self._successor: str | None = None
        self._origin: Succession | None = None  # whose target our handle is
        self._ends: dict[bool, Any] = {}  # where puts (True) and takes (False) arrived when they were last led on
        self.target: Any = None
        """The handle of the successor, once it was needed."""

    def go_over(self, error: QueueMovedError, verb: str) -> Any:
        """
        Return the handle to go on with, opened at the first call.

        Verbs that put are those of that handle from then on. Verbs that take follow when one of them was led here:
        before, there may be something left to take from the old queue.
        """
        puts = verb in _PUTTING
        passed = [self]
        end, is_known = self._step(error, puts)
        while not is_known and (further := _led_on(end, puts)) is not None:
            passed.append(end._succession)
            end, is_known = end._succession._step(further, puts)
        for each in passed:
            if puts or True not in each._ends:
                each._lead(True, end)
            if verb in _TAKING:
                each._lead(False, end)
        return end

    def _step(self, error: QueueMovedError, puts: bool) -> tuple[Any, bool]:
        """The next handle, or the one at which puts or takes arrived before; and whether it is such a one."""
        with self._mutex:
            if self._queue.closed:
                raise QueueClosedError(name=error.name)
            if self.target is None:
                self.target = self._open(error.successor, True)
                self._successor = error.successor
                if (way := getattr(self.target, "_succession", None)) is not None:
                    way._origin = self
            end = self._ends.get(puts)
            return (self.target, False) if end is None else (end, True)

    def _lead(self, puts: bool, end: Any) -> None:
        """Let what puts or takes at our handle do so at the end, and likewise at the handles that were led to ours."""
        verbs = _PUTTING if puts else (*_TAKING, *_OTHERS)
        way: Succession | None = self
        while way is not None:
            way._ends[puts] = end
            vars(way._queue).update({name: getattr(end, name) for name in verbs})
            vars(way._queue).pop("_watches", None)  # those wait on the old queue
            way = way._origin

    def close(self) -> None:
        """
        Close the handle of the successor, before that of the old queue.

        While others still drain the old queue, the successor stays for them, with what was put into it. And while the
        successor exists, the old queue stays, so that its name leads there.
        """
        with self._mutex:
            if self.target is None or self._successor is None:
                return
            if self._queue.is_shared():
                self.target.leave_behind()
            self.target.close()
            try:
                left = self._open(self._successor, False)
            except QueueNotFoundError:
                return
            left.leave_behind()  # this is only a look: it must not be what takes the successor away
            left.close()
            self._queue.leave_behind()

    def leave_behind(self) -> None:
        """Let the successor stay too: who is led to the old queue goes on to it."""
        if self.target is not None:
            self.target.leave_behind()


def _led_on(queue: Any, puts: bool) -> QueueMovedError | None:
    """What a call on this handle would be led on by; None when it would be answered there."""
    if getattr(queue, "_succession", None) is None:  # as in a kind that cannot be moved
        return None
    if (successor := queue.successor()) is None or not (puts or queue.is_drained()):
        return None
    return QueueMovedError(name=None, successor=successor)


class Follower(Queue[T]):
    """What a kind that is written in Python needs to follow; its class is decorated with :func:`follows`, too."""

    _succession: Succession | None = None

    def follow(self, open_successor: Callable[[str, bool], Any] | None) -> None:
        """Go over to the successor when the queue is moved; see :meth:`Queue.follow`."""
        self._succession = None if open_successor is None else Succession(self, open_successor)

    def is_drained(self) -> bool:
        """Whether this very queue holds no message, leased ones included, wherever its calls are led."""
        stats = type(self).stats.__wrapped__(self)  # type: ignore[attr-defined]  # of @follows
        return not stats.depth + stats.leased

    def _followed(self, verb: str) -> Any:
        """The handle of the successor, for a verb that does something there too; None while there is none."""
        if self._succession is None or (successor := self.successor()) is None:
            return None
        return self._succession.go_over(QueueMovedError(name=None, successor=successor), verb)

    def _put_rest(self, error: QueueMovedError, done: int, rest: Sequence[T], deadline: float) -> int:
        """Put the rest of a batch that met the seal into the successor; return how many were put, here and there."""
        if not done:
            raise error  # the whole call is repeated there
        if self._succession is None:
            return done
        try:
            return done + int(self._succession.go_over(error, "put_many").put_many(rest, remaining(deadline)))
        except (Full, ShutDown, QueueMovedError, MessageTooLargeError):
            return done  # the next call says why

    def _close_successor(self) -> None:
        """Close the handle of the successor, before this one."""
        if self._succession is not None:
            self._succession.close()

    def _leave_successor_behind(self) -> None:
        """Let the successor stay when its last handle goes."""
        if self._succession is not None:
            self._succession.leave_behind()


def follows(kind: Q) -> Q:
    """
    Make the verbs of a queue class follow the seal, for kinds that are written in Python.

    An object follows when its ``_succession`` is a :class:`Succession`; when it is None the error is raised.
    """
    for verb in (*_PUTTING, *_TAKING, *_OTHERS):
        if verb in vars(kind):
            wrap = _looking_on if verb in _LOOKING else _following
            setattr(kind, verb, wrap(verb, getattr(kind, verb)))
    return kind


def _looking_on(verb: str, method: Callable[..., Any]) -> Callable[..., Any]:
    """A verb that looks: one that sees nothing here looks where takes would be led."""

    @wraps(method)
    def call(self: Any) -> Any:
        seen = method(self)
        if self._succession is None or not _LOOKING[verb](seen) or (error := _led_on(self, puts=False)) is None:
            return seen
        return getattr(self._succession.go_over(error, verb), verb)()

    return call


def _following(verb: str, method: Callable[..., Any]) -> Callable[..., Any]:
    place = _TIMED.get(verb)

    @wraps(method)
    def call(self: Any, *arguments: Any, **keywords: Any) -> Any:
        started = monotonic()
        if verb == "put_many" and arguments:  # an iterator could not be read again
            arguments = (list(arguments[0]), *arguments[1:])
        elif verb == "put_many" and "items" in keywords:
            keywords["items"] = list(keywords["items"])
        try:
            return method(self, *arguments, **keywords)
        except QueueMovedError as error:
            if self._succession is None:
                raise
            if place is not None:
                arguments, keywords = _shortened(arguments, keywords, place, monotonic() - started)
            return getattr(self._succession.go_over(error, verb), verb)(*arguments, **keywords)

    return call


def _shortened(
    arguments: tuple[Any, ...], keywords: dict[str, Any], place: int, seconds: float
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Take the time that was waited here off the timeout, wherever it stands."""
    if keywords.get("timeout") is not None:
        return arguments, keywords | {"timeout": max(keywords["timeout"] - seconds, 0)}
    if len(arguments) > place and arguments[place] is not None:
        return (*arguments[:place], max(arguments[place] - seconds, 0), *arguments[place + 1 :]), keywords
    return arguments, keywords
