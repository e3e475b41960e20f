"""
Who knows the queues of a kind: one table from kinds to functions.

A source is a function ``list_states(namespace)`` that returns a :class:`~sage_qd.monitor.QueueState` for each queue of
its kind that this user can see, without taking part in any; ``namespace`` is None for all of them. A kind gets into
every verb of the command line and into the exporters by one line in the table below, or by :func:`register_source`.
The module is imported when the list is first asked for; a kind whose library is missing here has no queues here.
"""

from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Final

from sage_qd.errors import BackendUnavailableError
from sage_qd.monitor.states import QueueState

__all__ = ["Source", "queue_states", "register_source", "source_kinds"]

Source = Callable[[str | None], Iterable[QueueState]]

_SOURCES: Final[dict[str, str | Source]] = {
    "sage_queue": "sage_qd.monitor.rings:list_states",
    "shm_queue": "sage_qd.monitor.portable:list_states",
}


def register_source(kind: str, source: Source) -> None:
    """
    Let the queues of a kind be seen by ``sage-qd`` and the exporters of this process.

    Args:
        kind: The ``queue_type``.
        source: Returns the states of its queues, in the namespace given or in all.

    Raises:
        ValueError: The kind has another source already.
    """
    if _SOURCES.setdefault(kind, source) is not source:
        raise ValueError(f"kind {kind!r} has a source already")


def source_kinds() -> list[str]:
    """Return the kinds that can be listed, sorted."""
    return sorted(_SOURCES)


def queue_states(namespace: str | None = None, *, kinds: Iterable[str] | None = None) -> list[QueueState]:
    """
    Return the state of every queue of this user, sorted by kind, namespace and name.

    Args:
        namespace: Only those in it; None for all.
        kinds: Only these; None for all that have a source.
    """
    found: list[QueueState] = []
    for kind in source_kinds() if kinds is None else kinds:
        try:
            source = _loaded(_SOURCES[kind])
        except BackendUnavailableError:
            continue  # what it needs is not installed, so no queue of it can be opened from here
        found.extend(source(namespace))
    return sorted(found, key=lambda state: state.key)


def _loaded(source: str | Source) -> Source:
    if not isinstance(source, str):
        return source
    module, _, name = source.partition(":")
    loaded: Source = getattr(import_module(module), name)
    return loaded
