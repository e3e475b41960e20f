"""
The queue kinds there are: import paths, aliases, and what to say when one cannot be imported.

A kind is looked up on four levels, and the first that has the name wins: what the program registered, what the
environment variable ``SAGE_QD_QUEUE_TYPES`` names, what is built in, and what installed distributions offer as entry
points of the group ``sage_qd.queue_types``. A text that is read can only choose among these names: whatever is imported
for it was named by the program, its environment or an installed distribution, never by the text.

A kind is imported when a descriptor of it is first asked for. Every spelling that descriptors were ever written with
leads to its kind.
"""

import os
import sys
from difflib import get_close_matches
from functools import lru_cache
from importlib import import_module
from threading import Lock
from typing import TYPE_CHECKING, Final, NamedTuple

from sage_qd.errors import BackendUnavailableError, DescriptorError, UnknownQueueTypeError

if TYPE_CHECKING:
    from sage_qd.descriptors.base import BaseQueueDescriptor

__all__ = [
    "CONFIGURATION_VARIABLE",
    "ENTRY_POINT_GROUP",
    "built_in_queue_types",
    "known_queue_types",
    "normalised",
    "queue_kind",
    "register_queue_type",
]

ENTRY_POINT_GROUP: Final = "sage_qd.queue_types"
CONFIGURATION_VARIABLE: Final = "SAGE_QD_QUEUE_TYPES"
"""Kinds of this environment: ``name=module:Class``, several with commas in between."""


class _Place(NamedTuple):
    """Where a kind is, and what helps when it is not there."""

    module: str
    name: str
    hint: str


class _Claim(NamedTuple):
    """Somebody outside says where a kind is."""

    place: _Place
    owner: str

    def __str__(self) -> str:
        return f"{self.place.module}:{self.place.name} of {self.owner}"


_REINSTALL: Final = "it is part of sage-qd: reinstall it"
_BUILT_IN: Final = {
    "auto": _Place("sage_qd.descriptors.auto", "AutoQueueDescriptor", _REINSTALL),
    "local_queue": _Place("sage_qd.descriptors.local", "LocalQueueDescriptor", _REINSTALL),
    "ray_queue": _Place("sage_qd.descriptors.ray", "RayQueueDescriptor", "pip install 'sage-qd[ray]'"),
    "rpc_queue": _Place("sage_qd.descriptors.rpc", "RPCQueueDescriptor", "pip install 'sage-qd[rpc]'"),
    "sage_queue": _Place("sage_qd.descriptors.sage", "SageQueueDescriptor", _REINSTALL),
    "shm_queue": _Place("sage_qd.descriptors.shared_memory", "SharedMemoryQueueDescriptor", _REINSTALL),
}
_ALIASES: Final = {
    "grpc": "rpc_queue",
    "http": "rpc_queue",
    "local": "local_queue",
    "multiprocess_shm": "shm_queue",
    "multiprocessing": "shm_queue",
    "python": "local_queue",
    "python_queue": "local_queue",
    "ray": "ray_queue",
    "ray_actor": "ray_queue",
    "ray_cluster": "ray_queue",
    "rpc": "rpc_queue",
    "sage": "sage_queue",
    "shm": "shm_queue",
    "websocket": "rpc_queue",
}
_registered: Final[dict[str, "type[BaseQueueDescriptor]"]] = {}
_mutex: Final = Lock()


def built_in_queue_types() -> list[str]:
    """Return the names of the kinds that sage-qd has, sorted."""
    return sorted(_BUILT_IN)


def known_queue_types() -> list[str]:
    """Return the names of all kinds, sorted, without aliases."""
    return sorted({*_BUILT_IN, *_registered, *_configured(), *_installed(tuple(sys.path))})


def normalised(queue_type: str) -> str:
    """Return the name of a kind from any of its spellings; unknown ones stay as they are."""
    return _ALIASES.get(queue_type, queue_type)


def register_queue_type(queue_type: str, kind: "type[BaseQueueDescriptor]") -> None:
    """
    Make a queue kind of your own known in this process, so that its descriptors can be read.

    It comes before what the environment and installed distributions offer, and before the built-in kinds.

    Args:
        queue_type: The name that its descriptors have as ``queue_type``.
        kind: A subclass of :class:`~sage_qd.BaseQueueDescriptor`.

    Raises:
        TypeError: ``kind`` is no such class.
        ValueError: The name was registered for another kind already; both are named.
    """
    if not _is_kind(kind):
        raise TypeError(f"a queue kind must be a subclass of BaseQueueDescriptor, not {kind!r}")
    with _mutex:
        taken = _registered.setdefault(queue_type, kind)
    if taken is not kind:
        raise ValueError(
            f"queue type {queue_type!r} is {taken.__module__}:{taken.__qualname__} already, "
            f"so not {kind.__module__}:{kind.__qualname__}"
        )


