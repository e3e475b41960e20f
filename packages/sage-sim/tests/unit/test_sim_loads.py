"""When sources send, and what: moments, sizes and keys that follow from the seed."""

from collections import Counter
from itertools import islice, pairwise

import pytest

from sage_sim.load import Load, moments
from sage_sim.message import Message
from sage_sim.payload import TABLE, Payload, dressed, undressed
from sage_sim.workloads import Blobs, WorkloadSettings


def first(load: Load, count: int, origin: int = 0, origins: int = 1) -> list[float]:
    return list(islice(moments(load, seed=1, origin=origin, origins=origins), count))


def test_a_constant_load_is_shared_among_sources_in_turn() -> None:
    load = Load(mode="open", rate=10)

    assert first(load, 3, origin=0, origins=2) == [0.0, 0.2, 0.4]
    assert first(load, 3, origin=1, origins=2) == pytest.approx([0.1, 0.3, 0.5])


def test_a_poisson_load_has_its_mean_and_follows_from_the_seed() -> None:
    load = Load(mode="open", shape="poisson", rate=100)

    made = first(load, 5000, origins=2)

    assert made == first(load, 5000, origins=2) != first(load, 5000, origin=1, origins=2)
    assert made[-1] == pytest.approx(100, rel=0.1)
    gaps = [after - before for before, after in pairwise(made)]
    assert sum(gap**2 for gap in gaps) / len(gaps) == pytest.approx(2 * (1 / 50) ** 2, rel=0.2)


@pytest.mark.parametrize(("low", "high"), [(10.0, 110.0), (110.0, 10.0), (60.0, 60.0)])
def test_a_ramp_goes_evenly_from_one_rate_to_the_other(low: float, high: float) -> None:
    made = first(Load(mode="open", shape="ramp", rate=low, rate_to=high, ramp_seconds=10.0), 700)

    def sent(until: float) -> int:
        return sum(moment < until for moment in made)

    assert sent(10.0) == pytest.approx(600, abs=1)
    assert sent(1.0) == pytest.approx(low + (high - low) / 20, abs=1)
    assert made[-1] - made[-2] == pytest.approx(1 / high)


def test_bursts_come_all_at_once_and_have_their_mean() -> None:
    made = first(Load(mode="open", shape="burst", rate=100, burst=50), 150)

    assert Counter(made) == {0.0: 50, 0.5: 50, 1.0: 50}


def test_a_trace_begins_again_after_its_end() -> None:
    made = first(Load(mode="open", shape="trace", trace=(0.0, 0.1, 1.0)), 7)

    assert made == pytest.approx([0.0, 0.1, 1.0, 1.0, 1.1, 2.0, 2.0])


@pytest.mark.parametrize("distribution", ["fixed", "uniform", "lognormal", "zipf"])
def test_sizes_follow_from_the_seed_and_stay_in_their_limits(distribution: str) -> None:
    payload = Payload(distribution=distribution, size_bytes=1000, low_bytes=10)

    sizes = payload.sizes(1)

    assert len(sizes) == TABLE
    assert sizes == payload.sizes(1)
    if distribution != "lognormal":
        assert min(sizes) >= (1000 if distribution == "fixed" else 10)
        assert max(sizes) <= 1000
    assert sorted(sizes)[TABLE // 2] == pytest.approx(
        {"fixed": 1000, "uniform": 505, "lognormal": 1000, "zipf": 140}[distribution], rel=0.4
    )


def test_keys_are_drawn_as_often_as_their_distribution_says() -> None:
    counts = Counter(Payload(keys=4, key_skew=1.0).drawn_keys(1))
    even = Counter(Payload(keys=4, key_skew=0.0).drawn_keys(1))

    assert counts[0] / counts[3] == pytest.approx(4, rel=0.3)
    assert even[0] / even[3] == pytest.approx(1, rel=0.3)


@pytest.mark.parametrize("form", ["bytes", "dict", "numpy"])
def test_every_form_is_checked_byte_by_byte(form: str) -> None:
    workload = Blobs(WorkloadSettings(seed=3, payload=Payload(form=form, distribution="uniform", size_bytes=200)))
    payload = next(workload.payloads(1, 5))
    message = Message(origin=1, sequence=5, repeats=0, sender=1, hop=0, payload=payload)
    content = undressed(form, payload)
    assert content is not None
    assert workload.intact(message)

    changed = bytearray(content)
    changed[-1] ^= 1

    assert not workload.intact(message._replace(payload=dressed(form, bytes(changed), 5)))
    assert not workload.intact(message._replace(payload=dressed(form, content[:-1], 5)))
    assert not workload.intact(message._replace(sequence=6))
    assert not workload.intact(message._replace(payload=None))


def test_a_dict_is_checked_as_a_whole() -> None:
    whole = dressed("dict", b"abc", 4)
    assert isinstance(whole, dict)

    assert undressed("dict", whole) == b"abc"
    for change in ({"weight": 3}, {"tags": ["a"]}, {"more": 1}, {"content": "abc"}):
        assert undressed("dict", whole | change) is None
