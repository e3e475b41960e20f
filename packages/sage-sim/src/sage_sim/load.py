"""When sources send: as fast as the queues take it, within a window, or at planned moments that nothing delays."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from random import Random

MODES = ("saturate", "closed", "open", "backlog")
SHAPES = ("constant", "poisson", "ramp", "burst", "trace")


@dataclass(frozen=True, kw_only=True)
class Load:
    """
    How the sources of a run send, all together.

    Attributes:
        mode: ``saturate``: each item as soon as the one before is in its queue. ``closed``: at most ``window`` items of
            a source are on their way. ``open``: at moments that are planned, whether or not the queues keep up;
            latency counts from the planned moment. ``backlog``: nobody takes until everything is made, or no room is
            left.
        window: Items under way of each source, under ``closed``.
        shape: How an open load runs: ``constant``, ``poisson``, ``ramp``, ``burst`` or ``trace``.
        rate: Items per second of an open load, over all sources; of a ramp, at its beginning.
        rate_to: Rate at the end of a ramp, and from then on.
        ramp_seconds: How long a ramp takes.
        burst: Items of one burst; the bursts are so far apart that the mean is ``rate``.
        trace: Moments in seconds from the beginning, in order; after the last one it begins again.
    """

    mode: str = "saturate"
    window: int = 16
    shape: str = "constant"
    rate: float = 1_000.0
    rate_to: float = 1_000.0
    ramp_seconds: float = 1.0
    burst: int = 100
    trace: tuple[float, ...] = ()


def moments(load: Load, *, seed: int, origin: int, origins: int) -> Iterator[float]:
    """
    When one source sends its items, in seconds from the beginning; without end.

    The same in every process, so that a new process of a slot goes on in the plan of the dead one.

    Args:
        load: An open load.
        seed: Of the run; decides the moments of a Poisson process.
        origin: Number of the source.
        origins: How many sources share the load.
    """
    if load.shape == "poisson":
        random, moment = Random(f"load/{seed}/{origin}"), 0.0
        mine = load.rate / origins
        while True:
            moment += random.expovariate(mine)
            yield moment
    for sequence in count():
        yield _moment(load, sequence * origins + origin)


def _moment(load: Load, place: int) -> float:
    """When the item of that place among the items of all sources is sent."""
    if load.shape == "constant":
        return place / load.rate
    if load.shape == "burst":
        return (place // load.burst) * (load.burst / load.rate)
    if load.shape == "ramp":
        return _ramp(load, place)
    passes, at = divmod(place, len(load.trace))
    return passes * load.trace[-1] + load.trace[at]


def _ramp(load: Load, place: int) -> float:
    """Invert the count of items sent up to a moment, which grows with its square while the ramp lasts."""
    within = (load.rate + load.rate_to) / 2 * load.ramp_seconds
    if place >= within:
        return load.ramp_seconds + (place - within) / load.rate_to
    growth = (load.rate_to - load.rate) / load.ramp_seconds
    if math.isclose(growth, 0):
        return place / load.rate
    return (math.sqrt(load.rate**2 + 2 * growth * place) - load.rate) / growth
