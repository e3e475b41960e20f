"""
Bytes between threads and processes of one host, through a mapped segment. Knows no object, codec or queue.

Use `sage_qd`'s queues unless bytes are all you need.
"""

from sage_qd.ring._ring import LAYOUT_VERSION, WRITABLE, Lease, Leases, Ring
from sage_qd.ring.places import directory
from sage_qd.ring.segment import (
    SegmentInfo,
    attach,
    attach_or_create,
    clean_segments,
    create,
    list_segments,
    wait,
)
from sage_qd.ring.stats import RingStats

__all__ = [
    "LAYOUT_VERSION",
    "WRITABLE",
    "Lease",
    "Leases",
    "Ring",
    "RingStats",
    "SegmentInfo",
    "attach",
    "attach_or_create",
    "clean_segments",
    "create",
    "directory",
    "list_segments",
    "wait",
]
