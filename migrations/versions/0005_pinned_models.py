"""Add the requested model, the time since which it is missing, and the checksums of workers' model files.

Revision: 0005
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from core.database import UtcDateTime

Json = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
MISSING = sa.text("model_missing_since IS NOT NULL")

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("jobs") as table:
        table.add_column(sa.Column("asked_model", sa.String(length=100), nullable=True))
        table.add_column(sa.Column("model_missing_since", UtcDateTime(), nullable=True))
    op.create_index(
        "ix_jobs_model_missing_since", "jobs", ["model_missing_since"], postgresql_where=MISSING, sqlite_where=MISSING
    )
    with op.batch_alter_table("workers") as table:
        table.add_column(sa.Column("checksums", Json, nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("workers") as table:
        table.drop_column("checksums")
    op.drop_index("ix_jobs_model_missing_since", "jobs")
    with op.batch_alter_table("jobs") as table:
        table.drop_column("model_missing_since")
        table.drop_column("asked_model")
