"""Add the length and checksums of working audio, to detect a damaged object when it is read.

Revision: 0003
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("jobs") as table:
        table.add_column(sa.Column("working_audio_bytes", sa.BigInteger(), nullable=True))
    with op.batch_alter_table("chunks") as table:
        table.add_column(sa.Column("crc32", sa.BigInteger(), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("chunks") as table:
        table.drop_column("crc32")
    with op.batch_alter_table("jobs") as table:
        table.drop_column("working_audio_bytes")
