from __future__ import annotations

import pytest

from rootlink.records import Project
from rootlink.records import decision as record
from rootlink.store import Store
from rootlink.wire.engine import Decision


def denied(time: float, host: str = "evil.example", count: int = 1, **other: str) -> Decision:
    return Decision(time, other.get("connection", "memory"), host, 443, "denied", other.get("reason", "not allowed"), count)


def test_equal_decisions_add_up_with_the_latest_time(store: Store, project: Project) -> None:
    store.decisions.record(project.id, [denied(10), denied(30, count=4)])
    store.decisions.record(project.id, [denied(20)])
    [found] = store.decisions.list(project.id)
    assert (found.count, found.time) == (6, "1970-01-01T00:00:30.000000Z")


def test_different_reasons_and_connections_stay_apart(store: Store, project: Project) -> None:
    store.decisions.record(project.id, [denied(1), denied(2, reason="private"), denied(3, connection="slack")])
    found = store.decisions.list(project.id)
    assert [(one.connection, one.reason) for one in found] == [
        ("slack", "not allowed"),
        ("memory", "private"),
        ("memory", "not allowed"),
    ]


def test_they_are_listed_by_verdict_newest_first_and_limited(store: Store, project: Project) -> None:
    allowed = Decision(5, "memory", "api.example.com", 443, "allowed", "")
    store.decisions.record(project.id, [denied(1, "a"), denied(2, "b"), allowed])
    assert [one.host for one in store.decisions.list(project.id, "denied")] == ["b", "a"]
    assert [one.host for one in store.decisions.list(project.id, limit=1)] == ["api.example.com"]


def test_nothing_observed_writes_nothing(store: Store, project: Project) -> None:
    store.decisions.record(project.id, [])
    assert store.decisions.list(project.id) == []


def test_hostile_names_are_kept_cut_and_clean(store: Store, project: Project) -> None:
    hostile = denied(1, "\U0001f600" * 10_000, reason="no\0" + "\U0001f600" * 10_000, connection="\U0001f600" * 10_000)
    store.decisions.record(project.id, [hostile, hostile])
    [found] = store.decisions.list(project.id)
    assert found.count == 2
    assert len(found.host) == record.LONGEST_HOST
    assert "\0" not in found.reason


def test_beyond_the_limit_the_oldest_are_forgotten(store: Store, project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rootlink.store.decisions.MOST_KEPT", 10)
    other = store.projects.create("other").id
    store.decisions.record(other, [denied(0, "kept.example")])
    store.decisions.record(project.id, [denied(n, f"h{n}.example") for n in range(25)])
    assert [one.host for one in store.decisions.list(project.id)] == [f"h{n}.example" for n in range(24, 14, -1)]
    assert len(store.decisions.list(other)) == 1
