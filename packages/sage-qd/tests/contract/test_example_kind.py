"""The queue kind of the how-to page, as its reader has it: installed, found by its entry point, under the contract."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[4] / "docs" / "how-to" / "example-kind"
LIMIT_SECONDS = 280

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Install the example beside the packages under test, and run Python where it is installed."""
    if not EXAMPLE.is_dir():
        pytest.skip("the documentation is not beside these tests")
    source, site = tmp_path_factory.mktemp("source") / "kind", tmp_path_factory.mktemp("site")
    shutil.copytree(EXAMPLE, source)
    environment = os.environ | {"PYTHONPATH": str(site), "SAGE_QD_SQLITE": str(tmp_path_factory.mktemp("queues"))}

    def python(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *words]
        return subprocess.run(
            command, cwd=source, env=environment, capture_output=True, text=True, timeout=LIMIT_SECONDS
        )

    installed = python("-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site), str(source))
    assert installed.returncode == 0, installed.stderr
    return python


USE = """
import json, sys
import sage_qd
document = {"version": 1, "queue_id": "jobs", "queue_type": "sqlite_queue", "class_name": "SQLiteQueueDescriptor",
            "metadata": {"maxsize": 2, "durable": False}, "can_serialize": True, "created_timestamp": 1.5}
assert "sage_qd_sqlite" not in sys.modules
descriptor = sage_qd.BaseQueueDescriptor.from_json(json.dumps(document))
descriptor.put_many(["a", "b"])
print(type(descriptor).__module__, descriptor.full(), descriptor.get_many(5), descriptor.explain().choice)
descriptor.close()
"""


def test_a_descriptor_of_the_installed_kind_is_read_and_used(run: Run) -> None:
    ran = run("-c", USE)

    assert (ran.stdout, ran.stderr) == ("sage_qd_sqlite True ['a', 'b'] sqlite_queue\n", "")


def test_the_installed_kind_keeps_the_contract(run: Run) -> None:
    ran = run("-W", "error", "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests")

    assert ran.returncode == 0, ran.stdout + ran.stderr
    passed = re.search(r"(\d+) passed", ran.stdout)
    assert passed is not None
    assert int(passed[1]) > 150, ran.stdout
