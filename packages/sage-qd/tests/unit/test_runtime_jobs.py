"""Whole jobs, in threads and in processes: the same program text, the same results, and nothing left."""

import copy
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from sage_qd import BaseQueueDescriptor, LocalQueueDescriptor, LostPacketsError, QueueCreationStrategy, ShutDown
from sage_qd.monitor import queue_states
from sage_qd.ring import list_segments
from sage_qd.runtime import (
    BaseFunction,
    BaseTask,
    Connection,
    DataStream,
    Environment,
    FileSource,
    JobState,
    LocalEnvironment,
    Packet,
    ProcessEnvironment,
    RuntimeContext,
    StopSignal,
)
from sage_qd.runtime.board import folder
from sage_qd.runtime.operators import MapOperator, ReduceOperator
from sage_qd.runtime.packets import is_stop, unpacked
from sage_qd.runtime.task import LocalTask
from sage_qd.testing import background, wait_for

TEXT = ["the", "cat", "and", "the", "dog", "and", "the", "bird"]
PATIENCE = 60.0

Make = Callable[..., Environment]


def left() -> list[str]:
    """Queues of jobs that are there, of whatever test run."""
    return sorted(f"{info.namespace}/{info.name}" for info in list_segments() if info.name.startswith("e--job."))


@pytest.fixture(params=[LocalEnvironment, ProcessEnvironment], ids=["threads", "processes"])
def make(request: pytest.FixtureRequest) -> Iterator[Make]:
    made: list[Environment] = []

    def environment(name: str = "job", **settings: Any) -> Environment:
        made.append(request.param(name, **settings))
        return made[-1]

    yield environment
    for env in made:
        env.stop()
    ours = [env.job.rpartition(".")[2] for env in made]
    wait_for(lambda: not any(job in name for name in left() for job in ours), "every queue is gone")


def test_word_count(make: Make) -> None:
    env = make()
    counts = env.from_collection(TEXT).keyby(lambda word: word).count(at_end=True, parallelism=3).collect()
    env.execute(timeout=PATIENCE)

    assert dict(counts.items) == Counter(TEXT)
    assert env.dispatcher is not None
    assert env.dispatcher.state is JobState.FINISHED


def test_reduce_starts_with_the_first_payload(make: Make) -> None:
    env = make()
    longest = env.from_collection(TEXT).keyby(len).reduce(max, at_end=True, parallelism=2).collect()
    env.execute(timeout=PATIENCE)

    assert dict(longest.items) == {3: "the", 4: "bird"}


def test_three_parallel_maps_lose_nothing_when_stop_signals_are_counted_by_path(make: Make) -> None:
    env = make(batch_size=7)
    items = (
        env.from_collection(range(300), parallelism=2)
        .map(lambda x: x, parallelism=3)
        .map(lambda x: x, parallelism=3)
        .collect()
    )
    env.execute(timeout=PATIENCE)

    assert sorted(items.items) == list(range(300))


def test_a_shared_downstream_does_not_end_with_its_first_source(make: Make) -> None:
    def slow() -> Iterator[int]:
        for item in range(20):
            time.sleep(0.005)
            yield item

    env = make()
    fast = env.from_collection(range(100, 120))
    both = env.from_source(slow, name="slow").connect(fast).comap(lambda x: x, lambda x: x).collect()
    env.execute(timeout=PATIENCE)

    assert sorted(both.items) == [*range(20), *range(100, 120)]


def test_a_diamond_brings_everything_together(make: Make) -> None:
    env = make()
    start = env.from_collection(range(50))
    left_side, right_side = start.map(lambda x: ("l", x)), start.map(lambda x: ("r", x), parallelism=2)
    joined = left_side.connect(right_side).comap(lambda x: x, lambda x: x).collect()
    env.execute(timeout=PATIENCE)

    assert sorted(joined.items) == sorted((side, x) for side in "lr" for x in range(50))


def test_comap_knows_which_stream_a_packet_is_from(make: Make) -> None:
    env = make(lanes="per_edge")
    joined = (
        env.from_collection([1, 2]).connect(env.from_collection([3])).comap(lambda x: ("a", x), lambda x: ("b", x))
    ).collect()
    env.execute(timeout=PATIENCE)

    assert sorted(joined.items) == [("a", 1), ("a", 2), ("b", 3)]


def test_join_pairs_equal_keys_of_false_values_too(make: Make) -> None:
    env = make()
    ages = env.from_collection([("", 1), (0, 2), ("x", 3)]).keyby(lambda pair: pair[0])
    names = env.from_collection([("", "none"), (0, "zero"), ("y", "other")]).keyby(lambda pair: pair[0])
    pairs = ages.join(names, lambda age, name: (age[1], name[1]), parallelism=2).collect()
    env.execute(timeout=PATIENCE)

    assert sorted(pairs.items) == [(1, "none"), (2, "zero")]


