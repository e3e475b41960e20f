"""The live views: real queues and jobs, seen on a screen without a terminal, and keys that work."""

import asyncio
import itertools
import threading
from collections.abc import Awaitable, Callable

import pytest

pytest.importorskip("textual")

from textual.app import App
from textual.pilot import Pilot
from textual.widgets import DataTable, Static

from sage_qd import JobNotFoundError
from sage_qd.cli.screen import JobScreen, LiveTable, TopScreen
from sage_qd.ring import Ring
from sage_qd.runtime import ProcessEnvironment

pytestmark = pytest.mark.timeout(120)


def watched(screen: str | LiveTable, look: Callable[[LiveTable, Pilot[None]], Awaitable[None]]) -> None:
    """Run a view, or that of a namespace, and look at it."""

    async def run() -> None:
        app = TopScreen(screen, 0.1) if isinstance(screen, str) else screen
        async with app.run_test(size=(120, 30)) as pilot:
            await look(app, pilot)

    asyncio.run(run())


async def until(pilot: Pilot[None], condition: Callable[[], bool]) -> None:
    """Let the view go on until the condition holds; pytest's watchdog ends what never does."""
    while not condition():
        await pilot.pause(0.02)


def cells(app: App[None]) -> list[list[str]]:
    table = app.query_one(DataTable)
    return [[str(cell) for cell in table.get_row_at(row)] for row in range(table.row_count)]


def text(app: App[None], name: str) -> str:
    return str(app.query_one(name, Static).render())


def test_each_queue_has_a_row_that_follows_it(ring: Ring, namespace: str) -> None:
    async def look(app: LiveTable, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: [row[:2] for row in cells(app)] == [[f"{namespace}/ring", "0"]])
        ring.put_many([b"message"] * 1234)
        await until(pilot, lambda: cells(app)[0][1] == "1,234")
        assert "1 queues, 1,234 messages" in text(app, "#title")
        assert text(app, "#notes") == "nobody is held up"

    watched(namespace, look)


def test_keys_sort_pause_and_quit(new_ring: Callable[..., Ring], namespace: str) -> None:
    new_ring("a")
    deep = new_ring("b")
    deep.put_many([b"x"] * 5)

    async def look(app: LiveTable, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: [row[0][-1] for row in cells(app)] == ["a", "b"])
        await pilot.press("d")
        assert [row[0][-1] for row in cells(app)] == ["b", "a"]
        await pilot.press("n")
        assert [row[0][-1] for row in cells(app)] == ["a", "b"]
        await pilot.press("p")
        assert "paused" in text(app, "#title")
        await pilot.press("p", "q")
        await until(pilot, lambda: not app.is_running)

    watched(namespace, look)


def test_the_slow_consumer_is_named(namespace: str, new_ring: Callable[..., Ring], start: Callable) -> None:
    ring = new_ring(max_items=3)
    ring.put_many([b"x"] * 3)
    reader = start('ring = attach("ring", namespace=sys.argv[1])\nlease = ring.lease()\nsay("leased")\nhear()')
    reader.hear()
    writer = start('ring = attach("ring", namespace=sys.argv[1])\nsay("ready")\nring.put(b"x")')
    writer.hear()

    async def look(app: LiveTable, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: f"reader pid {reader.pid}, task " in text(app, "#notes"))
        assert "3 items behind" in text(app, "#notes")

    watched(namespace, look)


def test_the_tasks_of_a_job_have_rows_and_the_outcome_stays() -> None:
    env = ProcessEnvironment("watched [1]", batch_size=1)
    env.add_service("model", dict)
    going = threading.Event()
    env.from_source(itertools.count, name="numbers").sink(lambda x: going.wait(0.05), name="slow", buffer_size=2)
    env.submit()

    async def look(app: LiveTable, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: "slow: slow_0;" in text(app, "#notes"))
        assert [row[0] for row in cells(app)] == ["numbers_0", "slow_0", "model"]
        assert cells(app)[1][8] == "100%"
        assert "watched [1]   running, 2 tasks in processes, pid" in text(app, "#title")
        await until(pilot, lambda: cells(app)[1][2] not in ("0", "-"))
        await pilot.press("d")
        assert [row[0] for row in cells(app)] == ["slow_0", "numbers_0", "model"]
        await pilot.press("n")
        assert [row[0] for row in cells(app)] == ["numbers_0", "slow_0", "model"]
        env.stop()
        await until(pilot, lambda: "stopped" in text(app, "#title"))
        assert text(app, "#notes") == "no task is held up"
        await pilot.press("w", "q")
        await until(pilot, lambda: not app.is_running)

    try:
        watched(JobScreen("watched [1]", 0.1), look)
    finally:
        env.stop()


def test_a_job_that_is_not_there_has_no_view() -> None:
    with pytest.raises(JobNotFoundError, match="no job 'missing' runs here"):
        JobScreen("missing", 1.0)
