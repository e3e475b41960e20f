"""The interface of a workload, as each process and the final check use it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from sage_sim.message import Message
from sage_sim.payload import Payload, place_of


@dataclass(frozen=True, kw_only=True)
class WorkloadSettings:
    """
    What a workload is made with, the same in all processes.

    Attributes:
        seed: Decides everything that looks random.
        payload: Size, form and keys of items, for workloads that make them up.
        text: A file whose lines are the items, for workloads that take them from one; None for that of the package.
    """

    seed: int
    payload: Payload
    text: str | None = None


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Whether the result of a whole run is right, in a sentence; `right` is None when nobody can tell."""

    right: bool | None
    sentence: str


class Sink(ABC):
    """The state that one slot of a sink role builds up, across the deaths of its processes."""

    @abstractmethod
    def absorb(self, message: Message, *, marked: bool) -> None:
        """
        Take an item in, so that a kill right after this cannot lose it.

        Args:
            message: The item.
            marked: Whether the same item may have been absorbed before, here or elsewhere.
        """

    @abstractmethod
    def finish(self) -> None:
        """Leave the result where `Workload.judge` finds it."""


class Workload(ABC):
    """One kind of work. Holds no state of a run, so every process makes its own from the settings."""

    name: ClassVar[str]

    def __init__(self, settings: WorkloadSettings) -> None:
        self.settings = settings

    @cached_property
    def _keys(self) -> tuple[int, ...]:
        return self.settings.payload.drawn_keys(self.settings.seed)

    def key(self, origin: int, sequence: int) -> int:
        """The key of an item, by which a queue of several is chosen; the same in every process."""
        return self._keys[place_of(origin, sequence)]

    @abstractmethod
    def payloads(self, origin: int, start: int) -> Iterator[object]:
        """The payloads that a source makes, from its item `start` on, without end; the same in every process."""

    @abstractmethod
    def transform(self, payload: object) -> object:
        """What a process in the middle turns a payload into."""

    @abstractmethod
    def intact(self, message: Message) -> bool:
        """Whether a payload at a sink is what it must be, as far as it can be judged alone."""

    @abstractmethod
    def sink(self, folder: Path, slot: str, incarnation: int) -> Sink:
        """
        The state of a sink slot.

        Args:
            folder: Where state that survives a kill is kept.
            slot: Name of the slot; its earlier incarnations left their state under it.
            incarnation: How many processes the slot had before this one.
        """

    @abstractmethod
    def judge(self, folder: Path, slots: Sequence[str], produced: Sequence[int]) -> Answer:
        """
        Compare the result of all sinks with what one process alone would get.

        Args:
            folder: Where the sinks left their state.
            slots: Names of all sink slots.
            produced: For each origin, how many items its source made.
        """
