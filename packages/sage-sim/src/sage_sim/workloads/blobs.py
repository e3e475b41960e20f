"""Bytes without a meaning that can be checked one by one: what every item must contain follows from its number."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random

from sage_sim.message import Message
from sage_sim.payload import TABLE, dressed, place_of, undressed
from sage_sim.workloads.base import Answer, Sink, Workload, WorkloadSettings


class Blobs(Workload):
    """Each payload is a window into one stretch of seeded random bytes; its place depends on origin and sequence."""

    name = "blobs"

    def __init__(self, settings: WorkloadSettings) -> None:
        super().__init__(settings)
        self._form = settings.payload.form
        self._sizes = settings.payload.sizes(settings.seed)
        self._stretch = Random(settings.seed).randbytes(TABLE + max(self._sizes))

    def content(self, origin: int, sequence: int) -> bytes:
        """The bytes of the item."""
        start = place_of(origin, sequence)
        return self._stretch[start : start + self._sizes[start]]

    def payloads(self, origin: int, start: int) -> Iterator[object]:
        """See `Workload.payloads`."""
        sequence, form = start, self._form
        while True:
            yield dressed(form, self.content(origin, sequence), sequence)
            sequence += 1

    def transform(self, payload: object) -> object:
        """Pass it on as it is."""
        return payload

    def intact(self, message: Message) -> bool:
        """Compare every byte."""
        return undressed(self._form, message.payload) == self.content(message.origin, message.sequence)

    def sink(self, folder: Path, slot: str, incarnation: int) -> Sink:
        """See `Workload.sink`."""
        return _Drain()

    def judge(self, folder: Path, slots: Sequence[str], produced: Sequence[int]) -> Answer:
        """Nothing beyond the item by item comparison, whose failures are in the history."""
        low, high = min(self._sizes), max(self._sizes)
        size = f"{high:,}" if low == high else f"{low:,} to {high:,}"
        return Answer(right=True, sentence=f"{sum(produced):,} payloads of {size} bytes, each compared on arrival")


class _Drain(Sink):
    """Keeps nothing: the history says what arrived, and whether it was intact."""

    def absorb(self, message: Message, *, marked: bool) -> None:
        """Nothing to keep."""

    def finish(self) -> None:
        """Nothing to leave."""
