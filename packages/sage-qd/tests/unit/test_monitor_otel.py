"""OpenTelemetry with its own libraries: a reader in memory, and a collector that speaks OTLP over HTTP."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from queue import Queue
from typing import Any

import pytest

pytest.importorskip("opentelemetry.exporter.otlp.proto.http.metric_exporter")

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, Sum

from sage_qd.monitor import queue_states
from sage_qd.monitor.figures import METRICS
from sage_qd.monitor.otel import exporting_provider, observe
from sage_qd.ring import Ring

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def reader(namespace: str) -> Iterator[InMemoryMetricReader]:
    reader = InMemoryMetricReader()
    provider = MeterProvider(metric_readers=[reader])
    observe(provider, lambda: queue_states(namespace))
    yield reader
    provider.shutdown()


def collected(reader: InMemoryMetricReader) -> dict[str, Any]:
    data = reader.get_metrics_data()
    assert data is not None
    (resource,) = data.resource_metrics
    (scope,) = resource.scope_metrics
    return {metric.name: metric for metric in scope.metrics}


def test_instruments_show_the_counters(ring: Ring, namespace: str, reader: InMemoryMetricReader) -> None:
    ring.put_many([b"12345"] * 10)
    ring.get_many(3)

    metrics = collected(reader)

    labels = {"kind": "sage_queue", "namespace": namespace, "queue": "ring", "instance_id": ring.instance}
    found = {name: [(dict(p.attributes), p.value) for p in each.data.data_points] for name, each in metrics.items()}
    assert found["sage_qd.puts"] == [(labels, 10.0)]
    assert found["sage_qd.depth"] == [(labels, 7.0)]
    assert metrics["sage_qd.put_bytes"].unit == "By"


def test_what_only_grows_is_a_sum_and_the_rest_are_gauges(ring: Ring, reader: InMemoryMetricReader) -> None:
    metrics = collected(reader)

    grows = {f"sage_qd.{metric.name}" for metric in METRICS if metric.grows}
    sums = {name for name, each in metrics.items() if isinstance(each.data, Sum)}
    assert sums == grows
    assert all(metrics[name].data.is_monotonic for name in sums)


def test_one_collection_is_one_look(ring: Ring, namespace: str) -> None:
    looks = []
    reader = InMemoryMetricReader()
    provider = MeterProvider(metric_readers=[reader])

    def states() -> list[Any]:
        looks.append(1)
        return queue_states(namespace)

    observe(provider, states)
    collected(reader)

    assert len(looks) <= 2  # two only where collecting takes longer than a look is held
    provider.shutdown()


@pytest.fixture
def collector() -> Iterator[tuple[str, "Queue[tuple[str, bytes]]"]]:
    """A server that takes what an exporter sends."""
    received: Queue[tuple[str, bytes]] = Queue()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.put((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1/metrics", received
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_collector_receives_the_metrics(
    ring: Ring, namespace: str, collector: tuple[str, "Queue[tuple[str, bytes]]"], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    url, received = collector
    ring.put_many([b"x"] * 4)

    provider = exporting_provider(lambda: queue_states(namespace), endpoint=url, seconds=0.1)
    path, body = received.get(timeout=30)
    provider.shutdown()

    message = ExportMetricsServiceRequest.FromString(body)
    (resource,) = message.resource_metrics
    names = {each.key: each.value.string_value for each in resource.resource.attributes}
    metrics = {metric.name: metric for metric in resource.scope_metrics[0].metrics}
    (point,) = metrics["sage_qd.puts"].sum.data_points
    assert path == "/v1/metrics"
    assert names["service.name"] == "sage-qd"
    assert point.as_double == 4
    assert {each.key: each.value.string_value for each in point.attributes}["queue"] == "ring"
