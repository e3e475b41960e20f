"""
What a message costs here: a few seconds of real puts and gets, in one process and between two.

Three figures of a kind are what ``explain`` weighs: a put and a get when nobody waits, what each byte adds, and what it
takes to wake a sleeper. ``sage-qd calibrate`` writes them to :func:`calibration_path`, ``sage-qd bench`` prints more.
Figures are medians, so that a disturbed moment counts little; they hold for this machine under today's load.
"""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

from sage_qd.descriptors import BaseQueueDescriptor, known_queue_types
from sage_qd.descriptors.costs import calibration_path
from sage_qd.descriptors.registry import queue_kind
from sage_qd.errors import SageQueueError, ShutDown

__all__ = ["Measured", "calibration_path", "measurable_kinds", "measured", "save_calibration"]

CALIBRATION_VERSION: Final = 1
SMALL_TUPLE: Final = ("task", 1234, 0.5)
SMALL_BYTES: Final = 64
LARGE_BYTES: Final = 64 * 1024
ROUNDS: Final = 15
WAKES: Final = 200
SECONDS_UNTIL_ASLEEP: Final = 0.002
PATIENCE_SECONDS: Final = 30.0
_ELSEWHERE: Final = frozenset({"auto", "legacy_ray_queue", "ray_queue", "rpc_queue"})
"""Kinds whose queues need a server or a cluster, or are another kind in the end. One of them is sage-compat's."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """
    One kind, measured.

    Attributes:
        kind: The ``queue_type``.
        put_get_ns: A put and a get of a small message in one process, nobody waiting.
        per_byte_ns: What each byte of a message adds to that.
        wake_us: From the start of a put until a reader that was asleep has the message.
        wake_us_p99: The same, exceeded by one in a hundred.
        messages_per_second: Small messages from one process to another, or between threads for a kind of one process.
        bytes_per_second: The same with large messages; None for a kind that hands over the object itself.
    """

    kind: str
    put_get_ns: float
    per_byte_ns: float
    wake_us: float
    wake_us_p99: float
    messages_per_second: float
    bytes_per_second: float | None

    def as_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return asdict(self)


def measurable_kinds() -> list[str]:
    """Return the kinds that can be measured without a server or a cluster."""
    return [kind for kind in known_queue_types() if kind not in _ELSEWHERE]


def measured(kind: str, *, seconds: float = 1.0, note: Callable[[str], None] = lambda _: None) -> Measured:
    """
    Measure a kind with its default settings.

    Args:
        kind: One of :func:`measurable_kinds`.
        seconds: How long each of the two throughput runs takes.
        note: Called with what is being measured.

    Raises:
        SageQueueError: Its queues cannot be opened here, or the other process went away.
    """
    note("put and get in one process")
    put_get = _put_get_ns(kind, SMALL_TUPLE, 2000)
    small, large = _put_get_ns(kind, bytes(SMALL_BYTES), 2000), _put_get_ns(kind, bytes(LARGE_BYTES), 100)
    note("waking a sleeper")
    wakes = sorted(_wakes_us(kind))
    note("throughput")
    return Measured(
        kind=kind,
        put_get_ns=put_get,
        per_byte_ns=max(0.0, (large - small) / (LARGE_BYTES - SMALL_BYTES)),
        wake_us=median(wakes),
        wake_us_p99=wakes[len(wakes) * 99 // 100],
        messages_per_second=_throughput(kind, bytes(SMALL_BYTES), seconds),
        bytes_per_second=None
        if _passes_objects(kind)
        else _throughput(kind, bytes(LARGE_BYTES), seconds) * LARGE_BYTES,
    )


def save_calibration(kinds: Mapping[str, Measured], path: Path) -> None:
    """Write the figures that estimates are made from; whoever reads at this moment finds the old or the new file."""
    figures = {
        kind: {
            "put_get_ns": round(each.put_get_ns, 1),
            "per_byte_ns": round(each.per_byte_ns, 4),
            "wake_us": round(each.wake_us, 1),
        }
        for kind, each in kinds.items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        draft.write_text(json.dumps({"version": CALIBRATION_VERSION, "kinds": figures}, indent=1) + "\n")
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


# -- Runs -------------------------------------------------------------------------------------------------------------


def _put_get_ns(kind: str, message: object, count: int) -> float:
    """Median over rounds of the time of one put and one get."""
    queue = _descriptor(kind).open()
    try:
        times = []
        for _ in range(ROUNDS):
            start = time.perf_counter_ns()
            for _ in range(count):
                queue.put(message)
                queue.get()
            times.append((time.perf_counter_ns() - start) / count)
        return median(times)
    finally:
        queue.close()


def _passes_objects(kind: str) -> bool:
    """Whether bytes of a message cost nothing, as nothing is copied."""
    queue = _descriptor(kind).open()
    queue.close()
    return queue.capabilities.same_object


def _wakes_us(kind: str) -> list[float]:
    """Microseconds from put until a sleeping reader had the message, as that reader saw it."""
    with _reader(kind, "wakes") as (there, back):
        found = []
        for _ in range(WAKES):
            time.sleep(SECONDS_UNTIL_ASLEEP)  # let the reader fall asleep: that is what is measured
            there.put(time.monotonic_ns())
            found.append(back.get(timeout=PATIENCE_SECONDS) / 1e3)
        return found


def _throughput(kind: str, message: bytes, seconds: float) -> float:
    """Messages per second that a reader received, from the first to the last."""
    with _reader(kind, "count") as (there, back):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for _ in range(16):
                there.put(message, timeout=PATIENCE_SECONDS)
        there.put(None, timeout=PATIENCE_SECONDS)
        count, elapsed_ns = back.get(timeout=PATIENCE_SECONDS)
        return float(count / (elapsed_ns / 1e9))


@contextmanager
def _reader(kind: str, task: str) -> Iterator[tuple[Any, Any]]:
    """A reader in a process of its own, or in a thread when the kind cannot leave its process; two queues to talk."""
    there, back = _descriptor(kind), _descriptor(kind)
    queues = there.open(), back.open()
    try:
        if there.can_serialize:
            with _reader_process(there, back, task):
                yield queues
        else:
            thread = threading.Thread(target=_TASKS[task], args=queues, daemon=True)
            thread.start()
            yield queues
            queues[0].shutdown()
            thread.join(PATIENCE_SECONDS)
    finally:
        for queue in queues:
            queue.close()


@contextmanager
def _reader_process(there: BaseQueueDescriptor, back: BaseQueueDescriptor, task: str) -> Iterator[None]:
    words = [sys.executable, "-m", "sage_qd.monitor.measuring", task, there.to_json(), back.to_json()]
    process = subprocess.Popen(words, stdin=subprocess.DEVNULL)
    try:
        started = back.open().get(timeout=PATIENCE_SECONDS)
        assert started == "ready", started
        yield
    finally:
        there.open().shutdown()
        try:
            process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _descriptor(kind: str) -> BaseQueueDescriptor:
    return queue_kind(kind)()


def _report_wakes(there: Any, back: Any) -> None:
    """Answer each time stamp with its age."""
    for stamp in there:
        back.put(time.monotonic_ns() - stamp)


def _report_count(there: Any, back: Any) -> None:
    """Count messages until None, and answer with how many there were and how long that took."""
    count, start = 0, 0
    for message in there:
        if message is None:
            back.put((count, max(1, time.monotonic_ns() - start)))
        elif not count:
            count, start = 1, time.monotonic_ns()
        else:
            count += 1


_TASKS: Final[dict[str, Callable[[Any, Any], None]]] = {"wakes": _report_wakes, "count": _report_count}


def _main() -> None:
    """What the other process does."""
    task, *documents = sys.argv[1:]
    there, back = (BaseQueueDescriptor.from_json(document).open(create=False) for document in documents)
    back.put("ready")
    with suppress(ShutDown, SageQueueError):  # the measuring side is gone, or done
        _TASKS[task](there, back)
    there.close()
    back.close()


if __name__ == "__main__":
    _main()
