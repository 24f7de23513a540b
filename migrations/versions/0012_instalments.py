"""Plans that are released in instalments: the object of each chunk, and the expected number of chunks.

Revision: 0012
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("jobs") as table:
        table.add_column(sa.Column("chunks_expected", sa.Integer(), nullable=True))
    with op.batch_alter_table("chunks") as table:
        table.add_column(sa.Column("audio_path", sa.Text(), nullable=True))
        table.add_column(sa.Column("audio_start", sa.BigInteger(), server_default="0", nullable=False))


def downgrade() -> None:
    with op.batch_alter_table("chunks") as table:
        table.drop_column("audio_start")
        table.drop_column("audio_path")
    with op.batch_alter_table("jobs") as table:
        table.drop_column("chunks_expected")
