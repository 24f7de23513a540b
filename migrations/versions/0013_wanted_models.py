"""Add the models that consumers are to install, and the state of each consumer's models.

Revision: 0013
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from core.database import UtcDateTime

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

Json = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


def upgrade() -> None:
    op.create_table(
        "wanted_models",
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("reference", sa.Text(), nullable=False),
        sa.Column("wanted", sa.Boolean(), nullable=False),
        sa.Column("changed_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_wanted_models")),
    )
    with op.batch_alter_table("workers") as table:
        table.add_column(sa.Column("model_states", Json, nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("workers") as table:
        table.drop_column("model_states")
    op.drop_table("wanted_models")
