"""
Every exception of sage-qd: one class for one cause.

::

    SageQueueError
    ├── Empty (queue.Empty)                          nothing to take within the time given
    ├── Full (queue.Full)                            no room within the time given
    ├── ShutDown (queue.ShutDown, Python >= 3.13)    the queue was shut down for everybody
    ├── QueueClosedError (ValueError)                this handle was closed here
    ├── InvalidQueueNameError (ValueError)           the name breaks a rule
    ├── QueueExistsError (FileExistsError)           create, and the name is taken
    ├── QueueNotFoundError (FileNotFoundError)       attach, and nothing has the name
    ├── QueueNoSpaceError (OSError, ENOSPC)          the space cannot be reserved
    ├── GeometryMismatchError                        the queue exists with other settings
    ├── IncompatibleQueueError                       the queue was made by another version or machine
    ├── CorruptQueueError                            the bytes break a rule of the layout
    ├── InsecureQueueError (PermissionError)         the file could be under someone else's control
    ├── MessageTooLargeError (ValueError)            waiting will not help
    ├── TooManyParticipantsError                     no free participant slot
    ├── NamespaceMismatchError                       liveness cannot be judged across PID namespaces
    ├── RoleClaimedError                             a single-producer or single-consumer role is taken
    ├── FencedError                                  our claim was taken over: we were judged dead
    ├── NotShareableError (TypeError, ValueError)    this object cannot leave its process
    ├── QueueMovedError                              the queue was moved, and this handle cannot follow
    ├── StaleDescriptorError                         the queue was made anew since the descriptor
    ├── DescriptorError (ValueError)                 descriptor data was rejected
    │   ├── UnknownQueueTypeError                    no such queue kind
    │   └── DescriptorVersionError                   written by a newer or forgotten version
    ├── PayloadError (ValueError)                    an item was taken out, but its codec failed on it
    ├── UntrustedPayloadError                        a codec that this handle does not allow
    ├── NoBackendError                               no queue kind meets the declared needs
    ├── BackendUnavailableError (ImportError)        the kind exists, but what it needs is missing
    ├── AuthenticationError                          the peer could not prove who it is
    ├── ProtocolError                                the peer sent what the protocol does not allow
    ├── FrameTooLargeError                           the peer announced a frame beyond the limit
    ├── QueueUnavailableError                        the other side is not reachable; nothing was sent
    ├── OutcomeUnknownError                          sent, but the answer was lost
    ├── QueueLostError                               the other side is gone, as a rule with the items
    ├── GraphError (ValueError)                      the steps of a job do not make a graph
    ├── JobNotFoundError (LookupError)               no job of this name runs on this machine
    ├── LostPacketsError                             packets that were sent to a task did not arrive
    └── TaskDiedError                                a task of a job was killed more often than it may be restarted

A malformed argument (wrong type, negative capacity) is a bare ``TypeError`` or ``ValueError``.

Each class takes what it carries as keywords and keeps them as attributes; the message is built from them. Exceptions
survive pickling with class, message and attributes, so a worker can hand one to its parent.
"""

import errno
import os
import queue
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

__all__ = [
    "AuthenticationError",
    "BackendUnavailableError",
    "CorruptQueueError",
    "DescriptorError",
    "DescriptorVersionError",
    "Empty",
    "FencedError",
    "FrameTooLargeError",
    "Full",
    "GeometryMismatchError",
    "GraphError",
    "IncompatibleQueueError",
    "InsecureQueueError",
    "InvalidQueueNameError",
    "JobNotFoundError",
    "LostPacketsError",
    "MessageTooLargeError",
    "NamespaceMismatchError",
    "NoBackendError",
    "NotShareableError",
    "OutcomeUnknownError",
    "PayloadError",
    "ProtocolError",
    "QueueClosedError",
    "QueueExistsError",
    "QueueLostError",
    "QueueMovedError",
    "QueueNoSpaceError",
    "QueueNotFoundError",
    "QueueUnavailableError",
    "RoleClaimedError",
    "SageQueueError",
    "ShutDown",
    "StaleDescriptorError",
    "TaskDiedError",
    "TooManyParticipantsError",
    "UnknownQueueTypeError",
    "UntrustedPayloadError",
]


