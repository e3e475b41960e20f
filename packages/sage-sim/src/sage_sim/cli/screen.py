"""The live view of `top`; what it looks like is the view of ``sage-qd top``."""

from __future__ import annotations

from threading import Lock
from typing import ClassVar

from rich.text import Text

from sage_qd.cli.screen import LiveTable
from sage_sim.cli.top import COLUMNS, cells_of, title_of
from sage_sim.watching import RoleSight, Sight, Watch


class RunScreen(LiveTable[list[Sight]]):
    """
    The roles of all runs that go on.

    Args:
        interval: Seconds between two looks.
    """

    PROGRAM = "sage-sim top"
    BINDINGS: ClassVar = [("w", "sort('way')", "As items flow")]

    def __init__(self, interval: float) -> None:
        super().__init__(COLUMNS, interval)
        self._watch = Watch()
        self._looking = Lock()
        self._order = "way"

    def look(self) -> list[Sight]:
        """Look at every run; a look that takes longer than the interval does not meet the next one."""
        with self._looking:
            return self._watch.look()

    def title_of(self, seen: list[Sight]) -> str:
        """How much there is."""
        processes = sum(role.alive for sight in seen for role in sight.roles)
        return f"{len(seen)} runs, {processes:,} processes, {sum(sight.faults for sight in seen):,} faults so far"

    def rows_of(self, seen: list[Sight], order: str) -> list[list[str]]:
        """A row for each role; with the process id of its run, when there are several."""
        several = len(seen) > 1
        roles = [
            (f"{sight.name}/{role.role}" + (f" {sight.pid}" if several else ""), role)
            for sight in seen
            for role in sight.roles
        ]

        def rank(named: tuple[str, RoleSight]) -> tuple[float, str]:
            name, role = named
            worth = {"depth": -(role.queued or 0), "rate": -(role.rate or 0.0)}.get(order, 0.0)
            return worth, name if order == "name" else ""

        return [[name, *cells_of(role)] for name, role in sorted(roles, key=rank)]

    def notes_of(self, seen: list[Sight]) -> Text:
        """Each run in one line."""
        return Text("\n".join(map(title_of, seen)) or "no run goes on")
