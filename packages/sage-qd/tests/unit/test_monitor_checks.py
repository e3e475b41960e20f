"""The doctor's checks, on this machine as it is and with something wrong."""

import os
import resource
from collections.abc import Callable
from pathlib import Path

import pytest

from sage_qd.monitor.checks import EXTRAS, Check, Level, checked_machine
from sage_qd.ring import Ring, clean_segments, directory

pytestmark = pytest.mark.timeout(60)
FEW = 900  # open files: not enough, and more than this process has


def check(name: str) -> Check:
    """The one check of that name."""
    (found,) = [each for each in checked_machine() if each.name == name]
    return found


def test_everything_is_looked_at() -> None:
    names = [each.name for each in checked_machine()]

    expected = {"python", "kernel", "shared memory", "folders", "left-overs", "segments", "open files", "locked memory"}
    assert {*expected, "clock", "PID namespace", "tracing", *(f"extra {name}" for name in EXTRAS)} <= set(names)


def test_what_is_not_ok_says_what_to_do() -> None:
    assert all(each.advice for each in checked_machine() if each.level is not Level.OK)


def test_leftovers_are_a_warning(namespace: str, start: Callable) -> None:
    process = start('ring = create("left", namespace=sys.argv[1])\nsay("made")\nhear()')
    process.hear()
    process.kill()

    found = check("left-overs")

    assert found.level is Level.WARN
    assert "sage-qd clean" in found.advice
    clean_segments(namespace)


def test_a_folder_that_others_may_enter_fails(ring: Ring, namespace: str) -> None:
    folder = Path(directory(), namespace)
    folder.chmod(0o755)

    found = check("folders")

    folder.chmod(0o700)
    assert found.level is Level.FAIL
    assert f"{folder} has mode 0755" in found.found


def test_a_damaged_segment_fails(ring: Ring, namespace: str) -> None:
    text = Path(directory(), namespace, "text")
    text.write_text("no segment")
    text.chmod(0o600)

    found = check("segments")

    text.unlink()
    assert found.level is Level.FAIL
    assert f"{namespace}/text" in found.found


def test_few_open_files_are_a_warning() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (FEW, hard))
    try:
        found = check("open files")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    assert (found.level, found.found.split()[0]) == (Level.WARN, str(FEW))


def test_a_queue_of_another_pid_namespace_fails(ring: Ring, start: Callable, unshare: Callable) -> None:
    process = start(
        """
from sage_qd.monitor.checks import checked_machine
say(*[each.level for each in checked_machine() if each.name == "PID namespace"])
""",
        prefix=unshare("--pid", "--fork", "--mount-proc"),
    )

    assert process.hear() == "fail"
    assert check("PID namespace").found.startswith(str(os.stat("/proc/self/ns/pid").st_ino))
