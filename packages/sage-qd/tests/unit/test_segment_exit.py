"""The last process that leaves removes a named segment, however it was started and however it ends."""

import multiprocessing
import os
import resource
import signal
import subprocess
import sys
from importlib import import_module
from typing import Any

import pytest

from sage_qd.ring import attach, create, list_segments


def outlive(name: str, namespace: str, ready: Any, go: Any) -> None:
    """Attach, wait until the parent has left, and end without closing anything."""
    ring = attach(name, namespace=namespace)
    ready.set()
    go.wait(60)
    assert ring.qsize() == 1


@pytest.mark.parametrize("package", ["multiprocessing", "multiprocess"])
@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_a_child_of_multiprocessing_that_leaves_last_removes_the_segment(
    method: str, package: str, namespace: str
) -> None:
    """The second package is a copy of the first, with a pickle for lambdas, and its children end in the same way."""
    context = import_module(package).get_context(method)
    ready, go = context.Event(), context.Event()
    ring = create("ring", namespace=namespace)
    ring.put(b"x")
    child = context.Process(target=outlive, args=("ring", namespace, ready, go))
    child.start()
    assert ready.wait(60)

    ring.close()
    assert [info.name for info in list_segments(namespace)] == ["ring"]
    go.set()
    child.join(60)

    assert child.exitcode == 0
    assert list_segments(namespace) == []


def test_a_child_without_a_descriptor_of_its_own_leaves_the_name_to_the_parent(namespace: str) -> None:
    """At the fork no descriptor is to be had: the child shares the parent's lock, and must not take the name along."""
    ring = create("ring", namespace=namespace)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(os.listdir("/proc/self/fd")) - 1
    resource.setrlimit(resource.RLIMIT_NOFILE, (used, hard))
    try:
        pid = os.fork()
        if pid == 0:
            ring.put(b"from the child")
            ring.close()
            os._exit(0)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert os.waitpid(pid, 0)[1] == 0

    with attach("ring", namespace=namespace) as other:
        assert other.get(timeout=10) == b"from the child"
    ring.close()


def test_an_interpreter_that_ends_with_an_open_ring_removes_the_segment(namespace: str) -> None:
    program = (
        "import sys; from sage_qd.ring import create; ring = create('ring', namespace=sys.argv[1]); ring.put(b'x')"
    )

    subprocess.run([sys.executable, "-c", program, namespace], check=True, timeout=60)

    assert list_segments(namespace) == []


def test_what_a_killed_process_leaves_is_found_by_the_next(namespace: str) -> None:
    program = (
        "import os, signal, sys; from sage_qd.ring import create; ring = create('ring', namespace=sys.argv[1]);"
        "ring.put(b'x'); os.kill(os.getpid(), signal.SIGKILL)"
    )

    ended = subprocess.run([sys.executable, "-c", program, namespace], check=False, timeout=60)

    assert ended.returncode == -signal.SIGKILL
    with attach("ring", namespace=namespace) as ring:
        assert ring.get(timeout=10) == b"x"
    assert list_segments(namespace) == []
