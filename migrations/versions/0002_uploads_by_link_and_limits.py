"""Add the options of upload links, and the counters of the rate limits.

Revision: 0002
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from core.database import UtcDateTime

Json = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("upload_intents") as table:
        table.add_column(sa.Column("owner", sa.String(length=100), nullable=True))
        table.add_column(sa.Column("wishes", Json, nullable=True))
        table.create_index("ix_upload_intents_job_id", ["job_id"])
    op.create_table(
        "rate_limits",
        sa.Column("key", sa.String(length=255), nullable=False),
        sa.Column("hits", sa.Integer(), nullable=False),
        sa.Column("expires_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_rate_limits")),
    )
    op.create_index("ix_rate_limits_expires_at", "rate_limits", ["expires_at"])


def downgrade() -> None:
    op.drop_table("rate_limits")
    with op.batch_alter_table("upload_intents") as table:
        table.drop_index("ix_upload_intents_job_id")
        table.drop_column("wishes")
        table.drop_column("owner")
