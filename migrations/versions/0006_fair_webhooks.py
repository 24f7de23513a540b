"""Add the owner of a webhook delivery, and the time of the owner's last redelivery request.

Revision: 0006
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from core.database import UtcDateTime

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

OWNERS = """
    UPDATE webhook_deliveries
       SET owner = (SELECT jobs.owner FROM jobs WHERE jobs.job_id = webhook_deliveries.job_id)
     WHERE EXISTS (SELECT 1 FROM jobs WHERE jobs.job_id = webhook_deliveries.job_id)
"""


def upgrade() -> None:
    with op.batch_alter_table("webhook_deliveries") as table:
        table.add_column(sa.Column("owner", sa.String(length=100), nullable=False, server_default=""))
        table.add_column(sa.Column("asked_at", UtcDateTime(), nullable=True))
    op.execute(OWNERS)


def downgrade() -> None:
    with op.batch_alter_table("webhook_deliveries") as table:
        table.drop_column("asked_at")
        table.drop_column("owner")
