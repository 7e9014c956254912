"""What the catalogue's connections need: variants, versions, what checks found, rules for tools, what an update replaced."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    for name in ("variant", "label"):
        op.add_column("connections", sa.Column(name, sa.Text(), nullable=True))
    for name, default in (("version", sa.text("''")), ("notes", "[]"), ("held", "[]"), ("rules", "{}")):
        op.add_column("connections", sa.Column(name, sa.Text(), nullable=False, server_default=default))
    for name in ("manifest", "previous"):
        op.add_column("connections", sa.Column(name, sa.LargeBinary(), nullable=True))
