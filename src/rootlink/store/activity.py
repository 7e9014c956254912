"""The audit log in the store. Lines are numbered (`seq`) as they are committed, so "older than" never depends on a clock."""

from __future__ import annotations

import builtins

import msgspec
from sqlalchemy import Connection, insert, select

from rootlink.records.activity import Activity
from rootlink.records.identity import new_id
from rootlink.records.moment import Clock, stamp
from rootlink.store import schema
from rootlink.store.database import Database
from rootlink.store.rows import columns

_TABLE = schema.activity
_ACTIVITY = columns(_TABLE, Activity)


class StoredActivity:
    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def add(self, project: str | None, actor: str, action: str, target: str, detail: str = "") -> Activity:
        with self._database.write() as connection:
            return note(connection, project, actor, action, target, detail, at=stamp(self._clock()))

    def list(self, project: str | None, limit: int = 200, before: str | None = None) -> builtins.list[Activity]:
        query = select(*_ACTIVITY).order_by(_TABLE.c.seq.desc()).limit(limit)
        if project is not None:
            query = query.where(_TABLE.c.project == project)
        if before is not None:
            query = query.where(_TABLE.c.seq < select(_TABLE.c.seq).where(_TABLE.c.id == before).scalar_subquery())
        with self._database.read() as connection:
            return [Activity(*row) for row in connection.execute(query)]


def note(
    connection: Connection, project: str | None, actor: str, action: str, target: str, detail: str = "", *, at: str
) -> Activity:
    """A line within the caller's transaction: it is there if, and only if, what it tells of happened."""
    line = Activity(new_id("act"), project, at, actor, action, target, detail)
    connection.execute(insert(_TABLE).values(msgspec.structs.asdict(line)))
    return line
