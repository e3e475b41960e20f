"""Warnings at the lines that make old calls: which line, how often, when at all, and what they say."""

import contextlib
import functools
import os
import subprocess
import sys
import textwrap
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import pytest

from sage_compat.moving_off import SageLegacyQueueWarning, warn_of_call
from sage_compat.moving_off.call_sites import calling_site

OLD_SURFACE = """
from sage_compat.moving_off import warn_of_call

def create_queue(backend=None, **kwargs):
    _told("create_queue", backend, kwargs)
    return "a queue"

def _told(function, backend, kwargs):
    warn_of_call(function, backend, kwargs)

class SageQueue:
    def __init__(self, name, maxsize=1 << 20):
        _told("SageQueue", None, {"name": name, "maxsize": maxsize})

    def get_stats(self):
        _told("SageQueue.get_stats", None, {})
"""


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the environment of the tests says of warnings, these tests say it themselves."""
    monkeypatch.delenv("SAGE_COMPAT_WARN", raising=False)


@pytest.fixture
def old() -> ModuleType:
    """Functions as the old interface has them: in a module of ``sage_compat``, with a helper in between."""
    module = ModuleType("sage_compat.surface_of_a_test")
    exec(compile(OLD_SURFACE, "surface.py", "exec"), vars(module))
    return module


@pytest.fixture
def told() -> Iterator[list[warnings.WarningMessage]]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield caught


def this_line() -> int:
    return sys._getframe(1).f_lineno


def place(warning: warnings.WarningMessage) -> tuple[str, int]:
    return Path(warning.filename).name, warning.lineno


def test_it_points_at_the_line_of_the_caller(old: ModuleType, told) -> None:
    line = this_line() + 1
    old.create_queue(backend="sage", name="jobs", maxsize=4096)

    [warning] = told
    assert warning.category is SageLegacyQueueWarning
    assert place(warning) == ("test_moving_off_warnings.py", line)


def test_it_says_the_code_the_exact_replacement_and_the_page(old: ModuleType, told) -> None:
    old.create_queue(backend="sage", name="jobs", maxsize=4096)

    said = str(told[0].message)
    assert said.startswith("SQC002: create_queue() is the old queue API; ")
    assert "write SageQueueDescriptor('jobs', capacity_bytes=4096).open()" in said
    assert said.endswith("docs/how-to/move-off-the-old-api.md#sqc002")


def test_it_carries_code_and_site_for_programs(old: ModuleType, told) -> None:
    old.SageQueue("jobs")

    message = told[0].message
    assert isinstance(message, SageLegacyQueueWarning)
    assert message.code == "SQC005"
    assert message.site is not None
    assert message.site.function == "test_it_carries_code_and_site_for_programs"


def test_it_comes_once_for_each_line(old: ModuleType, told) -> None:
    for _ in range(5):
        old.create_queue(name="a")
    old.create_queue(name="a")

    assert len(told) == 2


def test_every_thread_counts_for_the_same_line(old: ModuleType, told) -> None:
    def work() -> None:
        old.create_queue(name="a")

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(told) == 1


def test_an_alias_is_seen_through(old: ModuleType, told) -> None:
    make = old.create_queue
    line = this_line() + 1
    make(name="a")

    assert place(told[0])[1] == line


def test_a_partial_is_seen_through(old: ModuleType, told) -> None:
    make = functools.partial(functools.partial(old.create_queue, "python"), name="a")
    line = this_line() + 1
    make()

    assert place(told[0])[1] == line


def decorated(function: Callable) -> Callable:
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)

    return wrapper


def test_decorators_are_seen_through_however_many(old: ModuleType, told) -> None:
    make = decorated(decorated(functools.lru_cache(old.create_queue)))
    line = this_line() + 1
    make(name="a")

    assert place(told[0])[1] == line


def test_a_decorator_without_wraps_is_seen_through(old: ModuleType, told) -> None:
    def quietly(function):
        return lambda *args, **kwargs: function(*args, **kwargs)

    make = quietly(old.SageQueue)
    line = this_line() + 1
    make("a")

    assert place(told[0])[1] == line


def test_a_caller_that_is_handed_the_function_is_seen_through(old: ModuleType, told) -> None:
    def retry(function, *args, **kwargs):
        return function(*args, **kwargs)

    line = this_line() + 1
    retry(old.create_queue, name="a")

    assert place(told[0])[1] == line


def test_a_context_manager_of_the_standard_library_is_seen_through(old: ModuleType, told) -> None:
    with contextlib.ExitStack() as stack:
        stack.callback(old.create_queue, name="a")
        line = this_line() - 1

    assert abs(place(told[0])[1] - line) <= 1


def test_a_helper_of_the_program_is_the_line_to_change(old: ModuleType, told) -> None:
    def queue_for(name: str):
        return old.create_queue(name=name)

    line = this_line() - 2
    queue_for("a")

    assert place(told[0])[1] == line


def test_a_function_inside_one_that_imports_is_the_line_to_change(old: ModuleType, told) -> None:
    create_queue = old.create_queue

    def work(name: str):
        return create_queue(name=name)

    line = this_line() - 2
    work("a")

    assert place(told[0])[1] == line


def test_a_method_of_a_pool_has_a_place_too(old: ModuleType, told) -> None:
    with ThreadPoolExecutor(1) as pool:
        pool.submit(old.create_queue, name="a").result()

    assert len(told) == 1


def test_a_filter_that_makes_errors_does_so_every_time(old: ModuleType) -> None:
    def call() -> None:
        old.create_queue(name="a")

    with warnings.catch_warnings():
        warnings.simplefilter("error", SageLegacyQueueWarning)
        for _ in range(2):
            with pytest.raises(SageLegacyQueueWarning):
                call()


def test_a_frame_is_not_kept() -> None:
    site, frame = calling_site(lambda module: module == "no such module")

    assert site.line > 0
    del frame


# -- When -------------------------------------------------------------------------------------------------------------


PROGRAM = "import types\nsurface = types.ModuleType('sage_compat.surface')\nexec({surface!r}, vars(surface))\n{body}\n"


def run(tmp_path: Path, body: str, *flags: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    program = tmp_path / "program.py"
    program.write_text(PROGRAM.format(surface=OLD_SURFACE, body=body))
    left = {name: value for name, value in os.environ.items() if name not in ("PYTEST_CURRENT_TEST", "PYTHONDEVMODE")}
    return subprocess.run(
        [sys.executable, *flags, program],
        capture_output=True,
        text=True,
        timeout=60,
        env=left | environment,
        check=False,
    )


def test_it_is_off_in_programs(tmp_path: Path) -> None:
    assert run(tmp_path, "surface.create_queue(name='a')").stderr == ""


@pytest.mark.parametrize("word", ["1", "true", "YES"])
def test_the_environment_turns_it_on(tmp_path: Path, word: str) -> None:
    (tmp_path / "lib.py").write_text("def make(old):\n    return old.create_queue(name='a')\n")

    done = run(tmp_path, "import lib\nlib.make(surface)", SAGE_COMPAT_WARN=word)

    assert "lib.py:2: SageLegacyQueueWarning: SQC004" in done.stderr
    assert done.returncode == 0


def test_the_environment_turns_it_into_errors(tmp_path: Path) -> None:
    done = run(tmp_path, "surface.create_queue(name='a')", SAGE_COMPAT_WARN="error")

    assert done.returncode == 1
    assert "SageLegacyQueueWarning: SQC004" in done.stderr


def test_filters_of_the_program_go_before_the_environment(tmp_path: Path) -> None:
    body = """
        import warnings
        from sage_compat.moving_off import SageLegacyQueueWarning
        warnings.simplefilter("ignore", SageLegacyQueueWarning)
        surface.create_queue(name="a")
    """

    assert run(tmp_path, textwrap.dedent(body), SAGE_COMPAT_WARN="1").stderr == ""


def test_an_unknown_word_in_the_environment_is_an_error(tmp_path: Path) -> None:
    done = run(tmp_path, "surface.create_queue(name='a')", SAGE_COMPAT_WARN="maybe")

    assert "SAGE_COMPAT_WARN must be one of 1, true, yes, error, 0, false, no, not 'maybe'" in done.stderr


def test_it_is_on_in_unittest(tmp_path: Path) -> None:
    program = tmp_path / "test_it.py"
    body = """
        import types, unittest
        surface = types.ModuleType("sage_compat.surface")
        exec(SURFACE, vars(surface))

        class Case(unittest.TestCase):
            def test_it(self):
                surface.create_queue(name="a")
    """
    program.write_text(f"SURFACE = {OLD_SURFACE!r}\n{textwrap.dedent(body)}")
    left = {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}

    done = subprocess.run(
        [sys.executable, "-m", "unittest", "test_it"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        env=left,
    )

    assert "SageLegacyQueueWarning: SQC004" in done.stderr


def test_zero_turns_it_off_in_tests(old: ModuleType, told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGE_COMPAT_WARN", "0")

    old.create_queue(name="a")

    assert told == []


def test_called_by_nobody_outside_is_a_broken_rule() -> None:
    with pytest.raises(AssertionError, match="comes from outside"):
        calling_site(lambda module: True)


def test_it_is_an_observer_of_the_surface() -> None:
    with pytest.warns(SageLegacyQueueWarning, match="SQC001"):
        warn_of_call("create_queue", "python", {"maxsize": 3})
