"""What a stopped engine is started for: schedules and webhooks of functions."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "wakes",
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("due", sa.Double(), nullable=True),
        sa.Column("hooks", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["project"], ["projects.id"], name="wakes_project_fk", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("project", name="wakes_pk"),
    )
