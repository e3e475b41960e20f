"""Importing the package, and reading a descriptor, loads none of the heavy libraries."""

import subprocess
import sys

import pytest

HEAVY = (
    *("ray", "zmq", "numpy", "textual", "rich", "rich_click", "click", "prometheus_client", "opentelemetry"),
    *("multiprocess", "psutil", "multiprocessing"),
)


@pytest.mark.parametrize(
    "source",
    [
        "import sage_qd",
        "import sage_qd; sage_qd.resolve_descriptor({'queue_id': 'q', 'queue_type': 'sage_queue', 'metadata': {}})",
        "import sage_qd; sage_qd.SageQueue",
        "import sage_qd.monitor",
    ],
)
def test_no_heavy_library_is_loaded(source: str) -> None:
    look = f"\nimport sys; print(sorted(set({HEAVY!r}) & set(sys.modules)))"

    done = subprocess.run([sys.executable, "-c", source + look], capture_output=True, text=True, timeout=60)

    assert done.stdout == "[]\n", done.stderr
