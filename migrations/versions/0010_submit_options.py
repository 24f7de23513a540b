"""Rename `upload_intents.wishes` to `submit_options`.

Revision: 0010
"""

from __future__ import annotations

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("upload_intents") as table:
        table.alter_column("wishes", new_column_name="submit_options")


def downgrade() -> None:
    with op.batch_alter_table("upload_intents") as table:
        table.alter_column("submit_options", new_column_name="wishes")
