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


def test_the_task_of_ray_is_loaded_when_it_is_used_and_says_what_is_missing() -> None:
    source = """
import sys
import sage_qd, sage_qd.runtime
print("ray" in sys.modules)
sys.modules["ray"] = None  # as where it is not installed
try:
    from sage_qd.runtime import RayTask
except sage_qd.BackendUnavailableError as error:
    print("pip install 'sage-qd[ray]'" in str(error))
"""

    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=60)

    assert done.stdout == "False\nTrue\n", done.stderr
