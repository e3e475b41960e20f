"""
Operators: what a task does with a batch.

An operator is given payloads and keys of one batch and returns those that go on. A function of the user that raises
ends the batch with :class:`OperatorError`, which says how far it came, so that the task can try the packet again, skip
it, or give up. Each operator spells its loop out: one that they share would call a function more for each packet.
Functions are plain callables, or objects of :class:`BaseFunction` where they need the context.
"""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from operator import is_, length_hint
from pathlib import Path
from typing import Any, Final, Protocol, TypeAlias

__all__ = [
    "BaseFunction",
    "CoMapOperator",
    "CountOperator",
    "FileSource",
    "FilterOperator",
    "FlatMapOperator",
    "JoinOperator",
    "KeyByOperator",
    "MapOperator",
    "Operator",
    "OperatorError",
    "ReduceOperator",
    "SinkOperator",
    "SourceOperator",
]

Outputs: TypeAlias = tuple[list[Any], list[Any] | None]
_MISSING: Final = object()


class Context(Protocol):
    """What a function may ask its task; see :class:`~sage_qd.runtime.RuntimeContext`."""

    parallel_index: int
    parallelism: int

    def call_service(self, service_name: str, *args: Any, **kwargs: Any) -> Any:
        """Call a service and wait for its answer."""


class BaseFunction(ABC):
    """
    A function with a context: ``self.ctx`` is that of its task, from :meth:`open` to :meth:`close`.

    One object is made for each instance of the step, in the process of the task: hand over the class, or a callable
    that makes one.
    """

    ctx: Any

    def open(self) -> None:  # noqa: B027  (many functions need none)
        """Prepare; called once before the first packet."""

    @abstractmethod
    def execute(self, data: Any) -> Any:
        """Work on one payload."""

    def close(self) -> None:  # noqa: B027  (likewise)
        """Clean up; called once after the last packet, also when the job fails."""

    def __call__(self, data: Any) -> Any:
        """Work on one payload."""
        return self.execute(data)


class OperatorError(Exception):
    """
    The user's function raised; the error is the ``__cause__``.

    Attributes:
        done: What came out of the packets before the one that failed.
        at: Which packet of the batch failed.
    """

    def __init__(self, done: Outputs, at: int) -> None:
        super().__init__(f"packet {at} of a batch failed")
        self.done = done
        self.at = at


class Operator(ABC):
    """One instance of a step. Not shared between threads."""

    def __init__(self, *functions: Any) -> None:
        self._given = functions
        self._functions = functions

    def open(self, ctx: Context) -> None:
        """Make the functions that are classes, and give them the context."""
        made = []
        for given in self._given:
            function = given() if isinstance(given, type) and issubclass(given, BaseFunction) else given
            if isinstance(function, BaseFunction):
                function.ctx = ctx
                function.open()
            made.append(function)
        self._functions = tuple(made)

    def close(self) -> None:
        """Let the functions clean up."""
        for function in self._functions:
            if isinstance(function, BaseFunction):
                function.close()

    @abstractmethod
    def process(self, payloads: list[Any], keys: list[Any] | None, input_index: int) -> Outputs:
        """Work on a batch."""

    def finish(self) -> Outputs:
        """Return what is left when all input has been seen."""
        return [], None

    def state(self) -> Any:
        """Return what a restarted instance must have, to be pickled."""
        return None

    def restore(self, state: Any) -> None:
        """Take what :meth:`state` returned; called only with a state that is not None."""
        raise TypeError(f"{type(self).__name__} keeps no state, and cannot take {type(state).__name__}")


class MapOperator(Operator):
    """One result for each packet; None is dropped. The key stays."""

    def process(self, payloads: list[Any], keys: list[Any] | None, input_index: int) -> Outputs:
        """Work on a batch."""
        function = self._functions[input_index if len(self._functions) > 1 else 0]
        results: list[Any] = []
        result_keys: list[Any] | None = None if keys is None else []
        at = 0
        try:
            for at, payload in enumerate(payloads):
                result = function(payload)
                if result is not None:
                    results.append(result)
                    if result_keys is not None and keys is not None:
                        result_keys.append(keys[at])
        except Exception as error:
            raise OperatorError((results, result_keys), at) from error
        return results, result_keys


