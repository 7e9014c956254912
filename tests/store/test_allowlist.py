from __future__ import annotations

import pytest

from rootlink.errors import NotFound
from rootlink.records import Project, source_of
from rootlink.store import Store


def test_adding_a_domain_twice_changes_nothing(store: Store, project: Project) -> None:
    first = store.egress.add(project.id, "api.example.com")
    assert store.egress.add(project.id, "api.example.com") == first
    assert store.egress.list(project.id) == [first]
    assert first.source == "manual"


def test_a_domain_wanted_by_two_is_listed_for_both_and_allowed_once(store: Store, project: Project) -> None:
    manual = store.egress.add(project.id, "api.example.com")
    wanted = store.egress.add(project.id, "api.example.com", source_of("con_1"))
    store.egress.add(project.id, "a.example.com")
    assert manual in store.egress.list(project.id)
    assert wanted in store.egress.list(project.id)
    assert store.egress.domains(project.id) == ["a.example.com", "api.example.com"]


def test_removing_a_domain_removes_it_for_every_source(store: Store, project: Project) -> None:
    rules = [store.egress.add(project.id, "api.example.com"), store.egress.add(project.id, "api.example.com", source_of("con_1"))]
    kept = store.egress.add(project.id, "other.example.com")
    assert store.egress.remove(project.id, "api.example.com") == rules
    assert store.egress.list(project.id) == [kept]


def test_removing_what_is_not_there_is_not_found(store: Store, project: Project) -> None:
    other = store.projects.create("other").id
    store.egress.add(other, "api.example.com")
    with pytest.raises(NotFound, match=r"api\.example\.com"):
        store.egress.remove(project.id, "api.example.com")
    assert store.egress.domains(other) == ["api.example.com"]
