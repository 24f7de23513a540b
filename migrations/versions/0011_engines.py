"""Add the engines of workers, and the engine that transcribed each chunk.

Revision: 0011
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

Json = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


def upgrade() -> None:
    with op.batch_alter_table("workers") as table:
        table.add_column(sa.Column("engines", Json, nullable=True))
    with op.batch_alter_table("chunks") as table:
        table.add_column(sa.Column("engine", sa.Text(), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("chunks") as table:
        table.drop_column("engine")
    with op.batch_alter_table("workers") as table:
        table.drop_column("engines")
