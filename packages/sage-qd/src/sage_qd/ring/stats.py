"""What a ring counted since it was made, as one frozen value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast


@dataclass(frozen=True, slots=True)
class RingStats:
    """
    Counters of one ring, over all processes and since its creation. They live in the segment and survive every process.

    Each figure is right by itself; two of them may be from moments apart while others are active.
    """

    puts: int
    """Items ever put."""
    gets: int
    """Items ever taken, including dropped ones."""
    bytes_put: int
    """Payload bytes ever put; may miss the last item of a process that was killed."""
    bytes_taken: int
    """Payload bytes ever taken."""
    depth: int
    """Items that can be taken now."""
    depth_bytes: int
    """Bytes of the data region in use now, headers included."""
    high_water: int
    """Most items seen queued at once; looked at when the ring seems full, and with every 64th item."""
    dropped: int
    """Items dropped by clear() and shutdown(immediate=True)."""
    spills: int
    """Items that went through a spill file."""
    redeliveries: int
    """Leases that came back, by nack() or by the death of their holder."""
    leased: int
    """Items held by leases now."""
    put_blocked_ns: int
    """Nanoseconds that producers waited for room, summed over all of them."""
    put_blocked: int
    """How many waits that were, in slices of at most 50 ms."""
    get_blocked_ns: int
    """Nanoseconds that consumers waited for items, summed over all of them."""
    get_blocked: int
    """How many waits that were."""
    put_recoveries: int
    """Times a producer took the lock over from a dead one."""
    get_recoveries: int
    """Times a consumer took the lock over from a dead one."""
    put_waiters: int
    """Upper bound of the producers asleep now."""
    get_waiters: int
    """Upper bound of the consumers asleep now."""
    put_lock_owner: int
    """Thread id of whoever is inside put at this moment; the same one every time you look: it is stopped or stuck."""
    get_lock_owner: int
    """Thread id of whoever is inside get at this moment."""
    oldest_age_ns: int
    """
    The oldest item is at least this old: the age of the first one that carries a time stamp, as every 64th does. 0 when
    none in the ring does.
    """
    capacity_bytes: int
    """Size of the data region."""
    is_shutdown: bool
    """Whether shutdown() was called."""
    is_poisoned: bool
    """Whether somebody found the shared bytes damaged."""
    unlinked: bool
    """Whether the name is gone: who is attached goes on, nobody can attach."""
    histogram: tuple[int, ...] = field(repr=False)
    """Counts of put-to-get latencies of every 64th item, in buckets: see `latency_ns`."""

    @classmethod
    def of(cls, figures: Mapping[str, object], *, unlinked: bool) -> RingStats:
        """Build from `Ring.figures`."""
        counters = dict(figures)
        state = cast(int, counters.pop("state"))
        histogram = tuple(cast(Sequence[int], counters.pop("histogram")))
        return cls(
            **cast(dict[str, int], counters),
            is_shutdown=bool(state & 1),
            is_poisoned=bool(state & 4),
            unlinked=unlinked,
            histogram=histogram,
        )

    @property
    def samples(self) -> int:
        """How many latencies the histogram holds."""
        return sum(self.histogram)

    def latency_ns(self, quantile: float) -> int | None:
        """
        Put-to-get latency below which the given share of the sampled items stayed, within 12.5 %.

        Args:
            quantile: From 0 to 1; 0.5 is the median.

        Returns:
            Nanoseconds (the upper edge of the bucket), or None without samples.
        """
        if not 0 <= quantile <= 1:
            raise ValueError(f"quantile must be from 0 to 1, not {quantile}")
        wanted, seen = quantile * self.samples, 0
        for bucket, count in enumerate(self.histogram):
            seen += count
            if count and seen >= wanted:
                return upper_edge_ns(bucket)
        return None


def upper_edge_ns(bucket: int) -> int:
    """The smallest latency beyond a bucket: eight buckets to each power of two (HdrHistogram's scheme, 3 bits)."""
    if bucket < 8:
        return bucket + 1
    power, step = divmod(bucket, 8)
    return (8 + step + 1) << (power - 1)
