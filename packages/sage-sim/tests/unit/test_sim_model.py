"""The model of a run: against a simulator of another make, against what can be worked out by hand, and at full size."""

from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
import simpy

from sage_sim.calibration import Calibration, Line, NoCalibrationError, backlog
from sage_sim.load import Load
from sage_sim.model import Cost, Forecast, forecast
from sage_sim.plan import Plan
from sage_sim.presets import PRESETS
from sage_sim.topology import Edge, Role, Topology

pytestmark = pytest.mark.once


def row(*counts: int, items: int = 150, load: Load | None = None) -> Plan:
    roles = tuple(Role(name=f"r{at}", count=count) for at, count in enumerate(counts))
    edges = tuple(
        Edge(name=f"e{at}", source=f"r{at}", target=f"r{at + 1}", capacity_bytes=4096) for at in range(len(counts) - 1)
    )
    topology = Topology(name="row", roles=roles, edges=edges)
    return Plan(topology=topology, workload="blobs", seed=1, items=items, duration_seconds=None, load=load or Load())


def worked_out(plan: Plan, put_us: float, take_us: float, *, cores: int = 2, room: int = 8) -> Forecast:
    cost = Cost(put_ns=put_us * 1000, take_ns=take_us * 1000)
    return forecast(plan, lambda edge: cost, cores=cores, room=lambda edge: room)


class Oracle:
    """The same processes as SimPy has them: stores for queues, a resource for the cores."""

    def __init__(self, plan: Plan, put_us: float, take_us: float, *, cores: int, room: int) -> None:
        self.world = simpy.Environment()
        self.cores = simpy.Resource(self.world, cores)
        self.put, self.take = put_us, take_us
        self.last = self.ended = 0.0
        edges = plan.topology.edges
        self.stores = [simpy.Store(self.world) for _ in edges]
        self.rooms = [simpy.Container(self.world, init=room, capacity=room) for _ in edges]
        for at, role in enumerate(plan.topology.roles):
            for index in range(role.count):
                share = plan.share(index) if at == 0 else None
                self.world.process(self.live(at, len(edges), share))

    def live(self, at: int, last: int, share: int | None) -> Generator[Any, Any, None]:
        made = 0
        while share is None or made < share:
            if share is None:
                yield self.stores[at - 1].get()
            made += 1
            with self.cores.request() as core:
                yield core
                yield self.world.timeout((self.take if at else 0) + (self.put if at < last else 0))
            if at < last:
                yield self.rooms[at].get(1)
                yield self.stores[at].put(made)
            if share is None:
                yield self.rooms[at - 1].put(1)
            if at == last:
                self.ended, self.last = self.ended + 1, self.world.now

    def rate(self) -> float:
        self.world.run()
        return self.ended / self.last * 1e6


@pytest.mark.parametrize("counts", [(1, 1), (4, 1), (1, 4), (2, 3, 2), (1, 1, 1, 1), (3, 1, 3), (5, 5)])
@pytest.mark.parametrize(("put", "take"), [(5.0, 5.0), (2.0, 11.0), (9.0, 3.0)])
@pytest.mark.parametrize("cores", [1, 2, 8])
def test_the_model_agrees_with_a_simulator_of_another_make(
    counts: tuple[int, ...], put: float, take: float, cores: int
) -> None:
    plan = row(*counts)

    ours = worked_out(plan, put, take, cores=cores, room=4)

    assert ours.items == 150
    assert ours.rate == pytest.approx(Oracle(plan, put, take, cores=cores, room=4).rate(), rel=0.03)


def test_the_slowest_step_decides_where_there_are_cores_enough() -> None:
    found = worked_out(row(1, 1, items=10_000), 5, 10, cores=4)

    assert found.rate == pytest.approx(1e6 / 10, rel=0.01)
    assert found.busy["r1"] == pytest.approx(1.0, rel=0.01)
    assert found.busy["r0"] == pytest.approx(0.5, rel=0.01)


