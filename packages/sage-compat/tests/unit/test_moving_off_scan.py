"""The scan: under which names old calls are found, and what is told as not sure."""

import textwrap
from pathlib import Path

import pytest

from sage_compat.moving_off.facts import UnreadableSourceError
from sage_compat.moving_off.findings import Finding
from sage_compat.moving_off.judging import Granted
from sage_compat.moving_off.scan import scan
from sage_compat.moving_off.sources import decoded, python_files


def found(folder: Path, files: dict[str, str] | None = None, *, app: str | None = None) -> list[Finding]:
    """Scan files that are written for it; ``app`` is one of them."""
    for name, text in (files or {} if app is None else {"app.py": app}).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
    return scan({path: decoded(path) for path in python_files([folder])}, Granted(namespace='"p"'))


def lines(findings: list[Finding]) -> list[tuple[int, str]]:
    return [(finding.line, finding.code) for finding in findings]


@pytest.mark.parametrize(
    "text",
    [
        'from sage.utils.queue_adapter import create_queue\ncreate_queue("python")',
        'from sage.utils.queue_adapter import create_queue as make\nmake("python")',
        'import sage.utils.queue_adapter\nsage.utils.queue_adapter.create_queue("python")',
        'import sage.utils.queue_adapter as adapter\nadapter.create_queue("python")',
        'from sage.utils import queue_adapter\nqueue_adapter.create_queue("python")',
        'from sage.utils import queue_adapter as adapter\nadapter.create_queue("python")',
        'from sage_compat import create_queue\ncreate_queue("python")',
        'import sage_compat\nsage_compat.create_queue("python")',
        'import sage_compat.queue as q\nq.create_queue("python")',
    ],
)
def test_every_way_to_import_is_known(tmp_path: Path, text: str) -> None:
    [finding] = found(tmp_path, app=text)

    assert (finding.line, finding.code, finding.is_sure) == (2, "SQC001", True)


def test_assignments_are_followed(tmp_path: Path) -> None:
    text = """
        import sage.utils.queue_adapter as adapter
        make = adapter.create_queue
        module = adapter
        make("python")
        module.create_queue("python")
    """

    calls = [finding for finding in found(tmp_path, app=text) if finding.code == "SQC001"]

    assert [finding.line for finding in calls] == [5, 6]


def test_re_exports_are_followed_from_file_to_file(tmp_path: Path) -> None:
    findings = found(
        tmp_path,
        {
            "app/__init__.py": "",
            "app/queues.py": "from sage.utils.queue_adapter import create_queue as make\n",
            "app/more.py": "from .queues import make as create\n",
            "app/work.py": 'from app.more import create\ncreate("python")\n',
        },
    )

    assert ("work.py", "SQC001") in [(Path(finding.path).name, finding.code) for finding in findings]


def test_the_place_is_exact(tmp_path: Path) -> None:
    text = """
        from sage_ext.sage_queue import SageQueue

        def work():
            return [
                SageQueue(
                    "jobs",
                    4096,
                )
            ]
    """

    [finding] = found(tmp_path, app=text)

    assert (finding.line, finding.end_line, finding.column) == (6, 9, 9)
    assert finding.text == 'SageQueue( "jobs", 4096, )'
    assert finding.replacement == 'SageQueueDescriptor("jobs", capacity_bytes=4096, namespace="p").open()'


def test_what_is_bound_twice_is_not_sure(tmp_path: Path) -> None:
    text = """
        try:
            from sage.utils.queue_adapter import create_queue
        except ImportError:
            from app import create_queue
        create_queue("python")
    """

    [finding] = found(tmp_path, app=text)

    assert not finding.is_sure
    assert finding.reason == "create_queue is bound in more than one place"


@pytest.mark.parametrize(
    "text",
    [
        'import importlib\nimportlib.import_module("sage.utils.queue_adapter")',
        '__import__("sage.utils.queue_config")',
        'from unittest.mock import patch\npatch("sage.utils.queue_adapter.create_queue")',
    ],
)
def test_names_in_texts_are_not_sure(tmp_path: Path, text: str) -> None:
    [finding] = found(tmp_path, app=text)

    assert (finding.code, finding.is_sure) == ("SQC021", False)


def test_getattr_on_an_old_module_is_found(tmp_path: Path) -> None:
    text = 'import sage.utils.queue_adapter as adapter\ngetattr(adapter, "create_" + "queue")("python")'

    [finding] = found(tmp_path, app=text)

    assert (finding.line, finding.code, finding.is_sure) == (2, "SQC022", False)


def test_an_import_of_everything_is_not_sure(tmp_path: Path) -> None:
    assert lines(found(tmp_path, app="from sage.utils.queue_adapter import *\n")) == [(1, "SQC022")]


def test_an_import_that_nothing_uses_is_found(tmp_path: Path) -> None:
    [finding] = found(tmp_path, app="from sage.utils.queue_adapter import create_queue\n")

    assert finding.reason == "nothing in this file uses it"


def test_a_function_that_is_handed_on_is_found(tmp_path: Path) -> None:
    text = "from sage.utils.queue_adapter import create_queue\nmakers = {1: create_queue}\n"

    [finding] = found(tmp_path, app=text)

    assert finding.reason == "it is handed on as a value"


def test_names_of_the_program_itself_are_left_alone(tmp_path: Path) -> None:
    text = """
        import queue
        from mine import create_queue, SageQueue

        def work(get_stats):
            create_queue("sage")
            return SageQueue("sage_queue").qsize(), queue.Queue()
    """

    assert found(tmp_path, app=text) == []


def test_a_parameter_hides_an_import(tmp_path: Path) -> None:
    text = """
        from sage.utils.queue_adapter import create_queue

        def work(create_queue):
            create_queue("python")
    """

    assert [finding.reason for finding in found(tmp_path, app=text)] == ["nothing in this file uses it"]


def test_old_methods_and_texts_of_errors_are_found(tmp_path: Path) -> None:
    text = """
        from sage_ext.sage_queue import SageQueue
        jobs = SageQueue("jobs")
        jobs.get_stats()
        try:
            jobs.get_nowait()
        except Exception as error:
            print("queue is empty" in str(error))
    """

    assert lines(found(tmp_path, app=text)) == [(3, "SQC005"), (4, "SQC012"), (8, "SQC020")]


def test_files_that_are_no_python_are_all_named_with_the_place(tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text("import sage_queue\ndef f(:\n    pass\n")
    (tmp_path / "two.py").write_text("import sage_queue\nx = (\n")

    with pytest.raises(UnreadableSourceError) as caught:
        found(tmp_path)

    first, second = str(caught.value).splitlines()
    assert first == f"{tmp_path}/one.py:2:7: invalid syntax"
    assert second == f"{tmp_path}/two.py:2:5: '(' was never closed"


def test_a_file_in_a_wrong_encoding_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_bytes(b"# \xff sage_queue\n")

    with pytest.raises(UnreadableSourceError, match=r"bad\.py"):
        found(tmp_path)


def test_folders_of_tools_are_left_out(tmp_path: Path) -> None:
    for folder in (".tox", "__pycache__", "node_modules", "env"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.py").write_text("")
    (tmp_path / "env" / "pyvenv.cfg").write_text("")
    (tmp_path / "x.py").write_text("")

    assert python_files([tmp_path]) == [tmp_path / "x.py"]
