"""The checker of histories: it takes every history of a queue, and none with a planted fault."""

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage_qd.testing.linearizable import Answer, Call, Verb, is_linearizable


def put(value: int, began: float, ended: float, answer: Answer = Answer.DONE, process: int = 0) -> Call:
    return Call(process, Verb.PUT, value, began, ended, answer)


def got(value: int, began: float, ended: float, process: int = 1) -> Call:
    return Call(process, Verb.GET, value, began, ended)


def empty(began: float, ended: float, process: int = 1) -> Call:
    return Call(process, Verb.GET, None, began, ended, Answer.REFUSED)


def killed_get(began: float, ended: float, process: int = 2) -> Call:
    return Call(process, Verb.GET, None, began, ended, Answer.UNKNOWN)


GOOD = {
    "nothing": ([], 0),
    "one after the other": ([put(1, 0, 1), put(2, 2, 3), got(1, 4, 5), got(2, 6, 7), empty(8, 9)], 0),
    "puts that overlap, got in the other order": ([put(1, 0, 5), put(2, 1, 5), got(2, 6, 7), got(1, 8, 9)], 0),
    "gets that overlap": ([put(1, 0, 1), put(2, 2, 3), got(2, 4, 7), got(1, 5, 8)], 0),
    "a get that overlaps its put": ([put(1, 0, 9), got(1, 1, 2)], 0),
    "empty before a put that it overlaps": ([put(1, 0, 9), empty(1, 2), got(1, 10, 11)], 0),
    "full": ([put(1, 0, 1), put(2, 2, 3, Answer.REFUSED), got(1, 4, 5), put(2, 6, 7)], 1),
    "a killed put that was done": ([put(1, 0, 5, Answer.UNKNOWN), got(1, 6, 7)], 0),
    "a killed put that was not": ([put(1, 0, 5, Answer.UNKNOWN), empty(6, 7)], 0),
    "a killed get that took": ([put(1, 0, 1), killed_get(2, 3), empty(4, 5)], 0),
    "a killed get that did not": ([put(1, 0, 1), killed_get(2, 3), got(1, 4, 5)], 0),
    "killed on both sides": ([put(1, 0, 5, Answer.UNKNOWN), killed_get(1, 6), empty(7, 8)], 0),
    "a killed put that fills the queue": ([put(1, 0, 5, Answer.UNKNOWN), put(2, 6, 7, Answer.REFUSED)], 1),
}
BAD = {
    "lost": ([put(1, 0, 1), empty(2, 3)], 0),
    "lost among others": ([put(1, 0, 1), put(2, 2, 3), got(2, 4, 5), empty(6, 7)], 0),
    "doubled": ([put(1, 0, 1), got(1, 2, 3), got(1, 4, 5)], 0),
    "doubled by a kill": ([put(1, 0, 5, Answer.UNKNOWN), got(1, 6, 7), got(1, 8, 9)], 0),
    "reordered": ([put(1, 0, 1), put(2, 2, 3), got(2, 4, 5), got(1, 6, 7)], 0),
    "invented, or torn": ([put(1, 0, 1), got(7, 2, 3)], 0),
    "got before it was put": ([got(1, 0, 1), put(1, 2, 3)], 0),
    "empty while it was not": ([put(1, 0, 1), empty(2, 3), got(1, 4, 5)], 0),
    "full while it was not": ([put(1, 0, 1), put(2, 2, 3, Answer.REFUSED)], 2),
    "full without a bound": ([put(1, 0, 1, Answer.REFUSED)], 0),
    "more than the bound": ([put(1, 0, 1), put(2, 2, 3)], 1),
    "refused, and there all the same": ([put(1, 0, 1, Answer.REFUSED), got(1, 2, 3)], 1),
    "two lost by one killed get": ([put(1, 0, 1), put(2, 2, 3), killed_get(4, 5), empty(6, 7)], 0),
    "taken by a get that was dead by then": ([killed_get(0, 1), put(1, 2, 3), empty(4, 5)], 0),
    "put by a process that was dead by then": ([put(1, 0, 1, Answer.UNKNOWN), empty(2, 3), got(1, 4, 5)], 0),
}


