"""What engines are started for, in the store: one row a project."""

from __future__ import annotations

import msgspec
from sqlalchemy import select

from rootlink.records.wake import WakeRow
from rootlink.store import schema
from rootlink.store.database import Database, locked_project
from rootlink.store.rows import columns

_TABLE = schema.wakes
_WAKE = columns(_TABLE, WakeRow)


class StoredWakes:
    def __init__(self, database: Database) -> None:
        self._database = database

    def put(self, row: WakeRow) -> WakeRow:
        values = msgspec.structs.asdict(row)
        with self._database.write() as connection:
            locked_project(connection, row.project)
            connection.execute(
                self._database.insert(_TABLE).values(values).on_conflict_do_update(index_elements=["project"], set_=values)
            )
        return row

    def get(self, project: str) -> WakeRow | None:
        with self._database.read() as connection:
            row = connection.execute(select(*_WAKE).where(_TABLE.c.project == project)).first()
        return None if row is None else WakeRow(*row)

    def due(self, until: float) -> list[str]:
        with self._database.read() as connection:
            found = connection.execute(select(_TABLE.c.project).where(_TABLE.c.due <= until).order_by(_TABLE.c.due))
            return [project for (project,) in found]
