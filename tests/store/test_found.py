"""What is kept of a connection after its connect: what checks found, what a person decided, what a sign-in brought."""

from __future__ import annotations

import msgspec
import pytest

from rootlink.errors import Conflict, NotFound
from rootlink.records import Found
from rootlink.store import Store
from rootlink.wire.tools import ToolRules
from tests.store.vault import Vault, everything


@pytest.fixture
def vault() -> Vault:
    return Vault()


def connected(store: Store, vault: Vault, rules: ToolRules | None = None) -> str:
    project = store.projects.create("one").id
    new = msgspec.structs.replace(vault.connection(project), rules=rules or ToolRules())
    store.connections.connect(new)
    store.connections.set_state(new.id, "connected")
    return new.id


def test_what_was_found_is_kept_and_stays_when_nothing_new_is(store: Store, vault: Vault) -> None:
    id = connected(store, vault)
    found = Found("octocat", ["may write"], ["x__new"], {"one": "f1"})
    store.connections.set_state(id, "connected", found=found)
    store.connections.set_state(id, "connected", error="down")
    row = store.connections.by_id(id)
    assert row is not None
    assert (row.label, row.notes, row.held, row.rules.pins) == ("octocat", ["may write"], ["x__new"], {"one": "f1"})


def test_the_first_pins_are_an_engines_and_all_later_ones_a_persons(store: Store, vault: Vault) -> None:
    id = connected(store, vault, ToolRules(access={"one": "read"}, closed=True))
    store.connections.note_found(id, Found(pins={"one": "f1"}))
    store.connections.note_found(id, Found(pins={"one": "f2", "two": "f3"}))
    store.connections.decide(id, "one", pin="f4", actor="ada")
    row = store.connections.by_id(id)
    assert row is not None
    assert row.rules == ToolRules(access={"one": "read"}, pins={"one": "f4"}, closed=True)


def test_a_decision_is_kept_with_who_made_it(store: Store, vault: Vault) -> None:
    id = connected(store, vault)
    assert store.connections.decide(id, "send", mode="off", actor="ada").rules.modes == {"send": "off"}
    assert store.connections.decide(id, "send", mode=None, actor="eve").rules.modes == {}
    lines = [(line.actor, line.action, line.target, line.detail) for line in store.activity.list(None)[:2]]
    assert lines == [("eve", "tool.mode", "resend/send", "default"), ("ada", "tool.mode", "resend/send", "off")]


def test_nothing_is_decided_about_what_is_going_away(store: Store, vault: Vault) -> None:
    id = connected(store, vault)
    store.connections.mark_removing(id)
    with pytest.raises(Conflict, match="is being removed"):
        store.connections.decide(id, "send", mode="off")
    assert store.connections.note_found(id, Found(label="x")).label is None
    with pytest.raises(NotFound):
        store.connections.decide("con_000000000000", "send", mode="off")


def test_a_grant_goes_with_its_connection(store: Store, vault: Vault) -> None:
    id = connected(store, vault)
    row = store.connections.by_id(id)
    assert row is not None
    for value in ("first", "second"):
        assert store.connections.keep_secret(id, "OAUTH__X", vault.seal(row.project, "OAUTH__X", value))
    assert vault.values(store, row.project) == {"OAUTH__X": "second"}
    assert "OAUTH__X" in store.connections.get(row.project, "resend").uses
    store.connections.mark_removing(id)
    store.connections.remove(id)
    assert vault.values(store, row.project) == {}
    assert not store.connections.keep_secret(id, "OAUTH__X", vault.seal(row.project, "OAUTH__X", "late"))
    assert vault.values(store, row.project) == {}


def test_a_connect_that_is_undone_takes_its_grants_along_to_the_byte(store: Store, vault: Vault) -> None:
    project = store.projects.create("one").id
    store.secrets.put(project, "OAUTH__X", vault.seal(project, "OAUTH__X", "by hand"))
    before = everything(store)
    new = vault.connection(project, secrets={"KEY": "k"})
    store.connections.connect(new)
    for value in ("first", "second"):
        store.connections.keep_secret(new.id, "OAUTH__X", vault.seal(project, "OAUTH__X", value))
        store.connections.keep_secret(new.id, "OAUTH__Y", vault.seal(project, "OAUTH__Y", value))
    assert vault.values(store, project) == {"KEY": "k", "OAUTH__X": "second", "OAUTH__Y": "second"}
    store.connections.undo(new.id)
    assert everything(store) == before