class SageQueueError(Exception):
    """Base of everything that sage-qd raises on purpose; catch it to catch them all."""

    carried: ClassVar[tuple[str, ...]] = ()
    """Names of the keywords that the constructor takes and the object keeps as attributes."""

    def __reduce__(self) -> tuple[Callable[..., "SageQueueError"], tuple[Any, ...], dict[str, Any]]:
        """Rebuild from the keywords: the default would pass the finished message to a constructor that builds it."""
        keywords = {name: getattr(self, name) for name in self.carried}
        return partial(type(self), **keywords), () if keywords else self.args, self.__dict__


class Empty(SageQueueError, queue.Empty):
    """Nothing could be taken within the time given; the queue is unchanged. Call again, or wait longer."""


class Full(SageQueueError, queue.Full):
    """There was no room within the time given; the queue is unchanged. Call again, or wait longer."""


if sys.version_info >= (3, 13):

    class ShutDown(SageQueueError, queue.ShutDown):
        """The queue was shut down for everybody; what it still held was handed out or dropped. Stop using it."""

else:

    class ShutDown(SageQueueError):
        """The queue was shut down for everybody; what it still held was handed out or dropped. Stop using it."""


def _called(name: str | None) -> str:
    """Name a queue in a sentence; anonymous ones have no name."""
    return "the anonymous queue" if name is None else f"queue {name!r}"


# -- Handles and names ------------------------------------------------------------------------------------------------


class QueueClosedError(SageQueueError, ValueError):
    """This handle was closed in this process. The queue itself may live on: open it again."""

    carried = ("name",)

    def __init__(self, *, name: str | None) -> None:
        self.name = name
        super().__init__(f"this handle of {_called(name)} is closed; open the queue again to go on using it")


class InvalidQueueNameError(SageQueueError, ValueError):
    """The name breaks a rule of queue names. Choose another."""

    carried = ("name", "rule")

    def __init__(self, *, name: object, rule: str) -> None:
        self.name = name
        self.rule = rule
        super().__init__(f"{_shortened(name)} is not a queue name: {rule}")


class QueueExistsError(SageQueueError, FileExistsError):
    """A queue of this name exists already. Attach to it, or remove it first."""

    carried = ("name",)

    def __init__(self, *, name: str) -> None:
        self.name = name
        super().__init__(errno.EEXIST, f"queue {name!r} exists already; attach to it, or remove it first")


class QueueNotFoundError(SageQueueError, FileNotFoundError):
    """Nothing has this name in this namespace. Create the queue, or check name and namespace."""

    carried = ("name",)

    def __init__(self, *, name: str) -> None:
        self.name = name
        super().__init__(errno.ENOENT, f"there is no queue {name!r}; create it, or check its name and namespace")


class QueueNoSpaceError(SageQueueError, OSError):
    """
    The space could not be reserved: for a queue that is made or resized, or for a large message with a file of its own.

    Nothing was left behind, and a queue that was there is unchanged.
    """

    carried = ("wanted", "free", "how_to_fix")

    def __init__(
        self, *, wanted: int, free: int | None, how_to_fix: str = "free some space or ask for a smaller capacity"
    ) -> None:
        self.wanted = wanted
        self.free = free
        self.how_to_fix = how_to_fix
        found = "less" if free is None else f"{free:,} bytes"
        super().__init__(errno.ENOSPC, f"{wanted:,} bytes are wanted and {found} are free; {how_to_fix}")


# -- What was found under the name ------------------------------------------------------------------------------------


