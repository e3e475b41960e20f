"""What operators make of a batch, and how far they came when the user's function raised."""

from typing import Any

import pytest

from sage_qd.runtime.operators import (
    CountOperator,
    FilterOperator,
    FlatMapOperator,
    JoinOperator,
    KeyByOperator,
    MapOperator,
    Operator,
    OperatorError,
    ReduceOperator,
    SinkOperator,
)


def picky(item: int) -> Any:
    if item == 3:
        raise LookupError("three")
    return [item]


def joining() -> JoinOperator:
    operator = JoinOperator(lambda left, right: picky(left))
    operator.process([0, 0], ["b", "c"], 1)
    return operator


@pytest.mark.parametrize(
    ("operator", "done"),
    [
        (MapOperator(picky), ([[1], [2]], ["a", "b"])),
        (FilterOperator(picky), ([1, 2], ["a", "b"])),
        (FlatMapOperator(picky), ([1, 2], ["a", "b"])),
        (KeyByOperator(picky), ([1, 2], [[1], [2]])),
        (SinkOperator(picky), ([], None)),
        (ReduceOperator(lambda value, item: picky(item), first=picky), ([("a", [1]), ("b", [2])], ["a", "b"])),
        (joining(), ([[2]], ["b"])),
    ],
    ids=lambda each: type(each).__name__ if isinstance(each, Operator) else "",
)
def test_an_error_says_which_packet_and_keeps_what_came_before(operator: Operator, done: Any) -> None:
    with pytest.raises(OperatorError) as caught:
        operator.process([1, 2, 3, 4], ["a", "b", "c", "d"], 0)

    assert caught.value.at == 2
    assert caught.value.done == done
    assert isinstance(caught.value.__cause__, LookupError)


def test_a_reduction_has_the_values_from_before_the_error() -> None:
    operator = ReduceOperator(lambda total, item: total + picky(item)[0], at_end=True)

    with pytest.raises(OperatorError) as caught:
        operator.process([1, 2, 3, 4], ["a"] * 4, 0)

    assert caught.value.at == 2
    assert operator.finish() == ([("a", 3)], ["a"])


def test_counting_stops_at_a_key_that_cannot_be_hashed() -> None:
    operator = CountOperator(at_end=True)

    with pytest.raises(OperatorError) as caught:
        operator.process([1, 2, 3, 4], ["a", "b", ["c"], "a"], 0)

    assert caught.value.at == 2
    assert dict(operator.finish()[0]) == {"a": 1, "b": 1}


def test_counts_go_on_after_they_were_restored() -> None:
    first, again = CountOperator(at_end=True), CountOperator(at_end=True)
    first.process([1, 2], None, 0)
    again.restore(first.state())

    again.process([3], None, 0)

    assert again.finish() == ([(None, 3)], [None])


def test_packets_that_are_their_own_keys_are_one_list() -> None:
    words = ["a", "b"]

    payloads, keys = KeyByOperator(lambda word: word).process(words, None, 0)
    others = KeyByOperator(str.upper).process(words, None, 0)

    assert payloads is keys is words
    assert others == (words, ["A", "B"])


def test_any_iterable_is_flattened() -> None:
    for function in (list, tuple, iter, lambda each: (one for one in each)):
        assert FlatMapOperator(function).process(["ab", "", "c"], None, 0) == (["a", "b", "c"], None)
