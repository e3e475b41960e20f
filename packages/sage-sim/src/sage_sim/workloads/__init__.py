"""What the processes of a run do with items: make them, turn them into others, end them, and judge the result."""

from __future__ import annotations

from sage_sim.workloads.base import Answer, Sink, Workload, WorkloadSettings
from sage_sim.workloads.blobs import Blobs
from sage_sim.workloads.words import WordCount

__all__ = ["WORKLOADS", "Answer", "Blobs", "Sink", "WordCount", "Workload", "WorkloadSettings"]

WORKLOADS: dict[str, type[Workload]] = {kind.name: kind for kind in (Blobs, WordCount)}
"""By the name that a plan uses."""
