"""Bringing a database to the schema this program knows.

Rule 1. When it is there already, that costs one look: Alembic (250 ms of import) is loaded only if there is something to do.
Rule 2. A database made by a newer Rootlink, or a damaged one, is refused before anything is written.
Rule 3. The whole upgrade is one transaction, looked at again inside it: of several programs starting at once, one upgrades.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, inspect, text

from rootlink.errors import Unavailable
from rootlink.store.database import Database, damaged
from rootlink.store.schema import REVISIONS

MIGRATIONS = Path(__file__).parent / "migrations"
_ADVISORY_LOCK = 0x726F6F746C6E6B  # "rootlnk"


def upgrade(database: Database) -> None:
    """`Unavailable`: damaged, newer than this program, or out of reach."""
    with database.read() as connection:
        if database.path is not None:
            _check_whole(connection, database.path)
        found = revision(connection)
    _refuse_newer(found)
    if found != REVISIONS[-1]:
        with database.write() as connection:
            _upgrade(connection)


def revision(connection: Connection) -> str | None:
    """None: no schema yet."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def _check_whole(connection: Connection, path: Path) -> None:
    if connection.exec_driver_sql("PRAGMA quick_check(1)").scalar() != "ok":
        raise damaged(path)


def _refuse_newer(found: str | None) -> None:
    if found is not None and found not in REVISIONS:
        raise Unavailable(
            f"the database has schema {found}, this Rootlink knows up to {REVISIONS[-1]}: it was made by a newer version. "
            "Start that version again, or put back a copy of the database (control/rootlink.db) that this one made"
        )


def _upgrade(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY_LOCK})
    if revision(connection) == REVISIONS[-1]:
        return

    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.upgrade(config, REVISIONS[-1])
