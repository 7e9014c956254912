"""What `/metrics` tells (Prometheus text format). Labels are route templates and statuses, never what a caller sent."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from starlette.responses import Response

from rootlink.wire.gate import Counts

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "rootlink_gateway_requests", "Requests answered, by route and status.", ("route", "status"), registry=self._registry
        )
        self._seconds = Histogram(
            "rootlink_gateway_relay_seconds",
            "From a call's head to the first byte of its answer, engine included.",
            registry=self._registry,
            buckets=_SECONDS,
        )
        self.streams = Gauge("rootlink_gateway_streams", "Event streams open to clients now.", registry=self._registry)
        self._gate = _Gate()
        self._registry.register(self._gate)
        self._counters: dict[tuple[str, int], Counter] = {}

    def answered(self, route: str, status: int) -> None:
        counter = self._counters.get((route, status))
        if counter is None:  # `labels` costs more than the rest of this
            counter = self._counters[route, status] = self._requests.labels(route, str(status))
        counter.inc()

    def relayed(self, seconds: float) -> None:
        self._seconds.observe(seconds)

    def page(self, gate: Counts | None = None) -> Response:
        """`gate`: what the gate counts now; its families are absent when it is not there."""
        self._gate.now = gate
        return Response(generate_latest(self._registry), media_type="text/plain; version=0.0.4; charset=utf-8")


class _Gate(Collector):
    """The gate keeps its own count; this only tells it."""

    now: Counts | None = None

    def collect(self) -> Iterator[Metric]:
        now = self.now
        if now is None:
            return
        yield GaugeMetricFamily("rootlink_gate_doors", "Doors open now.", now.doors)
        yield GaugeMetricFamily("rootlink_gate_open_connections", "Connections through doors, open now.", now.open)
        yield CounterMetricFamily("rootlink_gate_connections", "Connections let through.", now.connections)
        yield CounterMetricFamily("rootlink_gate_refused", "Connections and names refused.", now.refused)
        moved = CounterMetricFamily("rootlink_gate_bytes", "From (up) and to (down) what is behind doors.", labels=["direction"])
        moved.add_metric(["up"], now.up)
        moved.add_metric(["down"], now.down)
        yield moved
