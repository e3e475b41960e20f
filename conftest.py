"""
What tests of all packages share: patience, a collector with little to do, a clean environment, one Ray cluster.

It also runs the examples of the documentation: README.md, those of the packages, and everything in docs/.

``python`` blocks of one page run in order, in one namespace. In ``console`` blocks, the lines ``$ sage-...`` and
``$ python ...`` must end with exit code 0; other commands (make, pip, git) change the machine and are not run.
"""

import gc
import os
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from sybil import Example, Sybil
from sybil.parsers.myst import CodeBlockParser, PythonCodeBlockParser, SkipParser

LIMIT_SECONDS = 120

# Pages about the old interface call it on purpose; its census is for the user's programs.
os.environ.setdefault("SAGE_COMPAT_WARN", "0")
os.environ.setdefault("SAGE_COMPAT_CENSUS", "0")

# On a busy machine an example takes as long as it takes; what hangs is ended by the time limit of its test.
hypothesis.settings.register_profile("patient", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("patient")


def pytest_configure() -> None:
    """Let Ctrl-C reach the programs of tests: a shell ignores it for what it runs in the background, and all below."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Know ``--long``, the form for a release."""
    parser.addoption("--long", action="store_true", help="run the tests that are marked as long, too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is marked as long, unless it is asked for."""
    if config.getoption("--long"):
        return
    left_out = [item for item in items if item.get_closest_marker("long")]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


def pytest_collection_finish() -> None:
    """Leave what lives till the end to no collector: many tests call it, and looking at all modules takes 60 ms."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def variables_are_put_back() -> Iterator[None]:
    """No test leaves a variable of ours in the environment: later ones, and their programs, would go by it."""
    before = ours()
    yield
    assert ours() == before


def ours() -> dict[str, str]:
    """Return the variables that the packages read."""
    return {name: value for name, value in os.environ.items() if name.startswith("SAGE_")}


# -- Ray --------------------------------------------------------------------------------------------------------------

# Read by Ray when it is imported, as some test files do, and inherited by its processes.
os.environ.update(
    RAY_USAGE_STATS_ENABLED="0",
    RAY_enable_metrics_collection="0",
    RAY_AUTH_MODE="token",
    RAY_AUTH_TOKEN=uuid.uuid4().hex * 2,  # or Ray would write one into the home directory
    RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0",
    RAY_DEDUP_LOGS="0",
)
RAY_NODE: dict[str, Any] = {"num_cpus": 2, "object_store_memory": 100_000_000, "include_dashboard": False}


@pytest.fixture(scope="session")
def cluster() -> Iterator[Any]:
    """One Ray cluster of two nodes for the whole run, on this machine; nothing of it is left."""
    # The path of a socket may have 107 characters, and Ray appends about 90.
    folder = tempfile.mkdtemp(prefix="r", dir="/tmp")
    os.environ["RAY_TMPDIR"] = folder
    Path(folder, "ray").mkdir()
    ray = pytest.importorskip("ray", reason="Ray cannot be installed here")
    from ray.cluster_utils import Cluster

    started = Cluster(initialize_head=True, head_node_args=RAY_NODE)
    try:
        started.add_node(**RAY_NODE)
        ray.init(address=started.address, logging_level="error", log_to_driver=False)
        started.wait_for_nodes()
        yield started
    finally:
        ray.shutdown()
        started.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def other_node(cluster: Any) -> str:
    """Return the id of the node on which the test is not."""
    import ray

    here = ray.get_runtime_context().get_node_id()
    (there,) = [node["NodeID"] for node in ray.nodes() if node["Alive"] and node["NodeID"] != here]
    return str(there)


# -- Examples ---------------------------------------------------------------------------------------------------------


def run_console(example: Example) -> None:
    """Run the commands of a ``console`` block that use the packages."""
    for line in example.parsed.splitlines():
        words = shlex.split(line.removeprefix("$ "), comments=True) if line.startswith("$ ") else []
        if not words:
            continue
        if words[0] == "python":
            words[0] = sys.executable
        elif words[0].startswith("sage-"):
            words[0] = str(Path(sysconfig.get_path("scripts"), words[0]))
        else:
            continue
        ran = subprocess.run(words, capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False)
        assert ran.returncode == 0, f"{line}\nexit code {ran.returncode}\n{ran.stdout}{ran.stderr}"


def make_temporary_folder(namespace: dict[str, Any]) -> None:
    """Let the page's temporary files, and those of the programs it starts, lie in a folder of the page."""
    folder = namespace["temporary_folder"] = tempfile.TemporaryDirectory(prefix="docs-")
    os.environ["TMPDIR"] = tempfile.tempdir = folder.name


def remove_temporary_folder(namespace: dict[str, Any]) -> None:
    """Remove what the page left there."""
    del os.environ["TMPDIR"]
    tempfile.tempdir = None
    namespace["temporary_folder"].cleanup()


pytest_collect_file = Sybil(
    parsers=[PythonCodeBlockParser(), CodeBlockParser("console", run_console), SkipParser()],
    patterns=["README.md", "docs/*.md", "docs/**/*.md", "packages/*/README.md"],
    path=str(Path(__file__).parent),
    setup=make_temporary_folder,
    teardown=remove_temporary_folder,
).pytest()
