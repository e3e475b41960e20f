"""Any history of one thread gives the same on the old path and on the new one."""

from both_ways import BothWays
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test


def test_both_ways_answer_alike() -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        BothWays,
        settings=settings(
            max_examples=60, stateful_step_count=60, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
