"""The descriptor that every kind starts from: a frozen value, and the queue it opens."""

import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import partial
from threading import RLock
from typing import TYPE_CHECKING, Any, ClassVar, Final, NoReturn, Self

import msgspec

from sage_qd.descriptors import uri
from sage_qd.descriptors.availability import missing_for
from sage_qd.descriptors.document import VERSION, Members, check_tag, members_of, settings_of, with_tag
from sage_qd.descriptors.parsing import canonical_json, parse_json
from sage_qd.descriptors.registry import normalised, queue_kind
from sage_qd.descriptors.settings import Setting
from sage_qd.descriptors.verbs import QUEUE_VERBS, QueueVerbs
from sage_qd.errors import (
    DescriptorError,
    InvalidQueueNameError,
    NotShareableError,
    QueueMovedError,
    StaleDescriptorError,
)
from sage_qd.queues.base import Capabilities, Queue, Reach

if TYPE_CHECKING:
    from sage_qd.descriptors.explaining import Explanation

__all__ = ["LONGEST_QUEUE_ID", "BaseQueueDescriptor", "reaches_as_far", "resolve_descriptor"]

LONGEST_QUEUE_ID: Final = 1024
"""Bytes of a queue id in UTF-8; a kind may allow less."""


class BaseQueueDescriptor(QueueVerbs, ABC):
    """
    A queue by name and settings, as a value: compared by content, hashable, unchangeable.

    :meth:`open` makes it a live queue of this process, once; the queue's methods work on the descriptor too, and open
    it when they are first used. Opening does not change the value.

    A kind of your own defines :attr:`queue_type`, :attr:`can_serialize`, :attr:`metadata` (or :attr:`settings`, from
    which it is made) and :meth:`_open_queue`, takes its settings and ``queue_id`` as keywords, and is made known by
    :func:`~sage_qd.register_queue_type`. A setting ``maxsize`` may also be given as ``max_items``, and is 0 for less.
    """

    capabilities: ClassVar[Capabilities | None] = None
    """What the kind's queues can do, readable without importing them; a kind that says nothing is never chosen."""
    settings: ClassVar[tuple[Setting, ...]] = ()
    """What this kind keeps beside the queue id; empty for kinds that define :attr:`metadata` themselves."""
    class_names: ClassVar[tuple[str, ...]] = ()
    """Names that the class had in documents written by other releases."""
    uri_scheme: ClassVar[str | None] = None
    """How the URI of this kind begins; None for kinds without one."""
    uri_authority: ClassVar[tuple[str, ...]] = uri.NAMESPACE_ONLY
    """Settings that stand before the queue id in its URI, with colons between them."""

    queue_id: str
    """The name: any text."""
    created_timestamp: float
    """When the descriptor was made, in seconds since 1970."""
    instance: str | None
    """The very queue that this means, as 32 hexadecimal digits; None for whichever has the name."""

    _extensions: bytes
    _may_create: bool
    _queue: Queue[Any] | None
    _opening: Any

    def __init__(self, queue_id: str | None = None, **settings: Any) -> None:
        chosen = f"{self.queue_type}_{uuid.uuid4().hex[:8]}" if queue_id is None else queue_id
        self._check_queue_id(chosen)
        names = {setting.name for setting in self.settings}
        if "max_items" in settings and "maxsize" in names:
            if "maxsize" in settings:
                raise TypeError("maxsize and max_items are the same; give one of them")
            settings["maxsize"] = settings.pop("max_items")
        if type(settings.get("maxsize")) is int:
            settings["maxsize"] = max(settings["maxsize"], 0)
        if unknown := sorted(settings.keys() - names):
            raise TypeError(f"{type(self).__name__} has no setting {', '.join(unknown)}")
        self._freeze(
            queue_id=chosen,
            created_timestamp=time.time(),
            instance=None,
            _extensions=b"{}",
            _may_create=True,
            _queue=None,
            _opening=RLock(),
            **{each.name: each.checked(settings.get(each.name, each.default)) for each in self.settings},
        )

    # -- What a kind defines ------------------------------------------------------------------------------------------

    @property
    @abstractmethod
    def queue_type(self) -> str:
        """The name of the kind."""

    @property
    @abstractmethod
    def can_serialize(self) -> bool:
        """Whether the descriptor means the same queue in another process."""

    @property
    def metadata(self) -> dict[str, Any]:
        """The settings, as a new dictionary."""
        return {setting.name: getattr(self, setting.name) for setting in self.settings}

    @abstractmethod
    def _open_queue(self, create: bool) -> Queue[Any]:
        """
        Return a new handle of the queue.

        Args:
            create: Whether the queue may be made if it does not exist.

        Raises:
            QueueNotFoundError: It does not exist and may not be made.
            BackendUnavailableError: Something that the kind needs is missing here.
        """

    @classmethod
    def missing_here(cls) -> str | None:
        """Return in words what keeps queues of this kind from being opened in this process; None when nothing does."""
        name: Any = cls.queue_type  # a property here, and in kinds that compute it; text in all others
        return missing_for(name) if isinstance(name, str) else None

    def explain(self) -> "Explanation":
        """
        Return for every kind whether it meets the needs of this descriptor, with reasons, costs and the choice.

        A descriptor of a kind needs what it has settings for; one of ``auto`` needs what it declares.
        """
        from sage_qd.descriptors.explaining import explained  # which imports this module

        return explained(self)

    # -- Opening ------------------------------------------------------------------------------------------------------

    def open(self, create: bool | None = None) -> Queue[Any]:
        """
        Return the live queue, the same one every time until it is closed.

        Args:
            create: Whether the queue may be made if it does not exist. None allows it, except where the descriptor came
                out of a pickle or means one instance: these name a queue that somebody else has made.

        Raises:
            QueueNotFoundError: It does not exist and may not be made.
            GeometryMismatchError: It exists with other settings.
            StaleDescriptorError: The name belongs to another queue than :attr:`instance` by now.
            BackendUnavailableError: Something that the kind needs is missing here.
        """
        queue = self.queue_instance
        if queue is not None:
            return queue
        with self._opening:
            queue = self.queue_instance
            if queue is None:
                queue = self._opened(self._may_create if create is None else create)
                self._bind(queue)
        return queue

    def _ensure_queue_initialized(self) -> Queue[Any]:
        """Open the queue: the name of :meth:`open` in the first design."""
        return self.open()

    def get_queue(self) -> Queue[Any]:
        """Open the queue: another name of :meth:`open`."""
        return self.open()

    def attach(self) -> Queue[Any]:
        """
        Return a new handle of the same queue, which must exist; :meth:`open` goes on returning its own.

        Raises:
            QueueNotFoundError: It does not exist.
            GeometryMismatchError: It exists with other settings.
            StaleDescriptorError: The name belongs to another queue than :attr:`instance` by now.
            BackendUnavailableError: Something that the kind needs is missing here.
        """
        return self._opened(create=False)

    def _opened(self, create: bool) -> Queue[Any]:
        queue = self._open_queue(create and self.instance is None)
        found = getattr(queue, "instance", None)
        if self.instance is not None and found != self.instance:
            queue.close()
            raise StaleDescriptorError(wanted=self.instance, found=str(found))
        queue.descriptor = self._copy(queue_id=self.queue_id, instance=found)
        queue.follow(partial(_open_successor, type(self).capabilities))
        return queue

    def _bind(self, queue: Queue[Any]) -> None:
        """Let the descriptor's verbs be the queue's own methods, so that they cost nothing more."""
        self._freeze(_queue=queue, **{verb: getattr(queue, verb) for verb in QUEUE_VERBS if hasattr(queue, verb)})

    def is_initialized(self) -> bool:
        """Whether the queue is open here."""
        return self.queue_instance is not None

    @property
    def queue_instance(self) -> Queue[Any] | None:
        """The open queue, or None."""
        queue = self._queue
        return None if queue is None or queue.closed else queue

    def clear_cache(self) -> None:
        """Forget the open queue without closing it; the next use opens another handle."""
        with self._opening:
            for name in ("_queue", *QUEUE_VERBS):
                vars(self).pop(name, None)
            self._freeze(_queue=None)

    def trim(self) -> None:
        """Close the queue here and forget it, so that only data is left."""
        queue = self._queue
        self.clear_cache()
        if queue is not None:
            queue.close()

    # -- Related descriptors ------------------------------------------------------------------------------------------

    def derive(self, new_queue_id: str) -> Self:
        """Return the descriptor of a new queue with the same settings."""
        derived = self._copy(queue_id=new_queue_id, instance=None)
        derived._freeze(created_timestamp=time.time(), _may_create=True)
        return derived

    def clone(self, new_queue_id: str | None = None) -> Self:
        """Return a copy: of an open descriptor one that shares the open queue, else one with the same settings."""
        cloned = self._copy(queue_id=self.queue_id if new_queue_id is None else new_queue_id, instance=self.instance)
        if (queue := self.queue_instance) is not None:
            cloned._bind(queue)
        elif new_queue_id is not None and new_queue_id != self.queue_id:
            cloned._freeze(instance=None)
        return cloned

    def to_serializable_descriptor(self) -> "BaseQueueDescriptor":
        """Return a descriptor of this queue, with all its settings, that means it in other processes too."""
        if not self.can_serialize:
            raise NotShareableError(what=f"a queue of kind {self.queue_type!r}")
        return self

    def _copy(self, *, queue_id: str, instance: str | None) -> Self:
        copied = type(self)(queue_id=queue_id, **self.metadata)
        copied._freeze(
            created_timestamp=self.created_timestamp,
            instance=instance,
            _extensions=self._extensions,
            _may_create=self._may_create,
        )
        return copied

    # -- As data ------------------------------------------------------------------------------------------------------

    @property
    def extensions(self) -> dict[str, Any]:
        """Members of the user's own, whose names start with ``x-``, as a new dictionary."""
        extensions: dict[str, Any] = msgspec.json.decode(self._extensions)
        return extensions

    def to_dict(self, include_non_serializable: bool = False) -> dict[str, Any]:
        """
        Return the descriptor as a document; see :mod:`sage_qd.descriptors.document`.

        Args:
            include_non_serializable: Also include metadata that is private (``_…``) or cannot be written as JSON, which
                kinds of others may have.
        """
        metadata = self.metadata
        if not include_non_serializable:
            metadata = {key: value for key, value in metadata.items() if key[:1] != "_" and _is_json(value)}
        document: dict[str, Any] = {
            "version": VERSION,
            "queue_id": self.queue_id,
            "queue_type": self.queue_type,
            "class_name": type(self).__name__,
            "metadata": metadata,
            "can_serialize": self.can_serialize,
            "created_timestamp": self.created_timestamp,
        }
        if self.instance is not None:
            document["instance"] = self.instance
        return document | self.extensions

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Self:
        """
        Return the descriptor of a document; of the base class, a descriptor of any kind.

        Nothing is opened. Documents of releases that wrote no ``version`` are read, too.

        Raises:
            TypeError: ``document`` is no mapping.
            UnknownQueueTypeError: No such kind is registered.
            DescriptorError: A member is missing, unknown, of the wrong type or beyond its limits; names the place.
        """
        if not isinstance(document, Mapping):
            raise TypeError(f"a descriptor document must be a dict, not {type(document).__name__}")
        members = members_of(document)
        kind, members = queue_kind(members.queue_type)._of_earlier_release(members)
        if not issubclass(kind, cls):
            raise DescriptorError(pointer="/queue_type", reason=f"{members.queue_type!r} is no {cls.__name__}")
        if members.class_name is not None and members.class_name not in (kind.__name__, *kind.class_names):
            raise DescriptorError(
                pointer="/class_name", reason=f"{normalised(members.queue_type)!r} is {kind.__name__!r}"
            )
        values = settings_of(members, kind.settings) if kind.settings else dict(members.metadata)
        made = kind._made(members.queue_id, values)
        if members.can_serialize not in (None, made.can_serialize):
            raise DescriptorError(
                pointer="/can_serialize", reason=f"it is {made.can_serialize} for {members.queue_type!r}"
            )
        made._freeze(
            created_timestamp=members.created_timestamp,
            instance=members.instance,
            _extensions=canonical_json(members.extensions),
        )
        return made

    def to_json(self, *, key: bytes | None = None, for_this_process: bool = False) -> str:
        """
        Return the descriptor as canonical JSON: equal descriptors of one moment have equal texts.

        Args:
            key: Sign the document with HMAC-SHA256.
            for_this_process: Write a descriptor that means something in this process only, too.

        Raises:
            NotShareableError: It means another queue in any other process (it is a ``ValueError``).
        """
        if not (self.can_serialize or for_this_process):
            raise self._not_shareable()
        document = self.to_dict()
        return canonical_json(document if key is None else with_tag(document, key)).decode()

    @classmethod
    def from_json(cls, text: str | bytes | bytearray | memoryview, *, key: bytes | None = None) -> Self:
        """
        Return the descriptor of a JSON text, which may come from anybody. Nothing is opened, and no code is run.

        Args:
            text: At most 16 KiB.
            key: Only accept what a holder of this key signed.

        Raises:
            DescriptorError: The text is rejected; ``pointer`` names the place.
        """
        document = parse_json(text)
        if key is not None:
            check_tag(document, key)
        if type(document) is not dict:
            raise DescriptorError(pointer="", reason=f"it must be an object, not {type(document).__name__}")
        if "version" not in document:
            raise DescriptorError(pointer="/version", reason="this member is missing")
        return cls.from_dict(document)

    def to_uri(self) -> str:
        """
        Return the descriptor as one line, such as ``sage://default/jobs?max_items=1000``; defaults are left out.

        Raises:
            NotShareableError: The kind has no such form.
        """
        if self.uri_scheme is None:
            raise NotShareableError(what=f"a queue of kind {self.queue_type!r}", instead="use to_json(), it has no URI")
        return uri.written(
            self.uri_scheme, self.queue_id, self.metadata, self.settings, self.instance, self.uri_authority
        )

    @classmethod
    def from_uri(cls, text: str) -> Self:
        """
        Return the descriptor of a URI; of the base class, a descriptor of any kind. Nothing is opened.

        Raises:
            UnknownQueueTypeError: No such kind is registered.
            DescriptorError: The text is rejected; names the place it would have in a document.
        """
        parts = uri.parsed(text)
        kind = queue_kind(parts.scheme)
        if not issubclass(kind, cls) or kind.uri_scheme is None:
            raise DescriptorError(pointer="/queue_type", reason=f"{parts.scheme!r} is no {cls.__name__} with a URI")
        made = kind._made(parts.queue_id, uri.settings_of(parts, kind.settings, kind.uri_authority))
        made._freeze(instance=parts.instance)
        return made

    @classmethod
    def _of_earlier_release(cls, members: Members) -> tuple["type[BaseQueueDescriptor]", Members]:
        """Return the kind and the members that a document means, where an earlier release wrote them otherwise."""
        return cls, members

    @classmethod
    def _made(cls, queue_id: str, settings: dict[str, Any]) -> Self:
        """Construct from checked data; what the constructor still refuses is told by its place."""
        try:
            cls._check_queue_id(queue_id)
        except ValueError as error:
            raise DescriptorError(pointer="/queue_id", reason=str(error)) from error
        try:
            return cls(queue_id=queue_id, **settings)
        except (TypeError, ValueError) as error:
            raise DescriptorError(pointer="/metadata", reason=str(error)) from error

    @classmethod
    def _check_queue_id(cls, queue_id: str) -> None:
        """Raise ``ValueError`` for a queue id that cannot be used; a kind may be choosier than this."""
        _checked_queue_id(queue_id)

    # -- As a value ---------------------------------------------------------------------------------------------------

    def _freeze(self, **attributes: Any) -> None:
        """Set attributes: only here, and only before others see the object or where they are no part of the value."""
        vars(self).update(attributes)

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        raise AttributeError(f"a descriptor cannot be changed, so not {name!r}; make another one, or derive() one")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"a descriptor cannot be changed, so not {name!r}; make another one, or derive() one")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, BaseQueueDescriptor):
            return NotImplemented
        return (self.queue_type, self.queue_id) == (other.queue_type, other.queue_id) and (
            self.metadata == other.metadata
        )

    def __hash__(self) -> int:
        return hash((self.queue_type, self.queue_id))

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        if not self.can_serialize:
            raise self._not_shareable()
        return _unpickled, (type(self), self.to_dict(include_non_serializable=True))

    def _not_shareable(self) -> NotShareableError:
        return NotShareableError(
            what=f"the descriptor of {self.queue_id!r}, a queue of kind {self.queue_type!r},",
            instead="send what its to_serializable_descriptor() returns",
        )

    def __repr__(self) -> str:
        changed = [
            f"{setting.name}={getattr(self, setting.name)!r}"
            for setting in self.settings
            if getattr(self, setting.name) != setting.default
        ]
        state = "open" if self.is_initialized() else "lazy"
        return f"<{type(self).__name__} {', '.join([repr(self.queue_id), *changed, state])}>"

    def close(self) -> None:
        """Close the queue here, if it is open."""
        if self._queue is not None:
            self._queue.close()