class CoMapOperator(MapOperator):
    """A function for each input."""


class FilterOperator(Operator):
    """Lets packets pass for which the function is true."""

    def process(self, payloads: list[Any], keys: list[Any] | None, input_index: int) -> Outputs:
        """Work on a batch."""
        function = self._functions[0]
        passed: list[Any] = []
        passed_keys: list[Any] | None = None if keys is None else []
        at = 0
        try:
            for at, payload in enumerate(payloads):
                if function(payload):
                    passed.append(payload)
                    if passed_keys is not None and keys is not None:
                        passed_keys.append(keys[at])
        except Exception as error:
            raise OperatorError((passed, passed_keys), at) from error
        return passed, passed_keys


class FlatMapOperator(Operator):
    """Any number of results for each packet, all with its key."""

    def process(self, payloads: list[Any], keys: list[Any] | None, input_index: int) -> Outputs:
        """Work on a batch."""
        function = self._functions[0]
        results: list[Any] = []
        result_keys: list[Any] | None = None if keys is None else []
        at = 0
        try:
            for at, payload in enumerate(payloads):
                found = function(payload)
                if type(found) is not list:
                    found = list(found)
                results += found
                if result_keys is not None and keys is not None:
                    result_keys += [keys[at]] * len(found)
        except Exception as error:
            raise OperatorError((results, result_keys), at) from error
        return results, result_keys


class KeyByOperator(Operator):
    """Gives each packet a key; nothing else changes."""

    def process(self, payloads: list[Any], keys: list[Any] | None, input_index: int) -> Outputs:
        """Work on a batch."""
        found: list[Any] = []
        try:
            found.extend(map(self._functions[0], payloads))  # what came before an error stays in the list
        except Exception as error:
            raise OperatorError((payloads[: len(found)], found), len(found)) from error
        # A packet may be its own key, as words are when they are counted: one list for both is sent and split once.
        return payloads, payloads if all(map(is_, found, payloads)) else found


class ReduceOperator(Operator):
    """
    Keeps one value for each key: ``function(value, payload)`` is the next one.

    Emits ``(key, value)`` after each packet, or only at the end.

    Args:
        function: Of value and payload.
        at_end: Whether only the last values are emitted, when all input has been seen.
        first: Makes the first value of a key from its first payload; without it the payload is the value.
    """

    def __init__(
        self, function: Callable[[Any, Any], Any], at_end: bool = False, first: Callable[[Any], Any] | None = None
    ) -> None:
        super().__init__(function)
        self._first = first
        self._values: dict[Any, Any] = {}
        self._at_end = at_end

    def process(self, payloads: list[Any], keys: list[Any] | None, input_index: int) -> Outputs:
        """Work on a batch."""
        function, first = self._functions[0], self._first
        values, get = self._values, self._values.get
        results: list[Any] = []
        found: list[Any] = keys if keys is not None else [None] * len(payloads)
        left = iter(payloads)
        try:
            for payload, key in zip(left, found, strict=True):
                value = get(key, _MISSING)
                if value is not _MISSING:
                    value = function(value, payload)
                else:
                    value = payload if first is None else first(payload)
                values[key] = value
                if not self._at_end:
                    results.append((key, value))
        except Exception as error:
            at = len(payloads) - length_hint(left) - 1
            raise OperatorError((results, found[: len(results)]), at) from error
        return results, found[: len(results)]

    def finish(self) -> Outputs:
        """Return the last values, when they are emitted at the end."""
        if not self._at_end:
            return [], None
        return list(self._values.items()), list(self._values)

    def state(self) -> Any:
        """Return the values."""
        return self._values

    def restore(self, state: Any) -> None:
        """Take the values."""
        self._values = state


