from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from rootlink.errors import Conflict, Invalid, NotFound, RootlinkError
from rootlink.records import Connection, NewConnection, Project, source_of
from rootlink.store import Store
from tests.store.vault import Vault, everything


@pytest.fixture
def connect(store: Store, project: Project, vault: Vault) -> Callable[..., Connection]:
    def connected(name: str = "resend", *, through: bool = True, **options: object) -> Connection:
        row = store.connections.connect(vault.connection(project.id, name, **options))  # type: ignore[arg-type]
        return store.connections.set_state(row.id, "connected") if through else row

    return connected


def test_a_connect_writes_the_row_the_secrets_the_hosts_and_the_audit_line(store: Store, project: Project, vault: Vault) -> None:
    store.secrets.put(project.id, "KEPT", vault.seal(project.id, "KEPT", "k"))
    new = vault.connection(project.id, secrets={"NEW": "n"}, uses=["KEPT"], hosts=["api.resend.com", "b.example"])
    row = store.connections.connect(new)
    assert (row.state, row.tools, row.steps, row.error) == ("connecting", [], [], None)
    assert row.uses == ["KEPT", "NEW"]
    assert row == store.connections.get(project.id, "resend") == store.connections.by_id(row.id)
    assert [row] == store.connections.list(project.id) == store.connections.all()
    assert vault.values(store, project.id) == {"KEPT": "k", "NEW": "n"}
    assert {(rule.domain, rule.source) for rule in store.egress.list(project.id)} == {
        ("api.resend.com", source_of(row.id)),
        ("b.example", source_of(row.id)),
    }
    [line] = store.activity.list(project.id)
    assert (line.actor, line.action, line.target) == ("cli", "connection.connect", "resend")


def test_one_name_is_connected_once_in_a_workspace(store: Store, project: Project, vault: Vault) -> None:
    store.connections.connect(vault.connection(project.id, secrets={"KEY": "one"}))
    before = everything(store)
    with pytest.raises(Conflict, match="'resend' exists already in workspace 'main'"):
        store.connections.connect(vault.connection(project.id, secrets={"KEY": "two", "MORE": "x"}, hosts=["evil.example"]))
    assert everything(store) == before
    store.connections.connect(vault.connection(project.id, workspace="other"))


