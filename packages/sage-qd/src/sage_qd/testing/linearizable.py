"""
Whether what happened on a queue can be told as one line: a linearizability checker for first-in-first-out queues.

A history is what each process called, when, and what came back. It is linearizable when every call can be given one
moment between its beginning and its end, such that a plain queue, doing the calls in the order of these moments, gives
the same answers. A call of a process that was killed in it has no answer; it may have had its effect or not.

The search is that of Wing and Gong (Testing and Verifying Concurrent Objects, 1993), with the memory of configurations
by Lowe (Testing for Linearizability, 2017): a configuration is the set of calls that were given a moment, with the
state of the queue, and none is looked at twice. What is special to queues: a put is not given a moment when a value
that was got later would then stand before one that was got earlier, so that a wrong order shows at once, and not when
the values come out. Which values the unknown gets took is tried beforehand, every possibility.

The search is exact. It takes exponential time at worst, in the number of calls that overlap; with a handful of
processes it takes about as many steps as there are calls.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from itertools import combinations, permutations
from math import inf
from typing import Final

__all__ = ["Answer", "Call", "Verb", "is_linearizable"]


class Verb(Enum):
    """What was called."""

    PUT = "put"
    GET = "get"


class Answer(Enum):
    """What came back."""

    DONE = "done"
    REFUSED = "refused"
    """``Full`` for a put, ``Empty`` for a get."""
    UNKNOWN = "unknown"
    """Nothing: the process was killed."""


@dataclass(frozen=True, slots=True)
class Call:
    """
    One call.

    Attributes:
        process: Who called.
        verb: What.
        value: What was put, or what get returned; None for a get without an answer, or a refused one.
        began: When the call began.
        ended: When it came back; for an unknown answer a moment at which the process was dead for sure, or infinity.
        answer: How it came back.
    """

    process: int
    verb: Verb
    value: int | None
    began: float
    ended: float = inf
    answer: Answer = Answer.DONE


_State = tuple[int, ...]
"""The values in the queue, oldest first."""


def is_linearizable(history: Sequence[Call], maxsize: int = 0) -> bool:
    """
    Return whether a plain queue could have given these answers.

    Args:
        history: The calls, in any order; each value is put once only. The queue was empty before them.
        maxsize: The bound of the queue; 0 for none, and then no put may be refused.

    Raises:
        ValueError: A value is put twice, so that the history does not say who got which.
    """
    puts = [call.value for call in history if call.verb is Verb.PUT and call.answer is not Answer.REFUSED]
    if len(set(puts)) < len(puts):
        raise ValueError("each value may be put once only")
    got = [call.value for call in history if call.verb is Verb.GET and call.answer is Answer.DONE]
    if len(set(got)) < len(got) or not set(got) <= set(puts):
        return False
    return any(_Search(known, maxsize).succeeds() for known in _possibilities(history, set(puts) - set(got)))


def _possibilities(history: Sequence[Call], remaining: set[int | None]) -> Iterator[list[Call]]:
    """Yield the history without unknown gets: each got one of the values that nobody else got, or none."""
    unknown = [call for call in history if call.verb is Verb.GET and call.answer is Answer.UNKNOWN]
    rest = [call for call in history if not (call.verb is Verb.GET and call.answer is Answer.UNKNOWN)]
    for taken in _choices(len(unknown), sorted(value for value in remaining if value is not None)):
        assigned = [
            replace(call, value=value, answer=Answer.DONE)
            for call, value in zip(unknown, taken, strict=True)
            if value is not None
        ]
        ends = {call.value: call.ended for call in [*rest, *assigned] if _got_something(call)}
        yield [*(_known_put(call, ends) for call in rest), *assigned]


def _choices(count: int, values: list[int]) -> Iterator[tuple[int | None, ...]]:
    """Yield each way to give `count` takers one value or none, no value twice; as many values as possible first."""
    for takers in range(min(count, len(values)), -1, -1):
        for who in combinations(range(count), takers):
            for chosen in permutations(values, takers):
                given = dict(zip(who, chosen, strict=True))
                yield tuple(given.get(at) for at in range(count))


def _got_something(call: Call) -> bool:
    return call.verb is Verb.GET and call.answer is Answer.DONE


def _known_put(call: Call, ends: dict[int | None, float]) -> Call:
    """An unknown put whose value was got was done by then."""
    if call.verb is Verb.PUT and call.answer is Answer.UNKNOWN and call.value in ends:
        return replace(call, answer=Answer.DONE, ended=min(call.ended, ends[call.value]))
    return call


class _Search:
    """Depth first through the configurations, likely ones first. Only a put may be unknown: one that nobody got."""

    def __init__(self, history: Sequence[Call], maxsize: int) -> None:
        self.calls: Final = sorted(history, key=lambda call: call.began)
        self.maxsize: Final = maxsize
        self.required: Final = sum(1 << at for at, call in enumerate(self.calls) if call.answer is not Answer.UNKNOWN)
        gets = {call.value: call for call in self.calls if _got_something(call)}
        self.got_from: Final = {value: call.began for value, call in gets.items()}
        self.got_until: Final = {value: call.ended for value, call in gets.items()}
        # Calls that overlap are tried in the order in which they ended, puts in that in which their values were got.
        self.rank: Final = [
            self.got_until.get(call.value, inf) if call.verb is Verb.PUT else call.ended for call in self.calls
        ]

    def succeeds(self) -> bool:
        seen: set[tuple[int, _State]] = {(0, ())}
        stack = [self.followers(0, (), 0, -inf)]
        while stack:
            for done, state, first, latest in stack[-1]:
                if done & self.required == self.required:
                    return True
                if (done, state) not in seen:
                    seen.add((done, state))
                    stack.append(self.followers(done, state, first, latest))
                    break
            else:
                stack.pop()
        return not self.required

    def followers(
        self, done: int, state: _State, first: int, latest: float
    ) -> Iterator[tuple[int, _State, int, float]]:
        """
        Yield the configurations that one more call leads to.

        Args:
            done: The calls that have their moment, one bit each.
            state: What is in the queue after them.
            first: All calls before this one are done.
            latest: When the last of them began; who was dead by then is too late.
        """
        while done >> first & 1:
            first += 1
        for at in self.candidates(done, first, latest):
            call = self.calls[at]
            following = self.after(call, state)
            if following is not None:
                yield done | 1 << at, following, first, max(latest, call.began)

    def candidates(self, done: int, first: int, latest: float) -> list[int]:
        """Return the calls that may come next: begun before any that is still to come has ended."""
        found: list[int] = []
        earliest_end = inf
        for at in range(first, len(self.calls)):
            call = self.calls[at]
            if call.began > earliest_end:
                break
            if done >> at & 1:
                continue
            if call.answer is not Answer.UNKNOWN:
                earliest_end = min(earliest_end, call.ended)
            elif call.ended < latest:
                continue
            found.append(at)
        return sorted((at for at in found if self.calls[at].began <= earliest_end), key=self.rank.__getitem__)

    def after(self, call: Call, state: _State) -> _State | None:
        """Return the state after a call, None when a queue in this state answers otherwise."""
        is_full = bool(self.maxsize) and len(state) >= self.maxsize
        if call.verb is Verb.PUT:
            if call.answer is Answer.REFUSED:
                return state if is_full else None
            if is_full or call.value is None or self.comes_too_late(call.value, state):
                return None
            return (*state, call.value)
        if call.answer is Answer.REFUSED:
            return None if state else state
        return state[1:] if state and state[0] == call.value else None

    def comes_too_late(self, value: int, state: _State) -> bool:
        """Whether a value, put now, would be got before one that is in the queue already."""
        got_until = self.got_until.get(value, inf)
        return got_until < inf and any(self.got_from.get(before, inf) > got_until for before in state)