class GeometryMismatchError(SageQueueError):
    """The queue exists with other settings than were asked for. Attach to it as it is, or use another name."""

    carried = ("name", "wanted", "found")

    def __init__(self, *, wanted: Mapping[str, object], found: Mapping[str, object], name: str | None = None) -> None:
        self.name = name
        self.wanted = dict(wanted)
        self.found = dict(found)
        different = [key for key in self.wanted if self.wanted[key] != self.found.get(key)]
        detail = ", ".join(f"{key} is {self.found.get(key)!r}, wanted {self.wanted[key]!r}" for key in different)
        super().__init__(f"{_called(name)} exists with other settings: {detail}; attach to it, or use another name")


class IncompatibleQueueError(SageQueueError):
    """It is a queue, but of another layout version, byte order, word size or page size. Drain it where it was made."""

    carried = ("field", "wanted", "found")

    def __init__(self, *, field: str, wanted: object, found: object) -> None:
        self.field = field
        self.wanted = wanted
        self.found = found
        super().__init__(
            f"the queue has {field} {found!r} and this build needs {wanted!r}; "
            "use it with the version that made it, or make it anew"
        )


class CorruptQueueError(SageQueueError):
    """
    The shared bytes break a rule of the layout, the file shrank, or somebody poisoned the queue after seeing that.

    ``field`` names the place, ``offset`` counts bytes from the start of the segment, ``value`` is what was found there,
    ``wanted`` what would have been right, ``poisoned_by`` the process that found it first, if that was another one.
    """

    carried = ("field", "offset", "value", "wanted", "poisoned_by")

    def __init__(
        self,
        *,
        field: str,
        offset: int | None = None,
        value: object = None,
        wanted: object = None,
        poisoned_by: int | None = None,
    ) -> None:
        self.field = field
        self.offset = offset
        self.value = value
        self.wanted = wanted
        self.poisoned_by = poisoned_by
        place = "" if offset is None else f" at offset {offset:,}"
        rule = "" if wanted is None else f", wanted {wanted!r}"
        finder = "" if poisoned_by is None else f" (found by process {poisoned_by})"
        super().__init__(
            f"the queue is damaged: {field}{place} is {value!r}{rule}{finder}; remove the queue and make it anew"
        )


class InsecureQueueError(SageQueueError, PermissionError):
    """The file has the wrong owner, mode, type or link count, so another user could control it. It was not opened."""

    carried = ("path", "reason", "stat")

    def __init__(self, *, path: str, reason: str, stat: os.stat_result | None = None) -> None:
        self.path = path
        self.reason = reason
        self.stat = stat
        seen = "" if stat is None else f" (owner {stat.st_uid}, mode {stat.st_mode:#o}, links {stat.st_nlink})"
        super().__init__(
            errno.EACCES, f"{path!r} is not safe to open: {reason}{seen}; find out who made it, then remove it"
        )


# -- Use of a queue ---------------------------------------------------------------------------------------------------


class MessageTooLargeError(SageQueueError, ValueError):
    """The encoded message can never fit, however long one waits. Send it in parts, or make a larger queue."""

    carried = ("size", "limit")

    def __init__(self, *, size: int, limit: int) -> None:
        self.size = size
        self.limit = limit
        super().__init__(
            f"the message takes {size:,} bytes and the limit is {limit:,}; send it in parts, or make a larger queue"
        )


class TooManyParticipantsError(SageQueueError):
    """Every participant slot is held by a living process, even after a sweep. Close handles that are not needed."""

    carried = ("limit", "live_pids")

    def __init__(self, *, limit: int, live_pids: Sequence[int]) -> None:
        self.limit = limit
        self.live_pids = tuple(live_pids)
        super().__init__(
            f"all {limit:,} participant slots are held by living processes ({_first_few(self.live_pids)}); "
            "close handles that are not needed"
        )


class NamespaceMismatchError(SageQueueError):
    """The queue belongs to another PID namespace, where this process cannot judge who is alive."""

    carried = ("ours", "theirs")

    def __init__(self, *, ours: int, theirs: int) -> None:
        self.ours = ours
        self.theirs = theirs
        super().__init__(
            f"the queue belongs to PID namespace {theirs} and this process to {ours}; "
            "open it from a process of its own namespace"
        )


