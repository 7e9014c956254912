"""What `/metrics` tells of the gate, and that it tells nothing of one that is not there."""

from __future__ import annotations

from rootlink.gateway.metrics import Metrics
from rootlink.wire.gate import Counts


def lines(metrics: Metrics, gate: Counts | None) -> list[str]:
    page = bytes(metrics.page(gate).body).decode()
    return [line for line in page.splitlines() if line.startswith("rootlink_gate_")]


def test_the_gates_counts_are_told_as_they_are_now() -> None:
    metrics = Metrics()
    for more in (0, 5):
        assert lines(metrics, Counts(doors=2, open=1, connections=7 + more, refused=3, up=10, down=20)) == [
            "rootlink_gate_doors 2.0",
            "rootlink_gate_open_connections 1.0",
            f"rootlink_gate_connections_total {7 + more}.0",
            "rootlink_gate_refused_total 3.0",
            'rootlink_gate_bytes_total{direction="up"} 10.0',
            'rootlink_gate_bytes_total{direction="down"} 20.0',
        ]


def test_a_gate_that_is_not_there_is_not_told_as_zero() -> None:
    metrics = Metrics()
    lines(metrics, Counts(doors=2))
    assert lines(metrics, None) == []