def resolve_descriptor(document: Mapping[str, Any]) -> BaseQueueDescriptor:
    """Return the descriptor of a document, of whatever kind; see :meth:`BaseQueueDescriptor.from_dict`."""
    return BaseQueueDescriptor.from_dict(document)


def _checked_queue_id(queue_id: str) -> None:
    if not isinstance(queue_id, str):
        raise TypeError(f"queue_id must be text, not {type(queue_id).__name__}")
    if not queue_id:
        raise InvalidQueueNameError(name=queue_id, rule="it is empty")
    try:
        size = len(queue_id.encode())
    except UnicodeEncodeError as error:
        rule = f"character {error.start} is half of a surrogate pair, which is no text"
        raise InvalidQueueNameError(name=queue_id, rule=rule) from None
    if size > LONGEST_QUEUE_ID:
        rule = f"it takes {size:,} bytes and the limit is {LONGEST_QUEUE_ID:,}"
        raise InvalidQueueNameError(name=queue_id, rule=rule)


def reaches_as_far(kind: Capabilities | None, other: Capabilities | None) -> bool:
    """Whether who reaches a queue of the other kind on another host reaches one of this kind, too."""
    return other is None or other.reach is not Reach.HOSTS or (kind is not None and kind.reach is Reach.HOSTS)


def _open_successor(source: Capabilities | None, text: str, create: bool) -> Queue[Any]:
    """
    Open the queue that another one was moved to.

    Raises:
        QueueMovedError: The other one stays on its host, and who used this one may be on another.
    """
    successor = BaseQueueDescriptor.from_json(text)
    if not reaches_as_far(type(successor).capabilities, source):
        raise QueueMovedError(name=None, successor=text)
    return successor._opened(create)


def _is_json(value: Any) -> bool:
    try:
        canonical_json(value)
    except (TypeError, ValueError, OverflowError, RecursionError):
        return False
    return True


def _unpickled(kind: type[BaseQueueDescriptor], document: dict[str, Any]) -> BaseQueueDescriptor:
    """Rebuild a descriptor that came out of a pickle: it names a queue that exists, and opening it makes none."""
    descriptor = kind._made(document["queue_id"], document["metadata"])
    descriptor._freeze(
        created_timestamp=document["created_timestamp"],
        instance=document.get("instance"),
        _extensions=canonical_json({name: value for name, value in document.items() if name.startswith("x-")}),
        _may_create=False,
    )
    return descriptor