class RoleClaimedError(SageQueueError):
    """The queue has one producer or one consumer by declaration, and another process or thread already is it."""

    carried = ("role", "pid")

    def __init__(self, *, role: str, pid: int) -> None:
        self.role = role
        self.pid = pid
        super().__init__(
            f"process {pid} is the single {role} of this queue; let it close first, or make the queue without that role"
        )


class FencedError(SageQueueError):
    """Our claim or lease was taken over because we were judged dead. What we held is in other hands: drop the work."""

    carried = ("pid", "epoch")

    def __init__(self, *, pid: int, epoch: int) -> None:
        self.pid = pid
        self.epoch = epoch
        super().__init__(
            f"the claim of process {pid} (epoch {epoch}) was taken over; drop this work, another consumer has it"
        )


class NotShareableError(SageQueueError, TypeError, ValueError):
    """This object cannot leave its process as data. Send its descriptor, made shareable first where needed."""

    carried = ("what", "instead")

    def __init__(self, *, what: str, instead: str = "send its descriptor and open that on the other side") -> None:
        self.what = what
        self.instead = instead
        super().__init__(f"{what} cannot leave its process; {instead}")


# -- Descriptors and payloads -----------------------------------------------------------------------------------------


class QueueMovedError(SageQueueError):
    """
    The queue was moved to another one. Queues that were opened through a descriptor follow by themselves, so this is
    seen only on a bare handle: open ``successor``, the JSON of the other queue's descriptor.
    """

    carried = ("name", "successor")

    def __init__(self, *, name: str | None, successor: str) -> None:
        self.name = name
        self.successor = successor
        super().__init__(f"{_called(name)} was moved; open its successor: {successor}")


class StaleDescriptorError(SageQueueError):
    """The name now belongs to another queue than the descriptor was made from. Get a new descriptor."""

    carried = ("wanted", "found")

    def __init__(self, *, wanted: str, found: str) -> None:
        self.wanted = wanted
        self.found = found
        super().__init__(
            f"the descriptor means the queue instance {wanted} and the name now belongs to {found}; "
            "get a new descriptor from the owner"
        )


class DescriptorError(SageQueueError, ValueError):
    """Descriptor data was rejected. ``pointer`` is the JSON pointer of the offending value ("" is the whole)."""

    carried: ClassVar[tuple[str, ...]] = ("pointer", "reason")

    def __init__(self, *, pointer: str, reason: str) -> None:
        self.pointer = pointer
        self.reason = reason
        super().__init__(f"descriptor rejected at {pointer or 'its root'}: {reason}")


class UnknownQueueTypeError(DescriptorError):
    """The descriptor names a queue kind that is not registered here. Install or import what provides it."""

    carried = ("queue_type", "known", "pointer", "suggestion")

    def __init__(
        self,
        *,
        queue_type: object,
        known: Sequence[str],
        pointer: str = "/queue_type",
        suggestion: str | None = None,
    ) -> None:
        self.queue_type = queue_type
        self.known = tuple(sorted(known))
        self.suggestion = suggestion
        listed = ", ".join(self.known) or "none"
        hint = "" if suggestion is None else f"; did you mean {suggestion!r}?"
        super().__init__(
            pointer=pointer, reason=f"unknown queue type {_shortened(queue_type)}; known are: {listed}{hint}"
        )


class DescriptorVersionError(DescriptorError):
    """The descriptor was written in a format version that this release does not read."""

    carried = ("found", "supported", "pointer")

    def __init__(self, *, found: object, supported: Sequence[int], pointer: str = "/version") -> None:
        self.found = found
        self.supported = tuple(supported)
        readable = ", ".join(map(str, self.supported))
        super().__init__(
            pointer=pointer,
            reason=f"format version {_shortened(found)} is not readable here; readable are: {readable}; "
            "use equal releases",
        )


