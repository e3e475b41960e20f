"""Nothing of Ray queues is left behind; the cluster is that of the whole run, in the conftest.py at the root."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session", autouse=True)
def nothing_is_left(cluster: Any) -> Iterator[None]:
    """Look for rings that outlive their actors."""
    from sage_qd import clean_ray
    from sage_qd import ring as rings
    from sage_qd.testing import wait_for

    yield
    clean_ray(discard=True)
    folder = Path(rings.directory(), "ray")
    wait_for(lambda: bool(rings.clean_segments("ray")) or not folder.exists() or not any(folder.iterdir()), "rings go")
