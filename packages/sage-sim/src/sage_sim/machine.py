"""What a figure was measured on; figures without it mean nothing."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import sage_qd


def describe_machine() -> dict[str, object]:
    """Processor, kernel, interpreter and load of this host, without its name."""
    return {
        "processor": _processor(),
        "architecture": platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_mib": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20,
        "kernel": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "sage_qd": sage_qd.__version__,
        "load_before": round(os.getloadavg()[0], 2),
    }


def _processor() -> str | None:
    """The model name as the kernel gives it; None on processors for which it gives none."""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return None
