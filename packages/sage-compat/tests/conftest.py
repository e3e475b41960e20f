"""Every test has a folder and a session of its own, and leaves no queues behind."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from sage_compat import lines, records, rules
from sage_compat.places import FOLDER_VARIABLE
from sage_compat.session import SESSION_VARIABLE
from sage_qd.ring import directory

VARIABLES = ("SAGE_COMPAT_MODE", "SAGE_COMPAT_RULES", "SAGE_COMPAT_CONFIG", "SAGE_COMPAT_QUIRKS", "RAY_ADDRESS")


@pytest.fixture(autouse=True)
def compat_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of sage-compat, for this test alone."""
    folder = tmp_path_factory.mktemp("compat")
    folder.chmod(0o700)
    monkeypatch.setenv(FOLDER_VARIABLE, str(folder))
    monkeypatch.setenv(SESSION_VARIABLE, uuid.uuid4().hex[:12])
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SAGE_COMPAT_WARN", "0")  # old calls are what most tests are about
    monkeypatch.setenv("SAGE_COMPAT_CENSUS", str(folder / "census"))
    monkeypatch.chdir(folder)
    yield folder
    for line in lines.open_lines():
        line.close()
    rules.forget_modes()
    names = [record.full_name for record in records.all_records()]
    for name in names:
        lines.destroy(name)
    ours = directory() / records.NAMESPACE
    left = [path.name for path in ours.glob("*")] if ours.exists() else []
    mine = [path for path in left if any(path.startswith(name) for name in names)]
    assert mine == [], "the test left rings behind"


@pytest.fixture
def queue_id() -> str:
    return f"test-{uuid.uuid4().hex}"