def test_the_work_of_all_decides_where_there_are_not() -> None:
    assert worked_out(row(4, 4, items=10_000), 5, 10, cores=1).rate == pytest.approx(1e6 / 15, rel=0.01)


def test_an_open_load_below_the_limit_is_kept_and_latency_is_that_of_the_work() -> None:
    load = Load(mode="open", rate=1000)

    found = worked_out(row(1, 1, items=1000, load=load), 5, 10, cores=2)

    assert found.rate == pytest.approx(1000, rel=0.01)
    assert max(found.latency_ns) <= 15_001


def test_an_open_load_above_the_limit_falls_behind() -> None:
    found = worked_out(row(1, 1, items=1000, load=Load(mode="open", rate=1e6)), 5, 10, cores=2)

    assert found.rate == pytest.approx(1e5, rel=0.02)
    assert max(found.latency_ns) > 5e6


def test_a_window_bounds_what_is_under_way() -> None:
    found = worked_out(row(1, 1, items=1000, load=Load(mode="closed", window=1)), 5, 10, cores=2)

    assert found.rate == pytest.approx(1e6 / 15, rel=0.01)
    assert max(found.latency_ns) == 15_000


@pytest.mark.parametrize("preset", ["fan-in", "fan-out", "diamond", "shuffle", "tree", "random-dag"])
def test_every_item_of_a_preset_comes_to_its_end(preset: str) -> None:
    plan = PRESETS[preset].scenario().plan(3)
    arrivals = sum(
        share * each for share, each in zip(map(plan.share, range(plan.origins)), plan.arrivals(), strict=True)
    )

    assert worked_out(plan, 1, 1).items == arrivals


def test_replies_are_refused() -> None:
    with pytest.raises(ValueError, match="no replies"):
        worked_out(PRESETS["service"].scenario().plan(1), 1, 1)


def test_ten_thousand_processes_are_worked_out() -> None:
    roles = (Role(name="r0", count=2000), Role(name="r1", count=4000), Role(name="r2", count=4000))
    edges = tuple(
        Edge(name=f"e{at}", source=f"r{at}", target=f"r{at + 1}", capacity_bytes=4096, spread="target") for at in (0, 1)
    )
    topology = Topology(name="large", roles=roles, edges=edges)
    plan = Plan(topology=topology, workload="blobs", seed=1, items=20_000, duration_seconds=None)

    found = worked_out(plan, 5, 5, cores=256)

    assert found.items == 20_000
    assert found.rate == pytest.approx(256 / 20e-6, rel=0.25)


def made(**changes: Any) -> Calibration:
    lines = {"put": Line(fixed_ns=5000, byte_ns=1), "take": Line(fixed_ns=8000, byte_ns=0.5)}
    fields: dict[str, Any] = {
        "kinds": {"sage_queue": lines},
        "cores": 4,
        "efficiency": 1.0,
        "error": 0.1,
        "machine": {},
    }
    return Calibration(**fields | changes)


def test_a_calibration_comes_back_from_its_file(tmp_path: Path) -> None:
    made().write(tmp_path / "a" / "calibration.json")

    assert Calibration.read(tmp_path / "a" / "calibration.json") == made()


def test_costs_grow_with_the_payload_and_shrink_with_efficiency() -> None:
    plan = PRESETS["fan-in"].scenario({"producers": 1}).plan(1)

    assert made().forecast(plan).rate == pytest.approx(1e9 / (8000 + 32), rel=0.01)
    assert made(efficiency=0.5).forecast(plan).rate == pytest.approx(0.5e9 / (8000 + 32), rel=0.01)


def test_what_was_not_measured_is_not_forecast(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("{}")
    with pytest.raises(NoCalibrationError, match="is no calibration"):
        Calibration.read(tmp_path / "x")
    with pytest.raises(NoCalibrationError, match="only 'blobs'"):
        made().forecast(PRESETS["pipeline"].scenario().plan(1))
    with pytest.raises(NoCalibrationError, match="not measured: shm_queue"):
        made().forecast(backlog("shm_queue", 64, 10).plan(1))