class CountOperator(ReduceOperator):
    """
    Counts the packets of each key.

    Args:
        at_end: As for :class:`ReduceOperator`.
    """

    def __init__(self, at_end: bool = False) -> None:
        super().__init__(_one_more, at_end, _one)
        self._values = self._counts = Counter[Any]()

    def process(self, payloads: list[Any], keys: list[Any] | None, input_index: int) -> Outputs:
        """Work on a batch; at once where only the last values matter."""
        if not self._at_end:
            return super().process(payloads, keys, input_index)
        left = iter(keys if keys is not None else [None] * len(payloads))
        try:
            self._counts.update(left)
        except Exception as error:  # a key that cannot be hashed; those before it are counted
            raise OperatorError(([], []), len(payloads) - length_hint(left) - 1) from error
        return [], []

    def restore(self, state: Any) -> None:
        """Take the counts."""
        self._values = self._counts = Counter(state)


class JoinOperator(Operator):
    """
    Every pair of packets of two inputs that have the same key: ``function(left, right)``, once for each pair.

    Both sides are kept to the end of the job.
    """

    def __init__(self, function: Callable[[Any, Any], Any]) -> None:
        super().__init__(function)
        self._sides: tuple[dict[Any, list[Any]], dict[Any, list[Any]]] = ({}, {})

    def process(self, payloads: list[Any], keys: list[Any] | None, input_index: int) -> Outputs:
        """Work on a batch."""
        if keys is None:
            raise OperatorError(([], []), 0) from ValueError("both inputs of a join need a key: call keyby() before")
        function = self._functions[0]
        mine, others = self._sides[input_index], self._sides[1 - input_index]
        results: list[Any] = []
        result_keys: list[Any] = []
        at = 0
        try:
            for at, payload in enumerate(payloads):
                key = keys[at]
                pairs = [
                    function(payload, other) if input_index == 0 else function(other, payload)
                    for other in others.get(key, ())
                ]
                mine.setdefault(key, []).append(payload)
                results += pairs
                result_keys += [key] * len(pairs)
        except Exception as error:
            raise OperatorError((results, result_keys), at) from error
        return results, result_keys

    def state(self) -> Any:
        """Return both sides."""
        return self._sides

    def restore(self, state: Any) -> None:
        """Take both sides."""
        self._sides = state


class SinkOperator(Operator):
    """Calls the function for each packet; nothing goes on."""

    def process(self, payloads: list[Any], keys: list[Any] | None, input_index: int) -> Outputs:
        """Work on a batch."""
        function, done = self._functions[0], 0
        try:
            for payload in payloads:
                function(payload)
                done += 1
        except Exception as error:
            raise OperatorError(([], None), done) from error
        return [], None


# -- Sources ----------------------------------------------------------------------------------------------------------


class FileSource:
    """Lines of a text file, without their ends; can be rewound."""

    def __init__(self, path: str | Path, encoding: str = "utf-8") -> None:
        self._path = Path(path)
        self._encoding = encoding

    def __iter__(self) -> Iterator[str]:
        with self._path.open(encoding=self._encoding) as lines:
            for line in lines:
                yield line.rstrip("\n")


class SourceOperator(Operator):
    """
    Makes packets. Of several instances, each takes every n-th item of a collection.

    Args:
        items: A sequence, an iterable that starts anew each time, a function that returns one, or an iterator.
    """

    def __init__(self, items: Iterable[Any] | Callable[[], Iterable[Any]]) -> None:
        super().__init__()
        self.items = items

    @property
    def can_rewind(self) -> bool:
        """Whether a restarted instance can start again from the beginning: an iterator cannot."""
        return callable(self.items) or iter(self.items) is not self.items

    def read(self, ctx: Context, position: int) -> Iterator[Any] | Sequence[Any]:
        """Return this instance's items from a position on; a sequence where it is one."""
        items = self.items() if callable(self.items) else self.items
        if isinstance(items, (list, tuple, range)):
            return items[ctx.parallel_index :: ctx.parallelism][position:]
        return islice(items, ctx.parallel_index + position * ctx.parallelism, None, ctx.parallelism)

    def process(self, payloads: list[Any], keys: list[Any] | None, input_index: int) -> Outputs:
        """Pass a batch on."""
        return payloads, keys


def _one(payload: Any) -> int:
    return 1


def _one_more(count: int, payload: Any) -> int:
    return count + 1
