"""
The queue kinds there are: import paths, aliases, and what to say when one cannot be imported.

A kind is imported when a descriptor of it is first asked for. Every spelling that descriptors were ever written with
leads to its kind.
"""

from difflib import get_close_matches
from importlib import import_module
from threading import Lock
from typing import TYPE_CHECKING, Final, NamedTuple

from sage_qd.errors import BackendUnavailableError, UnknownQueueTypeError

if TYPE_CHECKING:
    from sage_qd.descriptors.base import BaseQueueDescriptor

__all__ = ["known_queue_types", "normalised", "queue_kind", "register_queue_type"]


class _Place(NamedTuple):
    """Where a kind is, and what helps when it is not there."""

    module: str
    name: str
    hint: str


_BUILT_IN: Final = {
    "local_queue": _Place("sage_qd.descriptors.local", "LocalQueueDescriptor", "it is part of sage-qd: reinstall it"),
    "sage_queue": _Place("sage_qd.descriptors.sage", "SageQueueDescriptor", "it is part of sage-qd: reinstall it"),
}
_ALIASES: Final = {
    "local": "local_queue",
    "python": "local_queue",
    "python_queue": "local_queue",
    "sage": "sage_queue",
}
_registered: Final[dict[str, "type[BaseQueueDescriptor]"]] = {}
_mutex: Final = Lock()


def known_queue_types() -> list[str]:
    """Return the names of all kinds, sorted, without aliases."""
    return sorted({*_BUILT_IN, *_registered})


def normalised(queue_type: str) -> str:
    """Return the name of a kind from any of its spellings; unknown ones stay as they are."""
    return _ALIASES.get(queue_type, queue_type)


def register_queue_type(queue_type: str, kind: "type[BaseQueueDescriptor]") -> None:
    """
    Make a queue kind of your own known, so that its descriptors can be read.

    Args:
        queue_type: The name that its descriptors have as ``queue_type``.
        kind: A subclass of :class:`~sage_qd.BaseQueueDescriptor`.

    Raises:
        ValueError: The name belongs to another kind already; both are named.
    """
    with _mutex:
        taken = _registered.get(queue_type)
        place = _BUILT_IN.get(normalised(queue_type))
        if taken is not None and taken is not kind:
            raise ValueError(f"queue type {queue_type!r} is {taken.__qualname__} already, so not {kind.__qualname__}")
        if place is not None:
            raise ValueError(f"queue type {queue_type!r} is {place.name} already, so not {kind.__qualname__}")
        _registered[queue_type] = kind


def queue_kind(queue_type: str) -> "type[BaseQueueDescriptor]":
    """
    Return the descriptor class of a kind, from any of its spellings.

    Raises:
        UnknownQueueTypeError: There is no such kind; lists those there are and suggests one.
        BackendUnavailableError: There is, but it cannot be imported here.
    """
    name = normalised(queue_type)
    if name in _registered:
        return _registered[name]
    if name not in _BUILT_IN:
        known = known_queue_types()
        close = get_close_matches(queue_type[:64], [*known, *_ALIASES], n=1)
        raise UnknownQueueTypeError(queue_type=queue_type, known=known, suggestion=close[0] if close else None)
    place = _BUILT_IN[name]
    try:
        kind: type[BaseQueueDescriptor] = getattr(import_module(place.module), place.name)
    except ImportError as error:
        raise BackendUnavailableError(backend=name, missing=str(error.name or error), install=place.hint) from error
    return kind
