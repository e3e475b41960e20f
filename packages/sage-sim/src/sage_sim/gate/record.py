"""What was measured, in the form that pytest-benchmark writes and reads (``--benchmark-json``)."""

from __future__ import annotations

import platform
import re
import statistics
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sage_sim.machine import describe_machine

FORM_VERSION = "5.1.0"
"""Of pytest-benchmark, whose form this is."""
_OUTLIER = 1.5
_GROUP = re.compile(r"(?P<group>\w+)\[(?P<parameter>.+)\]")


def benchmark_json(
    times: Mapping[str, Sequence[float]], more: Mapping[str, Mapping[str, Any]], *, commit: str | None, changed: bool
) -> dict[str, Any]:
    """
    A record of one side.

    Args:
        times: Nanoseconds for each operation, of each round, by benchmark.
        more: Anything else to keep, by benchmark.
        commit: Which it is of; None for a wheel that does not tell.
        changed: Whether the sources differ from the commit.
    """
    return {
        "machine_info": {"node": "", "python_version": platform.python_version(), **describe_machine()},
        "commit_info": {"id": commit, "dirty": changed},
        "benchmarks": [_benchmark(name, each, more.get(name, {})) for name, each in times.items() if each],
        "datetime": datetime.now(UTC).isoformat(),
        "version": FORM_VERSION,
    }


def _benchmark(name: str, times: Sequence[float], more: Mapping[str, Any]) -> dict[str, Any]:
    found = _GROUP.fullmatch(name)
    return {
        "group": found["group"] if found else None,
        "name": name,
        "fullname": f"sage-sim gate::{name}",
        "params": {"load": found["parameter"]} if found else None,
        "param": found["parameter"] if found else None,
        "extra_info": dict(more),
        "options": {"disable_gc": False, "timer": "monotonic_ns", "min_rounds": len(times)},
        "stats": _stats([ns / 1e9 for ns in times]),
    }


def _stats(seconds: Sequence[float]) -> dict[str, Any]:
    """The names are pytest-benchmark's; times are seconds."""
    low, middle, high = statistics.quantiles([*seconds, *seconds[:1]][: max(len(seconds), 2)], n=4, method="inclusive")
    mean, deviation = statistics.fmean(seconds), statistics.stdev(seconds) if len(seconds) > 1 else 0.0
    inside = [one for one in seconds if low - _OUTLIER * (high - low) <= one <= high + _OUTLIER * (high - low)]
    far = sum(abs(one - mean) > deviation for one in seconds)
    return {
        "min": min(seconds),
        "max": max(seconds),
        "mean": mean,
        "stddev": deviation,
        "rounds": len(seconds),
        "median": middle,
        "iqr": high - low,
        "q1": low,
        "q3": high,
        "iqr_outliers": len(seconds) - len(inside),
        "stddev_outliers": far,
        "outliers": f"{far};{len(seconds) - len(inside)}",
        "ld15iqr": min(inside, default=low),
        "hd15iqr": max(inside, default=high),
        "ops": 1 / mean,
        "total": sum(seconds),
        "data": list(seconds),
        "iterations": 1,
    }
