from __future__ import annotations

import pytest

from rootlink.errors import NotFound
from rootlink.records import Project, WakeRow
from rootlink.store import Store


def test_a_project_whose_engine_said_nothing_has_nothing_to_wake_for(store: Store, project: Project) -> None:
    assert store.wakes.get(project.id) is None
    assert store.wakes.due(1e12) == []


def test_what_an_engine_said_last_counts(store: Store, project: Project) -> None:
    store.wakes.put(WakeRow(project.id, 1_800_000_000.25, ["ab" * 32, "cd" * 32]))
    store.wakes.put(WakeRow(project.id, 1_900_000_000.0, ["ef" * 32]))
    assert store.wakes.get(project.id) == WakeRow(project.id, 1_900_000_000.0, ["ef" * 32])


def test_projects_are_due_by_their_time_the_longest_waiting_first(store: Store, project: Project) -> None:
    others = [store.projects.create(name).id for name in ("early", "late", "never")]
    for id, due in zip([project.id, *others], (20.0, 10.0, 30.5, None), strict=True):
        store.wakes.put(WakeRow(id, due))
    assert store.wakes.due(9.9) == []
    assert store.wakes.due(30.0) == [others[0], project.id]


def test_it_goes_with_its_project(store: Store, project: Project) -> None:
    store.wakes.put(WakeRow(project.id, 10.0))
    store.projects.delete(project.id)
    assert store.wakes.due(1e12) == []
    with pytest.raises(NotFound):
        store.wakes.put(WakeRow(project.id, 10.0))
