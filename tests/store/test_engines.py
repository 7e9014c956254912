from __future__ import annotations

from rootlink.records import EngineRow, Project
from rootlink.store import Store


def test_an_engine_that_never_ran_has_no_row(store: Store, project: Project) -> None:
    assert store.engines.get(project.id) is None
    assert store.engines.list() == []


def test_the_latest_row_of_an_engine_counts(store: Store, project: Project) -> None:
    store.engines.put(EngineRow(project.id, "running", 42, "2026-11-22T20:00:00Z", 3))
    last = store.engines.put(EngineRow(project.id, "failed", generation=3, error="it crashed\0five times"))
    stored = store.engines.get(project.id)
    assert stored is not None
    assert (stored.state, stored.pid, stored.started_at, stored.generation) == (last.state, None, None, 3)
    assert stored.error == "it crashed five times"  # a NUL, which PostgreSQL can't hold, is not worth failing for
    assert store.engines.list() == [stored]