def queue_kind(queue_type: str) -> "type[BaseQueueDescriptor]":
    """
    Return the descriptor class of a kind, from any of its spellings.

    Raises:
        UnknownQueueTypeError: There is no such kind; lists those there are and suggests one.
        DescriptorError: Two claim the name on one level, or what has it is no descriptor class.
        BackendUnavailableError: There is, but it cannot be imported here.
    """
    names = dict.fromkeys((queue_type, normalised(queue_type)))
    for level in (_registered_kind, _configured_kind, _built_in_kind, _installed_kind):
        for name in names:
            if (kind := level(name)) is not None:
                return kind
    known = known_queue_types()
    close = get_close_matches(queue_type[:64], [*known, *_ALIASES], n=1)
    raise UnknownQueueTypeError(queue_type=queue_type, known=known, suggestion=close[0] if close else None)


# -- The levels, from first to last -----------------------------------------------------------------------------------


def _registered_kind(name: str) -> "type[BaseQueueDescriptor] | None":
    return _registered.get(name)


def _configured_kind(name: str) -> "type[BaseQueueDescriptor] | None":
    return _claimed(name, _configured().get(name, ()))


def _built_in_kind(name: str) -> "type[BaseQueueDescriptor] | None":
    place = _BUILT_IN.get(name)
    return None if place is None else _loaded(name, place)


def _installed_kind(name: str) -> "type[BaseQueueDescriptor] | None":
    return _claimed(name, _installed(tuple(sys.path)).get(name, ()))


def _configured() -> dict[str, tuple[_Claim, ...]]:
    return _claims_of(os.environ.get(CONFIGURATION_VARIABLE, ""))


@lru_cache(maxsize=1)
def _claims_of(text: str) -> dict[str, tuple[_Claim, ...]]:
    """Read the variable; a text that is wrong is an error for everybody, before a name means something else."""
    claims: dict[str, tuple[_Claim, ...]] = {}
    for part in filter(None, map(str.strip, text.split(","))):
        name, _, value = part.partition("=")
        place = _place_of(value.strip(), f"correct {CONFIGURATION_VARIABLE}")
        if not name.strip() or place is None:
            raise DescriptorError(
                pointer="/queue_type", reason=f"{CONFIGURATION_VARIABLE} has {part!r}, which is no name=module:Class"
            )
        claims[name.strip()] = (*claims.get(name.strip(), ()), _Claim(place, CONFIGURATION_VARIABLE))
    return claims


@lru_cache(maxsize=1)
def _installed(path: tuple[str, ...]) -> dict[str, tuple[_Claim, ...]]:
    """What installed distributions offer, read once for each search path, and only when nothing else has a name."""
    from importlib.metadata import entry_points

    claims: dict[str, tuple[_Claim, ...]] = {}
    for point in entry_points(group=ENTRY_POINT_GROUP):
        owner = f"distribution {point.dist.name}" if point.dist is not None else "an unnamed distribution"
        place = _place_of(point.value, f"reinstall or remove {owner}")
        if place is not None and (claim := _Claim(place, owner)) not in claims.get(point.name, ()):
            claims[point.name] = (*claims.get(point.name, ()), claim)
    return claims


def _place_of(value: str, hint: str) -> _Place | None:
    module, _, name = value.partition(":")
    words = [*module.split("."), *name.split(".")]
    return _Place(module, name, hint) if all(word.isidentifier() for word in words) else None


def _claimed(name: str, claims: tuple[_Claim, ...]) -> "type[BaseQueueDescriptor] | None":
    if len(claims) > 1:
        both = " and ".join(map(str, claims))
        raise DescriptorError(
            pointer="/queue_type",
            reason=f"queue type {name!r} is claimed by {both}; remove one, or register the one that is meant",
        )
    return _loaded(name, claims[0].place) if claims else None


def _loaded(name: str, place: _Place) -> "type[BaseQueueDescriptor]":
    try:
        kind = getattr(import_module(place.module), place.name)
    except (ImportError, AttributeError) as error:
        missing = getattr(error, "name", None) or error
        raise BackendUnavailableError(backend=name, missing=str(missing), install=place.hint) from error
    if not _is_kind(kind):
        raise DescriptorError(
            pointer="/queue_type", reason=f"{place.module}:{place.name} for {name!r} is no subclass of descriptors"
        )
    return kind  # type: ignore[no-any-return]  # this was just checked


def _is_kind(kind: object) -> bool:
    from sage_qd.descriptors.base import BaseQueueDescriptor  # which imports this module

    return isinstance(kind, type) and issubclass(kind, BaseQueueDescriptor)