@pytest.mark.parametrize("name", GOOD)
def test_what_a_queue_may_answer(name: str) -> None:
    assert is_linearizable(*GOOD[name])


@pytest.mark.parametrize("name", BAD)
def test_what_no_queue_answers(name: str) -> None:
    assert not is_linearizable(*BAD[name])


def test_a_value_put_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="once only"):
        is_linearizable([put(1, 0, 1), put(1, 2, 3)])


def history(seed: int, processes: int, calls: int, maxsize: int) -> list[Call]:
    """What `processes` could have seen of a real queue, each call with its moment somewhere inside; drained at last."""
    chance = random.Random(seed)
    moment, queue, told, free = 0.0, [], [], [0.0] * processes
    for value in range(calls):
        moment += chance.random()
        process = chance.randrange(processes)
        if free[process] > moment:
            continue
        began, ended = max(free[process], moment - 3 * chance.random()), moment + 3 * chance.random()
        free[process] = ended
        killed = chance.random() < 0.02
        if chance.random() < 0.5:
            call = Call(process, Verb.PUT, value, began, ended)
            if maxsize and len(queue) >= maxsize:
                call = replace(call, answer=Answer.REFUSED)
            elif killed:
                call = replace(call, answer=Answer.UNKNOWN)
            if call.answer is Answer.DONE or (call.answer is Answer.UNKNOWN and chance.random() < 0.5):
                queue.append(value)
        elif not queue:
            call = empty(began, ended, process)
        else:
            call = Call(process, Verb.GET, queue[0], began, ended)
            if killed:
                call = replace(call, value=None, answer=Answer.UNKNOWN)
            if not killed or chance.random() < 0.5:
                queue.pop(0)
        told.append(call)
    moment = max(free)
    for value in queue:
        told.append(got(value, moment + 1, moment + 2, processes))
        moment += 2
    return [*told, empty(moment + 1, moment + 2, processes)]


CASES = given(st.integers(0, 2**32), st.integers(2, 6), st.sampled_from([0, 1, 3, 8]))
FEW = settings(max_examples=100, deadline=None)


@FEW
@CASES
def test_every_history_of_a_queue_is_taken(seed: int, processes: int, maxsize: int) -> None:
    assert is_linearizable(history(seed, processes, 100, maxsize), maxsize)


@FEW
@CASES
def test_a_lost_message_is_found(seed: int, processes: int, maxsize: int) -> None:
    """The put of a message that nobody gets, where no killed get can have it."""
    told = [call for call in history(seed, processes, 50, maxsize) if call.verb is Verb.PUT or call.value is not None]
    told = [call for call in told if call.answer is not Answer.REFUSED]
    end = max((call.ended for call in told), default=0.0)
    lost = put(1_000, end + 1, end + 2)
    assert not is_linearizable([*told, lost, empty(end + 3, end + 4)])


@FEW
@CASES
def test_a_doubled_message_is_found(seed: int, processes: int, maxsize: int) -> None:
    told = history(seed, processes, 100, maxsize)
    taken = [call for call in told if call.verb is Verb.GET and call.value is not None]
    for call in taken[-1:]:
        again = replace(call, process=processes + 1, began=told[-1].ended + 1, ended=told[-1].ended + 2)
        assert not is_linearizable([*told, again], maxsize)


@FEW
@CASES
def test_two_messages_in_the_wrong_order_are_found(seed: int, processes: int, maxsize: int) -> None:
    """The last two that were got, with nothing of their puts or gets overlapping."""
    told = history(seed, processes, 60, 0)
    end = told[-1].ended
    late = [put(1_001, end + 1, end + 2), put(1_002, end + 3, end + 4)]
    assert is_linearizable([*told, *late, got(1_001, end + 5, end + 6), got(1_002, end + 7, end + 8)])
    assert not is_linearizable([*told, *late, got(1_002, end + 5, end + 6), got(1_001, end + 7, end + 8)])
