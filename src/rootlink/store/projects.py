"""Projects in the store."""

from __future__ import annotations

import builtins

from sqlalchemy import delete, insert, or_, select
from sqlalchemy.exc import IntegrityError

from rootlink.errors import Conflict, NotFound
from rootlink.records.identity import new_id
from rootlink.records.moment import Clock, stamp
from rootlink.records.project import Project, project_name
from rootlink.store import schema
from rootlink.store.database import Database
from rootlink.store.rows import columns

_PROJECT = columns(schema.projects, Project)


class StoredProjects:
    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def create(self, name: str) -> Project:
        project = Project(new_id("prj"), project_name(name), stamp(self._clock()))
        try:
            with self._database.write() as connection:
                connection.execute(
                    insert(schema.projects).values(id=project.id, name=project.name, created_at=project.created_at)
                )
        except IntegrityError:
            raise Conflict(f"project {name!r} exists already") from None
        return project

    def list(self) -> builtins.list[Project]:
        with self._database.read() as connection:
            found = connection.execute(select(*_PROJECT).order_by(schema.projects.c.created_at, schema.projects.c.id))
            return [Project(*row) for row in found]

    def get(self, ref: str) -> Project:
        table = schema.projects
        with self._database.read() as connection:
            row = connection.execute(select(*_PROJECT).where(or_(table.c.id == ref, table.c.name == ref))).first()
        if row is None:
            raise NotFound(f"no project {ref!r}")
        return Project(*row)

    def delete(self, id: str) -> None:
        with self._database.write() as connection:
            gone = connection.execute(delete(schema.projects).where(schema.projects.c.id == id)).rowcount
        if not gone:
            raise NotFound(f"no project {id!r}")
