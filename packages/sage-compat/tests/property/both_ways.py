"""One history on the old path and on the new one: a Hypothesis machine, for a short test and for a long proof."""

import pickle
import queue
import random
import uuid
from collections.abc import Callable
from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from sage_compat import SageQueue, create_queue, set_mode
from sage_compat.rules import forget_modes

BURST = 300
MESSAGES = st.one_of(
    st.none(),
    st.integers(-(2**70), 2**70),
    st.text(max_size=8),
    st.binary(max_size=60),
    st.lists(st.tuples(st.text(max_size=3), st.floats(allow_nan=False)), max_size=3),
    st.integers(500, 6000).map(lambda size: b"L" * size),
    st.integers(500, 6000).map(lambda size: "S" * size),
)


def outcome(call: Callable[[Any], Any], on: Any) -> Any:
    """What a call returned, or which exception it raised with which text."""
    try:
        return call(on)
    except (queue.Empty, queue.Full, RuntimeError, ValueError) as error:
        kind = next(each for each in (queue.Empty, queue.Full, RuntimeError, ValueError) if isinstance(error, each))
        return kind.__name__, str(error)


class BothWays(RuleBasedStateMachine):
    """Two queues, one on each way, that must answer alike."""

    operations: ClassVar[int] = 0

    @initialize(size=st.sampled_from([10, 4096, 5000, 65536]), backend=st.sampled_from(["sage", "python"]))
    def make(self, size: int, backend: str) -> None:
        """Make both queues."""
        self.names = [f"{mode}-{uuid.uuid4().hex[:8]}" for mode in ("legacy", "descriptor")]
        bound = size if backend == "sage" else min(size, 20)
        self.queues: list[Any] = []
        for name in self.names:
            set_mode(name.partition("-")[0], name)
            self.queues.append(create_queue(backend, name=name, maxsize=bound))
        self.is_sage = backend == "sage"

    def same(self, call: Callable[[Any], Any]) -> Any:
        """Do something on both, and compare."""
        type(self).operations += 1
        old, new = (outcome(call, each) for each in self.queues)
        assert old == new, f"old: {old!r:.200}, new: {new!r:.200}"
        return old

    @rule(seed=st.integers(0, 2**32), share=st.floats(0.3, 0.7))
    def much(self, seed: int, share: float) -> None:
        """Put and take many small messages, so that queues come round their end."""
        chosen = random.Random(seed)  # drawn at once: a draw costs more than a put
        for _ in range(BURST):
            if chosen.random() < share:
                message = chosen.choice(
                    [b"x" * chosen.randrange(300), chosen.randrange(10**9), "y" * chosen.randrange(90)]
                )
                self.same(lambda each, message=message: each.put(message, False))
            else:
                self.same(lambda each: each.get(False))

    @rule(message=MESSAGES, block=st.booleans())
    def put(self, message: Any, block: bool) -> None:
        """Put without waiting, in one of the two ways to say so."""
        self.same(lambda each: each.put(message, timeout=0) if block else each.put(message, False))

    @rule(block=st.booleans())
    def get(self, block: bool) -> None:
        """Take without waiting."""
        self.same(lambda each: each.get(timeout=0) if block else each.get(False))

    @rule(message=MESSAGES)
    def put_nowait(self, message: Any) -> None:
        """Put under the other name."""
        self.same(lambda each: each.put_nowait(message))

    @rule()
    def get_nowait(self) -> None:
        """Take under the other name."""
        self.same(lambda each: each.get_nowait())

    @rule()
    def look(self) -> None:
        """Ask how much there is."""
        self.same(lambda each: (each.qsize(), each.empty(), each.full(), each.maxsize))

    @rule()
    def statistics(self) -> None:
        """Ask for the statistics."""
        wanted = ("buffer_size", "available_read", "available_write", "utilization", "message_count")
        if self.is_sage:
            self.same(lambda each: {name: each.get_stats()[name] for name in wanted})
        else:
            self.same(lambda each: each.get_stats())

    @rule()
    def refuse(self) -> None:
        """Try what cannot be done."""
        self.same(lambda each: each.get(timeout=-1))
        if self.is_sage:
            self.same(lambda each: each.put(lambda: None, False))

    @rule(how=st.sampled_from(["close", "pickle", "reference"]))
    def come_again(self, how: str) -> None:
        """Give the handle up for another one of the same queue."""
        if not self.is_sage:
            return
        for place, each in enumerate(self.queues):
            if how == "close":
                each.close()
                self.same_closed(each)
                self.queues[place] = SageQueue(self.names[place], each.maxsize)
            elif how == "pickle":
                self.queues[place] = pickle.loads(pickle.dumps(each))
            else:
                self.queues[place] = pickle.loads(pickle.dumps(each.get_reference())).get_queue()

    def same_closed(self, closed: SageQueue) -> None:
        """A closed handle says one thing only."""
        type(self).operations += 1
        assert outcome(lambda each: each.put(1), closed) == ("RuntimeError", "Queue is closed")

    def teardown(self) -> None:
        """Remove both."""
        for each in getattr(self, "queues", []):
            if isinstance(each, SageQueue):
                each._line.close()
        forget_modes()