@pytest.mark.parametrize(
    "between",
    [
        lambda keyed: keyed.filter(lambda x: True),
        lambda keyed: keyed.map(lambda x: x, parallelism=2),
        lambda keyed: keyed.flatmap(lambda x: [x]).filter(lambda x: True),
        lambda keyed: keyed.connect(keyed.filter(lambda x: False)).comap(lambda x: x, lambda x: x),
    ],
    ids=["filter", "map", "flatmap", "comap"],
)
def test_keys_stay_with_packets_through_other_steps(make: Make, between: Callable[[DataStream], DataStream]) -> None:
    env = make()
    sums = between(env.from_collection(range(999)).keyby(lambda x: x % 3)).sum(at_end=True, parallelism=2)
    last = sums.map(lambda pair: pair[1]).count(at_end=True, parallelism=2).collect()
    items = sums.collect()
    env.execute(timeout=PATIENCE)

    assert sorted(items.items) == [(key, sum(range(key, 999, 3))) for key in range(3)]
    assert sorted(last.items) == [(0, 1), (1, 1), (2, 1)]


def test_a_parallel_join_finds_pairs_behind_other_steps(make: Make) -> None:
    env = make()
    one = env.from_collection(range(100)).keyby(lambda x: x).filter(lambda x: True)
    other = env.from_collection(range(100)).keyby(lambda x: x)
    items = one.join(other, lambda left, right: left + right, parallelism=2).collect()
    env.execute(timeout=PATIENCE)

    assert sorted(items.items) == [2 * x for x in range(100)]


def test_what_the_program_says_goes_before_keys(make: Make) -> None:
    env = make()
    keyed = env.from_collection(range(4)).keyby(lambda x: 0)
    everywhere = keyed.broadcast().sum(at_end=True, parallelism=2).collect()
    chosen = keyed.partition(lambda payload, key, count: payload % count).sum(at_end=True, parallelism=2).collect()
    env.execute(timeout=PATIENCE)

    assert everywhere.items == [(0, 6), (0, 6)]
    assert sorted(chosen.items) == [(0, 2), (0, 4)]


def test_a_join_without_keys_is_told(make: Make) -> None:
    env = make()
    env.from_collection([1]).join(env.from_collection([1]), lambda a, b: (a, b)).sink(str)

    with pytest.raises(ValueError, match=r"call keyby\(\) before"):
        env.execute(timeout=PATIENCE)


def test_broadcast_reaches_every_instance(make: Make) -> None:
    env = make()
    items = env.from_collection([1, 2]).broadcast().map(lambda x: x, parallelism=3).collect()
    env.execute(timeout=PATIENCE)

    assert sorted(items.items) == [1, 1, 1, 2, 2, 2]


def test_a_partitioner_chooses_the_instance(make: Make) -> None:
    class Where(BaseFunction):
        def execute(self, data: int) -> tuple[int, int]:
            return self.ctx.parallel_index, data

    env = make()
    items = env.from_collection(range(4)).partition(lambda x, _, count: x % count).map(Where, parallelism=2).collect()
    env.execute(timeout=PATIENCE)

    assert sorted(items.items) == [(0, 0), (0, 2), (1, 1), (1, 3)]


def test_an_empty_source_ends_the_job(make: Make) -> None:
    env = make()
    items = env.from_collection([]).map(str).keyby(len).sum(at_end=True, parallelism=2).collect()
    env.execute(timeout=PATIENCE)

    assert items.items == []


def test_filter_flatmap_and_dropped_results(make: Make) -> None:
    env = make()
    items = (
        env.from_collection(range(10)).filter(lambda x: x % 2).map(lambda x: None if x == 5 else x)
        .flatmap(lambda x: [x] * (x == 1) + [x, -x]).collect()
    )  # fmt: skip
    env.execute(timeout=PATIENCE)

    assert sorted(items.items) == sorted([1, 1, -1, 3, -3, 7, -7, 9, -9])


def test_running_values_come_in_order_of_each_key(make: Make) -> None:
    env = make(batch_size=3)
    items = env.from_collection([1, 2, 3, 4, 5, 6]).keyby(lambda x: x % 2).sum(parallelism=2).collect()
    env.execute(timeout=PATIENCE)

    assert [value for key, value in items.items if key == 1] == [1, 4, 9]
    assert [value for key, value in items.items if key == 0] == [2, 6, 12]


def test_texts_arrive_as_they_were_sent(make: Make) -> None:
    texts = ["", "a", "a\x1fb", "\x1f", "文", "\ud800", "x" * 5000, *("y" * 100,) * 40]
    env = make(batch_size=3)
    items = env.from_collection(texts).keyby(lambda text: text).map(lambda text: text, parallelism=2).collect()
    counts = env.from_collection(texts, name="again").keyby(lambda text: text).count(at_end=True).collect()
    env.execute(timeout=PATIENCE)

    assert sorted(items.items) == sorted(texts)
    assert dict(counts.items) == Counter(texts)


def test_running_counts_are_emitted_for_each_packet(make: Make) -> None:
    env = make()
    counts = env.from_collection("abaa").keyby(lambda letter: letter).count().collect()
    env.execute(timeout=PATIENCE)

    assert counts.items == [("a", 1), ("b", 1), ("a", 2), ("a", 3)]