def test_of_many_connects_of_one_name_at_once_one_wins(store: Store, project: Project, vault: Vault) -> None:
    outcomes: list[str] = []
    ready = threading.Barrier(8)

    def connect(wish: NewConnection) -> None:
        ready.wait()
        try:
            store.connections.connect(wish)
            outcomes.append("connected")
        except RootlinkError as error:
            outcomes.append(error.code)

    wishes = [vault.connection(project.id, secrets={"KEY": f"v{n}"}) for n in range(8)]
    threads = [threading.Thread(target=connect, args=(wish,)) for wish in wishes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["conflict"] * 7 + ["connected"]
    assert store.secrets.get(project.id, "KEY").version == 1
    assert len(store.egress.list(project.id)) == 1


@pytest.mark.parametrize(
    "wrong",
    [{"name": "a__b"}, {"name": "function"}, {"workspace": "a b"}, {"secrets": {"NOT-A-NAME": "v"}}, {"uses": ["MISSING"]}],
    ids=str,
)
def test_a_connect_that_breaks_a_rule_changes_nothing(
    store: Store, project: Project, vault: Vault, wrong: dict[str, object]
) -> None:
    before = everything(store)
    with pytest.raises(Invalid):
        store.connections.connect(vault.connection(project.id, **wrong))  # type: ignore[arg-type]
    assert everything(store) == before


def test_a_secret_that_can_not_be_sealed_undoes_the_whole_connect(store: Store, project: Project, vault: Vault) -> None:
    before = everything(store)
    with pytest.raises(Invalid):
        store.connections.connect(vault.connection(project.id, secrets={"GOOD": "v", "BAD": ""}))
    assert everything(store) == before


def test_one_secret_given_twice_is_refused(store: Store, project: Project, vault: Vault) -> None:
    wish = vault.connection(project.id, secrets={"KEY": "v"})
    with pytest.raises(Invalid, match="twice"):
        store.connections.connect(
            NewConnection(**{f: getattr(wish, f) for f in wish.__struct_fields__} | {"secrets": wish.secrets * 2})
        )


def test_undo_leaves_everything_as_it_was_to_the_byte(store: Store, project: Project, vault: Vault) -> None:
    for _ in range(3):
        store.secrets.put(project.id, "OLD", vault.seal(project.id, "OLD", "before"))
    store.egress.add(project.id, "api.resend.com")
    before = everything(store)
    wish = vault.connection(project.id, secrets={"OLD": "after", "NEW": "n"}, hosts=["api.resend.com", "b.example"])
    row = store.connections.connect(wish)
    assert vault.values(store, project.id) == {"OLD": "after", "NEW": "n"}
    store.connections.set_state(row.id, "failed", error="it did not start")
    store.connections.undo(row.id)
    assert everything(store) == before
    assert [line.action for line in store.activity.list(project.id)] == ["connection.undone", "connection.connect"]


def test_undoing_twice_is_undoing_once(store: Store, project: Project, vault: Vault) -> None:
    row = store.connections.connect(vault.connection(project.id, secrets={"KEY": "v"}))
    store.connections.undo(row.id)
    again = store.connections.connect(vault.connection(project.id, secrets={"KEY": "w"}))
    store.connections.undo(row.id)
    assert store.connections.all() == [again]


def test_a_connected_connection_can_not_be_undone(store: Store, connect: Callable[..., Connection]) -> None:
    row = connect()
    with pytest.raises(Conflict, match="disconnect it"):
        store.connections.undo(row.id)
    assert store.connections.by_id(row.id) == row


def test_disconnecting_takes_the_secrets_it_brought_and_no_others(
    store: Store, project: Project, vault: Vault, connect: Callable[..., Connection]
) -> None:
    store.secrets.put(project.id, "MINE", vault.seal(project.id, "MINE", "m"))
    before = everything(store)
    row = connect(secrets={"THEIRS": "t"}, uses=["MINE"])
    store.connections.remove(row.id)
    assert everything(store) == before
    store.connections.remove(row.id)


def test_a_secret_a_person_set_survives_though_the_connection_rotated_it(
    store: Store, project: Project, vault: Vault, connect: Callable[..., Connection]
) -> None:
    store.secrets.put(project.id, "KEY", vault.seal(project.id, "KEY", "old"))
    store.connections.remove(connect(secrets={"KEY": "new"}).id)
    assert vault.values(store, project.id) == {"KEY": "new"}


def test_a_secret_a_person_rotated_is_theirs_from_then_on(
    store: Store, project: Project, vault: Vault, connect: Callable[..., Connection]
) -> None:
    row = connect(secrets={"KEY": "brought"})
    store.secrets.put(project.id, "KEY", vault.seal(project.id, "KEY", "set by hand"))
    store.connections.remove(row.id)
    assert vault.values(store, project.id) == {"KEY": "set by hand"}


def test_a_shared_secret_goes_with_the_last_connection_that_uses_it(
    store: Store, project: Project, vault: Vault, connect: Callable[..., Connection]
) -> None:
    creator = connect("one", secrets={"KEY": "v"})
    heir = connect("two", uses=["KEY"])
    store.connections.remove(creator.id)
    assert vault.values(store, project.id) == {"KEY": "v"}
    store.connections.remove(heir.id)
    assert vault.values(store, project.id) == {}


def test_a_failed_connect_leaves_a_secret_that_another_came_to_use(
    store: Store, project: Project, vault: Vault, connect: Callable[..., Connection]
) -> None:
    failing = connect("one", secrets={"KEY": "v"}, through=False)
    connect("two", uses=["KEY"])
    store.connections.undo(failing.id)
    assert vault.values(store, project.id) == {"KEY": "v"}


def test_a_value_a_person_set_meanwhile_survives_the_undo(
    store: Store, project: Project, vault: Vault, connect: Callable[..., Connection]
) -> None:
    failing = connect(secrets={"KEY": "v"}, through=False)
    store.secrets.put(project.id, "KEY", vault.seal(project.id, "KEY", "set by hand"))
    store.connections.undo(failing.id)
    assert vault.values(store, project.id) == {"KEY": "set by hand"}


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("there_before", [True, False])
def test_two_failed_connects_over_one_secret_end_where_it_began_in_either_order(
    store: Store, project: Project, vault: Vault, connect: Callable[..., Connection], first: int, there_before: bool
) -> None:
    if there_before:
        store.secrets.put(project.id, "KEY", vault.seal(project.id, "KEY", "before"))
    before = everything(store)
    rows = [connect(name, secrets={"KEY": name}, through=False) for name in ("one", "two")]
    store.connections.undo(rows[first].id)
    assert vault.values(store, project.id) == {"KEY": rows[1 - first].name}
    store.connections.undo(rows[1 - first].id)
    assert everything(store) == before


def test_disconnecting_what_is_still_connecting_puts_the_old_value_back(
    store: Store, project: Project, vault: Vault, connect: Callable[..., Connection]
) -> None:
    store.secrets.put(project.id, "KEY", vault.seal(project.id, "KEY", "before"))
    before = everything(store)
    row = connect(secrets={"KEY": "after"}, through=False)
    store.connections.mark_removing(row.id, actor="cli")
    store.connections.remove(row.id)
    assert everything(store) == before


def test_removing_one_leaves_the_hosts_that_others_want(
    store: Store, project: Project, connect: Callable[..., Connection]
) -> None:
    store.egress.add(project.id, "api.resend.com")
    one, two = connect("one"), connect("two")
    store.connections.remove(one.id)
    assert {rule.source for rule in store.egress.list(project.id)} == {"manual", source_of(two.id)}


def test_state_tools_and_steps_are_kept_and_the_error_is_replaced(store: Store, connect: Callable[..., Connection]) -> None:
    row = connect(through=False)
    steps = [{"step": "deploy", "state": "done", "detail": "3 tools"}]
    store.connections.set_state(row.id, "connected", tools=["a", "b"], steps=steps)
    failed = store.connections.set_state(row.id, "failed", error="line 1\0line 2")
    stored = store.connections.by_id(row.id)
    assert stored is not None
    assert (stored.state, stored.tools, stored.steps) == ("failed", ["a", "b"], steps)
    assert failed.tools == ["a", "b"]
    assert stored.error == "line 1 line 2"
    assert store.connections.set_state(row.id, "connected").error is None


def test_removing_is_for_good(store: Store, connect: Callable[..., Connection]) -> None:
    row = connect()
    removing = store.connections.mark_removing(row.id, actor="cli")
    assert removing.state == "removing"
    assert store.connections.set_state(row.id, "connected", tools=["late"]) == removing
    assert store.connections.mark_removing(row.id) == removing == store.connections.by_id(row.id)
    assert [line.actor for line in store.activity.list(row.project) if line.action == "connection.disconnect"] == ["cli"]


def test_what_is_not_there_is_not_found(store: Store, project: Project) -> None:
    assert store.connections.by_id("con_none") is None
    store.connections.undo("con_none")
    store.connections.remove("con_none")
    with pytest.raises(NotFound):
        store.connections.get(project.id, "resend")
    with pytest.raises(NotFound):
        store.connections.set_state("con_none", "connected")
    with pytest.raises(NotFound):
        store.connections.mark_removing("con_none")
