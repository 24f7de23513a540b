"""Indexes with which no query costs more because the tables or the queue have grown.

Revision: 0014
"""

from __future__ import annotations

from migrations import indexes

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

OPEN_ROWS = "status IN ('PENDING', 'PROCESSING') AND deleted_at IS NULL"


def upgrade() -> None:
    indexes.create("ix_jobs_owner_status", "jobs", ["owner", "status", "created_at", "job_id"])
    indexes.create("ix_jobs_open", "jobs", ["status", "created_at"], OPEN_ROWS)
    indexes.create("ix_jobs_waiting", "jobs", ["priority", "created_at"], "status = 'PENDING' AND deleted_at IS NULL")
    indexes.create("ix_jobs_measured", "jobs", ["created_at"], "audio_duration_seconds > 0")
    indexes.create("ix_jobs_unfetched", "jobs", ["due_at"], "media_url IS NOT NULL AND minio_audio_path IS NULL")
    indexes.create("ix_jobs_unfinalised", "jobs", ["due_at"], "status = 'PROCESSING' AND due_at IS NOT NULL")
    indexes.create("ix_jobs_put_off_at", "jobs", ["put_off_at"], "put_off_at IS NOT NULL")
    indexes.create("ix_jobs_deleted_at", "jobs", ["deleted_at"], "deleted_at IS NOT NULL")
    indexes.create("ix_webhook_deliveries_holder", "webhook_deliveries", ["holder"], "holder IS NOT NULL")
    indexes.create("ix_upload_intents_owner", "upload_intents", ["owner"], "owner IS NOT NULL")
    indexes.drop("ix_jobs_expires_at", "jobs")
    indexes.create("ix_jobs_expires_at", "jobs", ["expires_at"], "expires_at IS NOT NULL AND deleted_at IS NULL")
    indexes.drop("ix_jobs_boosted_at", "jobs")
    indexes.create("ix_jobs_boosted_at", "jobs", ["boosted_at"], f"boosted_at IS NOT NULL AND {OPEN_ROWS}")
    indexes.drop("ix_jobs_status", "jobs")


def downgrade() -> None:
    indexes.create("ix_jobs_status", "jobs", ["status"])
    indexes.drop("ix_jobs_boosted_at", "jobs")
    indexes.create("ix_jobs_boosted_at", "jobs", ["boosted_at"], "boosted_at IS NOT NULL")
    indexes.drop("ix_jobs_expires_at", "jobs")
    indexes.create("ix_jobs_expires_at", "jobs", ["expires_at"])
    indexes.drop("ix_upload_intents_owner", "upload_intents")
    indexes.drop("ix_webhook_deliveries_holder", "webhook_deliveries")
    for name in ("deleted_at", "put_off_at", "unfinalised", "unfetched", "measured", "waiting", "open", "owner_status"):
        indexes.drop(f"ix_jobs_{name}", "jobs")
