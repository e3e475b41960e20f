"""The session: one for a program, whichever of its threads asks first."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from sage_compat.session import SESSION_VARIABLE, session


def test_threads_that_ask_at_the_same_time_get_the_same_session(monkeypatch: pytest.MonkeyPatch) -> None:
    barrier = threading.Barrier(8)

    def ask(_: int) -> str:
        barrier.wait()
        return session()

    with ThreadPoolExecutor(8) as pool:
        for _ in range(300):
            monkeypatch.delenv(SESSION_VARIABLE)
            assert len(set(pool.map(ask, range(8)))) == 1
