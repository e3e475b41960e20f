"""The counters of a queue as metrics: one table that all exporters read."""

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from sage_qd.monitor.states import QueueState
from sage_qd.queues.base import QueueFigures

__all__ = ["METRICS", "Metric", "labels_of", "measurements"]

NS_PER_SECOND: Final = 1e9


class Metric(NamedTuple):
    """
    One metric.

    Attributes:
        name: In Prometheus' words, without prefix and suffix.
        unit: ``messages``, ``bytes`` or ``seconds``.
        grows: Whether it only grows while the queue lives.
        help: What it is.
        field: The counter of :class:`sage_qd.QueueFigures`, or of the state, that it shows.
    """

    name: str
    unit: str
    grows: bool
    help: str
    field: str


METRICS: Final = (
    Metric("puts", "messages", True, "Messages ever put.", "puts"),
    Metric("gets", "messages", True, "Messages that ever left: by get, by ack, or dropped.", "gets"),
    Metric("put_bytes", "bytes", True, "Encoded bytes ever put.", "bytes_put"),
    Metric("got_bytes", "bytes", True, "Encoded bytes that ever left.", "bytes_taken"),
    Metric("dropped", "messages", True, "Messages that clear and shutdown dropped.", "dropped"),
    Metric("redeliveries", "messages", True, "Leases that ended without an ack.", "redeliveries"),
    Metric("put_blocked_seconds", "seconds", True, "Time that producers waited for room.", "put_blocked_ns"),
    Metric("get_blocked_seconds", "seconds", True, "Time that consumers waited for messages.", "get_blocked_ns"),
    Metric("depth", "messages", False, "Messages that could be taken now.", "depth"),
    Metric("leased", "messages", False, "Messages out on lease.", "leased"),
    Metric("high_water", "messages", False, "Most messages the queue was seen to hold.", "high_water"),
    Metric("put_waiters", "threads", False, "Producers that wait now.", "put_waiters"),
    Metric("get_waiters", "threads", False, "Consumers that wait now.", "get_waiters"),
    Metric("oldest_age_seconds", "seconds", False, "The oldest message is at least this old.", "oldest_age_ns"),
    Metric("capacity_messages", "messages", False, "Most messages the queue holds.", "capacity_items"),
    Metric("capacity_bytes", "bytes", False, "Most bytes the queue holds.", "capacity_bytes"),
    Metric("is_shutdown", "", False, "1 when the queue was shut down.", "is_shutdown"),
    Metric("in_use", "", False, "1 when somebody has the queue open.", "in_use"),
    Metric("readable", "", False, "1 when its counters can be read.", "readable"),
)
_OF_THE_STATE: Final = frozenset({"capacity_items", "capacity_bytes", "in_use"})


def labels_of(state: QueueState) -> dict[str, str]:
    """What tells the queue from others; its instance, too, so that counters of a new queue do not continue the old."""
    return {
        "kind": state.kind,
        "namespace": state.namespace,
        "queue": state.queue_id,
        "instance_id": state.instance or "",
    }


def measurements(metric: Metric, states: Iterable[QueueState]) -> Iterator[tuple[QueueState, float]]:
    """The queues that have this metric, and its value."""
    for state in states:
        value = _value(metric, state)
        if value is not None:
            yield state, float(value) / (NS_PER_SECOND if metric.field.endswith("_ns") else 1)


def _value(metric: Metric, state: QueueState) -> float | None:
    if metric.field == "readable":
        return float(state.figures is not None)
    holder: QueueState | QueueFigures | None = state if metric.field in _OF_THE_STATE else state.figures
    value: float | None = getattr(holder, metric.field, None)
    return value
