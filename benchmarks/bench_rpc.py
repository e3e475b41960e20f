"""
Queues at a server, beside a bare socket pair and a manager's queue of the same run; see rpc_channels.py.

    pytest benchmarks/bench_rpc.py
"""

from __future__ import annotations

import pytest
from rpc_channels import figures, shown


def bench_spsc_throughput_64_bytes_over_a_socket(capsys: pytest.CaptureFixture[str]) -> None:
    measured = figures()

    with capsys.disabled():
        print(f"\n{shown(measured)}")
    assert all(rate > 0 for rate in measured.values())
