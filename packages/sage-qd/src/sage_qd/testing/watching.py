"""Waiting on conditions, and calls in the background that cannot hang a test run."""

import threading
import time
from collections.abc import Callable
from typing import Any, Final

__all__ = ["PATIENCE_SECONDS", "Background", "background", "wait_for"]

PATIENCE_SECONDS: Final = 60.0
"""How long anything may take before a test gives it up as hung; never what a test measures."""


def wait_for(condition: Callable[[], bool], what: str) -> None:
    """Return when the condition holds; fail with ``what`` when it never does."""
    give_up = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < give_up, f"this never happened: {what}"
        time.sleep(0.001)


class Background:
    """A call in another thread: its result or exception is looked at with :meth:`result`."""

    def __init__(self, call: Callable[..., Any], *arguments: Any) -> None:
        self._call = call
        self._arguments = arguments
        self._result: Any = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._result = self._call(*self._arguments)
        except BaseException as error:  # noqa: BLE001  (whatever it is, result() raises it)
            self._error = error

    def is_waiting(self) -> bool:
        """Whether the call has not returned yet."""
        return self._thread.is_alive()

    def result(self) -> Any:
        """Wait for the call and return what it returned, or raise what it raised."""
        self._thread.join(PATIENCE_SECONDS)
        assert not self._thread.is_alive(), f"{self._call!r} hangs"
        if self._error is not None:
            raise self._error
        return self._result


def background(call: Callable[..., Any], *arguments: Any) -> Background:
    """Start a call in another thread."""
    return Background(call, *arguments)