class PayloadError(SageQueueError, ValueError):
    """
    An item was taken out of the queue, but its codec failed on it; the cause is chained. No other item is lost.

    ``payload`` holds the raw bytes and ``tag`` the codec's mark on them, for a dead-letter queue or another try.
    ``items`` holds, in order, the other objects of the batch when the item was one of many.
    """

    carried = ("tag", "payload", "items")

    def __init__(self, *, tag: int, payload: bytes, items: Sequence[object] = ()) -> None:
        self.tag = tag
        self.payload = payload
        self.items = list(items)
        rest = f"; {len(self.items)} other items of the batch are in .items" if self.items else ""
        super().__init__(
            f"an item of {len(payload):,} bytes with tag {tag} could not be decoded; its bytes are in .payload{rest}"
        )


class UntrustedPayloadError(SageQueueError):
    """The message is encoded with a codec that this handle was not opened for. Open it with that codec, if trusted."""

    carried = ("codec", "allowed")

    def __init__(self, *, codec: str, allowed: Sequence[str] = ()) -> None:
        self.codec = codec
        self.allowed = tuple(allowed)
        listed = ", ".join(self.allowed) or "none"
        super().__init__(
            f"the payload uses codec {codec!r} and this handle allows: {listed}; allow it only if you trust the writer"
        )


class NoBackendError(SageQueueError):
    """No queue kind meets the declared needs. ``rejected`` maps each kind to the reason it was not taken."""

    carried = ("needs", "rejected")

    def __init__(self, *, needs: Sequence[str], rejected: Mapping[str, str]) -> None:
        self.needs = tuple(needs)
        self.rejected = dict(rejected)
        reasons = "; ".join(f"{kind}: {reason}" for kind, reason in self.rejected.items()) or "no kind is registered"
        super().__init__(
            f"no queue kind offers {', '.join(self.needs)} ({reasons}); relax a need or install a back-end"
        )


class BackendUnavailableError(SageQueueError, ImportError):
    """The queue kind is known, but something it needs is missing. ``install`` says how to get it."""

    carried = ("backend", "missing", "install")

    def __init__(self, *, backend: str, missing: str, install: str) -> None:
        self.backend = backend
        self.missing = missing
        self.install = install
        super().__init__(f"queue kind {backend!r} needs {missing}, which is missing here; {install}")


# -- The other side, when it is not this process ----------------------------------------------------------------------


class AuthenticationError(SageQueueError):
    """The peer could not prove who it is, or we could not. Check the keys on both sides."""

    carried = ("peer", "reason")

    def __init__(self, *, peer: str, reason: str = "its proof was not accepted") -> None:
        self.peer = peer
        self.reason = reason
        super().__init__(f"no authenticated connection with {peer}: {reason}; check the keys on both sides")


class ProtocolError(SageQueueError):
    """The peer sent what the protocol does not allow; only that connection was closed."""

    carried = ("peer", "reason")

    def __init__(self, *, peer: str, reason: str) -> None:
        self.peer = peer
        self.reason = reason
        super().__init__(f"{peer} broke the protocol: {reason}; the connection was closed, use equal releases")


class FrameTooLargeError(SageQueueError):
    """The peer announced a frame beyond the limit; nothing was allocated and the connection was closed."""

    carried = ("peer", "size", "limit")

    def __init__(self, *, peer: str, size: int, limit: int) -> None:
        self.peer = peer
        self.size = size
        self.limit = limit
        super().__init__(
            f"{peer} announced a frame of {size:,} bytes and the limit is {limit:,}; send less or raise the limit"
        )


class QueueUnavailableError(SageQueueError):
    """The back-end is not reachable and nothing was sent. Trying again is safe."""

    carried = ("endpoint", "reason")

    def __init__(self, *, endpoint: str, reason: str = "it does not answer") -> None:
        self.endpoint = endpoint
        self.reason = reason
        super().__init__(f"{endpoint} is not reachable: {reason}; nothing was sent, so trying again is safe")


