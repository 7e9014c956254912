"""The first tables. A migration is history: it spells the tables out and never imports `schema.py`."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def _text(name: str, *, nullable: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.Text(), nullable=nullable)


def _number(name: str, *, nullable: bool = False, **options: Any) -> sa.Column[int]:
    return sa.Column(name, sa.Integer(), nullable=nullable, **options)


def _bytes(name: str, *, nullable: bool = False) -> sa.Column[bytes]:
    return sa.Column(name, sa.LargeBinary(), nullable=nullable)


def _of_project(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(["project"], ["projects.id"], name=f"{table}_project_fk", ondelete="CASCADE")


def upgrade() -> None:
    _projects()
    _keys()
    _connections()
    _secrets()
    _replaced_secrets()
    _egress()
    _engines()
    _decisions()
    _activity()


def _projects() -> None:
    op.create_table(
        "projects",
        _text("id"),
        _text("name"),
        _text("created_at"),
        sa.PrimaryKeyConstraint("id", name="projects_pk"),
        sa.UniqueConstraint("name", name="projects_name_key"),
    )


def _keys() -> None:
    op.create_table(
        "keys",
        _text("id"),
        _text("project"),
        _text("name"),
        _text("prefix"),
        _text("scopes"),
        _bytes("hash"),
        _text("created_at"),
        _text("revoked_at", nullable=True),
        _of_project("keys"),
        sa.PrimaryKeyConstraint("id", name="keys_pk"),
        sa.UniqueConstraint("hash", name="keys_hash_key"),
    )
    op.create_index("keys_project_idx", "keys", ["project"])


def _connections() -> None:
    op.create_table(
        "connections",
        _text("id"),
        _text("project"),
        _text("workspace"),
        _text("name"),
        _text("connector"),
        _text("kind"),
        _text("state"),
        _bytes("desired"),
        _text("uses"),
        _text("hosts"),
        _text("tools"),
        _text("steps"),
        _text("error", nullable=True),
        _text("created_at"),
        _of_project("connections"),
        sa.PrimaryKeyConstraint("id", name="connections_pk"),
        sa.UniqueConstraint("project", "workspace", "name", name="connections_project_workspace_name_key"),
    )


def _secrets() -> None:
    op.create_table(
        "secrets",
        _text("id"),
        _text("project"),
        _text("name"),
        _number("version"),
        _text("envelope_key_id"),
        _bytes("ciphertext"),
        _text("created_at"),
        _text("last_rotated_at"),
        _text("created_by", nullable=True),
        _of_project("secrets"),
        sa.ForeignKeyConstraint(["created_by"], ["connections.id"], name="secrets_created_by_fk", ondelete="SET NULL"),
        sa.PrimaryKeyConstraint("id", name="secrets_pk"),
        sa.UniqueConstraint("project", "name", name="secrets_project_name_key"),
    )


def _replaced_secrets() -> None:
    op.create_table(
        "replaced_secrets",
        _text("connection"),
        _text("secret"),
        _number("wrote_version"),
        _number("version", nullable=True),
        _text("envelope_key_id", nullable=True),
        _bytes("ciphertext", nullable=True),
        _text("last_rotated_at", nullable=True),
        sa.ForeignKeyConstraint(["connection"], ["connections.id"], name="replaced_secrets_connection_fk", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["secret"], ["secrets.id"], name="replaced_secrets_secret_fk", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("connection", "secret", name="replaced_secrets_pk"),
    )
    op.create_index("replaced_secrets_secret_idx", "replaced_secrets", ["secret"])


def _egress() -> None:
    op.create_table(
        "egress",
        _text("project"),
        _text("domain"),
        _text("source"),
        _text("created_at"),
        _of_project("egress"),
        sa.PrimaryKeyConstraint("project", "domain", "source", name="egress_pk"),
    )


def _engines() -> None:
    op.create_table(
        "engines",
        _text("project"),
        _text("state"),
        _number("pid", nullable=True),
        _text("started_at", nullable=True),
        _number("generation"),
        _text("error", nullable=True),
        _of_project("engines"),
        sa.PrimaryKeyConstraint("project", name="engines_pk"),
    )


def _decisions() -> None:
    op.create_table(
        "decisions",
        _text("project"),
        _text("connection"),
        _text("host"),
        _number("port"),
        _text("verdict"),
        _text("reason"),
        _text("time"),
        sa.Column("count", sa.BigInteger(), nullable=False),
        _of_project("decisions"),
        sa.PrimaryKeyConstraint("project", "connection", "host", "port", "verdict", "reason", name="decisions_pk"),
    )
    op.create_index("decisions_project_time_idx", "decisions", ["project", "time"])


def _activity() -> None:
    op.create_table(
        "activity",
        _number("seq", autoincrement=True),
        _text("id"),
        _text("project", nullable=True),
        _text("time"),
        _text("actor"),
        _text("action"),
        _text("target"),
        _text("detail"),
        sa.PrimaryKeyConstraint("seq", name="activity_pk"),
        sa.UniqueConstraint("id", name="activity_id_key"),
        sqlite_autoincrement=True,
    )
    op.create_index("activity_project_seq_idx", "activity", ["project", "seq"])
