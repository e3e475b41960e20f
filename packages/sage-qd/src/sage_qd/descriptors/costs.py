"""
What a message costs with each kind: measured on this machine by ``sage-qd calibrate``, else a built-in estimate.

The file is JSON, ``{"version": 1, "kinds": {"sage_queue": {"put_get_ns": 700, "per_byte_ns": 0.1, "wake_us": 30}}}``,
in ``$XDG_CACHE_HOME/sage-qd/calibration.json`` (``~/.cache`` where that is not set).
"""

import os
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Final

import msgspec

__all__ = ["Cost", "calibration_path", "costs"]

BUILT_IN: Final = "built-in"
_VERSION: Final = 1


class _Figures(msgspec.Struct, frozen=True):
    put_get_ns: float
    per_byte_ns: float
    wake_us: float


class _Calibration(msgspec.Struct, frozen=True):
    version: int
    kinds: dict[str, _Figures]


_DEFAULTS: Final = {
    "local_queue": _Figures(1_800.0, 0.0, 30.0),
    "sage_queue": _Figures(2_000.0, 0.05, 40.0),
    "shm_queue": _Figures(30_000.0, 1.0, 80.0),
    "rpc_queue": _Figures(60_000.0, 3.0, 200.0),
    "ray_queue": _Figures(600_000.0, 3.0, 1_500.0),
}
"""Orders of magnitude for a small tuple, on two shared cores; good for comparing kinds, not for planning."""


@dataclass(frozen=True)
class Cost:
    """
    What a message costs with one kind.

    Attributes:
        put_get_ns: Nanoseconds for a small message, from the start of a put to the end of a get, nobody waiting.
        per_byte_ns: Nanoseconds more for each byte of the message.
        wake_us: Microseconds more when the other side sleeps.
        source: ``calibration``, or ``built-in``, with the reason where a calibration could not be used.
    """

    put_get_ns: float
    per_byte_ns: float
    wake_us: float
    source: str

    def nanoseconds(self, message_bytes: int) -> float:
        """What a message of this size costs."""
        return self.put_get_ns + self.per_byte_ns * message_bytes


def calibration_path() -> Path:
    """Where ``sage-qd calibrate`` leaves its figures."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(cache, "sage-qd", "calibration.json")


def costs() -> dict[str, Cost]:
    """Return the costs of all kinds of which something is known."""
    known, flaw = _calibrated()
    estimates = {name: _cost(figures, BUILT_IN + flaw) for name, figures in _DEFAULTS.items()}
    return estimates | {name: _cost(figures, "calibration") for name, figures in known.items()}


def _calibrated() -> tuple[dict[str, _Figures], str]:
    """Return the figures of the file, and what is wrong with it, to be shown where they would have been."""
    path = calibration_path()
    try:
        found = msgspec.json.decode(path.read_bytes(), type=_Calibration)
    except FileNotFoundError:
        return {}, ""
    except (OSError, msgspec.MsgspecError) as error:
        return {}, f" ({path} cannot be used: {error})"
    numbers = [getattr(each, name) for each in found.kinds.values() for name in _Figures.__struct_fields__]
    if found.version != _VERSION or not all(isfinite(number) and number >= 0 for number in numbers):
        return {}, f" ({path} cannot be used: it has another version or impossible numbers)"
    return found.kinds, ""


def _cost(figures: _Figures, source: str) -> Cost:
    return Cost(figures.put_get_ns, figures.per_byte_ns, figures.wake_us, source)
