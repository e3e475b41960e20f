"""The live view: a real queue, seen on a screen without a terminal, and keys that work."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

pytest.importorskip("textual")

from textual.app import App
from textual.pilot import Pilot
from textual.widgets import DataTable, Static

from sage_qd.cli.screen import TopScreen
from sage_qd.ring import Ring

pytestmark = pytest.mark.timeout(120)


def watched(namespace: str, look: Callable[[TopScreen, Pilot[None]], Awaitable[None]]) -> None:
    """Run the view, and look at it."""

    async def run() -> None:
        app = TopScreen(namespace, 0.1)
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
    async def look(app: TopScreen, pilot: Pilot[None]) -> None:
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

    async def look(app: TopScreen, pilot: Pilot[None]) -> None:
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

    async def look(app: TopScreen, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: f"reader pid {reader.pid}, task " in text(app, "#notes"))
        assert "3 items behind" in text(app, "#notes")

    watched(namespace, look)
