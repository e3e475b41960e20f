"""The table of replacements: what every row promises is there, and new calls say what old ones meant."""

import ast
import re

import pytest

import sage_qd
from sage_compat.moving_off.new_calls import UNKNOWN, Argument, CannotProveError, arranged, new_call, of_values
from sage_compat.moving_off.replacements import TABLE, code_of_call, is_old_module, replacement_of, shortened

CODES = [row.code for row in TABLE]


def test_codes_count_up_without_a_gap() -> None:
    assert [f"SQC{number:03}" for number in range(1, len(TABLE) + 1)] == CODES


@pytest.mark.parametrize("row", TABLE, ids=CODES)
def test_a_row_names_only_classes_and_functions_that_exist(row) -> None:
    said = f"{row.new} {row.note}"

    named = set(re.findall(r"\b[A-Z]\w*(?:Descriptor|Pool)\b|\bsage_qd\.(\w+)", said)) - {""}

    assert named <= {*sage_qd.__all__, "ring"}


@pytest.mark.parametrize("row", [row for row in TABLE if row.is_automatic], ids=lambda row: row.code)
def test_what_the_codemod_writes_is_python(row) -> None:
    ast.parse(row.new)


@pytest.mark.parametrize(
    ("whole", "short"),
    [
        ("sage.utils.queue_adapter.create_queue", "adapter.create_queue"),
        ("sage.utils.queue.get_queue_backend", "adapter.get_queue_backend"),
        ("sage_ext.sage_queue.python.sage_queue.SageQueue", "ring.SageQueue"),
        ("sage_queue.create_queue", "ring.create_queue"),
        ("sage.kernel.enterprise.sage_queue.SageQueueRef", "ring.SageQueueRef"),
        ("sage.platform.queue.base_queue_descriptor.BaseQueueDescriptor", "descriptors.BaseQueueDescriptor"),
        ("sage_compat.create_queue", "adapter.create_queue"),
        ("sage_compat.set_mode", None),
        ("sage.core.environment.Environment", None),
        ("queue.Queue", None),
        ("sage_queue", None),
    ],
)
def test_old_names_are_known_by_their_whole_name(whole: str, short: str | None) -> None:
    assert shortened(whole) == short


def test_modules_are_no_names() -> None:
    assert is_old_module("sage_ext.sage_queue.python.sage_queue")
    assert is_old_module("sage.runtime.communication.queue")
    assert not is_old_module("sage_ext.sage_queue.SageQueue")
    assert not is_old_module("sage_compat")


@pytest.mark.parametrize(
    ("function", "backend", "keywords", "code"),
    [
        ("create_queue", "python_queue", {}, "SQC001"),
        ("create_queue", "sage_mmap_queue", {}, "SQC002"),
        ("create_queue", "ray", {}, "SQC003"),
        ("create_queue", None, {"name": "jobs"}, "SQC004"),
        ("create_queue", None, {"queue_type": "python"}, "SQC001"),
        ("SageQueue", None, {}, "SQC005"),
        ("sage_queue.create_queue", None, {}, "SQC006"),
        ("SageQueueManager.create_queue", None, {}, "SQC011"),
        ("SageQueue.get_stats", None, {}, "SQC012"),
        ("something_else", None, {}, "SQC022"),
    ],
)
def test_a_call_at_run_time_has_the_row_of_its_backend(function, backend, keywords, code) -> None:
    assert code_of_call(function, backend, keywords).code == code


# -- New calls --------------------------------------------------------------------------------------------------------


def written(short: str, *positional, usual: str | None = None, **keywords) -> str:
    """The new call for these values; ``usual`` is the namespace of the project."""
    arguments = arranged(short, list(of_values(dict(enumerate(positional))).values()), of_values(keywords))
    return new_call(short, arguments, usual).text()


