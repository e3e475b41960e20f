"""
Death inside the ring: between two stores that others can see, where a kill from outside hardly ever falls.

Only a build of sage-qd with fault points (``SAGE_QD_POINTS=1``) can do it. Such a build reads a word that it shares
with whoever orders: 1 + the number of a point, and the process dies when it comes by. Here the word is a cell of the
meters.
"""

from __future__ import annotations

import ctypes
from functools import cache

from sage_sim.promises import Fate, fate
from sage_sim.topology import Topology

PUTTING = ("lock_taken", "put_copied", "put_published", "put_unlocked", "lock_freed")
TAKING = ("lock_taken", "take_found", "lease_marked", "lease_counted", "ack_marked", "ack_released", "lock_freed")
"""Points by which every process comes that puts, or that takes; the others are reached on occasions only."""


@cache
def points() -> dict[str, int]:
    """The number of each point by its name; none in a build without them."""
    library = _library()
    if library is None:
        return {}
    count = ctypes.c_int.in_dll(library, "sq_point_count").value
    names = (ctypes.c_char_p * count).in_dll(library, "sq_point_names")
    return {name.decode(): number for number, name in enumerate(names) if name is not None}


def points_of(topology: Topology, role: str) -> tuple[str, ...]:
    """The points by which each process of a role comes; none when it uses no ring, or the build has no points."""
    if not points():
        return ()
    found: tuple[str, ...] = ()
    for edges, names in ((topology.outputs_of(role), PUTTING), (topology.inputs_of(role), TAKING)):
        if any(fate(edge, "kill-inside") is not Fate.SPARED for edge in edges):
            found += names
    return found


def obey(cells: memoryview, cell: int) -> None:
    """Die at the point that a cell names from now on, when there is a build that can; the cells must stay mapped."""
    library = _library()
    if library is not None:
        library.sq_obey(ctypes.byref(ctypes.c_uint64.from_buffer(cells, cell * 8)))


def disobey() -> None:
    """Look at no cell any more."""
    library = _library()
    if library is not None:
        library.sq_obey(None)


@cache
def _library() -> ctypes.CDLL | None:
    from sage_qd.ring import _ring

    library = ctypes.CDLL(str(_ring.__file__))
    return library if hasattr(library, "sq_obey") else None