class OutcomeUnknownError(SageQueueError):
    """
    The request was sent and its answer was lost: it was carried out once, or not at all, and nobody can tell which.

    Calling again is a new request: a put may then be in the queue twice. Do so where twice is harmless, or give
    messages an id of your own. ``request_id`` is for logs only.
    """

    carried = ("request_id",)

    def __init__(self, *, request_id: str) -> None:
        self.request_id = request_id
        super().__init__(
            f"request {request_id} was sent and its answer was lost: it was carried out once, or not at all; "
            "call again only where twice is harmless"
        )


class QueueLostError(SageQueueError):
    """The actor or server that held the items is gone. ``items_lost``: True, False, or None when nobody knows."""

    carried = ("endpoint", "items_lost")

    def __init__(self, *, endpoint: str, items_lost: bool | None) -> None:
        self.endpoint = endpoint
        self.items_lost = items_lost
        fate = {
            True: "its items are lost; make the queue anew",
            False: "its items are safe; open its descriptor again to go on with them",
            None: "the fate of its items is not known; open its descriptor again to see, or make the queue anew",
        }
        super().__init__(f"{endpoint} is gone and {fate[items_lost]}")


class GraphError(SageQueueError, ValueError):
    """The steps of a job do not make a graph. ``node``: the step; ``reason``: what is wrong with it."""

    carried = ("node", "reason")

    def __init__(self, *, node: str, reason: str) -> None:
        self.node = node
        self.reason = reason
        super().__init__(f"step {_shortened(node)}: {reason}")


class JobNotFoundError(SageQueueError, LookupError):
    """No job of this name runs on this machine as this user. ``known``: the names of those that do."""

    carried = ("name", "known")

    def __init__(self, *, name: str, known: Sequence[str]) -> None:
        self.name = name
        self.known = tuple(known)
        others = f"these do: {', '.join(known)}" if known else "none does"
        super().__init__(f"no job {_shortened(name)} runs here as this user; {others}")


class LostPacketsError(SageQueueError):
    """Packets that were sent to a task did not arrive: somebody else took them from its queue. Nothing else may."""

    carried = ("path", "wanted", "found")

    def __init__(self, *, path: int, wanted: int, found: int) -> None:
        self.path = path
        self.wanted = wanted
        self.found = found
        super().__init__(
            f"packets {wanted:,} to {found - 1:,} of path {path} were to come before packet {found:,}, and did not; "
            "nobody but the task may take from its queue"
        )


class TaskDiedError(SageQueueError):
    """A task's process ended by itself. ``exit_code``: negative for a signal; ``restarts``: how many it had before."""

    carried = ("task", "exit_code", "restarts")

    def __init__(self, *, task: str, exit_code: int, restarts: int) -> None:
        self.task = task
        self.exit_code = exit_code
        self.restarts = restarts
        how = f"was killed by signal {-exit_code}" if exit_code < 0 else f"ended with exit code {exit_code}"
        again = f" after {restarts} restarts" if restarts else ""
        super().__init__(f"task {task!r} {how}{again}; give the step, or the environment, more restarts")


# -- Wording ----------------------------------------------------------------------------------------------------------

_SHOWN_CHARACTERS = 80
_SHOWN_ITEMS = 8


def _shortened(value: object) -> str:
    """Show a value that came from outside, cut to a length that fits a message."""
    shown = repr(value)
    return shown if len(shown) <= _SHOWN_CHARACTERS else f"{shown[:_SHOWN_CHARACTERS]}…"


def _first_few(pids: Sequence[int]) -> str:
    """List the first process ids and count the rest."""
    rest = len(pids) - _SHOWN_ITEMS
    shown = ", ".join(map(str, pids[:_SHOWN_ITEMS]))
    return f"pids {shown} and {rest} more" if rest > 0 else f"pids {shown}"
