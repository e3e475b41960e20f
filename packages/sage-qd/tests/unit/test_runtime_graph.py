"""The graph of a job: what is refused, and which paths there are."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from sage_qd import GraphError
from sage_qd.runtime import DataStream, ErrorPolicy, ExecutionGraph, Input, LocalEnvironment, Transformation
from sage_qd.runtime.graph import ServiceNode
from sage_qd.runtime.operators import MapOperator, SourceOperator


def source(name: str = "source", **settings: Any) -> Transformation:
    return Transformation(name=name, factory=partial(SourceOperator, []), is_source=True, **settings)


def step(name: str, *inputs: Transformation, **settings: Any) -> Transformation:
    return Transformation(name=name, factory=partial(MapOperator, str), inputs=list(map(Input, inputs)), **settings)


def test_each_instance_has_an_edge_to_each_instance_of_the_next_step() -> None:
    first = source(parallelism=2)
    graph = ExecutionGraph([step("map", first, parallelism=3), first])

    sender, receiver = graph.nodes["source_1"], graph.nodes["map_2"]

    assert list(graph.nodes) == ["source_0", "source_1", "map_0", "map_1", "map_2"]
    assert [[edge.downstream_node.name for edge in group] for group in sender.output_channels] == [
        ["map_0", "map_1", "map_2"]
    ]
    assert receiver.stop_signal_num == 2
    assert [(edge.upstream_node.name, edge.path) for edge in receiver.input_edges] == [("source_0", 0), ("source_1", 1)]


def test_each_logical_edge_is_a_group_of_its_own() -> None:
    first = source()
    graph = ExecutionGraph([first, step("a", first), step("b", first, first)])

    assert len(graph.nodes["source_0"].output_channels) == 3
    assert [edge.input_index for edge in graph.nodes["b_0"].input_edges] == [0, 1]


def test_a_cycle_is_refused_with_its_steps() -> None:
    first = source()
    one = step("one", first)
    two = step("two", one)
    one.inputs.append(Input(two))

    with pytest.raises(GraphError, match="'one': there is a cycle through one, two"):
        ExecutionGraph([first, one, two])


@pytest.mark.parametrize(
    ("steps", "node", "reason"),
    [
        ([source(), source()], "source", "two steps have this name"),
        ([step("map")], "map", "nothing is connected to it"),
        ([step("map", source("elsewhere"))], "map", "its input 'elsewhere' is no step of this job"),
        ([source("")], "", "it has no name"),
        ([source(parallelism=0)], "source", "parallelism must be 1 to 1,000, not 0"),
        ([source(parallelism=True)], "source", "parallelism must be 1 to 1,000, not True"),
        ([source(restarts=-1)], "source", "restarts must be 0 or more, or None, not -1"),
        ([source(restarts=True)], "source", "restarts must be 0 or more, or None, not True"),
    ],
)
def test_what_is_no_graph_is_refused_with_the_step(steps: list[Transformation], node: str, reason: str) -> None:
    with pytest.raises(GraphError, match=reason) as caught:
        ExecutionGraph(steps)

    assert caught.value.node == node


def test_two_services_of_one_name_are_refused() -> None:
    with pytest.raises(GraphError, match="two services have this name"):
        ExecutionGraph([source()], [ServiceNode("s", object), ServiceNode("s", object)])


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("fail", ErrorPolicy()),
        ("skip", ErrorPolicy(kind="skip")),
        ("retry(3)", ErrorPolicy(retries=3)),
        ("retry(2), skip", ErrorPolicy(kind="skip", retries=2)),
    ],
)
def test_policies_are_read(text: str, policy: ErrorPolicy) -> None:
    assert ErrorPolicy.of(text) == policy


@pytest.mark.parametrize("text", ["", "ignore", "retry", "retry(-1)", "skip, fail", "retry(1), again"])
def test_other_policies_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="on_error must be"):
        ErrorPolicy.of(text)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"delivery": "twice"}, "delivery must be one of"),
        ({"overflow": "explode"}, "overflow must be one of"),
        ({"lanes": "none"}, "lanes must be one of"),
        ({"batch_size": 0}, "batch_size must be at least 1, not 0"),
        ({"restarts": -1}, "restarts must be 0 or more, not -1"),
        ({"linger": 0}, "linger must be more than 0 seconds"),
        ({"overflow": "drop", "delivery": "exactly_once"}, "may not"),
        ({"lanes": "per_edge", "delivery": "exactly_once"}, "does not keep the order"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        LocalEnvironment("job", **settings)


def test_streams_of_two_jobs_do_not_mix() -> None:
    one, two = LocalEnvironment("one"), LocalEnvironment("two")

    with pytest.raises(ValueError, match="the streams belong to two jobs: 'one' and 'two'"):
        one.from_collection([1]).connect(two.from_collection([2]))


@pytest.mark.parametrize(
    "write",
    [
        lambda stream: stream.sum(name="parallel", parallelism=2),
        lambda stream: stream.count(name="parallel", parallelism=2),
        lambda stream: stream.keyby(str).join(stream, max, name="parallel", parallelism=2),
    ],
    ids=["reduce", "count", "join"],
)
def test_parallel_steps_by_key_are_refused_without_keys(write: Callable[[DataStream], object]) -> None:
    env = LocalEnvironment("job")
    write(env.from_collection([1]))

    with pytest.raises(GraphError, match=r"'parallel'.*'source' without keys: call keyby\(\) before"):
        env.submit()


def test_a_source_that_is_none_is_refused_at_once() -> None:
    with pytest.raises(TypeError, match="not iterable"):
        LocalEnvironment("job").from_collection(7)  # type: ignore[arg-type]


def test_an_iterator_is_refused_where_it_would_have_to_be_rewound() -> None:
    env = LocalEnvironment("job", delivery="exactly_once")
    env.from_collection(iter([1])).sink(print)

    with pytest.raises(GraphError, match="'source': an iterator cannot be rewound"):
        env.submit()


def test_a_job_is_submitted_once() -> None:
    env = LocalEnvironment("job")
    env.from_collection([1]).sink(str)
    env.execute(timeout=30)

    with pytest.raises(RuntimeError, match="submitted already"):
        env.submit()
