"""Connections in the store: the three transactions of the saga (`records/connection.py` has their rules).

Taking a connect back is more than deleting its row, because others may have moved on meanwhile. What it wrote is in `replaced`:
for each secret, the version it wrote and what was there before. Three cases, for each:

    nobody wrote since            the old value goes back; if there was none, the secret goes, unless a connection that came
                                  later uses it (one that came before has been doing without it since a person deleted it)
    a later connect wrote over    that connect's "before" becomes our "before": undoing it too ends where we began
    a person wrote over           theirs stays
"""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy import delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from rootlink import names
from rootlink.errors import Conflict, Invalid, NotFound
from rootlink.records.allow_rule import source_of
from rootlink.records.connection import Connection, Found, NewConnection, Previous, State, Version
from rootlink.records.moment import Clock, stamp
from rootlink.records.secret import Seal, secret_name
from rootlink.store import allowlist, schema, secrets
from rootlink.store.activity import note
from rootlink.store.database import Database, locked_project
from rootlink.store.rows import columns
from rootlink.wire.tools import Mode, ToolRules

MOST_OF_A_REASON = 500  # characters, in the audit log
_TABLE = schema.connections
_SECRETS = schema.secrets
_REPLACED = schema.replaced
_CONNECTION = columns(_TABLE, Connection)
_ORDER = (_TABLE.c.created_at, _TABLE.c.id)
_BEFORE = ("version", "envelope_key_id", "ciphertext", "last_rotated_at")


