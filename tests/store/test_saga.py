"""Any interleaving of connects, failures, disconnects and people, against a model that keeps a list of writes for each secret.

The model is another way to say the rules: a secret's value is its newest write; a failed connect's writes are struck out of the
list wherever they stand; a secret without writes left is gone, unless a connection uses it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from sqlalchemy import select

from rootlink.errors import Conflict, Invalid
from rootlink.records import source_of
from rootlink.store import Store, schema
from tests.store.vault import Vault, everything

SECRETS = st.sampled_from(["A", "B", "C"])
NAMES = st.sampled_from(["one", "two", "three", "four"])


@dataclass
class Write:
    by: str | None  # a connection's name; None: a person
    value: str
    pending: bool


@dataclass
class Kept:
    writes: list[Write]
    owner: str | None  # the connection it goes with


@dataclass
class Live:
    id: str
    uses: set[str]
    state: str = "connecting"


@dataclass
class Model:
    secrets: dict[str, Kept] = field(default_factory=dict)
    live: dict[str, Live] = field(default_factory=dict)  # oldest first

    def put(self, secret: str, value: str) -> None:
        kept = self.secrets.setdefault(secret, Kept([], None))
        kept.writes.append(Write(None, value, pending=False))
        kept.owner = None

    def connect(self, name: str, id: str, given: dict[str, str], uses: set[str]) -> None:
        for secret, value in given.items():
            self.secrets.setdefault(secret, Kept([], name)).writes.append(Write(name, value, pending=True))
        self.live[name] = Live(id, uses | set(given))

    def through(self, name: str) -> None:
        self.live[name].state = "connected"
        for kept in self.secrets.values():
            for write in kept.writes:
                write.pending &= write.by != name

    def take_away(self, name: str) -> None:
        names = list(self.live)
        later = names[names.index(name) + 1 :]
        del self.live[name]
        for secret in list(self.secrets):
            self._take_from(secret, name, later)

    def _take_from(self, secret: str, name: str, later: list[str]) -> None:
        kept = self.secrets[secret]
        left = [write for write in kept.writes if not (write.pending and write.by == name)]
        if not left and not any(secret in self.live[other].uses for other in later):
            del self.secrets[secret]
            return
        kept.writes = left or [Write(None, kept.writes[-1].value, pending=False)]
        if kept.owner == name:
            heirs = [other for other, live in self.live.items() if secret in live.uses]
            if heirs:
                kept.owner = heirs[0]
            else:
                del self.secrets[secret]

    @property
    def values(self) -> dict[str, str]:
        return {secret: kept.writes[-1].value for secret, kept in self.secrets.items()}


class Saga(RuleBasedStateMachine):
    store: Store
    vault: Vault

    def __init__(self) -> None:
        super().__init__()
        for old in self.store.projects.list():
            self.store.projects.delete(old.id)
        self.project = self.store.projects.create("default").id
        self.model = Model()
        self.serial = 0

    def _value(self) -> str:
        self.serial += 1
        return f"v{self.serial}"

    @rule(secret=SECRETS)
    def a_person_sets(self, secret: str) -> None:
        value = self._value()
        self.store.secrets.put(self.project, secret, self.vault.seal(self.project, secret, value))
        self.model.put(secret, value)

    @rule(secret=SECRETS)
    def a_person_deletes(self, secret: str) -> None:
        if secret in self.model.secrets:
            self.store.secrets.delete(self.project, secret)
            del self.model.secrets[secret]

    @rule(name=NAMES, given=st.sets(SECRETS), uses=st.sets(SECRETS))
    def connect(self, name: str, given: set[str], uses: set[str]) -> None:
        values = {secret: self._value() for secret in sorted(given)}
        wish = self.vault.connection(
            self.project, name, secrets=values, uses=sorted(uses), hosts=["h.example", f"{name}.example"]
        )
        if name in self.model.live or not uses <= given | self.model.secrets.keys():
            before = everything(self.store)
            with pytest.raises((Conflict, Invalid)):
                self.store.connections.connect(wish)
            assert everything(self.store) == before
        else:
            self.store.connections.connect(wish)
            self.model.connect(name, wish.id, values, uses)

    @rule(name=NAMES, given=st.sets(SECRETS), uses=st.sets(SECRETS))
    def connect_and_fail_at_once(self, name: str, given: set[str], uses: set[str]) -> None:
        before = everything(self.store)
        wish = self.vault.connection(
            self.project, name, secrets={secret: self._value() for secret in given}, uses=sorted(uses), hosts=["h.example"]
        )
        try:
            self.store.connections.connect(wish)
        except (Conflict, Invalid):
            pass
        else:
            self.store.connections.undo(wish.id)
        assert everything(self.store) == before

    @precondition(lambda self: self.model.live)
    @rule(name=NAMES)
    def gets_through(self, name: str) -> None:
        if name in self.model.live:
            self.store.connections.set_state(self.model.live[name].id, "connected")
            self.model.through(name)

    @precondition(lambda self: self.model.live)
    @rule(name=NAMES)
    def fails(self, name: str) -> None:
        live = self.model.live.get(name)
        if live is not None and live.state == "connected":
            with pytest.raises(Conflict):
                self.store.connections.undo(live.id)
        elif live is not None:
            self.store.connections.undo(live.id)
            self.model.take_away(name)

    @precondition(lambda self: self.model.live)
    @rule(name=NAMES)
    def disconnect(self, name: str) -> None:
        live = self.model.live.get(name)
        if live is not None:
            self.store.connections.mark_removing(live.id)
            self.store.connections.remove(live.id)
            self.model.take_away(name)

    @invariant()
    def every_secret_opens_and_is_the_newest_write_that_counts(self) -> None:
        assert self.vault.values(self.store, self.project) == self.model.values

    @invariant()
    def rows_hosts_and_remembered_values_are_of_live_connections(self) -> None:
        ids = {live.id for live in self.model.live.values()}
        assert {row.id for row in self.store.connections.all()} == ids
        assert {rule.source for rule in self.store.egress.list(self.project)} == {source_of(id) for id in ids}
        pending = {live.id for live in self.model.live.values() if live.state == "connecting"}
        assert self._remembering() <= pending

    def _remembering(self) -> set[Any]:
        with self.store._database.read() as connection:
            return set(connection.scalars(select(schema.replaced.c.connection)))


@pytest.fixture
def machine(store: Store, vault: Vault) -> type[Saga]:
    return type("SagaOnStore", (Saga,), {"store": store, "vault": vault})


def test_no_interleaving_leaves_anything_half_done(machine: type[Saga]) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=20,
            stateful_step_count=20,
            phases=[Phase.generate],  # shrinking takes minutes; a failing history is printed anyway
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
