"""
What the queues of the kinds that need something to be imported can do, where it can be read without importing it.

Queue and descriptor classes declare these values; a kind of queues between threads declares its own.
"""

from typing import Final

from sage_qd.queues.base import Capabilities, Delivery, Ordering, Reach

__all__ = ["RAY", "RPC", "SAGE", "SHM"]

RAY: Final = Capabilities(
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
)
RPC: Final = Capabilities(
    reach=Reach.HOSTS,
    delivery=Delivery.LEASED_OR_ONCE,
    survives_crash=True,
    lease=True,
    views=False,
    joins=False,
    same_object=False,
    bounded_by_bytes=False,
    uri_scheme="rpc",
    durable=True,
    movable=True,
)
SAGE: Final = Capabilities(
    reach=Reach.PROCESSES,
    delivery=Delivery.ONCE_OR_LEASED,
    survives_crash=True,
    lease=True,
    views=True,
    joins=False,
    same_object=False,
    bounded_by_bytes=True,
    uri_scheme="sage",
    durable=True,
    movable=True,
)
SHM: Final = Capabilities(
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
)
