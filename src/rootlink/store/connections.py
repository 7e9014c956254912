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
from rootlink.records.connection import Connection, NewConnection, State
from rootlink.records.moment import Clock, stamp
from rootlink.records.secret import Seal, secret_name
from rootlink.store import allowlist, schema, secrets
from rootlink.store.activity import note
from rootlink.store.database import Database, locked_project
from rootlink.store.rows import columns

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
                    _write_secret(transaction, connection, name, seal, at)
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

    def set_state(
        self,
        id: str,
        state: State,
        *,
        error: str | None = None,
        tools: Sequence[str] | None = None,
        steps: Sequence[dict[str, Any]] | None = None,
    ) -> Connection:
        given = {"tools": tools, "steps": steps}
        values = {"state": state, "error": error, **{name: list(value) for name, value in given.items() if value is not None}}
        with self._database.write() as transaction:
            row = _locked(transaction, id)
            if row is None:
                raise NotFound(f"no connection {id!r}")
            if row.state == "removing":
                return row
            transaction.execute(update(_TABLE).where(_TABLE.c.id == id).values(values))
            if state == "connected":
                transaction.execute(delete(_REPLACED).where(_REPLACED.c.connection == id))
            return msgspec.structs.replace(row, **values)

    def undo(self, id: str) -> None:
        with self._database.write() as transaction:
            row = _locked(transaction, id)
            if row is None:
                return
            if row.state == "connected":
                raise Conflict(f"connection {row.name!r} is connected: disconnect it instead of undoing it")
            _take_away(transaction, row)
            note(transaction, row.project, "system", "connection.undone", row.name, row.connector, at=stamp(self._clock()))

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


def _write_secret(transaction: sa.Connection, new: NewConnection, name: str, seal: Seal, at: str) -> None:
    before = secrets.find(transaction, new.project, name)
    written = secrets.write(transaction, new.project, name, seal, at=at, created_by=new.id)
    old = {} if before is None else {field: getattr(before, field) for field in _BEFORE}
    transaction.execute(insert(_REPLACED).values(connection=new.id, secret=written.id, wrote_version=written.version, **old))


def _check_uses(transaction: sa.Connection, row: Connection) -> None:
    kept = set(transaction.scalars(select(_SECRETS.c.name).where(_SECRETS.c.project == row.project)))
    missing = [name for name in row.uses if name not in kept]
    if missing:
        raise Invalid(
            f"connection {row.name!r} needs secret {missing[0]!r}, which is not in this project's vault: give it a value"
        )


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
