"""An update and a roll back of a connection are one transaction each, and a person's hand in between is not written over."""

from __future__ import annotations

import pytest

from rootlink.errors import Conflict, Invalid
from rootlink.records import Connection, Project, Version
from rootlink.store import Store
from rootlink.wire.tools import ToolRules
from tests.store.vault import Vault, everything

NEW = Version(b'{"id":"y"}', "2.0.0", [], ["new.example"], ToolRules(pins={"one": "f2"}))


@pytest.fixture
def row(store: Store, project: Project, vault: Vault) -> Connection:
    made = store.connections.connect(vault.connection(project.id, hosts=["old.example"]))
    return store.connections.set_state(made.id, "connected")


def test_an_update_changes_what_runs_its_hosts_and_its_rules_together(store: Store, project: Project, row: Connection) -> None:
    changed = store.connections.update(row.id, NEW, was=row.desired, actor="cli")
    assert changed == store.connections.get(project.id, row.name)
    assert (changed.desired, changed.version, changed.hosts, changed.rules) == (NEW.desired, "2.0.0", ["new.example"], NEW.rules)
    assert store.egress.domains(project.id) == ["new.example"]
    assert store.activity.list(project.id)[0].action == "connection.update"


def test_a_roll_back_is_the_way_back_and_forth_again(store: Store, project: Project, row: Connection) -> None:
    store.connections.update(row.id, NEW, was=row.desired)
    store.connections.held(row.id)
    back = store.connections.roll_back(row.id)
    assert (back.desired, back.version, back.hosts, back.rules) == (row.desired, row.version, row.hosts, row.rules)
    assert store.egress.domains(project.id) == ["old.example"]
    store.connections.held(row.id)
    assert store.connections.roll_back(row.id).desired == NEW.desired


def test_a_failed_update_is_undone_to_the_byte(store: Store, project: Project, row: Connection) -> None:
    before = everything(store)
    store.connections.update(row.id, NEW, was=row.desired)
    store.connections.roll_back(row.id, failed=True)
    after = everything(store)
    assert store.connections.get(project.id, row.name) == row
    assert {table: rows for table, rows in after.items() if table not in ("activity", "egress")} == {
        table: rows for table, rows in before.items() if table not in ("activity", "egress")
    }


def test_an_update_made_from_another_state_is_refused_and_writes_nothing(store: Store, row: Connection) -> None:
    before = everything(store)
    with pytest.raises(Conflict, match="has changed meanwhile"):
        store.connections.update(row.id, NEW, was=b"something else")
    missing = Version(NEW.desired, "2.0.0", ["NOT_THERE"], [])
    with pytest.raises(Invalid, match="NOT_THERE"):
        store.connections.update(row.id, missing, was=row.desired)
    with pytest.raises(Conflict, match="no earlier version"):
        store.connections.roll_back(row.id)
    assert everything(store) == before


def test_what_an_engine_holds_is_not_undone_as_failed(store: Store, row: Connection) -> None:
    store.connections.update(row.id, NEW, was=row.desired)
    store.connections.held(row.id)
    with pytest.raises(Conflict):
        store.connections.roll_back(row.id, failed=True)
