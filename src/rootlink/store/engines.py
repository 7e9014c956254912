"""Engines in the store: one row a project."""

from __future__ import annotations

import builtins

import msgspec
from sqlalchemy import select

from rootlink.records.engine import EngineRow
from rootlink.store import schema
from rootlink.store.database import Database, locked_project
from rootlink.store.rows import columns

_TABLE = schema.engines
_ENGINE = columns(_TABLE, EngineRow)


class StoredEngines:
    def __init__(self, database: Database) -> None:
        self._database = database

    def put(self, row: EngineRow) -> EngineRow:
        values = msgspec.structs.asdict(row)
        with self._database.write() as connection:
            locked_project(connection, row.project)
            connection.execute(
                self._database.insert(_TABLE).values(values).on_conflict_do_update(index_elements=["project"], set_=values)
            )
        return row

    def get(self, project: str) -> EngineRow | None:
        with self._database.read() as connection:
            row = connection.execute(select(*_ENGINE).where(_TABLE.c.project == project)).first()
        return None if row is None else EngineRow(*row)

    def list(self) -> builtins.list[EngineRow]:
        with self._database.read() as connection:
            return [EngineRow(*row) for row in connection.execute(select(*_ENGINE).order_by(_TABLE.c.project))]
