"""What the user asked for, and the command that asks for the same again."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from sage_sim.faults import Faults
from sage_sim.plan import Plan
from sage_sim.presets import CAPACITY_BYTES, Preset

PAYLOAD_BYTES = 64
TIME_LIMIT_SECONDS = 600.0


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the user asked for, with everything left open decided."""

    preset: Preset
    seed: int
    items: int | None
    duration: float | None
    counts: dict[str, int]
    payload: int
    capacity: int
    faults: Faults | None
    time_limit: float

    def plan(self) -> Plan:
        """The plan, before its queues have names."""
        return Plan(
            topology=self.preset.build(self.counts, self.capacity),
            workload=self.preset.workload,
            seed=self.seed,
            items=self.items,
            duration_seconds=self.duration,
            payload_bytes=self.payload,
            queues={},
        )

    def command(self) -> str:
        """What repeats the run: the preset, the seed, and all that is not as the preset has it."""
        words = ["sage-sim", "run", self.preset.name, "--seed", str(self.seed)]
        if self.items is not None and (self.duration is not None or self.items != self.preset.items):
            words += ["--items", str(self.items)]
        if self.duration is not None:
            words += ["--duration", f"{self.duration:g}"]
        for option, count in self.counts.items():
            if count != self.preset.counts[option]:
                words += [f"--{option}", str(count)]
        if self.payload != PAYLOAD_BYTES:
            words += ["--payload", str(self.payload)]
        if self.capacity != CAPACITY_BYTES:
            words += ["--capacity", str(self.capacity)]
        if self.faults is not None:
            words += ["--faults", str(self.faults)]
        if self.time_limit != TIME_LIMIT_SECONDS:
            words += ["--time-limit", f"{self.time_limit:g}"]
        return shlex.join(words)
