"""What a person sees of a run, in a terminal of any width."""

from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from sage_sim.accounts import Account
from sage_sim.checkers import Verdict
from sage_sim.outcome import Ending, Gauge, Outcome
from sage_sim.presets import PRESETS
from sage_sim.report import show_results
from sage_sim.results import QUANTILES, Results
from sage_sim.workloads import Answer


def results() -> Results:
    """Of a run with figures as long as they come."""
    plan = PRESETS["pipeline"].scenario().plan(1)
    account = Account(taken=12_345_678, redelivered=1_234, timed=12_345_678, first_ns=0, last_ns=100_000_000_000)
    waits: dict[str, int | None] = dict.fromkeys(QUANTILES, 123_456_789)
    edges = [edge.name for edge in plan.topology.edges]
    outcome = Outcome(
        **dict.fromkeys(("signal_number", "begin_ns", "backlog", "refused"), 0),
        ending=Ending.COMPLETE,
        seconds=100.0,
        processes=(),
        gauges={name: Gauge(put=1, taken=1, high_water=1) for name in edges},
        series=(),
        cpu_seconds={role.name: 123.45 for role in plan.topology.roles},
        blows=(),
        trouble="",
        leftovers=(),
    )
    return Results(
        plan=plan,
        faults=None,
        outcome=outcome,
        queues=dict.fromkeys(edges, account),
        items=account,
        waits_ns=dict.fromkeys(edges, waits),
        latency_ns=waits,
        answer=Answer(right=True, sentence=""),
        findings=(),
        verdict=Verdict.VALID,
        command="sage-sim run pipeline",
        folder=Path("folder"),
        machine={},
        started="",
    )


@pytest.mark.parametrize("width", [80, 100, 200])
def test_nothing_is_cut_off_in_the_report(width: int) -> None:
    shown = StringIO()

    show_results(Console(file=shown, width=width), results())

    text = shown.getvalue()
    assert "\N{HORIZONTAL ELLIPSIS}" not in text
    for word in ("lines", "words", "12,345,678", "redelivered", "1,234", "p99.9", "123 ms", "tokeniser"):
        assert word in text
