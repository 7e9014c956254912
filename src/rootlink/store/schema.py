"""The tables, as they are at `REVISIONS[-1]`. Changing one takes a new file in `migrations/versions/` and its number here;
a test compares both.

Columns are named as the fields of the records. Times are text (`records/moment.py`), lists are JSON text.
"""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import (
    BigInteger,
    Column,
    Dialect,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    text,
)

from rootlink.wire.tools import ToolRules

REVISIONS = ("0001", "0002", "0003")  # oldest first


class Json(TypeDecorator[Any]):
    """A JSON value as text."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str:
        return msgspec.json.encode(value).decode()

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        return msgspec.json.decode(value)


class Rules(TypeDecorator[ToolRules]):
    """`wire.ToolRules` as JSON text."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: ToolRules | None, dialect: Dialect) -> str:
        return msgspec.json.encode(value).decode()

    def process_result_value(self, value: str | None, dialect: Dialect) -> ToolRules:
        return msgspec.json.decode(value or "{}", type=ToolRules)


class Words(TypeDecorator[str]):
    """Text that foreign programs had a hand in (error lines, host names): a NUL, which PostgreSQL refuses, becomes a space."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else value.encode("utf-8", "replace").decode().replace("\0", " ")


metadata = MetaData(
    naming_convention={
        "pk": "%(table_name)s_pk",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
        "fk": "%(table_name)s_%(column_0_name)s_fk",
        "ix": "%(table_name)s_%(column_0_N_name)s_idx",
    }
)


def _project() -> Column[str]:
    return Column("project", Text, ForeignKey("projects.id", ondelete="CASCADE"), nullable=False)


def _text(name: str, **options: Any) -> Column[str]:
    return Column(name, Text, **{"nullable": False, **options})


def _words(name: str, **options: Any) -> Column[str]:
    return Column(name, Words, **{"nullable": False, **options})


projects = Table("projects", metadata, _text("id", primary_key=True), _text("name", unique=True), _text("created_at"))

keys = Table(
    "keys",
    metadata,
    _text("id", primary_key=True),
    _project(),
    _text("name"),
    _text("prefix"),
    Column("scopes", Json, nullable=False),
    Column("hash", LargeBinary, nullable=False, unique=True),
    _text("created_at"),
    _text("revoked_at", nullable=True),
    Index(None, "project"),
)

connections = Table(
    "connections",
    metadata,
    _text("id", primary_key=True),
    _project(),
    _text("workspace"),
    _text("name"),
    _text("connector"),
    _text("kind"),
    _text("state"),
    Column("desired", LargeBinary, nullable=False),
    Column("uses", Json, nullable=False),
    Column("hosts", Json, nullable=False),
    Column("tools", Json, nullable=False),
    Column("steps", Json, nullable=False),
    _words("error", nullable=True),
    _text("created_at"),
    _text("variant", nullable=True),
    _text("version", server_default=text("''")),
    _words("label", nullable=True),
    Column("notes", Json, nullable=False, server_default="[]"),
    Column("held", Json, nullable=False, server_default="[]"),
    Column("rules", Rules, nullable=False, server_default="{}"),
    Column("manifest", LargeBinary, nullable=True),
    Column("previous", LargeBinary, nullable=True),
    UniqueConstraint("project", "workspace", "name"),
)

secrets = Table(
    "secrets",
    metadata,
    _text("id", primary_key=True),
    _project(),
    _text("name"),
    Column("version", Integer, nullable=False),
    _text("envelope_key_id"),
    Column("ciphertext", LargeBinary, nullable=False),
    _text("created_at"),
    _text("last_rotated_at"),
    # The connection that brought it and takes it away again; null: a person set it.
    Column("created_by", Text, ForeignKey("connections.id", ondelete="SET NULL"), nullable=True),
    UniqueConstraint("project", "name"),
)

# What a connect that is not through yet wrote over: `undo` needs it, `connected` drops it.
replaced = Table(
    "replaced_secrets",
    metadata,
    Column("connection", Text, ForeignKey("connections.id", ondelete="CASCADE"), primary_key=True),
    Column("secret", Text, ForeignKey("secrets.id", ondelete="CASCADE"), primary_key=True),
    Column("wrote_version", Integer, nullable=False),
    # All four null: there was no such secret before.
    Column("version", Integer, nullable=True),
    _text("envelope_key_id", nullable=True),
    Column("ciphertext", LargeBinary, nullable=True),
    _text("last_rotated_at", nullable=True),
    Index(None, "secret"),
)

egress = Table(
    "egress",
    metadata,
    Column("project", Text, ForeignKey("projects.id", ondelete="CASCADE"), primary_key=True),
    _text("domain", primary_key=True),
    _text("source", primary_key=True),
    _text("created_at"),
)

engines = Table(
    "engines",
    metadata,
    Column("project", Text, ForeignKey("projects.id", ondelete="CASCADE"), primary_key=True),
    _text("state"),
    Column("pid", Integer, nullable=True),
    _text("started_at", nullable=True),
    Column("generation", Integer, nullable=False),
    _words("error", nullable=True),
)

wakes = Table(
    "wakes",
    metadata,
    Column("project", Text, ForeignKey("projects.id", ondelete="CASCADE"), primary_key=True),
    Column("due", Double, nullable=True),
    Column("hooks", Json, nullable=False),
)

decisions = Table(
    "decisions",
    metadata,
    Column("project", Text, ForeignKey("projects.id", ondelete="CASCADE"), primary_key=True),
    _words("connection", primary_key=True),
    _words("host", primary_key=True),
    Column("port", Integer, primary_key=True, autoincrement=False),
    _text("verdict", primary_key=True),
    _words("reason", primary_key=True),
    _text("time"),
    Column("count", BigInteger, nullable=False),
    Index(None, "project", "time"),
)

# No foreign key: the audit log outlives the project.
activity = Table(
    "activity",
    metadata,
    Column("seq", Integer, primary_key=True, autoincrement=True),
    _text("id", unique=True),
    _text("project", nullable=True),
    _text("time"),
    _text("actor"),
    _text("action"),
    _words("target"),
    _words("detail"),
    Index(None, "project", "seq"),
    sqlite_autoincrement=True,
)
