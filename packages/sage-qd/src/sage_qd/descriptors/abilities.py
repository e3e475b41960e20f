"""
What the queues of a kind can do, without importing them.

A kind says it on its descriptor class. Those built-in kinds that need another package are listed here, and the contract
of descriptors checks that their queues say the same.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from sage_qd.queues.base import Capabilities, Delivery, Ordering, Reach

if TYPE_CHECKING:
    from sage_qd.descriptors.base import BaseQueueDescriptor

__all__ = ["capabilities_of", "reaches_as_far"]

_BUILT_IN: Final[Mapping[str, Capabilities]] = MappingProxyType(
    {
        "ray_queue": Capabilities(
            reach=Reach.HOSTS,
            delivery=Delivery.ONCE_OR_LEASED,
            survives_crash=True,
            lease=True,
            views=False,
            joins=False,
            same_object=False,
            bounded_by_bytes=True,
            uri_scheme="ray",
            ordering=Ordering.PER_PRODUCER,
            durable=True,
            movable=True,
        ),
        "rpc_queue": Capabilities(
            reach=Reach.HOSTS,
            delivery=Delivery.ONCE_OR_LEASED,
            survives_crash=True,
            lease=True,
            views=False,
            joins=False,
            same_object=False,
            bounded_by_bytes=False,
            uri_scheme="rpc",
            durable=True,
            movable=True,
        ),
        "shm_queue": Capabilities(
            reach=Reach.PROCESSES,
            delivery=Delivery.ONCE_OR_LEASED,
            survives_crash=True,
            lease=True,
            views=False,
            joins=True,
            same_object=False,
            bounded_by_bytes=True,
            uri_scheme="shm",
            movable=True,
        ),
    }
)


def reaches_as_far(kind: Capabilities | None, other: Capabilities | None) -> bool:
    """Whether who reaches a queue of the other kind on another host reaches one of this kind, too."""
    return other is None or other.reach is not Reach.HOSTS or (kind is not None and kind.reach is Reach.HOSTS)


def capabilities_of(kind: "type[BaseQueueDescriptor]") -> Capabilities | None:
    """Return what the queues of a kind can do; None when nobody says it."""
    if kind.capabilities is not None:
        return kind.capabilities
    name = getattr(kind, "queue_type", None)
    return _BUILT_IN.get(name) if isinstance(name, str) else None
