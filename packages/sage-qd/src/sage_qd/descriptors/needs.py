"""
What a program needs of a queue, and what each kind answers to that.

Needs are data. A kind is asked through what its descriptor class declares, its capabilities and its settings, so
answering imports no transport and opens nothing.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sage_qd.queues.base import Capabilities, Ordering, Reach

if TYPE_CHECKING:
    from sage_qd.descriptors.base import BaseQueueDescriptor

__all__ = [
    "HERE",
    "ORDERINGS",
    "RAY",
    "REACHES",
    "THIS_HOST",
    "Answer",
    "Needs",
    "answers_of",
    "check_endpoint",
    "check_places",
    "needs_of",
    "settings_for",
]

REACHES: Final = {"threads": Reach.THREADS, "processes": Reach.PROCESSES, "hosts": Reach.HOSTS}
ORDERINGS: Final = {"fifo": Ordering.FIFO, "per_producer": Ordering.PER_PRODUCER}
HERE: Final = "process"
THIS_HOST: Final = "host"
RAY: Final = "ray"
"""Places of producers and consumers; any other word is the name of a host."""

_PLACES: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,252}(?:,[A-Za-z0-9][A-Za-z0-9_.:-]{0,252})*")
_ENDPOINT: Final = re.compile(r"(?:\[[0-9A-Fa-f:]{2,45}\]|[A-Za-z0-9_.-]{1,253}):([0-9]{1,5})")
_LARGEST_PORT: Final = 65535
_FARTHEST_LAST: Final = (Reach.THREADS, Reach.PROCESSES, Reach.HOSTS)
_BYTE_BOUNDS: Final = ("capacity_bytes", "max_bytes")
_ABILITIES: Final = {
    "lease": ("it hands out messages on trial", "it has no leases, so a message goes with a consumer that dies"),
    "views": ("it shows messages in place", "it copies every message"),
    "joins": ("it counts unfinished tasks", "it has no task_done and join"),
    "same_object": ("get returns the very object", "get returns a copy"),
    "survives_crash": ("a killed process leaves it usable", "it does not survive a killed process"),
    "durable": ("messages can outlive everybody who uses it", "its messages go with its users"),
}


@dataclass(frozen=True, kw_only=True)
class Needs:
    """
    What a queue must be able to do. What is left at its default is not needed.

    Attributes:
        reach: How far apart producers and consumers are, at least.
        producers: Where producers are: ``process`` (this one), ``host`` (this one), ``ray`` (the cluster), names of
            hosts, or several of these with commas in between.
        consumers: Where consumers are.
        maxsize: A bound in messages.
        max_bytes: A bound in bytes.
        lease: Messages on trial, settled by ack or nack.
        views: Messages shown in place.
        joins: ``task_done`` and ``join``.
        same_object: ``get`` returns the very object that was put.
        survives_crash: A killed process leaves the queue usable.
        durable: Accepted messages outlive everybody who uses the queue.
        ordering: In which order messages are taken.
        namespace: Queues of one name apart from those of other programs.
        endpoint: ``host:port`` of a queue server that may be used.
    """

    reach: Reach = Reach.PROCESSES
    producers: str | None = None
    consumers: str | None = None
    maxsize: int = 0
    max_bytes: int | None = None
    lease: bool = False
    views: bool = False
    joins: bool = False
    same_object: bool = False
    survives_crash: bool = False
    durable: bool = False
    ordering: Ordering | None = None
    namespace: str | None = None
    endpoint: str | None = None

    def farthest(self) -> Reach:
        """How far the queue must reach for what is declared of reach and places together."""
        places = [place for side in (self.producers, self.consumers) for place in (side or THIS_HOST).split(",")]
        if self.producers is None and self.consumers is None:
            return self.reach
        found = max(map(_reach_of, places), key=_FARTHEST_LAST.index)
        return max(found, self.reach, key=_FARTHEST_LAST.index)

    def declared(self) -> dict[str, str]:
        """What is needed, by name, in words."""
        wanted = {
            each.name: getattr(self, each.name)
            for each in fields(self)
            if each.name not in ("reach", "endpoint") and getattr(self, each.name) != each.default
        }
        shown = {name: value.value if isinstance(value, Ordering) else str(value) for name, value in wanted.items()}
        return {"reach": self.farthest().value, **{name: _WORDS.get(text, text) for name, text in shown.items()}}


class Answer(NamedTuple):
    """Whether a kind meets one need, and why."""

    need: str
    met: bool
    reason: str


def needs_of(descriptor: "BaseQueueDescriptor") -> Needs:
    """What the queue of a concrete kind needs: its reach, and what it has been set to."""
    found = type(descriptor).capabilities
    defaults = {setting.name: setting.default for setting in descriptor.settings}
    chosen = {name: value for name, value in descriptor.metadata.items() if value != defaults.get(name)}
    host, port = descriptor.metadata.get("host"), descriptor.metadata.get("port")
    return Needs(
        reach=found.reach if found else Reach.PROCESSES if descriptor.can_serialize else Reach.THREADS,
        maxsize=_integer(chosen.get("maxsize")) or 0,
        max_bytes=next(filter(None, (_integer(chosen.get(name)) for name in _BYTE_BOUNDS)), None),
        durable=chosen.get("durable") is True,
        namespace=chosen["namespace"] if isinstance(chosen.get("namespace"), str) else None,
        endpoint=None if host is None or port is None else f"{host}:{port}",
    )


def _integer(value: object) -> int | None:
    """Metadata may be anything with kinds that make their own."""
    return value if type(value) is int else None


def answers_of(kind: "type[BaseQueueDescriptor]", needs: Needs) -> tuple[Answer, ...]:
    """What a kind says to each need that is declared, in the order in which they are listed."""
    found = kind.capabilities
    if found is None:
        return tuple(Answer(name, False, "it declares no capabilities") for name in needs.declared())
    return tuple(_answer(name, kind, found, needs) for name in needs.declared())


def settings_for(kind: "type[BaseQueueDescriptor]", needs: Needs) -> dict[str, Any]:
    """The settings that make a queue of this kind meet the needs, which its answers say it can."""
    known = _setting_names(kind)
    wanted: dict[str, Any] = {"maxsize": needs.maxsize}
    if needs.max_bytes is not None:
        wanted |= dict.fromkeys(_BYTE_BOUNDS[:1] if _BYTE_BOUNDS[0] in known else _BYTE_BOUNDS[1:], needs.max_bytes)
    if needs.namespace is not None:
        wanted["namespace"] = needs.namespace
    if needs.durable:
        wanted |= {"durable": True} if "durable" in known else {"auto_cleanup": False}
    if needs.endpoint is not None:
        host, _, port = needs.endpoint.rpartition(":")
        wanted |= {"host": host.strip("[]"), "port": int(port)}
    return {name: value for name, value in wanted.items() if name in known}


def check_places(text: str) -> None:
    """Raise ``ValueError`` for what is no list of places."""
    if not _PLACES.fullmatch(text):
        raise ValueError(f"it must be process, host, ray or names of hosts with commas in between, not {text!r:.80}")


def check_endpoint(text: str) -> None:
    """Raise ``ValueError`` for what is no ``host:port``."""
    found = _ENDPOINT.fullmatch(text)
    if found is None or not 0 < int(found[1]) <= _LARGEST_PORT:
        raise ValueError(f"it must be host:port, not {text!r:.80}")


# -- One need, one answer ---------------------------------------------------------------------------------------------

_WORDS: Final = {"True": "yes"}


def _answer(name: str, kind: "type[BaseQueueDescriptor]", found: Capabilities, needs: Needs) -> Answer:
    if name in _ABILITIES:
        met = getattr(found, name)
        return Answer(name, met, _ABILITIES[name][0 if met else 1])
    return _ANSWERS[name](name, kind, found, needs)


def _reaches(name: str, kind: "type[BaseQueueDescriptor]", found: Capabilities, needs: Needs) -> Answer:
    if _FARTHEST_LAST.index(found.reach) < _FARTHEST_LAST.index(needs.farthest()):
        return Answer(name, False, f"it reaches {found.reach.value} only")
    if {"host", "port"} <= _setting_names(kind) and needs.endpoint is None:
        return Answer(name, False, "it goes through a server: name one with endpoint='host:port'")
    return Answer(name, True, f"it reaches {found.reach.value}")


def _is_there(name: str, kind: "type[BaseQueueDescriptor]", found: Capabilities, needs: Needs) -> Answer:
    places = getattr(needs, name).split(",")
    far = [place for place in places if _reach_of(place) is Reach.HOSTS]
    if not far:
        return Answer(name, True, "they are on this host")
    if found.reach is not Reach.HOSTS:
        return Answer(name, False, f"it does not reach {', '.join(far)}")
    strangers = [place for place in far if place != RAY]
    if strangers and getattr(kind, "queue_type", None) == "ray_queue":
        return Answer(name, False, f"it reaches the Ray cluster; whether {', '.join(strangers)} is in it is not known")
    return Answer(name, True, f"it reaches {', '.join(far)}")


def _has_maxsize(name: str, kind: "type[BaseQueueDescriptor]", found: Capabilities, needs: Needs) -> Answer:
    met = name in _setting_names(kind)
    return Answer(name, met, "it has a bound in messages" if met else "it has no setting for a bound in messages")


def _has_max_bytes(name: str, kind: "type[BaseQueueDescriptor]", found: Capabilities, needs: Needs) -> Answer:
    met = found.bounded_by_bytes and not _setting_names(kind).isdisjoint(_BYTE_BOUNDS)
    return Answer(name, met, "it has a bound in bytes" if met else "it has no bound in bytes")


def _has_namespace(name: str, kind: "type[BaseQueueDescriptor]", found: Capabilities, needs: Needs) -> Answer:
    met = name in _setting_names(kind)
    return Answer(name, met, "it has namespaces" if met else "it has no namespaces")


def _orders(name: str, kind: "type[BaseQueueDescriptor]", found: Capabilities, needs: Needs) -> Answer:
    return Answer(name, found.ordering in (Ordering.FIFO, needs.ordering), f"it keeps {found.ordering.value}")


_ANSWERS: Final[dict[str, Callable[[str, "type[BaseQueueDescriptor]", Capabilities, Needs], Answer]]] = {
    "reach": _reaches,
    "producers": _is_there,
    "consumers": _is_there,
    "maxsize": _has_maxsize,
    "max_bytes": _has_max_bytes,
    "namespace": _has_namespace,
    "ordering": _orders,
}


def _reach_of(place: str) -> Reach:
    near = {HERE: Reach.THREADS, THIS_HOST: Reach.PROCESSES, RAY: Reach.HOSTS}.get(place)
    if near is None:
        import socket  # slow to import, and rarely needed

        return Reach.PROCESSES if place in ("localhost", socket.gethostname()) else Reach.HOSTS
    return near


def _setting_names(kind: "type[BaseQueueDescriptor]") -> set[str]:
    return {setting.name for setting in kind.settings}
