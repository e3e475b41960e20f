"""Fixtures for tests with rings: a namespace that must be left clean, rings that close, processes that end."""

import gc
import itertools
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from sage_qd import ring as rings

PRELUDE = """
import os, signal, sys, threading
from sage_qd import errors
from sage_qd.ring import *

def say(*words):
    print(*words, flush=True)

def hear():
    return sys.stdin.readline().strip()
"""
WATCHDOG_SECONDS = 60
_numbers = itertools.count()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "stress: several processes under contention and kill; bounded, with a seed")


def wait_until(condition: Callable[[], Any]) -> Any:
    """Look again and again until the condition holds; the answer is what it returned."""
    end = time.monotonic() + WATCHDOG_SECONDS
    while not (answer := condition()):
        assert time.monotonic() < end, "the condition never came true"
        time.sleep(0.001)
    return answer


class OtherProcess:
    """A Python process that runs a few lines after PRELUDE and talks with the test in lines of text."""

    def __init__(self, source: str, *arguments: object, prefix: Sequence[str] = ()) -> None:
        self.process = subprocess.Popen(
            [*prefix, sys.executable, "-c", PRELUDE + source, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.errors = ""

    @property
    def pid(self) -> int:
        return self.process.pid

    def hear(self) -> str:
        """Wait for its next line."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"it ended instead of answering: {self.process.communicate()[1]}"
        return line.strip()

    def tell(self, line: object = "go") -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        """End it by SIGKILL, and reap it."""
        self.process.kill()
        self.process.wait()

    def end(self) -> int:
        """Wait for its end; the exit code. What it wrote about errors is in `errors`."""
        _, self.errors = self.process.communicate(timeout=WATCHDOG_SECONDS)
        return self.process.returncode

    def finish(self) -> None:
        """Wait for a good end."""
        assert self.end() == 0, self.errors

    def clean_up(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
        self.process.communicate()


@pytest.fixture
def namespace() -> Iterator[str]:
    """Yield a namespace of this test alone; the test fails when it leaves a file in it."""
    name = f"test-{os.getpid()}-{next(_numbers)}"
    yield name
    gc.collect()
    folder = Path(rings.directory(), name)
    left = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    shutil.rmtree(folder, ignore_errors=True)
    assert left == [], "the test left files behind"


@pytest.fixture
def opened() -> Iterator[Callable[[Any], Any]]:
    """Close what is passed through here when the test is over."""
    with ExitStack() as stack:
        yield stack.enter_context


@pytest.fixture
def new_ring(namespace: str, opened: Callable[[Any], Any]) -> Callable[..., rings.Ring]:
    """Make a named ring, or one with ``anonymous=True`` or ``path=``."""

    def make(name: str = "ring", **settings: Any) -> rings.Ring:
        if "anonymous" in settings or "path" in settings:
            return opened(rings.create(**settings))
        return opened(rings.create(name, namespace=namespace, **settings))

    return make


@pytest.fixture
def attached(namespace: str, opened: Callable[[Any], Any]) -> Callable[..., rings.Ring]:
    """Attach to a named ring of this test."""
    return lambda name="ring": opened(rings.attach(name, namespace=namespace))


@pytest.fixture
def ring(new_ring: Callable[..., rings.Ring]) -> rings.Ring:
    """Return an empty ring with the usual settings."""
    return new_ring()


@pytest.fixture
def eventually() -> Callable[[Callable[[], Any]], Any]:
    return wait_until


@pytest.fixture
def start(namespace: str) -> Iterator[Callable[..., OtherProcess]]:
    """Start a process: ``start(source, *arguments)``; its first argument is the namespace."""
    running: list[OtherProcess] = []

    def begin(source: str, *arguments: object, prefix: Sequence[str] = ()) -> OtherProcess:
        process = OtherProcess(source, namespace, *arguments, prefix=prefix)
        running.append(process)
        return process

    yield begin
    for process in running:
        process.clean_up()


@pytest.fixture
def unshare() -> Callable[..., list[str]]:
    """Return the words that run a command in namespaces of its own: ``unshare("--mount")``."""

    def words(*kinds: str) -> list[str]:
        prefix = ["unshare", *([] if os.geteuid() == 0 else ["--user", "--map-root-user"]), *kinds]
        if shutil.which("unshare") is None or subprocess.run([*prefix, "true"], capture_output=True).returncode:
            pytest.skip("namespaces cannot be made here")
        return prefix

    return words


@pytest.fixture
def in_thread() -> Iterator[Callable[[Callable[[], Any]], Callable[[], Any]]]:
    """Run something in a thread: ``answer = in_thread(work)``; ``answer()`` waits for what it returned or raised."""
    pools: list[ThreadPoolExecutor] = []

    def begin(work: Callable[[], Any]) -> Callable[[], Any]:
        pools.append(ThreadPoolExecutor(1))
        return partial(pools[-1].submit(work).result, WATCHDOG_SECONDS)

    yield begin
    for pool in pools:
        pool.shutdown()
