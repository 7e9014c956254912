"""The vault: ciphertexts by project and name. Versions count up by one; a value is sealed for its own in the transaction."""

from __future__ import annotations

import builtins

from sqlalchemy import Connection, delete, insert, or_, select, update

from rootlink.errors import NotFound
from rootlink.records.identity import new_id
from rootlink.records.moment import Clock, stamp
from rootlink.records.secret import Seal, Secret, secret_name
from rootlink.store import schema
from rootlink.store.database import Database, locked_project
from rootlink.store.rows import columns

_TABLE = schema.secrets
_SECRET = columns(_TABLE, Secret)


class StoredSecrets:
    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def put(self, project: str, name: str, seal: Seal) -> Secret:
        secret_name(name)
        with self._database.write() as connection:
            locked_project(connection, project)
            secret = write(connection, project, name, seal, at=stamp(self._clock()))
            # Whoever sets it by hand owns it from now on: no connection takes it away any more.
            connection.execute(update(_TABLE).where(_TABLE.c.id == secret.id).values(created_by=None))
            return secret

    def list(self, project: str) -> builtins.list[Secret]:
        with self._database.read() as connection:
            found = connection.execute(select(*_SECRET).where(_TABLE.c.project == project).order_by(_TABLE.c.name))
            return [Secret(*row) for row in found]

    def get(self, project: str, ref: str) -> Secret:
        with self._database.read() as connection:
            return _by_ref(connection, project, ref)

    def delete(self, project: str, ref: str) -> Secret:
        with self._database.write() as connection:
            locked_project(connection, project)
            secret = _by_ref(connection, project, ref)
            connection.execute(delete(_TABLE).where(_TABLE.c.id == secret.id))
        return secret

    def sealed(self, project: str) -> builtins.list[Secret]:
        return self.list(project)


def write(connection: Connection, project: str, name: str, seal: Seal, *, at: str, created_by: str | None = None) -> Secret:
    """The next version of a secret, within the caller's transaction. `created_by` counts only if there was none before."""
    before = find(connection, project, name)
    if before is None:
        sealed = seal(1)
        secret = Secret(new_id("sec"), project, name, 1, sealed.key_id, sealed.ciphertext, at, at)
        values = {field: getattr(secret, field) for field in Secret.__struct_fields__}
        connection.execute(insert(_TABLE).values(created_by=created_by, **values))
        return secret
    sealed = seal(before.version + 1)
    rotated = {
        "version": before.version + 1,
        "envelope_key_id": sealed.key_id,
        "ciphertext": sealed.ciphertext,
        "last_rotated_at": at,
    }
    connection.execute(update(_TABLE).where(_TABLE.c.id == before.id).values(rotated))
    return Secret(before.id, project, name, created_at=before.created_at, **rotated)  # type: ignore[arg-type]


def find(connection: Connection, project: str, name: str) -> Secret | None:
    row = connection.execute(select(*_SECRET).where(_TABLE.c.project == project, _TABLE.c.name == name)).first()
    return None if row is None else Secret(*row)


def _by_ref(connection: Connection, project: str, ref: str) -> Secret:
    mine = or_(_TABLE.c.id == ref, _TABLE.c.name == ref)
    row = connection.execute(select(*_SECRET).where(_TABLE.c.project == project, mine)).first()
    if row is None:
        raise NotFound(f"no secret {ref!r} in this project")
    return Secret(*row)