class StoredConnections:
    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def connect(self, connection: NewConnection) -> Connection:
        _check_names(connection)
        at = stamp(self._clock())
        try:
            with self._database.write() as transaction:
                locked_project(transaction, connection.project)
                row = _insert_row(transaction, connection, at)
                for name, seal in connection.secrets:
                    _write_secret(transaction, row, name, seal, at)
                _check_uses(transaction, row)
                source = source_of(connection.id)
                allowlist.allow(self._database, transaction, connection.project, connection.hosts, source, at=at)
                note(transaction, row.project, connection.actor, "connection.connect", row.name, row.connector, at=at)
        except IntegrityError:
            raise Conflict(f"connection {connection.name!r} exists already in workspace {connection.workspace!r}") from None
        return row

    def list(self, project: str) -> builtins.list[Connection]:
        return self._select(_TABLE.c.project == project)

    def get(self, project: str, name: str, workspace: str = "main") -> Connection:
        found = self._select(_TABLE.c.project == project, _TABLE.c.workspace == workspace, _TABLE.c.name == name)
        if not found:
            raise NotFound(f"no connection {name!r} in workspace {workspace!r}")
        return found[0]

    def by_id(self, id: str) -> Connection | None:
        return next(iter(self._select(_TABLE.c.id == id)), None)

    def all(self) -> builtins.list[Connection]:
        return self._select()

    def rules(self, project: str) -> dict[str, ToolRules]:
        with self._database.read() as connection:
            found = connection.execute(select(_TABLE.c.id, _TABLE.c.rules).where(_TABLE.c.project == project))
            return {row.id: row.rules for row in found}

    def set_state(
        self,
        id: str,
        state: State,
        *,
        error: str | None = None,
        tools: Sequence[str] | None = None,
        steps: Sequence[dict[str, Any]] | None = None,
        found: Found | None = None,
    ) -> Connection:
        given = {"tools": tools, "steps": steps}
        values = {"state": state, "error": error, **{name: list(value) for name, value in given.items() if value is not None}}
        with self._database.write() as transaction:
            row = _there(transaction, id)
            if row.state == "removing":
                return row
            if state == "connected":
                transaction.execute(delete(_REPLACED).where(_REPLACED.c.connection == id))
            return _changed(transaction, row, {**values, **_findings(row, found or Found())})

    def note_found(self, id: str, found: Found) -> Connection:
        with self._database.write() as transaction:
            row = _there(transaction, id)
            return row if row.state == "removing" else _changed(transaction, row, _findings(row, found))

    def decide(
        self,
        id: str,
        tool: str,
        *,
        mode: Mode | msgspec.UnsetType | None = msgspec.UNSET,
        pin: str | None = None,
        actor: str = "system",
    ) -> Connection:
        at = stamp(self._clock())
        with self._database.write() as transaction:
            row = _there(transaction, id)
            if row.state == "removing":
                raise Conflict(f"connection {row.name!r} is being removed")
            rules, target = row.rules, f"{row.name}/{tool}"
            if mode is not msgspec.UNSET:
                rules = _with_mode(rules, tool, mode)
                note(transaction, row.project, actor, "tool.mode", target, mode or "default", at=at)
            if pin is not None:
                rules = msgspec.structs.replace(rules, pins={**rules.pins, tool: pin})
                note(transaction, row.project, actor, "tool.approve", target, pin, at=at)
            return _changed(transaction, row, {"rules": rules})

    def keep_secret(self, id: str, name: str, seal: Seal) -> bool:
        secret_name(name)
        at = stamp(self._clock())
        with self._database.write() as transaction:
            row = _locked(transaction, id)
            if row is None:
                return False
            _write_secret(transaction, row, name, seal, at, undoable=row.state == "connecting")
            _changed(transaction, row, {"uses": list(dict.fromkeys([*row.uses, name]))})
            return True

    def update(self, id: str, new: Version, *, was: bytes, actor: str = "system") -> Connection:
        at = stamp(self._clock())
        with self._database.write() as transaction:
            row = _there(transaction, id)
            if row.state != "connected" or row.desired != was:
                raise Conflict(f"connection {row.name!r} has changed meanwhile; look again at what an update would change")
            previous = Previous(_version(row), trying=True, earlier=row.previous)
            note(transaction, row.project, actor, "connection.update", row.name, f"{row.version} to {new.version}", at=at)
            return self._become(transaction, row, new, msgspec.json.encode(previous), at)

    def roll_back(self, id: str, *, actor: str = "system", failed: bool = False) -> Connection:
        at = stamp(self._clock())
        with self._database.write() as transaction:
            row = _there(transaction, id)
            previous = _previous(row)
            if row.state == "removing" or previous is None or (failed and not previous.trying):
                raise Conflict(f"connection {row.name!r} has no earlier version to go back to")
            back = msgspec.json.encode(Previous(_version(row), trying=True, earlier=row.previous))
            action = "connection.update_failed" if failed else "connection.rollback"
            note(transaction, row.project, actor, action, row.name, f"{row.version} to {previous.version.version}", at=at)
            return self._become(transaction, row, previous.version, previous.earlier if failed else back, at)

    def held(self, id: str) -> None:
        with self._database.write() as transaction:
            row = _locked(transaction, id)
            previous = None if row is None else _previous(row)
            if row is not None and previous is not None and previous.trying:
                _changed(transaction, row, {"previous": msgspec.json.encode(Previous(previous.version))})

    def _become(self, transaction: sa.Connection, row: Connection, new: Version, previous: bytes | None, at: str) -> Connection:
        values = {**msgspec.structs.asdict(new), "previous": previous, "error": None}
        changed = _changed(transaction, row, values)
        _check_uses(transaction, changed)
        source = source_of(row.id)
        transaction.execute(delete(schema.egress).where(schema.egress.c.source == source))
        allowlist.allow(self._database, transaction, row.project, new.hosts, source, at=at)
        return changed

    def undo(self, id: str, *, why: str = "") -> None:
        with self._database.write() as transaction:
            row = _locked(transaction, id)
            if row is None:
                return
            if row.state == "connected":
                raise Conflict(f"connection {row.name!r} is connected: disconnect it instead of undoing it")
            _take_away(transaction, row)
            told = f"{row.connector}: {why[:MOST_OF_A_REASON]}" if why else row.connector
            note(transaction, row.project, "system", "connection.undone", row.name, told, at=stamp(self._clock()))

    def mark_removing(self, id: str, *, actor: str = "system") -> Connection:
        with self._database.write() as transaction:
            row = _locked(transaction, id)
            if row is None:
                raise NotFound(f"no connection {id!r}")
            if row.state == "removing":
                return row
            transaction.execute(update(_TABLE).where(_TABLE.c.id == id).values(state="removing"))
            note(transaction, row.project, actor, "connection.disconnect", row.name, row.connector, at=stamp(self._clock()))
            return msgspec.structs.replace(row, state="removing")

    def remove(self, id: str) -> None:
        with self._database.write() as transaction:
            row = _locked(transaction, id)
            if row is None:
                return
            _take_away(transaction, row)
            note(transaction, row.project, "system", "connection.removed", row.name, row.connector, at=stamp(self._clock()))

    def _select(self, *where: sa.ColumnElement[bool]) -> builtins.list[Connection]:
        with self._database.read() as connection:
            return [Connection(*row) for row in connection.execute(select(*_CONNECTION).where(*where).order_by(*_ORDER))]


