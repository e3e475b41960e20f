"""One process for each side, which times what it is told to; this is our end of `driven`."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any

from sage_sim.gate.benchmarks import BENCHMARKS
from sage_sim.gate.rounds import Sample

_SECONDS_TO_ANSWER = 120.0
_SECONDS_TO_LEAVE = 10.0


class SideError(Exception):
    """
    A side could not do what it was told.

    Attributes:
        side: Which.
    """

    def __init__(self, side: str, why: str) -> None:
        self.side = side
        super().__init__(why)


class HungError(Exception):
    """A side does not answer; the text says where it is."""


@cache
def at_fixed_addresses() -> tuple[str, ...]:
    """
    What to put before a command, so that its memory lies where it did the last time; nothing where that is not allowed.

    Two processes of the same code differ by 8 % where addresses are random, and by 1 % where they are not.
    """
    command = ("setarch", "-R")
    try:
        tried = subprocess.run([*command, "true"], capture_output=True, check=False)
    except FileNotFoundError:
        return ()
    return () if tried.returncode else command


def environment(folder: Path, **more: str) -> dict[str, str]:
    """
    That of a process that imports the wheel in a folder, and everything else from where we do.

    Hash values are the same in each, so that dictionaries are.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return kept | {"PYTHONPATH": str(folder), "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1", **more}


class Side:
    """
    The process of one side; ends with the block that it is used in.

    Args:
        name: For what is said about it.
        folder: Where its wheel is installed.
        namespace: Of the queues that it makes.
        words: A file for what it writes on its standard error.
        padding: Bytes by which its stack is moved.

    Raises:
        SideError: It did not start, or imports another wheel.
    """

    def __init__(self, name: str, folder: Path, *, namespace: str, words: Path, padding: int = 0) -> None:
        self.name, self._words = name, words
        with words.open("ab") as target:
            self._process = subprocess.Popen(
                [
                    *at_fixed_addresses(),
                    *(sys.executable, "-P", "-m", "sage_sim.gate.driven", str(os.getpid()), namespace),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=target,
                env=environment(folder, SAGE_GATE_PADDING="x" * padding),
            )
        found = str(self._answer().get("from"))
        if not Path(found).is_relative_to(folder.resolve()):
            self.close()
            raise SideError(name, f"{name} was to measure what is in {folder}, and imports {found}")

    def __enter__(self) -> Side:
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it."""
        self.close()

    def open(self, benchmark: str) -> None:
        """
        Get ready for a benchmark.

        Raises:
            SideError: It cannot; its wheel may be too old for it.
        """
        self._ask(open=benchmark)

    def sample(self, benchmark: str, count: int) -> Sample:
        """
        Time it.

        Raises:
            SideError: It failed, or a wrong result came out.
        """
        answer = self._ask(run=benchmark, count=count)
        return Sample(ns=answer["ns"], waited=answer["waited"])

    def release(self, benchmark: str) -> None:
        """Be done with it."""
        self._ask(close=benchmark)

    def refused(self, names: Sequence[str]) -> dict[str, str]:
        """Open each benchmark and let it go again; which of them it cannot do, and why."""
        found = {}
        for name in names:
            try:
                self.open(name)
                self.sample(name, BENCHMARKS[name].count)
                self.release(name)
            except SideError as error:
                found[name] = str(error)
        return found

    def close(self) -> None:
        """End the process; one that does not go is killed."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(_SECONDS_TO_LEAVE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def _ask(self, **order: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise SideError(self.name, f"{self.name} ended: {self._told()}") from None
        answer = self._answer()
        if "error" in answer:
            raise SideError(self.name, answer["error"])
        return answer

    def _answer(self) -> dict[str, Any]:
        """One line; there is never a second one under way, so nothing waits in the buffer."""
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            if not selector.select(_SECONDS_TO_ANSWER):
                self._process.send_signal(signal.SIGUSR1)  # faulthandler writes where it stands
                self.close()
                seconds = f"{_SECONDS_TO_ANSWER:.0f} s"
                raise HungError(f"{self.name} has not answered for {seconds}; it was at\n{self._told()}")
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            raise SideError(self.name, f"{self.name} ended with {self._process.returncode}: {self._told()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _told(self) -> str:
        return self._words.read_text(encoding="utf-8", errors="replace").strip()[-2000:] or "it said nothing"
