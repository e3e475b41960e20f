"""Runs that go on, watched from outside: real ones, on a screen without a terminal."""

import asyncio
import json
import signal
import subprocess
from collections.abc import Callable, Iterator

import pytest
from sim_runs import COMMAND, WATCHDOG_SECONDS, wait_until

pytest.importorskip("textual")

from textual.pilot import Pilot
from textual.widgets import DataTable, Static

from sage_sim.cli.screen import RunScreen
from sage_sim.watching import Sight, Watch

ROLES = ["reader", "tokeniser", "counter"]


@pytest.fixture(scope="module")
def conductor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[subprocess.Popen[bytes]]:
    """The conductor of a run under faults that goes on until somebody ends it."""
    words = ["run", "pipeline", "--duration", "300", "--rate", "200", "--faults", "kill:5=tokeniser", "--quiet"]
    with subprocess.Popen(
        [*COMMAND, *words, "--out", str(tmp_path_factory.mktemp("watched") / "run")],
        stdout=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as conductor:
        yield conductor
        conductor.send_signal(signal.SIGINT)  # nothing, when it has ended
        conductor.wait(WATCHDOG_SECONDS)


def test_each_role_of_a_run_has_a_row_that_follows_it(conductor: subprocess.Popen[bytes]) -> None:
    async def look(app: RunScreen, pilot: Pilot[None]) -> None:
        async def until(condition: Callable[[], bool]) -> None:
            while not condition():
                await pilot.pause(0.02)

        def cells(heading: str) -> dict[str, str]:
            """Of the roles of this run; others may go on beside it."""
            table = app.query_one(DataTable)
            at = [str(column.label) for column in table.columns.values()].index(heading)
            rows = [[str(cell) for cell in table.get_row_at(row)] for row in range(table.row_count)]
            ours = {f"pipeline/{role}{end}": role for role in ROLES for end in ("", f" {conductor.pid}")}
            return {ours[row[0]]: row[at] for row in rows if row[0] in ours}

        def text(name: str) -> str:
            return str(app.query_one(name, Static).render())

        await until(lambda: list(cells("role")) == ROLES)
        await until(lambda: all(word not in ("-", "0") for word in cells("items/s").values()))
        await until(lambda: int(cells("faults")["tokeniser"]) > 1)
        assert cells("faults")["reader"] == "0"
        assert "%" in cells("blocked")["reader"]
        assert "sage-sim top" in text("#title")
        assert f"pid {conductor.pid}, " in text("#notes")
        await pilot.press("n")
        assert list(cells("role")) == sorted(ROLES)
        await pilot.press("q")
        await until(lambda: not app.is_running)

    async def run() -> None:
        app = RunScreen(0.2)
        async with app.run_test(size=(120, 30)) as pilot:
            await look(app, pilot)

    asyncio.run(run())


def test_ctrl_c_ends_the_live_view_as_every_verb() -> None:
    app = RunScreen(0.2)

    async def run() -> None:
        async with app.run_test() as pilot:
            await pilot.press("ctrl+c")

    asyncio.run(run())

    assert app.return_code == 130


def test_two_looks_tell_rates_and_faults_until_the_run_ends(conductor: subprocess.Popen[bytes]) -> None:
    watch = Watch()

    def sights() -> list[Sight]:
        return [sight for sight in watch.look() if sight.pid == conductor.pid]

    wait_until(lambda: any(sight.roles[1].faults for sight in sights()))

    said = subprocess.run([*COMMAND, "top", "--once", "--json"], capture_output=True, text=True, check=True).stdout

    [sight] = [sight for sight in json.loads(said) if sight["pid"] == conductor.pid]
    assert [role["role"] for role in sight["roles"]] == ROLES
    assert 0 < sight["roles"][1]["faults"] <= sight["faults"]
    assert all(0 <= role["blocked"] <= 1 for role in sight["roles"][:2])
    assert all(0 <= role["idle"] <= 1 for role in sight["roles"][1:])
    assert sum(role["rate"] for role in sight["roles"]) > 0
    conductor.send_signal(signal.SIGINT)
    wait_until(lambda: not sights())
    watch.close()
