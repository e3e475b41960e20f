"""
The counters for OpenTelemetry: instruments that are read when a reader of the SDK collects.

The one door to ``opentelemetry``, which the extra ``otel`` installs.
"""

from collections.abc import Callable, Iterable
from functools import partial
from threading import Lock
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

import sage_qd
from sage_qd.errors import BackendUnavailableError
from sage_qd.monitor.figures import METRICS, Metric, labels_of, measurements
from sage_qd.monitor.states import QueueState

if TYPE_CHECKING:
    from opentelemetry.metrics import Observation
    from opentelemetry.sdk.metrics import MeterProvider

__all__ = ["exporting_provider", "observe"]

SCOPE: Final = "sage_qd"
SECONDS_OF_ONE_COLLECTION: Final = 0.2
_UNITS: Final = {"messages": "{message}", "threads": "{thread}", "bytes": "By", "seconds": "s", "": "1"}

States = Callable[[], Iterable[QueueState]]


def observe(provider: "MeterProvider", states: States) -> None:
    """
    Make one observable instrument of each metric with a provider of the program's own.

    Args:
        provider: Where the instruments belong.
        states: Called when the provider's readers collect; all instruments show the same look.
    """
    meter = provider.get_meter(SCOPE, sage_qd.__version__)
    snapshot = _held(states)
    for metric in METRICS:
        make = meter.create_observable_counter if metric.grows else meter.create_observable_gauge
        make(
            f"sage_qd.{metric.name}",
            callbacks=[partial(_observations, metric, snapshot)],
            unit=_UNITS[metric.unit],
            description=metric.help,
        )


def _held(states: States) -> Callable[[], list[QueueState]]:
    """Look once for all instruments of one collection, which follow each other within moments."""
    lock = Lock()
    held: list[QueueState] = []
    until = 0.0

    def snapshot() -> list[QueueState]:
        nonlocal held, until
        with lock:
            if monotonic() >= until:
                held, until = list(states()), monotonic() + SECONDS_OF_ONE_COLLECTION
            return held

    return snapshot


def _observations(metric: Metric, states: States, _options: Any) -> "Iterable[Observation]":
    from opentelemetry.metrics import Observation

    return [Observation(value, labels_of(state)) for state, value in measurements(metric, states())]


def exporting_provider(states: States, *, endpoint: str | None = None, seconds: float = 10.0) -> "MeterProvider":
    """
    Send the metrics to a collector again and again, over OTLP and HTTP, until the provider's ``shutdown()``.

    Args:
        states: Called when metrics are collected.
        endpoint: URL of the collector's metrics; None for what ``OTEL_EXPORTER_OTLP_*`` say. Headers with secrets come
            from ``OTEL_EXPORTER_OTLP_HEADERS`` only.
        seconds: From one export to the next.

    Raises:
        BackendUnavailableError: The library is missing.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
        from opentelemetry.sdk.resources import Resource
    except ImportError as error:
        raise BackendUnavailableError(
            backend="opentelemetry", missing=error.name or str(error), install="pip install 'sage-qd[otel]'"
        ) from error
    reader = PeriodicExportingMetricReader(
        OTLPMetricExporter(endpoint=endpoint), export_interval_millis=seconds * 1000, export_timeout_millis=5000
    )
    resource = Resource.create({"service.name": "sage-qd", "service.version": sage_qd.__version__})
    provider = MeterProvider(metric_readers=[reader], resource=resource)
    observe(provider, states)
    return provider