def _check_names(connection: NewConnection) -> None:
    names.workspace_name(connection.workspace)
    names.mount_name(connection.name)
    given = [secret_name(name) for name, _ in connection.secrets]
    if len(set(given)) != len(given):
        raise Invalid(f"connection {connection.name!r} gives one secret twice")


def _insert_row(transaction: sa.Connection, new: NewConnection, at: str) -> Connection:
    uses = list(dict.fromkeys([*new.uses, *(name for name, _ in new.secrets)]))
    row = Connection(
        id=new.id,
        project=new.project,
        workspace=new.workspace,
        name=new.name,
        connector=new.connector,
        kind=new.kind,
        state="connecting",
        desired=new.desired,
        uses=uses,
        hosts=list(new.hosts),
        tools=[],
        steps=[],
        error=None,
        created_at=at,
        variant=new.variant,
        version=new.version,
        rules=new.rules,
        manifest=new.manifest,
    )
    transaction.execute(insert(_TABLE).values(msgspec.structs.asdict(row)))
    return row


def _write_secret(transaction: sa.Connection, row: Connection, name: str, seal: Seal, at: str, *, undoable: bool = True) -> None:
    before = secrets.find(transaction, row.project, name)
    written = secrets.write(transaction, row.project, name, seal, at=at, created_by=row.id)
    if not undoable:
        return
    mine = _REPLACED.c.connection == row.id, _REPLACED.c.secret == written.id
    if transaction.execute(update(_REPLACED).where(*mine).values(wrote_version=written.version)).rowcount:
        return  # a second time: what was before the first stays the "before"
    old = {} if before is None else {field: getattr(before, field) for field in _BEFORE}
    transaction.execute(insert(_REPLACED).values(connection=row.id, secret=written.id, wrote_version=written.version, **old))


def _version(row: Connection) -> Version:
    return Version(row.desired, row.version, row.uses, row.hosts, row.rules, row.manifest)


def _previous(row: Connection) -> Previous | None:
    return None if row.previous is None else msgspec.json.decode(row.previous, type=Previous)


def _findings(row: Connection, found: Found) -> dict[str, Any]:
    values = {name: value for name in ("label", "notes", "held") if (value := getattr(found, name)) is not None}
    if found.pins and not row.rules.pins:  # rule 6
        values["rules"] = msgspec.structs.replace(row.rules, pins=found.pins)
    return values


def _with_mode(rules: ToolRules, tool: str, mode: Mode | None) -> ToolRules:
    others = {name: chosen for name, chosen in rules.modes.items() if name != tool}
    return msgspec.structs.replace(rules, modes=others if mode is None else {**others, tool: mode})


