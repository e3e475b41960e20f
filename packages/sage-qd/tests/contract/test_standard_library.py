"""CPython's own tests of queues, run against every kind; what may differ is listed in sage_qd.testing.deviations."""

import importlib
import sys
import unittest
from dataclasses import replace

import pytest
from contract_kinds import KINDS, Kind

from sage_qd import LocalQueue, SageQueue
from sage_qd.testing import (
    standard_multiprocessing_tests,
    standard_queue_tests,
    standard_simple_queue_tests,
)
from sage_qd.testing.deviations import DEVIATIONS, SUITES_LEFT_OUT, Deviation

pytest.importorskip("test.test_queue", reason="this Python was installed without its tests")


def suites_of(kind: Kind) -> dict[str, type[unittest.TestCase]]:
    """Every suite for one kind, by the name that the class has in this module."""
    given = (kind.open, kind.capabilities, kind.surroundings)
    suites = {
        f"Test{kind.title}AsQueue": standard_queue_tests(*given),
        f"Test{kind.title}AsSimpleQueue": standard_simple_queue_tests(*given),
    }
    for method in kind.start_methods:
        name = f"Test{kind.title}BetweenProcessesBy{method.capitalize()}"
        suites[name] = standard_multiprocessing_tests(*given, start_method=method)
    if not kind.start_methods:
        suites[f"Test{kind.title}BetweenThreads"] = standard_multiprocessing_tests(*given)
    return {name: type(name, (suite,), {"__module__": __name__}) for name, suite in suites.items()}


for present in KINDS:
    globals().update({} if present.missing else suites_of(present))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_every_kind_is_there(kind: Kind) -> None:
    if kind.missing:
        pytest.skip(f"{kind.name} needs {', '.join(kind.missing)}")


@pytest.mark.parametrize("deviation", DEVIATIONS, ids=lambda deviation: f"{deviation.suite}-{deviation.test}")
def test_each_deviation_is_about_a_test_that_there_is(deviation: Deviation) -> None:
    module, _, suite = deviation.suite.rpartition(".")
    tests = getattr(importlib.import_module(module), suite)
    assert hasattr(tests, deviation.test) == (sys.version_info[:2] >= deviation.since)


@pytest.mark.parametrize("name", SUITES_LEFT_OUT)
def test_each_suite_left_out_is_one_that_there_is(name: str) -> None:
    module, _, suite = name.rpartition(".")
    assert hasattr(importlib.import_module(module), suite)


def test_a_deviation_that_passes_fails_the_run() -> None:
    """A queue that counts unfinished tasks, and says that it does not."""
    untrue = replace(LocalQueue.capabilities, joins=False)
    case = standard_queue_tests(LocalQueue, untrue)("test_queue_join")
    result = case.run()
    assert result is not None
    assert [text.splitlines()[-1] for _, text in result.failures] == [
        "AssertionError: test_queue_join passes on this kind: the entry in sage_qd.testing.deviations is stale"
    ]


def test_a_test_that_fails_otherwise_than_listed_fails_the_run() -> None:
    """A queue that is broken where a deviation is listed."""

    def broken(maxsize: int) -> LocalQueue[object]:
        raise OSError("broken")

    result = standard_queue_tests(broken, SageQueue.capabilities)("test_queue_join").run()
    assert result is not None
    assert [text.splitlines()[-1] for _, text in result.errors] == ["OSError: broken"]
