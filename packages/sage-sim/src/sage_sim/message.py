"""What travels through the queues: a payload, and who it is."""

from __future__ import annotations

from typing import NamedTuple


class Message(NamedTuple):
    """
    One message; a plain tuple on the way.

    Two identities make the accounts exact. The *item* (``origin``, ``sequence``, ``lane``) is the same from source to
    sink: by it, loss and doubling are judged end to end. The *hop* (``sender``, ``hop``) is new on each queue: by it,
    each queue is judged alone.
    """

    origin: int
    """Number of the source slot that made the item."""
    sequence: int
    """Place of the item in what its source makes, from 0 without gaps."""
    repeats: int
    """How often, at least, the work on this item had to be begun again on the way here; 0: this is no second copy."""
    sender: int
    """Number of the process that put it; a respawned process has a number of its own."""
    hop: int
    """Place among what its sender put into this queue, from 0 without gaps."""
    payload: object
    """What the workload made."""
    lane: int = 0
    """Which of the copies of the item this is; where it will be copied further, the first of those copies."""
    due_ns: int = 0
    """When the source was to send the item, on the monotonic clock."""

    @property
    def marked(self) -> bool:
        """Whether another copy of the item may exist."""
        return self.repeats > 0


REPEATS_AT_MOST = 255
"""Where counting repeats stops, as the attempts of a lease do."""
