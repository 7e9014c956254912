"""Project keys in the store. They are looked up by hash; a revoked one is not found, so revoking is in force with the commit."""

from __future__ import annotations

import builtins
import hmac
from collections.abc import Sequence

import msgspec
from sqlalchemy import insert, select, update

from rootlink.errors import Invalid, NotFound
from rootlink.records.identity import new_id
from rootlink.records.key import HASH_BYTES, Key, checked_name, checked_scopes
from rootlink.records.moment import Clock, stamp
from rootlink.store import schema
from rootlink.store.database import Database, locked_project
from rootlink.store.rows import columns

_TABLE = schema.keys
_KEY = columns(_TABLE, Key)


class StoredKeys:
    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def create(self, project: str, *, name: str, scopes: Sequence[str] | None, hash: bytes, prefix: str) -> Key:
        if len(hash) != HASH_BYTES:
            raise Invalid(f"a key's hash has {HASH_BYTES} bytes")
        key = Key(new_id("key"), project, checked_name(name), prefix, checked_scopes(scopes), stamp(self._clock()))
        with self._database.write() as connection:
            locked_project(connection, project)
            connection.execute(insert(_TABLE).values(hash=hash, **msgspec.structs.asdict(key)))
        return key

    def list(self, project: str) -> builtins.list[Key]:
        with self._database.read() as connection:
            found = connection.execute(
                select(*_KEY).where(_TABLE.c.project == project).order_by(_TABLE.c.created_at, _TABLE.c.id)
            )
            return [Key(*row) for row in found]

    def revoke(self, project: str, id: str) -> Key:
        mine = (_TABLE.c.id == id, _TABLE.c.project == project)
        with self._database.write() as connection:
            connection.execute(update(_TABLE).where(*mine, _TABLE.c.revoked_at.is_(None)).values(revoked_at=stamp(self._clock())))
            row = connection.execute(select(*_KEY).where(*mine)).first()
        if row is None:
            raise NotFound(f"no key {id!r} in this project")
        return Key(*row)

    def find(self, hash: bytes) -> Key | None:
        with self._database.read() as connection:
            row = connection.execute(select(*_KEY, _TABLE.c.hash).where(_TABLE.c.hash == hash)).first()
        if row is None or not hmac.compare_digest(row.hash, hash) or row.revoked_at is not None:
            return None
        return Key(*row[:-1])