def test_lines_of_a_file(make: Make, tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("a b\n\nb\n")
    env = make()
    words = env.from_source(FileSource(text)).flatmap(str.split).collect()
    env.execute(timeout=PATIENCE)

    assert words.items == ["a", "b", "b"]


def test_what_a_slow_source_gave_does_not_wait_for_its_next_item(make: Make) -> None:
    def source() -> Iterator[int]:
        yield 1
        time.sleep(0.5)
        yield 2

    env = make()
    items = env.from_source(source).collect()
    dispatcher = env.submit()
    while not items.items:
        assert not dispatcher.wait(timeout=0.01), "the first item came with the end of the job only"
    assert items.items == [1]
    assert dispatcher.wait(timeout=PATIENCE)
    assert items.items == [1, 2]


def test_a_slow_sink_slows_the_source_and_sees_everything(make: Make) -> None:
    env = make(batch_size=1)
    items = (
        env.from_collection(range(200), name="numbers")
        .map(lambda x: time.sleep(0.001) or x, name="slow", buffer_size=4)
        .collect()
    )
    dispatcher = env.submit()
    wait_for(
        lambda: dispatcher.wait(timeout=0) or dispatcher.status()["tasks"]["slow_0"]["taken"] > 5, "it is on its way"
    )
    tasks = dispatcher.status()["tasks"]
    assert tasks["numbers_0"]["out"] - tasks["slow_0"]["taken"] <= 4 + 2 + 1
    assert dispatcher.wait(timeout=PATIENCE)

    assert items.items == list(range(200))


@pytest.mark.parametrize("delivery", ["at_most_once", "at_least_once", "exactly_once"])
def test_stop_signals_of_many_paths_leave_room_for_packets(make: Make, delivery: str) -> None:
    """Leased to the end, as many stop signals as the queue has places would keep out the last path."""
    env = make(delivery=delivery)
    fast = env.from_collection(range(4), parallelism=4)
    slow = env.from_collection(range(100, 140)).map(lambda x: time.sleep(0.002) or x)
    items = fast.connect(slow).comap(lambda x: x, lambda x: x, buffer_size=2).collect()

    env.execute(timeout=PATIENCE)

    assert sorted(items.items) == [*range(4), *range(100, 140)]


def test_results_of_a_slow_operator_do_not_wait_for_the_rest_of_its_batch(make: Make, tmp_path: Path) -> None:
    """One batch of a hundred packets, each of which takes longer than ``linger``."""
    arrived = tmp_path / "arrived"

    def slow(item: int) -> int:
        time.sleep(0.02)
        if item == 5:
            wait_for(arrived.exists, "an earlier result has arrived")
        return item

    env = make(batch_size=100, linger=0.005)
    env.from_collection(range(10)).map(slow).sink(lambda item: arrived.touch())

    env.execute(timeout=PATIENCE)


# -- Errors -----------------------------------------------------------------------------------------------------------


def fails_on_three(item: int) -> int:
    if item == 3:
        raise LookupError("three")
    return item


def test_an_error_of_an_operator_ends_the_job_with_its_traceback(make: Make) -> None:
    env = make()
    env.from_collection(range(10**9)).map(fails_on_three, name="picky").sink(str)

    with pytest.raises(LookupError, match="three") as caught:
        env.execute(timeout=PATIENCE)

    assert "in fails_on_three" in str(caught.value.__cause__)
    assert env.dispatcher is not None
    assert env.dispatcher.state is JobState.FAILED
    assert env.dispatcher.status()["error"] == "LookupError: three"


def test_an_error_of_a_source_ends_the_job(make: Make) -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise OSError("the disk is gone")

    env = make()
    env.from_source(broken).sink(str)

    with pytest.raises(OSError, match="the disk is gone"):
        env.execute(timeout=PATIENCE)


class OwnQueue(BaseFunction):
    """Uses a queue of its own that was shut down, in one of its methods."""

    where = "execute"

    def open(self) -> None:
        if self.where == "open":
            raise ShutDown

    def execute(self, data: int) -> None:
        if self.where == "execute":
            raise ShutDown


class OwnQueueToOpen(OwnQueue):
    where = "open"


def own_queue_as_source() -> Iterator[int]:
    yield 1
    raise ShutDown


@pytest.mark.parametrize(
    "write",
    [
        lambda env: env.from_collection([1]).map(OwnQueue).sink(str),
        lambda env: env.from_collection([1]).map(OwnQueueToOpen).sink(str),
        lambda env: env.from_collection([1]).sink(OwnQueue),
        lambda env: env.from_source(own_queue_as_source).sink(str),
    ],
    ids=["map", "open", "sink", "source"],
)
def test_a_queue_of_the_users_own_that_was_shut_down_is_an_error(
    make: Make, write: Callable[[Environment], object]
) -> None:
    env = make()
    write(env)

    with pytest.raises(RuntimeError, match="the operator's own queue was shut down"):
        env.execute(timeout=PATIENCE)


def test_skip_makes_dead_letters(make: Make) -> None:
    env = make(batch_size=4)
    items = env.from_collection(range(6)).map(fails_on_three, on_error="skip", name="picky").collect()
    env.execute(timeout=PATIENCE)

    assert items.items == [0, 1, 2, 4, 5]
    assert env.dispatcher is not None
    [(task, payload, trace)] = env.dispatcher.dead_letters
    assert (task, payload) == ("picky_0", 3)
    assert trace.endswith("LookupError: three\n")
    assert env.dispatcher.status()["tasks"]["picky_0"]["skipped"] == 1


@pytest.mark.parametrize(("policy", "arrives"), [("retry(2)", [0, 1, 2]), ("retry(1), skip", [0, 2])])
def test_retry_tries_again_before_it_gives_up(make: Make, policy: str, arrives: list[int]) -> None:
    class Moody(BaseFunction):
        def open(self) -> None:
            self.calls = 0

        def execute(self, data: int) -> int:
            if data == 1:
                self.calls += 1
                if self.calls <= 2:
                    raise ValueError("not yet")
            return data

    env = make()
    items = env.from_collection(range(3)).map(Moody, on_error=policy).collect()
    env.execute(timeout=PATIENCE)

    assert items.items == arrives


def test_a_packet_that_cannot_be_sent_ends_the_job() -> None:
    env = ProcessEnvironment("job")
    env.from_collection([1]).map(lambda x: threading.Lock()).map(str).sink(str)

    with pytest.raises(TypeError, match="cannot pickle"):
        env.execute(timeout=PATIENCE)


def test_a_source_without_end_is_stopped(make: Make) -> None:
    env = make()
    env.from_source(itertools.count).map(lambda x: x).sink(lambda x: None)
    dispatcher = env.submit()
    wait_for(lambda: dispatcher.status()["tasks"]["sink_0"]["taken"] > 1000, "it runs")

    dispatcher.stop()
    dispatcher.stop()

    assert dispatcher.state is JobState.STOPPED
    assert dispatcher.wait()


def test_a_job_that_takes_too_long_is_stopped(make: Make) -> None:
    env = make()
    env.from_source(itertools.count).sink(lambda x: None)

    with pytest.raises(TimeoutError, match=r"had not ended after 0\.2 s"):
        env.execute(timeout=0.2)


def test_one_source_can_be_told_to_end(make: Make) -> None:
    env = make()
    items = env.from_source(itertools.count, name="numbers").collect()
    dispatcher = env.submit()
    while not items.items:
        dispatcher.wait(timeout=0.01)

    dispatcher.receive_stop_signal("numbers_0")
    assert dispatcher.wait(timeout=PATIENCE)

    assert items.items == list(range(len(items.items)))
    assert dispatcher.state is JobState.FINISHED


def test_all_sources_can_be_told_to_end_and_what_they_sent_arrives(make: Make) -> None:
    env = make()
    one = env.from_source(itertools.count, name="one")
    both = one.connect(env.from_source(itertools.count, name="other")).comap(
        lambda x: ("one", x), lambda x: ("other", x)
    )
    items = both.collect()
    dispatcher = env.submit()
    while len({side for side, _ in items.items}) < 2:
        dispatcher.wait(timeout=0.01)

    dispatcher.receive_stop_signal()
    assert dispatcher.wait(timeout=PATIENCE)

    for side in ("one", "other"):
        mine = [number for name, number in items.items if name == side]
        assert mine == list(range(len(mine)))
        assert dispatcher.status()["tasks"][f"{side}_0"]["out"] == len(mine)


def test_a_source_that_is_told_to_end_sends_what_it_took_and_is_closed(make: Make, tmp_path: Path) -> None:
    def numbers() -> Iterator[int]:
        given = 0
        try:
            while True:
                given += 1
                yield given
        finally:
            (tmp_path / "given").write_text(str(given))

    env = make()
    items = env.from_source(numbers).collect()
    dispatcher = env.submit()
    while not items.items:
        dispatcher.wait(timeout=0.01)

    dispatcher.receive_stop_signal()
    assert dispatcher.wait(timeout=PATIENCE)

    assert items.items == list(range(1, int((tmp_path / "given").read_text()) + 1))
    wait_for(lambda: "sage-qd-source" not in [thread.name for thread in threading.enumerate()], "its thread has ended")


@pytest.mark.parametrize("end", ["stop", "error"])
def test_a_job_that_is_ended_takes_no_further_items(end: str) -> None:
    def fails(item: int) -> None:
        if end == "error":
            raise LookupError("no")

    env = LocalEnvironment("job", batch_size=8)
    env.from_source(itertools.count).sink(fails)
    dispatcher = env.submit()
    if end == "error":
        with pytest.raises(LookupError):
            dispatcher.wait(PATIENCE)
    dispatcher.stop()

    wait_for(lambda: "sage-qd-source" not in [thread.name for thread in threading.enumerate()], "its thread has ended")


class ThreadQueues(QueueCreationStrategy):
    """Hands the very objects over, for jobs in threads."""

    def _made(self, name: str, is_remote: bool, settings: dict[str, Any]) -> BaseQueueDescriptor:
        return LocalQueueDescriptor(f"{self.job}.{name}", maxsize=settings.get("maxsize", 64))


@pytest.mark.parametrize("lanes", ["shared", "per_edge"])
def test_a_strategy_of_the_program_chooses_the_queues(lanes: str) -> None:
    """What cannot be pickled travels between threads, where the queues are such."""
    env = LocalEnvironment("job", strategy=ThreadQueues, lanes=lanes)
    items = env.from_collection([1, 2], parallelism=2).map(lambda x: lambda: x).map(lambda made: made()).collect()

    env.execute(timeout=PATIENCE)

    assert sorted(items.items) == [1, 2]


def test_a_program_that_ends_stops_its_job() -> None:
    program = (
        "import itertools\nfrom sage_qd.runtime import ProcessEnvironment\nenv = ProcessEnvironment('left')\n"
        "env.from_source(itertools.count).map(lambda each: each).sink(lambda each: None)\nenv.submit()\n"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=PATIENCE)

    assert (done.returncode, done.stderr) == (0, "")


FORGETFUL = """
import gc, itertools, sys, time
from pathlib import Path
from sage_qd.runtime import LocalEnvironment, ProcessEnvironment

log = Path(sys.argv[3])

def note(item):
    with log.open("a") as file:
        file.write(".")
    time.sleep(0.001)

def start():
    env = {"threads": LocalEnvironment, "processes": ProcessEnvironment}[sys.argv[1]](sys.argv[2])
    env.from_source(itertools.count).sink(note)
    env.submit()

start()
gc.collect()
log.write_text("")
give_up = time.monotonic() + 60
while log.stat().st_size < 100:
    if time.monotonic() > give_up:
        sys.exit("the job does not go on")
    time.sleep(0.001)
"""


@pytest.mark.parametrize("where", ["threads", "processes"])
def test_a_job_of_which_nobody_holds_anything_runs_on_to_the_end_of_the_program(where: str, tmp_path: Path) -> None:
    name = f"forgotten-{where}-{os.getpid()}"
    command = [sys.executable, "-c", FORGETFUL, where, name, str(tmp_path / "log")]

    done = subprocess.run(command, capture_output=True, text=True, timeout=2 * PATIENCE)

    assert (done.returncode, done.stderr) == (0, "")
    assert [path for path in folder().glob("*") if name in path.name] == []
    assert [info.name for info in list_segments() if name in info.name] == []


def test_what_overflow_drops_is_counted(make: Make) -> None:
    env = make(overflow="drop", batch_size=1)
    env.from_collection(range(300), name="fast").sink(lambda x: time.sleep(0.001), name="slow", buffer_size=2)
    tasks = env.execute(timeout=PATIENCE).status()["tasks"]

    assert tasks["fast_0"]["dropped"] > 0
    assert tasks["slow_0"]["taken"] + tasks["fast_0"]["dropped"] == 300


def test_packets_that_somebody_else_took_are_missed_under_exactly_once() -> None:
    env = LocalEnvironment("job", delivery="exactly_once", batch_size=1)
    going = threading.Event()
    env.from_collection(range(100)).map(lambda x: going.wait(PATIENCE) and x, name="robbed").collect()
    dispatcher = env.submit()
    queue = dispatcher.queue_descriptors["input_robbed_0"]
    wait_for(lambda: queue.qsize() > 5, "packets wait")
    queue.get()
    going.set()

    with pytest.raises(LostPacketsError, match="were to come"):
        dispatcher.wait(timeout=PATIENCE)


def test_a_forked_child_that_ends_leaves_its_parents_job_alone() -> None:
    program = (
        "import os\nfrom sage_qd.runtime import ProcessEnvironment\nenv = ProcessEnvironment('parents')\n"
        "items = env.from_collection(range(200_000)).map(lambda each: each).collect()\ndispatcher = env.submit()\n"
        "child = os.fork()\nif child == 0:\n    raise SystemExit(7)\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), dispatcher.wait(), len(items.items))\n"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=PATIENCE)

    assert (done.stdout, done.returncode) == ("7 True 200000\n", 0), done.stderr


# -- Services ---------------------------------------------------------------------------------------------------------


class Model:
    """A service."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, x: int) -> int:
        return x * 10

    def add(self, x: int, *, more: int = 0) -> int:
        self.calls += 1
        return x + more

    def broken(self) -> None:
        raise LookupError("no such model")

    def slow(self) -> None:
        time.sleep(1)


class Asks(BaseFunction):
    def execute(self, data: int) -> Any:
        later = self.ctx.call_service_async("model", data, method="add", more=1)
        return self.ctx.call_service("model", data), later.result()


def test_services_answer_each_caller_its_own_question(make: Make) -> None:
    env, other = make(), make()
    results = []
    for each in (env, other):
        each.add_service("model", Model)
        results.append(each.from_collection(range(30)).map(Asks, parallelism=3).collect())
    running = [env.submit(), other.submit()]
    for dispatcher in running:
        assert dispatcher.wait(timeout=PATIENCE)

    for result in results:
        assert sorted(result.items) == [(x * 10, x + 1) for x in range(30)]


def test_an_error_of_a_service_arrives_with_its_traceback(make: Make) -> None:
    class Caller(BaseFunction):
        def execute(self, data: int) -> None:
            self.ctx.call_service("model", method="broken")

    env = make()
    env.add_service("model", Model)
    env.from_collection([1]).map(Caller).sink(str)

    with pytest.raises(RuntimeError, match=r"service model\.broken raised:(.|\n)*LookupError: no such model"):
        env.execute(timeout=PATIENCE)


def test_a_service_that_does_not_answer_in_time_is_told(make: Make) -> None:
    class Caller(BaseFunction):
        def execute(self, data: int) -> None:
            self.ctx.call_service("model", method="slow", timeout=0.1)

    env = make()
    env.add_service("model", Model)
    env.from_collection([1]).map(Caller).sink(str)

    with pytest.raises(TimeoutError, match=r"service model\.slow did not answer within 0\.1 s"):
        env.execute(timeout=PATIENCE)


def test_an_unknown_service_is_told(make: Make) -> None:
    class Caller(BaseFunction):
        def execute(self, data: int) -> None:
            self.ctx.call_service("oracle")

    env = make()
    env.add_service("model", Model)
    env.from_collection([1]).map(Caller).sink(str)

    with pytest.raises(KeyError, match="has no service 'oracle'; it has: model"):
        env.execute(timeout=PATIENCE)


def test_a_job_without_services_says_so(make: Make) -> None:
    class Caller(BaseFunction):
        def execute(self, data: int) -> None:
            self.ctx.call_service("oracle")

    env = make()
    env.from_collection([1]).map(Caller).sink(str)

    with pytest.raises(KeyError, match=r"has no service 'oracle'; it has none; see add_service\(\)"):
        env.execute(timeout=PATIENCE)


def test_a_service_that_cannot_be_made_ends_the_job(make: Make) -> None:
    class Broken:
        def __init__(self) -> None:
            raise LookupError("no weights")

    env = make()
    env.add_service("model", Broken)
    env.from_source(itertools.count).sink(lambda x: None)

    with pytest.raises(LookupError, match="no weights") as caught:
        env.execute(timeout=PATIENCE)

    assert str(caught.value.__cause__).startswith("\nin task 'model':\n")


def test_services_end_with_the_job(make: Make) -> None:
    env = make()
    env.add_service("model", Model)
    env.from_collection([1]).sink(str)

    env.execute(timeout=PATIENCE)

    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("sage-qd-model")] == []


# -- Looking ----------------------------------------------------------------------------------------------------------


def test_a_snapshot_shows_tasks_queues_and_edges(make: Make) -> None:
    env = make(batch_size=1)
    stuck = threading.Event()
    env.from_collection(range(100), name="numbers").map(
        lambda x: stuck.wait(0.01) or x, name="slow", buffer_size=4
    ).sink(lambda x: None)
    dispatcher = env.submit()
    wait_for(lambda: dispatcher.snapshot()["queues"]["input_slow_0"]["load"] == 1.0, "the queue is full")

    seen = dispatcher.snapshot()

    assert seen["state"] == "running"
    assert seen["queues"]["input_slow_0"]["depth"] <= 4
    [edge] = [each for each in seen["edges"] if each["source"] == "numbers_0"]
    assert edge == {"source": "numbers_0", "target": "slow_0", "queue": "input_slow_0", "load": edge["load"]}
    assert {"input_slow_0", "numbers_0_to_slow_0_0_0", "dead_letters"} <= set(dispatcher.queue_descriptors)
    assert set(dispatcher.pool.deserialize_pool(dispatcher.pool.serialize_pool())) == set(dispatcher.queue_descriptors)
    dispatcher.stop()


def test_a_snapshot_shows_rates_and_who_waits_for_whom(make: Make) -> None:
    env = make(batch_size=1)
    env.from_source(itertools.count, name="fast").sink(lambda x: time.sleep(0.01), name="slow", buffer_size=2)
    dispatcher = env.submit()

    def is_seen() -> bool:
        dispatcher.wait(timeout=0.01)
        found = dispatcher.snapshot()
        fast, slow = found["tasks"]["fast_0"], found["tasks"]["slow_0"]
        return (
            fast["blocked_ns"] > 0
            and slow["blocked_ns"] == 0
            and fast["rate_out"] > 0
            and slow["rate_in"] > 0
            and slow["load"] == 1.0
            and found["edges"][0]["load"] == 1.0
        )

    wait_for(is_seen, "the source waits for the sink")


def test_a_hundred_tasks_start_and_end(make: Make) -> None:
    env = make()
    items = env.from_collection(range(1000)).map(lambda x: x, parallelism=50).map(lambda x: x, parallelism=49).collect()
    env.execute(timeout=PATIENCE)

    assert sorted(items.items) == list(range(1000))


# -- A task by itself -------------------------------------------------------------------------------------------------


def test_a_task_without_descriptor_makes_one() -> None:
    task = LocalTask(
        RuntimeContext(name="alone", job="job", stop_signal_num=1, input_indices=[0]), lambda: MapOperator(str)
    )

    task.put_packet(Packet(1))

    assert task.get_input_buffer().qsize() == 1
    assert task.input_queue_descriptor is not None
    assert task.input_queue_descriptor.queue_type == "local_queue"
    task.cleanup()
    task.cleanup()
    task.input_queue_descriptor.close()


class Kept:
    """Snapshots in memory."""

    state: Any = None

    def write(self, state: Any) -> None:
        self.state = copy.deepcopy(state)

    def read(self) -> Any:
        return self.state


def test_what_was_left_at_the_end_is_sent_once_though_the_task_starts_again() -> None:
    target = LocalQueueDescriptor("target-of-sums", maxsize=10)
    snapshots = Kept()

    def run_once(*messages: Any) -> list[Any]:
        ctx = RuntimeContext(
            name="sums", job="job", stop_signal_num=1, input_indices=[0], delivery="exactly_once", snapshots=snapshots
        )
        task = BaseTask(ctx, lambda: ReduceOperator(lambda total, x: total + x, at_end=True))
        task.add_connection(Connection(0, 0, "target", None, 0, target_queue_descriptor=target))
        for message in messages:
            task.get_input_buffer().put(message)
        task.run()
        assert task.get_input_buffer().stats().is_shutdown, "a sender that starts again must not wait for room here"
        task.get_input_buffer().close()
        return [each if is_stop(each) else unpacked(each) for each in target.get_many(10, timeout=0)]

    first = run_once((0, 0, [1, 2], ["a", "a"]), StopSignal(0, "test"))
    again = run_once()
    target.close()

    assert first == [(0, 0, [("a", 3)], ["a"]), StopSignal(0, "sums")]
    assert again == [StopSignal(0, "sums")]


class Killed(BaseException):
    """Ends a task as a kill does: nothing is settled afterwards."""


def test_state_outlives_a_kill_under_at_most_once_but_for_what_came_since_the_last_snapshot(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sage_qd.runtime.task.COMMIT_SECONDS", 0)  # a snapshot after each batch
    source, target = LocalQueueDescriptor("kept-source", maxsize=20), LocalQueueDescriptor("kept-target", maxsize=20)
    for number in range(5):
        source.put((0, 10 * number, [1] * 10, ["a"] * 10))
    source.put(StopSignal(0, "test"))
    snapshots, calls = Kept(), itertools.count(1)

    def add(total: int, item: int) -> int:
        if next(calls) == 25:
            raise Killed
        return total + item

    def run() -> None:
        ctx = RuntimeContext(name="sums", job="job", stop_signal_num=1, input_indices=[0], snapshots=snapshots)
        ctx.set_input_queue_descriptor(source)
        task = BaseTask(ctx, lambda: ReduceOperator(add, at_end=True))
        task.add_connection(Connection(0, 0, "target", None, 0, target_queue_descriptor=target))
        task.run()

    with pytest.raises(Killed):
        run()
    run()

    found = [unpacked(each) for each in target.get_many(10, timeout=0) if not is_stop(each)]
    source.close()
    target.close()
    assert found == [(0, 0, [("a", 40)], ["a"])]


def test_what_was_left_at_the_end_is_not_sent_twice_under_at_most_once() -> None:
    source, target = LocalQueueDescriptor("last-source", maxsize=20), LocalQueueDescriptor("last-target", maxsize=20)
    source.put((0, 0, [1, 2], ["a", "a"]))
    source.put(StopSignal(0, "test"))

    class KilledOnce(Kept):
        was_killed = False

        def write(self, state: Any) -> None:
            has_finished = state[0]
            if has_finished and not target.empty() and not self.was_killed:
                self.was_killed = True
                raise Killed
            super().write(state)

    snapshots = KilledOnce()

    def run() -> None:
        ctx = RuntimeContext(name="sums", job="job", stop_signal_num=1, input_indices=[0], snapshots=snapshots)
        ctx.set_input_queue_descriptor(source)
        task = BaseTask(ctx, lambda: ReduceOperator(lambda total, x: total + x, at_end=True))
        task.add_connection(Connection(0, 0, "target", None, 0, target_queue_descriptor=target))
        task.run()

    with pytest.raises(Killed):
        run()
    run()

    found = [unpacked(each) for each in target.get_many(10, timeout=0) if not is_stop(each)]
    source.close()
    target.close()
    assert found == [(0, 0, [("a", 3)], ["a"])]


class Counting:
    """Snapshots that count how often they are written."""

    def __init__(self) -> None:
        self.writes = 0

    def write(self, state: Any) -> None:
        self.writes += 1

    def read(self) -> Any:
        return None


def test_a_task_that_waits_writes_nothing_and_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sage_qd.runtime.task.IDLE_SECONDS", 0.005)  # so that it wakes up often in a short time
    snapshots = Counting()
    ctx = RuntimeContext(
        name="waits", job="job", stop_signal_num=1, input_indices=[0], delivery="exactly_once", snapshots=snapshots
    )
    task = LocalTask(ctx, lambda: MapOperator(str))
    task.put_packet(Packet(1))
    task.start_running()
    wait_for(lambda: snapshots.writes == 1, "the packet is settled")
    before = task.get_input_buffer().stats().gets

    time.sleep(0.2)

    assert snapshots.writes == 1
    assert task.get_input_buffer().stats().gets == before == 1
    task.get_input_buffer().put(StopSignal(0, "test"))
    task.join(PATIENCE)
    assert not task.is_running
    assert task.failure is None
    task.input_queue_descriptor.close()  # type: ignore[union-attr]  # it made one


def test_a_function_finds_the_queues_of_its_job_by_name(make: Make) -> None:
    class Looks(BaseFunction):
        def execute(self, data: int) -> Any:
            found = [self.ctx.get_queue_descriptor(name) for name in ("input_map_0", "input_sink_0", "input_other_0")]
            return [each and (each.queue_id, each.open(create=False).stats().puts > 0) for each in found]

    env = make()
    stream = env.from_collection([1]).map(Looks)
    stream.filter(lambda x: False).sink(str)
    items = stream.collect()
    dispatcher = env.execute(timeout=PATIENCE)

    named = dispatcher.queue_descriptors
    assert items.items == [[(named["input_map_0"].queue_id, True), (named["input_sink_0"].queue_id, False), None]]


def test_a_context_travels_without_what_is_open() -> None:
    import pickle

    from sage_qd import SageQueueDescriptor

    ctx = RuntimeContext(name="map_0", job="job")
    descriptor = SageQueueDescriptor("travels")
    ctx.set_input_queue_descriptor(descriptor)
    ctx.set_queue_descriptor_pool({"input_map_0": descriptor})

    again = pickle.loads(pickle.dumps(ctx))

    assert again.get_input_queue_descriptor() == descriptor
    assert again.get_queue_descriptor("input_map_0") == descriptor
    assert again.get_queue_descriptor("input_other") is None


# -- Stopping ---------------------------------------------------------------------------------------------------------


def test_threads_that_stop_a_job_at_once_stop_it_once_and_who_waits_goes_on(make: Make) -> None:
    env = make()
    env.from_source(itertools.count).sink(lambda x: None)
    dispatcher = env.submit()
    waiting = background(dispatcher.wait)
    wait_for(lambda: dispatcher.status()["tasks"]["sink_0"]["taken"] > 0, "it runs")

    stopping = [background(dispatcher.stop) for _ in range(4)]

    for call in stopping:
        call.result()
    assert waiting.result() is True
    assert dispatcher.state is JobState.STOPPED


STOPPED_BY_A_SIGNAL = """
import itertools, signal, sys
from sage_qd.runtime import LocalEnvironment, ProcessEnvironment
env = {"threads": LocalEnvironment, "processes": ProcessEnvironment}[sys.argv[1]]("signalled")
env.from_source(itertools.count).sink(lambda x: None)
dispatcher = env.submit()
signal.signal(signal.SIGTERM, lambda *_: env.stop())
print("running", flush=True)
print(dispatcher.wait(), dispatcher.state.value)
"""


@pytest.mark.parametrize("where", ["threads", "processes"])
def test_a_signal_handler_may_stop_the_job_that_its_thread_waits_for(where: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", STOPPED_BY_A_SIGNAL, where], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "running\n"
        program.terminate()
        said, errors = program.communicate(timeout=PATIENCE)

    assert (said, errors, program.returncode) == ("True stopped\n", "", 0)


def test_a_job_that_is_stopped_in_the_middle_of_a_look_is_stopped(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    env = make()
    env.from_source(itertools.count).sink(lambda x: None)
    dispatcher = env.submit()
    take = dispatcher._collected.take

    def interrupted() -> bool:
        monkeypatch.undo()
        dispatcher.stop()
        return take()

    monkeypatch.setattr(dispatcher._collected, "take", interrupted)

    assert dispatcher.wait() is True
    assert dispatcher.state is JobState.STOPPED


INTERRUPTED = """
import sys, time
from sage_qd.runtime import ProcessEnvironment
env = ProcessEnvironment(sys.argv[1])
env.from_collection([1]).map(lambda x: print("stuck", flush=True) or time.sleep(1000)).sink(str)
env.execute()
"""


def shut_queues(name: str) -> list[Any]:
    """The figures of the queues of a job."""
    return [state.figures for state in queue_states() if name in state.queue_id and state.figures is not None]


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_ends_tasks_that_do_not_end_by_themselves(times: int) -> None:
    name = f"stuck-{os.getpid()}-{times}"
    command = [sys.executable, "-c", INTERRUPTED, name]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as driver:
        assert driver.stdout is not None
        assert driver.stdout.readline() == "stuck\n"
        processes = psutil.Process(driver.pid).children(recursive=True)
        os.killpg(driver.pid, signal.SIGINT)  # as a terminal does
        wait_for(lambda: any(info.is_shutdown for info in shut_queues(name)), "the job is about to end")
        if times == 2:
            os.killpg(driver.pid, signal.SIGINT)
        _, errors = driver.communicate(timeout=PATIENCE)

    assert len(processes) >= 2  # supervisor and the stuck task at least
    assert driver.returncode == -signal.SIGINT
    assert "BrokenPipeError" not in errors
    assert not any(process.is_running() and process.status() != "zombie" for process in processes)
    assert [info for info in list_segments() if name in info.name] == []
