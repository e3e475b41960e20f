"""What a gate found, and which exit code that is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sage_sim.gate.rounds import Ending
from sage_sim.results import ExitCode


@dataclass(frozen=True, kw_only=True)
class Finding:
    """
    One verdict.

    Attributes:
        layer: What was looked at.
        name: Of the benchmark; empty where it is about all.
        ending: The verdict.
        why: In words.
        figures: What it is about.
    """

    layer: str
    name: str
    ending: Ending
    why: str
    figures: Mapping[str, Any] = field(default_factory=dict)


_WORST_FIRST = (
    (Ending.REGRESSION, ExitCode.REGRESSION),
    (Ending.CANNOT, ExitCode.ENVIRONMENT),
    (Ending.INCONCLUSIVE, ExitCode.INCONCLUSIVE),
)


def overall(findings: Sequence[Finding]) -> Ending:
    """The verdict over all: the worst of them."""
    endings = {finding.ending for finding in findings}
    return next((ending for ending, _ in _WORST_FIRST if ending in endings), Ending.PASS)


def exit_code(findings: Sequence[Finding], *, lenient: bool) -> ExitCode:
    """
    What to tell the shell.

    Args:
        findings: What was found.
        lenient: Whether that nobody can tell, here and now, is no reason to fail.
    """
    code = dict(_WORST_FIRST).get(overall(findings), ExitCode.PASS)
    return ExitCode.PASS if lenient and code in (ExitCode.ENVIRONMENT, ExitCode.INCONCLUSIVE) else code
