"""
The shadow of a queue: a copy of some of its messages goes through a ring, is drained, and is compared.

The caller's answer is always that of the old path. The copy never blocks and never raises; when it takes more of the
caller's time than its budget, or the ring fails, it turns itself off and says so. One process at a time drains the
ring, so it sees the messages of every producer in one line.
"""

import fcntl
import logging
import os
import pickle
import secrets
import threading
from collections import Counter
from hashlib import blake2b
from time import monotonic, perf_counter_ns
from typing import Any, Final

from sage_compat import configuration
from sage_compat.evidence import Evidence, evidence_folder
from sage_compat.records import NAMESPACE
from sage_compat.repeated import Repeated
from sage_qd import Empty, Full, QueueClosedError, SageQueueDescriptor, SageQueueError

__all__ = ["Shadow"]

CAPACITY_BYTES: Final = 1 << 20
LARGEST_COPY: Final = CAPACITY_BYTES // 8
WINDOW_CALLS: Final = 512
WRITE_SECONDS: Final = 0.5
_log: Final = logging.getLogger("sage_compat")


class Shadow:
    """
    The shadow of one name in this process. Safe in threads and across forks.

    Args:
        full_name: The name that processes meet under.
    """

    def __init__(self, full_name: str) -> None:
        settings = configuration.current().shadow
        self.full_name = full_name
        self._every = max(round(1 / settings.sample), 1)
        self._budget = settings.budget
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._mutex = threading.Lock()
        self.evidence = Evidence(full_name=self.full_name, producer=f"{self._pid}-{secrets.token_hex(4)}")
        self._calls = 0
        self._window = [0, 0]
        self._ring: Any = None
        self._last: dict[str, int] = {}
        self._written = monotonic()
        self._lock = os.open(
            evidence_folder(self.full_name) / "drain.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
        )
        self._drainer = Repeated(self._step, "sage-compat-shadow", in_child=self._begin_in_child)
        try:
            self._ring = self._opened()
        except (SageQueueError, OSError) as error:
            self._turn_off(f"the ring cannot be made: {error}")
        self._drainer.start()

    def _opened(self) -> Any:
        descriptor = SageQueueDescriptor(
            queue_id=f"{self.full_name}.shadow", namespace=NAMESPACE, capacity_bytes=CAPACITY_BYTES
        )
        return descriptor.open(create=True)

    @property
    def is_on(self) -> bool:
        """Whether copies are made."""
        return not self.evidence.off

    # -- In the caller's thread ----------------------------------------------------------------------------------------

    def put_done(self, item: Any, took_ns: int, error: Exception | None = None) -> None:
        """Take note of a put on the old path; copy the message if it is its turn."""
        if self.evidence.off:
            return
        try:
            self._note(item, took_ns, error)
        except Exception as second:  # noqa: BLE001  (the caller must not feel the shadow, whatever happens to it)
            self._turn_off(f"it failed: {type(second).__name__}: {second}")

    def _note(self, item: Any, took_ns: int, error: Exception | None) -> None:
        started = perf_counter_ns()
        with self._mutex:
            self._calls += 1
            turn = self._calls % self._every == 0
            if turn or error is not None:
                self._copy(item, took_ns, error)
            self._account(took_ns, perf_counter_ns() - started)

    def _copy(self, item: Any, took_ns: int, error: Exception | None) -> None:
        found = self.evidence
        try:
            payload = pickle.dumps(item, 5)
        except Exception as second:  # noqa: BLE001  (whatever the item raises; it is compared)
            found.differ("exception") if error is None else found.agree("exception")
            found.last_exception = f"{type(second).__name__}"
            return
        if error is not None:
            found.counts["old_full" if isinstance(error, Full) else "old_failed"] += 1
            return
        if len(payload) > LARGEST_COPY:
            found.counts["too_large"] += 1
            return
        number = found.counts["copied"] + 1
        digest = blake2b(payload, digest_size=16).digest()
        started = perf_counter_ns()
        try:
            self._ring.put((found.producer, number, digest, payload), False)
        except Full:
            found.counts["skipped"] += 1  # the drainer is behind; the caller does not wait for it
            return
        except (SageQueueError, OSError) as second:
            found.differ("exception")
            self._turn_off(f"the ring failed: {type(second).__name__}: {second}")
            return
        found.counts["copied"] = number
        found.time("old_put", took_ns)
        found.time("new_put", perf_counter_ns() - started)

    def _account(self, old_ns: int, copy_ns: int) -> None:
        """Compare the time of the copies with that of the calls, window by window."""
        self._window[0] += old_ns
        self._window[1] += copy_ns
        if self._calls % WINDOW_CALLS == 0:
            old, copy = self._window
            self._window = [0, 0]
            share = copy / max(old, 1)
            self.evidence.share = max(self.evidence.share, share)
            if share > self._budget:
                self._turn_off(f"copies took {share:.0%} of the calls' time, and the budget is {self._budget:.0%}")

    def _turn_off(self, reason: str) -> None:
        self.evidence.off = reason
        _log.warning("shadow of %s turned itself off: %s", self.full_name, reason)

    # -- In a thread of its own ----------------------------------------------------------------------------------------

    def _step(self) -> float:
        pause = WRITE_SECONDS / 5
        try:
            if self._ring is not None and self._is_drainer(self._lock) and self._drain(self._last, wait=0):
                pause = 0.0
            if monotonic() - self._written > WRITE_SECONDS:
                self._written = monotonic()
                self.evidence.save()
        except QueueClosedError:  # the process ends; what is left is drained by another one, if there is one
            return WRITE_SECONDS
        except (SageQueueError, OSError) as error:
            self._turn_off(f"draining failed: {type(error).__name__}: {error}")
            return WRITE_SECONDS
        return pause

    def _begin_in_child(self) -> None:
        """In a forked child: another producer, with evidence and a place in the line of drainers of its own."""
        os.close(self._lock)
        self._begin()

    @staticmethod
    def _is_drainer(lock: int) -> bool:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _drain(self, last: dict[str, int], wait: float) -> int:
        """Take what is there and compare it; how many."""
        found = self.evidence
        started = perf_counter_ns()
        try:
            copies = self._ring.get_many(256, timeout=wait)
        except Empty:
            return 0
        each_ns = (perf_counter_ns() - started) // len(copies)
        for producer, number, digest, payload in copies:
            before = last.get(producer)
            found.counts["drained"] += 1
            if before is not None and number != before + 1:
                found.differ("duplicate" if number <= before else "loss", abs(number - before - 1) or 1)
            last[producer] = max(number, before or 0)
            if blake2b(payload, digest_size=16).digest() == digest:
                found.agree("digest")
            else:
                found.differ("digest")
        found.time("new_get", each_ns)
        return len(copies)

    def get_done(self, took_ns: int) -> None:
        """Take note of a get on the old path that did not have to wait."""
        self.evidence.time("old_get", took_ns)

    def close(self) -> None:
        """Stop copying, compare what is left, and write the evidence down."""
        self._drainer.stop()
        try:
            while self._ring is not None and self._is_drainer(self._lock) and self._drain(self._last, wait=0):
                pass
        except (SageQueueError, OSError) as error:
            if not isinstance(error, QueueClosedError):
                self._turn_off(f"draining failed: {type(error).__name__}: {error}")
        self.evidence.save()
        os.close(self._lock)
        if self._ring is not None:
            self._ring.close()

    @property
    def counts(self) -> Counter[str]:
        """What was counted."""
        return self.evidence.counts
