"""Allowlists in the store."""

from __future__ import annotations

import builtins

from sqlalchemy import Connection, delete, select

from rootlink.errors import NotFound
from rootlink.records.allow_rule import MANUAL, AllowRule
from rootlink.records.moment import Clock, stamp
from rootlink.store import schema
from rootlink.store.database import Database, locked_project
from rootlink.store.rows import columns

_TABLE = schema.egress
_RULE = columns(_TABLE, AllowRule)


class StoredAllowRules:
    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def add(self, project: str, domain: str, source: str = MANUAL) -> AllowRule:
        with self._database.write() as connection:
            locked_project(connection, project)
            allow(self._database, connection, project, [domain], source, at=stamp(self._clock()))
            mine = (_TABLE.c.project == project, _TABLE.c.domain == domain, _TABLE.c.source == source)
            return AllowRule(*connection.execute(select(*_RULE).where(*mine)).one())

    def list(self, project: str) -> builtins.list[AllowRule]:
        with self._database.read() as connection:
            return _rules(connection, project)

    def remove(self, project: str, domain: str) -> builtins.list[AllowRule]:
        with self._database.write() as connection:
            locked_project(connection, project)
            gone = [rule for rule in _rules(connection, project) if rule.domain == domain]
            connection.execute(delete(_TABLE).where(_TABLE.c.project == project, _TABLE.c.domain == domain))
        if not gone:
            raise NotFound(f"{domain!r} is not in this project's outbound allowlist")
        return gone

    def domains(self, project: str) -> builtins.list[str]:
        return sorted({rule.domain for rule in self.list(project)})


def allow(database: Database, connection: Connection, project: str, domains: builtins.list[str], source: str, *, at: str) -> None:
    """Within the caller's transaction; rules that are there already stay as they are."""
    rows = [{"project": project, "domain": domain, "source": source, "created_at": at} for domain in dict.fromkeys(domains)]
    if rows:
        connection.execute(database.insert(_TABLE).on_conflict_do_nothing(), rows)


def _rules(connection: Connection, project: str) -> builtins.list[AllowRule]:
    order = (_TABLE.c.domain, _TABLE.c.created_at, _TABLE.c.source)
    found = connection.execute(select(*_RULE).where(_TABLE.c.project == project).order_by(*order))
    return [AllowRule(*row) for row in found]
