"""Add the time of claims and the parked items of housekeeping, and clear `due_at` of ended rows.

Revision: 0007
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from core.database import UtcDateTime

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

CLEAR_ENDED_JOBS = """
UPDATE jobs SET due_at = NULL, holder = NULL
 WHERE due_at IS NOT NULL
   AND (deleted_at IS NOT NULL OR status IN ('COMPLETED', 'CANCELLED') OR (status = 'FAILED' AND replay_token IS NULL))
"""
CLEAR_ENDED_CHUNKS = """
UPDATE chunks SET due_at = NULL, holder = NULL
 WHERE (due_at IS NOT NULL OR holder IS NOT NULL)
   AND (status NOT IN ('PENDING', 'PROCESSING')
        OR EXISTS (SELECT 1 FROM jobs WHERE jobs.job_id = chunks.job_id
                     AND (jobs.deleted_at IS NOT NULL OR jobs.status NOT IN ('PENDING', 'PROCESSING'))))
"""


def upgrade() -> None:
    boosted = sa.text("boosted_at IS NOT NULL")
    op.add_column("jobs", sa.Column("claimed_at", UtcDateTime(), nullable=True))
    op.add_column("chunks", sa.Column("claimed_at", UtcDateTime(), nullable=True))
    op.create_index("ix_jobs_boosted_at", "jobs", ["boosted_at"], postgresql_where=boosted, sqlite_where=boosted)
    op.create_table(
        "parked_items",
        sa.Column("step", sa.String(length=32), nullable=False),
        sa.Column("item", sa.Text(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("until", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("step", "item", name=op.f("pk_parked_items")),
    )
    op.execute(CLEAR_ENDED_JOBS)
    op.execute(CLEAR_ENDED_CHUNKS)


def downgrade() -> None:
    op.drop_table("parked_items")
    op.drop_index("ix_jobs_boosted_at", table_name="jobs")
    with op.batch_alter_table("chunks") as table:
        table.drop_column("claimed_at")
    with op.batch_alter_table("jobs") as table:
        table.drop_column("claimed_at")
