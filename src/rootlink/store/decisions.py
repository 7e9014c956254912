"""Egress decisions in the store."""

from __future__ import annotations

import builtins
from collections.abc import Iterable
from typing import Any

from sqlalchemy import Connection, case, delete, select

from rootlink.records.decision import LONGEST_HOST, LONGEST_NAME, LONGEST_REASON, MOST_KEPT, Decision, Observed, Verdict
from rootlink.records.moment import stamp_unix
from rootlink.store import schema
from rootlink.store.database import Database, locked_project
from rootlink.store.rows import columns

_TABLE = schema.decisions
_DECISION = columns(_TABLE, Decision)
_IDENTITY = ["project", "connection", "host", "port", "verdict", "reason"]


class StoredDecisions:
    def __init__(self, database: Database) -> None:
        self._database = database

    def record(self, project: str, observed: Iterable[Observed]) -> None:
        rows = [_row(project, one) for one in observed]
        if not rows:
            return
        add = self._database.insert(_TABLE)
        new = add.excluded
        later = case((new.time > _TABLE.c.time, new.time), else_=_TABLE.c.time)
        summed = add.on_conflict_do_update(index_elements=_IDENTITY, set_={"count": _TABLE.c.count + new["count"], "time": later})
        with self._database.write() as connection:
            locked_project(connection, project)
            connection.execute(summed, rows)
            _forget_oldest(connection, project)

    def list(self, project: str, verdict: Verdict | None = None, limit: int = 500) -> builtins.list[Decision]:
        query = select(*_DECISION).where(_TABLE.c.project == project)
        if verdict is not None:
            query = query.where(_TABLE.c.verdict == verdict)
        order = (_TABLE.c.time.desc(), _TABLE.c.connection, _TABLE.c.host, _TABLE.c.port, _TABLE.c.reason)
        with self._database.read() as connection:
            return [Decision(*row) for row in connection.execute(query.order_by(*order).limit(limit))]


def _row(project: str, one: Observed) -> dict[str, Any]:
    return {
        "project": project,
        "connection": one.connection[:LONGEST_NAME],
        "host": one.host[:LONGEST_HOST],
        "port": one.port,
        "verdict": one.verdict,
        "reason": one.reason[:LONGEST_REASON],
        "time": stamp_unix(one.time),
        "count": one.count,
    }


def _forget_oldest(connection: Connection, project: str) -> None:
    mine = _TABLE.c.project == project
    oldest = select(_TABLE.c.time).where(mine).order_by(_TABLE.c.time.desc()).offset(MOST_KEPT).limit(1).scalar_subquery()
    connection.execute(delete(_TABLE).where(mine, _TABLE.c.time <= oldest))