@pytest.mark.parametrize(
    ("short", "keywords", "new"),
    [
        ("adapter.create_queue", {"backend": "python"}, "LocalQueueDescriptor().open()"),
        (
            "adapter.create_queue",
            {"backend": "python", "maxsize": 9, "name": "a"},
            "LocalQueueDescriptor(maxsize=9).open()",
        ),
        ("adapter.create_queue", {"queue_type": "ray", "maxsize": 9}, "RayQueueDescriptor(maxsize=9).open()"),
        ("adapter.create_queue", {"backend": "sage", "name": "a"}, "SageQueueDescriptor('a').open()"),
        ("adapter.create_queue", {"name": "a"}, "AutoQueueDescriptor('a').open()"),
        ("ring.SageQueue", {"name": "a", "maxsize": 4096}, "SageQueueDescriptor('a', capacity_bytes=4096).open()"),
        ("ring.SageQueue", {"name": "a", "maxsize": 1 << 20}, "SageQueueDescriptor('a').open()"),
        ("ring.SageQueue", {"name": "a", "auto_cleanup": False}, "SageQueueDescriptor('a', auto_cleanup=False).open()"),
        ("ring.SageQueue", {"name": "a", "namespace": "b"}, "SageQueueDescriptor('a', namespace='b').open()"),
        ("ring.create_queue", {"name": "a", "maxsize": 0}, "SageQueueDescriptor('a').open()"),
    ],
)
def test_new_calls_keep_what_the_old_ones_meant(short, keywords, new) -> None:
    assert written(short, **keywords) == new


def test_queues_without_a_namespace_get_that_of_the_project() -> None:
    assert written("ring.SageQueue", "a", usual="'p'") == "SageQueueDescriptor('a', namespace='p').open()"
    assert (
        written("ring.SageQueue", "a", usual="'p'", namespace="b") == "SageQueueDescriptor('a', namespace='b').open()"
    )


def test_the_shared_namespace_stays_the_shared_one() -> None:
    new = written("ring.SageQueue", "a", 4096, True, None, False, usual="'p'")

    assert new == "SageQueueDescriptor('a', capacity_bytes=4096, enable_multi_tenant=False).open()"


@pytest.mark.parametrize(
    ("short", "keywords", "reason"),
    [
        ("adapter.create_queue", {"backend": "sage"}, "no name"),
        ("adapter.create_queue", {"backend": "redis", "name": "a"}, "raises ValueError"),
        ("adapter.create_queue", {"name": "a", "auto_cleanup": False}, "needs a kind"),
        ("adapter.create_queue", {"backend": "sage", "queue_type": "sage", "name": "a"}, "both backend and queue_type"),
        ("adapter.create_queue", {"backend": "python", "maxsize": "9"}, "no whole number"),
        ("adapter.create_queue", {"backend": "python", "colour": 9}, "never a parameter"),
        ("ring.SageQueue", {"name": "a", "maxsize": 0}, "was no size"),
        ("ring.SageQueue", {"name": ""}, "is no text"),
    ],
)
def test_calls_that_mean_something_else_are_refused_with_the_reason(short, keywords, reason) -> None:
    with pytest.raises(CannotProveError, match=reason):
        written(short, **keywords)


def test_an_argument_that_is_left_out_must_have_no_effect() -> None:
    arguments = {"backend": Argument('"python"', "python"), "name": Argument("next_name()", UNKNOWN, is_pure=False)}

    with pytest.raises(CannotProveError, match=r"name=next_name\(\) was ignored"):
        new_call("adapter.create_queue", arguments)


def test_a_namespace_that_may_be_none_is_refused() -> None:
    arguments = {"name": Argument("n"), "namespace": Argument("config.namespace")}

    with pytest.raises(CannotProveError, match=r"config\.namespace is None is known at run time only"):
        new_call("ring.SageQueue", arguments)


def test_the_row_of_a_method_is_found_by_its_name() -> None:
    assert replacement_of("queue.get_stats").code == "SQC012"
