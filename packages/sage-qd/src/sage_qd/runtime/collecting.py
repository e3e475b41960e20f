"""What a job hands to its driver: the packets of ``collect()``, and those that were given up."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

from sage_qd.descriptors.base import BaseQueueDescriptor
from sage_qd.errors import Empty, ShutDown
from sage_qd.runtime.packets import is_stop, unpacked

__all__ = ["Collected"]

BATCHES: Final = 64
LETTERS: Final = 1000


class Collected:
    """
    Takes what was sent to the driver. Not shared between threads.

    Args:
        descriptors: All queues of the job.
        ends: How many stop signals come to each of its results.
        is_exact: Whether packets that were seen are dropped: those of a task that was started again.
    """

    def __init__(self, descriptors: Mapping[str, BaseQueueDescriptor], ends: Mapping[str, int], is_exact: bool) -> None:
        self.results: dict[str, list[Any]] = {name: [] for name in ends}
        self.dead_letters: list[tuple[str, Any, str]] = []
        self._descriptors = descriptors
        self._ends = ends
        self._is_exact = is_exact
        self._seen: dict[tuple[str, int], int] = {}
        self._stopped: dict[str, set[int]] = {name: set() for name in ends}

    @property
    def is_complete(self) -> bool:
        """Whether every path to the driver has stopped."""
        return all(len(self._stopped[name]) >= count for name, count in self._ends.items())

    def take(self) -> bool:
        """Take what there is; whether there was something for a result."""
        took = False
        for name in self.results:
            queue = self._descriptors[f"input_{name}"].open()
            with suppress(Empty, ShutDown):
                for message in queue.get_many(BATCHES, timeout=0):
                    took = True
                    self._keep(name, message)
        with suppress(Empty, ShutDown):
            self.dead_letters += self._descriptors["dead_letters"].open().get_many(LETTERS, timeout=0)
        return took

    def _keep(self, name: str, message: Any) -> None:
        if is_stop(message):
            self._stopped[name].add(message.path)
            return
        path, sequence, payloads, _ = unpacked(message)
        if self._is_exact:
            known, follows = self._seen.get((name, path), 0), sequence + len(payloads)
            payloads = payloads[max(known - sequence, 0) :]
            self._seen[name, path] = max(known, follows)
        self.results[name] += payloads