def _changed(transaction: sa.Connection, row: Connection, values: dict[str, Any]) -> Connection:
    if values:
        transaction.execute(update(_TABLE).where(_TABLE.c.id == row.id).values(values))
    return msgspec.structs.replace(row, **values)


def _check_uses(transaction: sa.Connection, row: Connection) -> None:
    kept = set(transaction.scalars(select(_SECRETS.c.name).where(_SECRETS.c.project == row.project)))
    missing = [name for name in row.uses if name not in kept]
    if missing:
        raise Invalid(
            f"connection {row.name!r} needs secret {missing[0]!r}, which is not in this project's vault: give it a value"
        )


def _there(transaction: sa.Connection, id: str) -> Connection:
    """As `_locked`. `NotFound`."""
    row = _locked(transaction, id)
    if row is None:
        raise NotFound(f"no connection {id!r}")
    return row


def _locked(transaction: sa.Connection, id: str) -> Connection | None:
    """The row, with its project locked before it is read."""
    project = transaction.scalar(select(_TABLE.c.project).where(_TABLE.c.id == id))
    if project is None:
        return None
    locked_project(transaction, project)
    row = transaction.execute(select(*_CONNECTION).where(_TABLE.c.id == id)).first()
    return None if row is None else Connection(*row)


def _take_away(transaction: sa.Connection, row: Connection) -> None:
    writes = select(_REPLACED, _SECRETS.c.name).join(_SECRETS, _SECRETS.c.id == _REPLACED.c.secret)
    for write in transaction.execute(writes.where(_REPLACED.c.connection == row.id)).all():
        _put_back(transaction, row, write)
    _leave_secrets(transaction, row)
    transaction.execute(delete(schema.egress).where(schema.egress.c.source == source_of(row.id)))
    transaction.execute(delete(_TABLE).where(_TABLE.c.id == row.id))


def _put_back(transaction: sa.Connection, row: Connection, write: sa.Row[Any]) -> None:
    """One secret of a connect that did not get through; see the three cases above."""
    secret = _SECRETS.c.id == write.secret
    before = {field: getattr(write, field) for field in _BEFORE}
    if transaction.scalar(select(_SECRETS.c.version).where(secret)) == write.wrote_version:
        if write.version is not None:
            transaction.execute(update(_SECRETS).where(secret).values(before))
        elif not _others_using(transaction, row, write.name, later=True):
            transaction.execute(delete(_SECRETS).where(secret))
        return
    over = (_REPLACED.c.secret == write.secret, _REPLACED.c.version == write.wrote_version)
    later = transaction.scalar(select(_REPLACED.c.connection).where(*over))
    if later is None:
        return
    transaction.execute(update(_REPLACED).where(*over).values(before))
    if write.version is None:
        transaction.execute(update(_SECRETS).where(secret).values(created_by=later))


def _leave_secrets(transaction: sa.Connection, row: Connection) -> None:
    """Rule 3: what it created goes, or to the oldest other connection that uses it."""
    created = transaction.execute(select(_SECRETS.c.id, _SECRETS.c.name).where(_SECRETS.c.created_by == row.id)).all()
    for secret in created:
        heirs = _others_using(transaction, row, secret.name)
        if heirs:
            transaction.execute(update(_SECRETS).where(_SECRETS.c.id == secret.id).values(created_by=heirs[0]))
        else:
            transaction.execute(delete(_SECRETS).where(_SECRETS.c.id == secret.id))


def _others_using(transaction: sa.Connection, row: Connection, secret: str, *, later: bool = False) -> builtins.list[str]:
    """Ids of the other connections of the project that refer to this secret, oldest first; `later`: only those made after it."""
    others = (_TABLE.c.project == row.project, _TABLE.c.id != row.id, _TABLE.c.created_at > (row.created_at if later else ""))
    found = transaction.execute(select(_TABLE.c.id, _TABLE.c.uses).where(*others).order_by(*_ORDER))
    return [other.id for other in found if secret in other.uses]
