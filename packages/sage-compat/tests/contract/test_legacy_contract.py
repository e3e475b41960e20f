"""The old path obeys the contract of every kind, so a queue can be moved to it and from it."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sage_compat.legacy.descriptor import LegacyQueueDescriptor
from sage_compat.places import FOLDER_VARIABLE
from sage_qd.testing import DescriptorContract, ProcessContract, QueueContract


@pytest.fixture(scope="module", autouse=True)
def one_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One folder for all: forked servers of multiprocessing keep the environment that they were started with."""
    folder = tmp_path_factory.mktemp("contract")
    folder.chmod(0o700)
    before = os.environ.get(FOLDER_VARIABLE)
    os.environ[FOLDER_VARIABLE] = str(folder)
    yield folder
    assert [path.name for path in (folder / "queues").iterdir()] == []
    if before is None:
        del os.environ[FOLDER_VARIABLE]
    else:
        os.environ[FOLDER_VARIABLE] = before


@pytest.fixture(autouse=True)
def compat_folder(one_folder: Path) -> Path:
    return one_folder


class TestLegacyQueue(QueueContract):
    def make_descriptor(self, **settings: Any) -> LegacyQueueDescriptor:
        return LegacyQueueDescriptor(**settings)


class TestLegacyQueueDescriptor(DescriptorContract):
    def make_descriptor(self, **settings: Any) -> LegacyQueueDescriptor:
        return LegacyQueueDescriptor(**settings)


class TestLegacyQueueBetweenProcesses(ProcessContract):
    def make_descriptor(self, **settings: Any) -> LegacyQueueDescriptor:
        return LegacyQueueDescriptor(**settings)
