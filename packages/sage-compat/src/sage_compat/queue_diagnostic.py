"""
What is wrong with the queues of a machine, as old programs ask for it.

::

    python -m sage_compat.queue_diagnostic

The exit code is 0 when all is well or nothing could be found out, 2 with one backend only, 1 with none, 3 when the
diagnosis itself broke down.
"""

import sys
import traceback
from collections.abc import Callable
from typing import Any, Final

from sage_compat import backends
from sage_compat.ray_line import ray_missing

__all__ = ["check_all_backends", "check_environment", "diagnose_queue_backends", "main", "print_diagnosis_report"]

_EXIT_CODES: Final = {"critical": 1, "limited": 2}
_SIGNS: Final = {"good": "✅", "limited": "⚠️ ", "critical": "❌", "error": "💥"}


def diagnose_queue_backends() -> dict[str, Any]:
    """
    Look at every backend; nothing is made or started for it.

    Returns:
        ``overall_status``: ``good`` with two backends or more, ``limited`` with one, ``critical`` with none, ``error``
        when that could not be found out; ``recommendations`` and ``errors``: sentences; ``backend_status``: by name;
        ``environment``.
    """
    found: dict[str, Any] = {
        "overall_status": "unknown",
        "recommendations": [],
        "errors": [],
        "backend_status": {},
        "environment": {},
    }
    try:
        found["environment"] = check_environment()
        found["backend_status"] = check_all_backends()
        working = [name for name, status in found["backend_status"].items() if status["working"]]
        found["recommendations"] = _recommendations(working, found["environment"]["distributed_mode"])
        found["overall_status"] = ("critical", "limited", "good")[min(len(working), 2)]
    except Exception as error:  # noqa: BLE001  (a diagnosis tells what it met)
        found["errors"].append(f"Diagnosis failed: {error}")
        found["overall_status"] = "error"
    return found


def check_environment() -> dict[str, Any]:
    """Return where the program runs."""
    is_initialised = backends.environment_type() == "ray"
    return {
        "python_version": sys.version,
        "ray_initialized": is_initialised,
        "ray_available": backends.is_ray_installed(),
        "sage_environment": "sage" in sys.modules,
        "distributed_mode": is_initialised,
    }


def check_all_backends() -> dict[str, dict[str, Any]]:
    """Return ``available``, ``working``, ``distributed_support``, ``error`` and ``details`` of each backend."""
    ring, ray = backends.ring_missing(), ray_missing()
    return {
        "sage_queue": _status(ring is None, ring, distributed=False, supports_multiprocess=True, high_performance=True),
        "ray_queue": _status(
            backends.is_ray_installed(), ray, distributed=True, supports_distributed=True, supports_multiprocess=True
        ),
        "python_queue": _status(True, None, distributed=False, basic_fallback=True),
    }


def _status(available: bool, error: str | None, *, distributed: bool, **details: bool) -> dict[str, Any]:
    return {
        "available": available,
        "working": error is None,
        "distributed_support": distributed,
        "error": error,
        "details": details if error is None else {},
    }


def _recommendations(working: list[str], is_distributed: bool) -> list[str]:
    if not working:
        return ["❌ CRITICAL: No working queue backends found!", "   • Reinstall sage-qd"]
    wanted = "ray_queue" if is_distributed else "sage_queue"
    place = "distributed environment" if is_distributed else "local high-performance processing"
    said = [f"✅ {wanted} works: good for {place}" if wanted in working else f"⚠️  {wanted} does not work: no {place}"]
    if len(working) == 1:
        said += [f"⚠️  Only one backend working: {working[0]}", "   • Consider installing additional backends"]
    return said


def print_diagnosis_report(diagnosis: dict[str, Any]) -> None:
    """Print what :func:`diagnose_queue_backends` returned."""
    mark: Callable[[Any], str] = lambda value: "✅" if value else "❌"  # noqa: E731
    status = diagnosis["overall_status"]
    print("🔍 SAGE Queue System Diagnosis Report")
    print("=" * 50)
    print(f"\n📊 Overall Status: {_SIGNS.get(status, '❓')} {status.upper()}")
    print("\n🌍 Environment:")
    for key, value in diagnosis["environment"].items():
        print(f"   • {key}: {mark(value) if isinstance(value, bool) else str(value).split()[0]}")
    print("\n🔧 Backend Status:")
    for name, found in diagnosis["backend_status"].items():
        words = "Working" if found["working"] else "Available" if found["available"] else "Not Available"
        print(f"   • {name}: {mark(found['working'])} {words} {'🌐' if found['distributed_support'] else '🏠'}")
        if found["error"]:
            print(f"     Error: {found['error']}")
    for title, lines in (("💡 Recommendations", "recommendations"), ("❌ Errors", "errors")):
        if diagnosis[lines]:
            print(f"\n{title}:")
            for line in diagnosis[lines]:
                print(f"   {line}")
    print("\n" + "=" * 50)


def main() -> int:
    """Diagnose, print, and return the exit code."""
    print("🚀 Starting SAGE Queue System Diagnosis...")
    try:
        diagnosis = diagnose_queue_backends()
        print_diagnosis_report(diagnosis)
    except Exception as error:  # noqa: BLE001  (the exit code says it)
        print(f"❌ Diagnosis failed: {error}")
        traceback.print_exc()
        return 3
    return _EXIT_CODES.get(diagnosis["overall_status"], 0)


if __name__ == "__main__":
    sys.exit(main())
