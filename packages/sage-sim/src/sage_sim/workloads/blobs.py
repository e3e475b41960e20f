"""Bytes without a meaning that can be checked one by one: what every item must contain follows from its number."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random

from sage_sim.message import Message
from sage_sim.workloads.base import Answer, Sink, Workload, WorkloadSettings

STRETCH = 4093
"""Distinct payloads before they repeat; prime, so that neighbours of different origins differ."""


class Blobs(Workload):
    """Each payload is a window into one stretch of seeded random bytes; its place depends on origin and sequence."""

    name = "blobs"

    def __init__(self, settings: WorkloadSettings) -> None:
        super().__init__(settings)
        self._stretch = Random(settings.seed).randbytes(STRETCH + settings.payload_bytes)

    def payload(self, origin: int, sequence: int) -> bytes:
        """What the item must contain."""
        start = (sequence + 997 * origin) % STRETCH
        return self._stretch[start : start + self.settings.payload_bytes]

    def payloads(self, origin: int, start: int) -> Iterator[bytes]:
        """See `Workload.payloads`."""
        sequence = start
        while True:
            yield self.payload(origin, sequence)
            sequence += 1

    def transform(self, payload: object) -> object:
        """Pass it on as it is."""
        return payload

    def intact(self, message: Message) -> bool:
        """Compare every byte."""
        return message.payload == self.payload(message.origin, message.sequence)

    def sink(self, folder: Path, slot: str, incarnation: int) -> Sink:
        """See `Workload.sink`."""
        return _Drain()

    def judge(self, folder: Path, slots: Sequence[str], produced: Sequence[int]) -> Answer:
        """Nothing beyond the item by item comparison, whose failures are in the history."""
        size = self.settings.payload_bytes
        return Answer(right=True, sentence=f"{sum(produced):,} payloads of {size:,} bytes, each compared on arrival")


class _Drain(Sink):
    """Keeps nothing: the history says what arrived, and whether it was intact."""

    def absorb(self, message: Message, *, marked: bool) -> None:
        """Nothing to keep."""

    def finish(self) -> None:
        """Nothing to leave."""
