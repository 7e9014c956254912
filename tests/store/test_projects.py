from __future__ import annotations

from collections.abc import Callable

import pytest

from rootlink.errors import Conflict, Invalid, NotFound
from rootlink.records import EngineRow
from rootlink.store import Store
from rootlink.wire.engine import Decision
from tests.store.vault import Vault, everything


def test_a_project_is_found_by_id_and_by_name(store: Store) -> None:
    project = store.projects.create("acme")
    assert store.projects.get(project.id) == project
    assert store.projects.get("acme") == project


def test_projects_are_listed_oldest_first(store: Store) -> None:
    made = [store.projects.create(name) for name in ("b", "a", "c")]
    assert store.projects.list() == made


def test_a_name_is_given_once(store: Store) -> None:
    store.projects.create("acme")
    with pytest.raises(Conflict, match="acme"):
        store.projects.create("acme")


@pytest.mark.parametrize("name", ["", "a b", "../x", "prj_0123456789ab", "a\0b", "x" * 64])
def test_a_name_that_could_be_a_path_or_an_id_is_refused(store: Store, name: str) -> None:
    with pytest.raises(Invalid):
        store.projects.create(name)
    assert store.projects.list() == []


def test_an_unknown_project_is_not_found(store: Store) -> None:
    for ask in (store.projects.get, store.projects.delete):
        with pytest.raises(NotFound):
            ask("nobody")


def test_deleting_a_project_takes_all_of_it_but_the_audit_log(store: Store, vault: Vault) -> None:
    before = everything(store)
    project = store.projects.create("acme").id
    store.keys.create(project, name="k", scopes=None, hash=b"h" * 32, prefix="rl_sk_1")
    store.secrets.put(project, "OLD", vault.seal(project, "OLD", "v"))
    store.egress.add(project, "example.com")
    store.engines.put(EngineRow(project, "running", 7))
    store.decisions.record(project, [Decision(1.0, "m", "h", 443, "denied", "r")])
    store.connections.connect(vault.connection(project, secrets={"OLD": "w", "NEW": "v"}))

    store.projects.delete(project)

    assert everything(store) == before
    assert [line.action for line in store.activity.list(project)] == ["connection.connect"]


def test_what_belongs_to_no_project_is_not_written(store: Store, vault: Vault) -> None:
    writes: list[Callable[[], object]] = [
        lambda: store.keys.create("prj_none", name="k", scopes=None, hash=b"h" * 32, prefix="p"),
        lambda: store.secrets.put("prj_none", "A", vault.seal("prj_none", "A", "v")),
        lambda: store.egress.add("prj_none", "example.com"),
        lambda: store.engines.put(EngineRow("prj_none", "running")),
        lambda: store.decisions.record("prj_none", [Decision(1.0, "m", "h", 443, "denied", "r")]),
        lambda: store.connections.connect(vault.connection("prj_none")),
    ]
    for write in writes:
        with pytest.raises(NotFound, match="prj_none"):
            write()
